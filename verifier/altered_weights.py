"""The same model, computed cheaper or from other weights: what audits have to tell from the real one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import torch
from torch import Tensor

from verifier.card import MAX_CONFIG_BYTES, ModelRefused, load_json
from verifier.engine import Engine, LlamaEngine
from verifier.llama import Llama
from verifier.model import Model, load_model
from verifier.weights import load_tensors

RIVALS_FILE: Final = "rivals.json"
STEP_SUFFIX: Final = ".step"
NOISE_SHARE: Final = 0.05
_INT4_GROUP: Final = 64  # columns that share a scale, as 4-bit formats have it


class Rivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may pass for a model: a smaller one, and the weights it had earlier in its training."""

    smaller: str | None = None
    earlier: str | None = None


@dataclass(frozen=True, slots=True)
class Rivalry:
    """The same as paths, where there are such."""

    smaller: Path | None
    earlier: Path | None


def load_rivals(directory: Path) -> Rivalry:
    """What `rivals.json` beside the model's directory says of it. Raises: ModelRefused"""
    path = directory.parent / RIVALS_FILE
    if not path.is_file():
        return Rivalry(None, None)
    named = load_json(path, dict[str, Rivals], MAX_CONFIG_BYTES).get(directory.name, Rivals())
    smaller = None if named.smaller is None else directory.parent / named.smaller
    return Rivalry(smaller, None if named.earlier is None else directory.parent / named.earlier)


def build_smaller(model: Model, rivals: Rivalry) -> Engine:
    """The smaller model's engine in the class of the real one, or the real one's first half of layers. Raises: ModelRefused"""
    engine = get_llama_engine(model)
    if rivals.smaller is None:
        return LlamaEngine(keep_layers(engine.model, max(1, engine.model.config.layers // 2)))
    device = str(engine.model.inverse_frequencies.device)
    declared = engine.compute_class
    smaller = load_model(rivals.smaller, device, dtype=declared.dtype, attention=engine.model.attention)
    if smaller.card.tokenizer != model.card.tokenizer:
        raise ModelRefused(
            f"{rivals.smaller}: expected the tokenizer of {model.card.name}; a smaller model has to share it"
        )
    return smaller.engine


def get_llama_engine(model: Model) -> LlamaEngine:
    """The engine whose weights can be altered. Raises: ModelRefused for other architectures"""
    if not isinstance(model.engine, LlamaEngine):
        raise ModelRefused(
            f"{model.card.name}: expected a model of the Llama family, got {model.engine.compute_class.engine}"
        )
    return model.engine


def keep_layers(llama: Llama, kept: int) -> Llama:
    """The model without its last layers."""
    return replace(llama, config=replace(llama.config, layers=kept))


def round_weights(llama: Llama, bits: int) -> Llama:
    """Every projection rounded to signed integers of 8 or 4 bits: a scale a row, or with 4 bits a scale for every 64 columns of it."""

    def round_one(weight: Tensor) -> Tensor:
        group = weight.shape[1] if bits == 8 or weight.shape[1] % _INT4_GROUP else _INT4_GROUP
        parts = weight.float().reshape(weight.shape[0], -1, group)
        largest = 2 ** (bits - 1) - 1
        scale = parts.abs().amax(dim=2, keepdim=True).clamp(min=1e-30) / largest
        return ((parts / scale).round() * scale).reshape(weight.shape).to(weight.dtype)

    return _change_projections(llama, round_one)


def add_noise(llama: Llama, share: float, seed: int) -> Llama:
    """Every projection with normal noise of this share of its own spread."""
    generator = torch.Generator().manual_seed(seed)

    def disturb(weight: Tensor) -> Tensor:
        noise = torch.randn(weight.shape, generator=generator).to(weight.device)
        return (weight.float() + share * weight.float().std() * noise).to(weight.dtype)

    return _change_projections(llama, disturb)


def restore_earlier(llama: Llama, path: Path) -> Llama:
    """The weights of an earlier point of the training, from a file of differences in 8 bits with a step for each row.

    Raises: ModelRefused
    """
    stored = load_tensors(path)
    weights: dict[str, Tensor] = {}
    for name, weight in llama.weights.items():
        codes, step = stored.get(name), stored.get(name + STEP_SUFFIX)
        if codes is None or step is None or codes.shape != weight.shape or step.shape != weight.shape[:1]:
            raise ModelRefused(
                f"{path}: expected a difference for {name} of shape {tuple(weight.shape)}, got none such"
            )
        change = codes.float() * step.reshape(-1, *[1] * (weight.dim() - 1))
        weights[name] = (weight.float() + change.to(weight.device)).to(weight.dtype)
    return replace(llama, weights=weights)


def encode_difference(now: dict[str, Tensor], earlier: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `restore_earlier` reads: for each tensor the difference in 8-bit steps, and each row's step."""
    tensors: dict[str, Tensor] = {}
    for name, weight in now.items():
        change = (earlier[name].float() - weight.float()).reshape(weight.shape[0], -1)
        step = change.abs().amax(dim=1).clamp(min=1e-30) / 127
        tensors[name] = (change / step[:, None]).round().to(torch.int8).reshape(weight.shape)
        tensors[name + STEP_SUFFIX] = step
    return tensors


def _change_projections(llama: Llama, change: Callable[[Tensor], Tensor]) -> Llama:
    weights = {
        name: change(weight) if "_proj." in name and weight.dim() == 2 else weight
        for name, weight in llama.weights.items()
    }
    return replace(llama, weights=weights)
