"""The Llama forward pass: token ids to logits, bit-equal to transformers' eager attention in float32.

The order of operations is the specification: a reordered sum gives other bits. Loading and checking weights is
verifier/model.py's part, choosing tokens verifier/generate.py's. Gradients flow, so the shipped models train on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

# What the attention scores of one block of queries may take, so that long readings need not hold a square of them.
SCORE_BYTES: Final = 64 * 1024 * 1024
LEAST_BLOCK: Final = 16


class Attention(StrEnum):
    """Which code computes attention: written out, or torch's fused kernels. They differ in the last bits."""

    EAGER = "eager"
    SDPA = "sdpa"


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Llama 3's stretching of the slow rotary frequencies beyond the context of the pre-training."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    vocabulary: int
    width: int
    inner_width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    context: int
    norm_epsilon: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    is_tied: bool
    has_attention_bias: bool
    has_mlp_bias: bool


@dataclass(frozen=True, slots=True)
class LlamaCache:
    """Per layer the keys and the values so far. Shapes: [batch, key heads, positions, head width] each"""

    layers: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, slots=True)
class Llama:
    """Weights under their Hugging Face names, and the configuration that gives them their shapes."""

    config: LlamaConfig
    weights: Mapping[str, Tensor]
    inverse_frequencies: Tensor
    attention: Attention = Attention.EAGER


def build_llama(config: LlamaConfig, weights: Mapping[str, Tensor], attention: Attention = Attention.EAGER) -> Llama:
    """The model, with its rotary frequencies on the device of the weights."""
    device = weights["model.embed_tokens.weight"].device
    return Llama(config, weights, compute_inverse_frequencies(config).to(device), attention)


def compute_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor that a model of this configuration has, and no other."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocabulary, config.width)}
    query, key = config.heads * config.head_width, config.key_heads * config.head_width
    for layer in range(config.layers):
        name = f"model.layers.{layer}"
        for part, rows, columns in (
            ("q_proj", query, config.width),
            ("k_proj", key, config.width),
            ("v_proj", key, config.width),
            ("o_proj", config.width, query),
        ):
            shapes[f"{name}.self_attn.{part}.weight"] = (rows, columns)
            if config.has_attention_bias:
                shapes[f"{name}.self_attn.{part}.bias"] = (rows,)
        for part, rows, columns in (
            ("gate_proj", config.inner_width, config.width),
            ("up_proj", config.inner_width, config.width),
            ("down_proj", config.width, config.inner_width),
        ):
            shapes[f"{name}.mlp.{part}.weight"] = (rows, columns)
            if config.has_mlp_bias:
                shapes[f"{name}.mlp.{part}.bias"] = (rows,)
        shapes[f"{name}.input_layernorm.weight"] = (config.width,)
        shapes[f"{name}.post_attention_layernorm.weight"] = (config.width,)
    shapes["model.norm.weight"] = (config.width,)
    if not config.is_tied:
        shapes["lm_head.weight"] = (config.vocabulary, config.width)
    return shapes


def compute_logits(
    llama: Llama, ids: Tensor, cache: LlamaCache | None = None, *, only_last: bool = False
) -> tuple[Tensor, LlamaCache]:
    """The logits at every given position (or at the last alone) and the cache that includes these positions.

    Shapes: ids [batch, positions] int64; logits [batch, positions or 1, vocabulary] in the weights' dtype
    """
    hidden, present = compute_hidden(llama, ids, cache, only_last=only_last)
    return compute_head(llama, hidden), present


def compute_hidden(
    llama: Llama, ids: Tensor, cache: LlamaCache | None = None, *, only_last: bool = False
) -> tuple[Tensor, LlamaCache]:
    """What the head reads: the normalised last hidden state at the same positions, and the cache.

    Shapes: ids [batch, positions] int64; hidden [batch, positions or 1, width]
    """
    start = 0 if cache is None else cache.layers[0][0].shape[2]
    hidden, context = _start(llama, ids, start)
    layers: list[tuple[Tensor, Tensor]] = []
    for layer in range(llama.config.layers):
        hidden, present = _run_layer(llama, layer, hidden, context, None if cache is None else cache.layers[layer])
        layers.append(present)
    return _finish(llama, hidden[:, -1:] if only_last else hidden), LlamaCache(tuple(layers))


def read_hidden(llama: Llama, ids: Tensor) -> Tensor:
    """The same at every position of texts that are already written: no layer's keys and values outlive it.

    Rows may be padded on the right with any token: no position reads a later one.
    """
    hidden, context = _start(llama, ids, 0)
    for layer in range(llama.config.layers):
        hidden, _ = _run_layer(llama, layer, hidden, context, None)
    return _finish(llama, hidden)


def compute_head(llama: Llama, hidden: Tensor) -> Tensor:
    """The logits that these hidden states stand for. Shapes: [..., width]; [..., vocabulary]"""
    head = llama.weights["model.embed_tokens.weight" if llama.config.is_tied else "lm_head.weight"]
    return functional.linear(hidden, head)


def select_rows(cache: LlamaCache, rows: list[int]) -> LlamaCache:
    """The cache of these batch rows, in this order; a row may occur more than once, as in beam search."""
    return LlamaCache(tuple((keys[rows], values[rows]) for keys, values in cache.layers))


def compute_inverse_frequencies(config: LlamaConfig) -> Tensor:
    """The angle a position adds to each pair of a head's dimensions.

    Shapes: [head width / 2] float32
    Source: transformers 5, modeling_rope_utils, types "default" and "llama3"
    """
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
    frequencies = 1.0 / (config.rope_theta**exponents)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    lengths = 2 * math.pi / frequencies
    longest = scaling.original_context / scaling.low_frequency_factor
    shortest = scaling.original_context / scaling.high_frequency_factor
    stretched = torch.where(lengths > longest, frequencies / scaling.factor, frequencies)
    smooth = (scaling.original_context / lengths - scaling.low_frequency_factor) / (
        scaling.high_frequency_factor - scaling.low_frequency_factor
    )
    between = (1 - smooth) * stretched / scaling.factor + smooth * stretched
    is_between = ~(lengths < shortest) * ~(lengths > longest)
    return torch.where(is_between, between, stretched)


@dataclass(frozen=True, slots=True)
class _Context:
    """What all layers share: the rotation of the positions, and the blocks of queries with what hides their future."""

    start: int
    rotation: tuple[Tensor, Tensor]
    blocks: tuple[tuple[int, int, Tensor | None], ...]


def _start(llama: Llama, ids: Tensor, start: int) -> tuple[Tensor, _Context]:
    hidden = functional.embedding(ids, llama.weights["model.embed_tokens.weight"])
    batch, positions = ids.shape
    rows = SCORE_BYTES // (batch * llama.config.heads * (start + positions) * 4)
    size = max(LEAST_BLOCK, rows) if llama.attention is Attention.EAGER else positions
    blocks = tuple(
        (at, min(at + size, positions), _compute_mask(start + at, min(size, positions - at), hidden))
        for at in range(0, positions, size)
    )
    return hidden, _Context(start, _compute_rotation(llama, start, positions, hidden.dtype), blocks)


def _run_layer(
    llama: Llama, layer: int, hidden: Tensor, context: _Context, past: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The hidden states after one layer, and that layer's keys and values."""
    name, epsilon = f"model.layers.{layer}", llama.config.norm_epsilon
    normed = _normalise(hidden, llama.weights[f"{name}.input_layernorm.weight"], epsilon)
    attended, present = _attend(llama, f"{name}.self_attn", normed, context, past)
    hidden = hidden + attended
    normed = _normalise(hidden, llama.weights[f"{name}.post_attention_layernorm.weight"], epsilon)
    gate = functional.silu(_project(llama, f"{name}.mlp.gate_proj", normed))
    return hidden + _project(
        llama, f"{name}.mlp.down_proj", gate * _project(llama, f"{name}.mlp.up_proj", normed)
    ), present


def _finish(llama: Llama, hidden: Tensor) -> Tensor:
    return _normalise(hidden, llama.weights["model.norm.weight"], llama.config.norm_epsilon)


def _attend(
    llama: Llama, name: str, hidden: Tensor, context: _Context, past: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What the positions read from themselves and their past, and the keys and values including theirs."""
    config = llama.config
    batch, positions, _ = hidden.shape
    shape = (batch, positions, -1, config.head_width)
    queries = _rotate(_project(llama, f"{name}.q_proj", hidden).view(shape).transpose(1, 2), context.rotation)
    keys = _rotate(_project(llama, f"{name}.k_proj", hidden).view(shape).transpose(1, 2), context.rotation)
    values = _project(llama, f"{name}.v_proj", hidden).view(shape).transpose(1, 2)
    if past is not None:
        keys, values = torch.cat((past[0], keys), dim=2), torch.cat((past[1], values), dim=2)
    groups = config.heads // config.key_heads
    all_keys, all_values = _repeat(keys, groups), _repeat(values, groups)
    if llama.attention is Attention.SDPA:
        reads = [_read_fused(queries, all_keys, all_values, context)]
    else:
        reads = [
            _read_eager(queries[:, :, at:to], all_keys[:, :, : context.start + to], all_values, mask)
            for at, to, mask in context.blocks
        ]
    read = reads[0] if len(reads) == 1 else torch.cat(reads, dim=2)
    return _project(llama, f"{name}.o_proj", read.transpose(1, 2).reshape(batch, positions, -1)), (keys, values)


def _read_eager(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.matmul(queries, keys.transpose(2, 3)) * queries.shape[-1] ** -0.5
    if mask is not None:
        scores = scores + mask
    shares = functional.softmax(scores, dim=-1, dtype=_widen(queries.dtype)).to(queries.dtype)
    return torch.matmul(shares, values[:, :, : keys.shape[2]])


def _read_fused(queries: Tensor, keys: Tensor, values: Tensor, context: _Context) -> Tensor:
    # Without a past the kernel hides the future itself and never sees a mask, which is what makes it fast and small.
    is_causal = context.start == 0 and queries.shape[2] > 1
    mask = None if is_causal else context.blocks[0][2]
    return functional.scaled_dot_product_attention(queries, keys, values, mask, is_causal=is_causal)


def _project(llama: Llama, name: str, hidden: Tensor) -> Tensor:
    return functional.linear(hidden, llama.weights[f"{name}.weight"], llama.weights.get(f"{name}.bias"))


def _normalise(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    wide = hidden.to(_widen(hidden.dtype))
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(hidden.dtype)


def _widen(dtype: torch.dtype) -> torch.dtype:
    """The precision in which sums are taken: float32, or more where the model itself has more."""
    return torch.promote_types(dtype, torch.float32)


def _compute_rotation(llama: Llama, start: int, positions: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    at = torch.arange(start, start + positions, device=llama.inverse_frequencies.device)
    # The angles are float32's in every precision: that is the model's definition, not an approximation of it.
    angles = (at[:, None].float() * llama.inverse_frequencies).to(_widen(dtype))
    doubled = torch.cat((angles, angles), dim=-1)
    return doubled.cos().to(dtype), doubled.sin().to(dtype)


def _rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    half = heads.shape[-1] // 2
    turned = torch.cat((-heads[..., half:], heads[..., :half]), dim=-1)
    return heads * rotation[0] + turned * rotation[1]


def _repeat(heads: Tensor, groups: int) -> Tensor:
    """Every key head once for each query head that shares it."""
    if groups == 1:
        return heads
    batch, count, positions, width = heads.shape
    return heads[:, :, None].expand(batch, count, groups, positions, width).reshape(batch, -1, positions, width)


def _compute_mask(start: int, positions: int, hidden: Tensor) -> Tensor | None:
    """What hides the future when several positions run at once; one position alone sees everything."""
    if positions == 1:
        return None
    least, dtype = torch.finfo(hidden.dtype).min, _widen(hidden.dtype)
    hidden_future = torch.full((positions, start + positions), least, dtype=dtype, device=hidden.device)
    return hidden_future.triu(start + 1).to(hidden.dtype)
