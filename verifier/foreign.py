"""Architectures outside the Llama family, run by transformers. Wraps that untyped library; only the worker that needs it imports this.

Weights and configuration come from the files the card pins, never through `from_pretrained`, which would read others too.
"""
# pyright: reportAny=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor

from verifier.card import CONFIG_FILE, ModelRefused, load_config
from verifier.classes import ComputeClass, describe_hardware, name_dtype
from verifier.engine import Cache
from verifier.llama import Attention
from verifier.weights import load_weights


@dataclass(frozen=True, slots=True)
class ForeignEngine:
    """A transformers model in eval mode; eager attention is the one that other machines' kernels agree with best."""

    model: transformers.PreTrainedModel
    vocabulary: int
    context: int
    attention: Attention

    @property
    def compute_class(self) -> ComputeClass:
        dtype, hardware = name_dtype(self.model.dtype), describe_hardware(self.model.device)
        return ComputeClass("transformers", dtype, self.attention, hardware)

    def compute_next(self, rows: list[list[int]], cache: Cache | None) -> tuple[Tensor, Cache]:
        with torch.inference_mode():
            done = self.model.base_model(input_ids=self._place(rows), past_key_values=cache, use_cache=True)
        return done.last_hidden_state[:, -1], done.past_key_values

    def compute_head(self, hidden: Tensor) -> Tensor:
        head = self.model.get_output_embeddings()
        assert head is not None, type(self.model)  # every listed architecture has one
        with torch.inference_mode():
            return head(hidden)

    def read_hidden(self, rows: list[list[int]]) -> Tensor:
        with torch.inference_mode():
            return self.model.base_model(input_ids=self._place(rows), use_cache=False).last_hidden_state

    def select_rows(self, cache: Cache, rows: list[int]) -> Cache:
        assert isinstance(cache, transformers.DynamicCache), type(cache)
        with torch.inference_mode():
            cache.batch_select_indices(torch.tensor(rows, device=self.model.device))
        return cache

    def _place(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int64, device=self.model.device)


def load_foreign_engine(
    directory: Path, architecture: str, dtype: torch.dtype, device: torch.device, attention: Attention
) -> ForeignEngine:
    """The model that config.json describes, with the directory's weights.

    Raises: ModelRefused
    """
    kind = getattr(transformers, architecture)
    config = kind.config_class.from_dict(load_config(directory, dict[str, object]))
    config._attn_implementation = str(attention)  # noqa: SLF001 - has no public name
    with torch.device("meta"):
        described = kind(config)
    # A tied tensor is another one again; files may hold it or not.
    tied = set(described.all_tied_weights_keys)
    shapes = {name: tuple(tensor.shape) for name, tensor in described.state_dict().items() if name not in tied}
    weights = load_weights(directory, shapes, dtype, device, f"{kind.base_model_prefix}.")
    model = kind(config).to(device)
    # Assigned rather than copied: the parameters take the card's dtype, the rotary frequencies stay in float32.
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    model.eval()
    context = getattr(config, "max_position_embeddings", None)
    if not isinstance(context, int):
        raise ModelRefused(f"{directory / CONFIG_FILE}: expected a context length, got {context!r}")
    return ForeignEngine(model, config.vocab_size, context, attention)
