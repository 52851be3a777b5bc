"""The forward pass of a small class-conditional diffusion transformer, ours, so that nothing of it changes with a library's version.

Pixels in, velocity out, several rows at once; every row has its own place on the noise schedule and its own prompt token.
Source: Peebles and Xie 2023, Scalable Diffusion Models with Transformers (adaLN-Zero blocks); velocity after Salimans and Ho 2022.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from verifier.llama import Attention

NORM_EPSILON: Final = 1e-6
LONGEST_PERIOD: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class DitConfig:
    """What decides the forward pass. Units: side and patch in pixels; wave_width is the length of a moment's sine and cosine code"""

    vocabulary: int  # prompt tokens that have a row in the table
    side: int
    patch: int
    channels: int
    width: int
    layers: int
    heads: int
    wave_width: int

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2

    @property
    def patch_values(self) -> int:
        return self.channels * self.patch**2


@dataclass(frozen=True, slots=True)
class Dit:
    config: DitConfig
    weights: Mapping[str, Tensor]
    attention: Attention


def compute_shapes(config: DitConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor."""
    width, values = config.width, config.patch_values
    shapes: dict[str, tuple[int, ...]] = {
        "position.weight": (config.patches, width),
        "prompt.weight": (config.vocabulary, width),
        **_linear("patch", width, values),
        **_linear("moment.0", width, config.wave_width),
        **_linear("moment.1", width, width),
        **_linear("last.modulation", 2 * width, width),
        **_linear("last.output", values, width),
    }
    for layer in range(config.layers):
        name = f"layers.{layer}"
        shapes |= _linear(f"{name}.modulation", 6 * width, width)
        shapes |= _linear(f"{name}.attention.input", 3 * width, width)
        shapes |= _linear(f"{name}.attention.output", width, width)
        shapes |= _linear(f"{name}.mlp.input", 4 * width, width)
        shapes |= _linear(f"{name}.mlp.output", width, 4 * width)
    return shapes


def compute_velocity(dit: Dit, images: Tensor, moments: Tensor, prompts: Tensor) -> Tensor:
    """What the model takes for sqrt(a) x noise - sqrt(1 - a) x picture at each row's moment.

    Shapes: images [rows, channels, side, side] in the weights' dtype; moments [rows] float32, training steps; prompts [rows] int64; as images
    """
    config, weights = dit.config, dit.weights
    condition = functional.silu(_embed_moments(dit, moments, images.dtype) + weights["prompt.weight"][prompts])
    hidden = _project(dit, "patch", _cut(config, images)) + weights["position.weight"]
    for layer in range(config.layers):
        name = f"layers.{layer}"
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = _modulate(dit, f"{name}.modulation", condition, 6)
        hidden = hidden + gate * _attend(dit, f"{name}.attention", _normalise(hidden) * (1 + scale) + shift)
        normed = _normalise(hidden) * (1 + mlp_scale) + mlp_shift
        inner = functional.gelu(_project(dit, f"{name}.mlp.input", normed), approximate="tanh")
        hidden = hidden + mlp_gate * _project(dit, f"{name}.mlp.output", inner)
    shift, scale = _modulate(dit, "last.modulation", condition, 2)
    return _join(config, _project(dit, "last.output", _normalise(hidden) * (1 + scale) + shift))


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _embed_moments(dit: Dit, moments: Tensor, dtype: torch.dtype) -> Tensor:
    half = dit.config.wave_width // 2
    places = torch.arange(half, dtype=torch.float32, device=moments.device) / half
    angles = moments[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * places)
    waves = torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype)
    return _project(dit, "moment.1", functional.silu(_project(dit, "moment.0", waves)))


def _modulate(dit: Dit, name: str, condition: Tensor, parts: int) -> tuple[Tensor, ...]:
    return _project(dit, name, condition)[:, None].chunk(parts, dim=-1)


def _attend(dit: Dit, name: str, hidden: Tensor) -> Tensor:
    """What every patch reads from all patches."""
    rows, patches, width = hidden.shape
    heads = dit.config.heads
    parts = _project(dit, f"{name}.input", hidden).view(rows, patches, 3, heads, width // heads)
    queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
    if dit.attention is Attention.SDPA:
        read = functional.scaled_dot_product_attention(queries, keys, values)
    else:
        scores = torch.matmul(queries, keys.transpose(2, 3)) * (width // heads) ** -0.5
        shares = functional.softmax(scores, dim=-1, dtype=_widen(hidden.dtype)).to(hidden.dtype)
        read = torch.matmul(shares, values)
    return _project(dit, f"{name}.output", read.transpose(1, 2).reshape(rows, patches, width))


def _project(dit: Dit, name: str, hidden: Tensor) -> Tensor:
    return functional.linear(hidden, dit.weights[f"{name}.weight"], dit.weights[f"{name}.bias"])


def _normalise(hidden: Tensor) -> Tensor:
    wide = hidden.to(_widen(hidden.dtype))
    wide = wide - wide.mean(-1, keepdim=True)
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + NORM_EPSILON)).to(hidden.dtype)


def _widen(dtype: torch.dtype) -> torch.dtype:
    """In which sums are made."""
    return torch.promote_types(dtype, torch.float32)


def _cut(config: DitConfig, images: Tensor) -> Tensor:
    """One row of values a patch, top left first."""
    count = config.side // config.patch
    parts = images.reshape(-1, config.channels, count, config.patch, count, config.patch)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(-1, config.patches, config.patch_values)


def _join(config: DitConfig, patches: Tensor) -> Tensor:
    count = config.side // config.patch
    parts = patches.view(-1, count, count, config.channels, config.patch, config.patch)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(-1, config.channels, config.side, config.side)
