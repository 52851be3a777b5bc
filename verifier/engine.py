"""What generation and reading need of a model, whichever code runs it: hidden states, the logits they stand for, and a cache."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from verifier import llama
from verifier.classes import ComputeClass, describe_hardware, name_dtype

# Only the engine that made a cache looks into it.
Cache = object


class Engine(Protocol):
    """A causal model's forward pass."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def compute_class(self) -> ComputeClass: ...

    def compute_next(self, rows: list[list[int]], cache: Cache | None) -> tuple[Tensor, Cache]:
        """The hidden state after each row's last token, and the cache to go on from; the given cache is spent.

        Shapes: rows of equal length; hidden [rows, width]
        """
        ...

    def compute_head(self, hidden: Tensor) -> Tensor:
        """The logits that hidden states stand for. Shapes: [..., width]; [..., vocabulary]"""
        ...

    def read_hidden(self, rows: list[list[int]]) -> Tensor:
        """The hidden state after every token of texts that are already written; rows may be padded on the right.

        Shapes: rows of equal length; hidden [rows, positions, width]
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

    @property
    def compute_class(self) -> ComputeClass:
        embedding = self.model.weights["model.embed_tokens.weight"]
        return ComputeClass(
            "quorate", name_dtype(embedding.dtype), self.model.attention, describe_hardware(embedding.device)
        )

    def compute_next(self, rows: list[list[int]], cache: Cache | None) -> tuple[Tensor, Cache]:
        assert cache is None or isinstance(cache, llama.LlamaCache), type(cache)
        with torch.inference_mode():
            hidden, present = llama.compute_hidden(self.model, self._place(rows), cache, only_last=True)
        return hidden[:, -1], present

    def compute_head(self, hidden: Tensor) -> Tensor:
        with torch.inference_mode():
            return llama.compute_head(self.model, hidden)

    def read_hidden(self, rows: list[list[int]]) -> Tensor:
        with torch.inference_mode():
            return llama.read_hidden(self.model, self._place(rows))

    def select_rows(self, cache: Cache, rows: list[int]) -> Cache:
        assert isinstance(cache, llama.LlamaCache), type(cache)
        with torch.inference_mode():
            return llama.select_rows(cache, rows)

    def _place(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int64, device=self.model.inverse_frequencies.device)


class WideWeights(Mapping[str, Tensor]):
    """The same weights in float64, one tensor at a time: what a dispute needs is their values, not twice their room."""

    __slots__ = ("_weights",)

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[name].to(torch.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def widen_engine(engine: LlamaEngine) -> LlamaEngine:
    """The same model, computed in float64 with attention written out: what settles a dispute."""
    wide = replace(engine.model, weights=WideWeights(engine.model.weights), attention=llama.Attention.EAGER)
    return LlamaEngine(wide)
