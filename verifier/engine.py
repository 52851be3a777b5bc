"""What generation needs of a model, whichever code runs it: the next position's logits, and a cache that can be split."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from verifier import llama

# Only the engine that made a cache looks into it.
Cache = object


class Engine(Protocol):
    """A causal model's forward pass."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def context(self) -> int: ...

    def compute_next(self, rows: list[list[int]], cache: Cache | None) -> tuple[Tensor, Cache]:
        """Logits of the position after each row's last token, and the cache to go on from; the given cache is spent.

        Shapes: rows of equal length; logits [rows, vocabulary]
        """
        ...

    def select_rows(self, cache: Cache, rows: list[int]) -> Cache:
        """The cache of these rows, in this order; a row may occur more than once."""
        ...


@dataclass(frozen=True, slots=True)
class LlamaEngine:
    model: llama.Llama

    @property
    def vocabulary(self) -> int:
        return self.model.config.vocabulary

    @property
    def context(self) -> int:
        return self.model.config.context

    def compute_next(self, rows: list[list[int]], cache: Cache | None) -> tuple[Tensor, Cache]:
        assert cache is None or isinstance(cache, llama.LlamaCache), type(cache)
        ids = torch.tensor(rows, dtype=torch.int64, device=self.model.inverse_frequencies.device)
        with torch.inference_mode():
            logits, present = llama.compute_logits(self.model, ids, cache, only_last=True)
        return logits[:, -1], present

    def select_rows(self, cache: Cache, rows: list[int]) -> Cache:
        assert isinstance(cache, llama.LlamaCache), type(cache)
        with torch.inference_mode():
            return llama.select_rows(cache, rows)
