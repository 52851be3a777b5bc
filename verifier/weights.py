"""The tensors of a model directory, each with the shape that the configuration gives it. Wraps safetensors, which has no types.

Only safetensors are read: a pickle would run what is in it.
"""
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from verifier.card import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, ModelRefused, list_shards

# Old checkpoints carry what follows from the configuration; it is never loaded.
DERIVED_SUFFIXES: Final = (
    ".rotary_emb.inv_freq",
    ".attn.masked_bias",
    ".attn.bias",
    ".attention.bias",
    ".attention.masked_bias",
)


def load_weights(
    directory: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
    prefix: str = "",
) -> dict[str, Tensor]:
    """Exactly the named tensors, in this dtype, on this device; a file may leave the prefix of its names out.

    Raises: ModelRefused if one is missing, superfluous, of another shape, or holds a value that is not finite
    """
    files = list_shards(directory) if (directory / INDEX_FILE).is_file() else [WEIGHTS_FILE]
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= _load_shard(directory / file, shapes, dtype, device, prefix)
    if missing := sorted(set(shapes) - set(weights)):
        raise ModelRefused(
            f"{directory}: expected {len(shapes)} tensors, {len(missing)} are missing, first {missing[0]}"
        )
    return weights


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Whatever tensors a file holds, as they are. Raises: ModelRefused if it is no readable safetensors file"""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - is no mapping
    except (SafetensorError, OSError) as error:
        raise ModelRefused(f"{path}: is no readable safetensors file: {error}") from error


def _load_shard(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, device: torch.device, prefix: str
) -> dict[str, Tensor]:
    """The tensors of one file, each checked before it is converted."""
    weights: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names: list[str] = list(file.keys())
            for stored in names:
                name = stored if stored in shapes else prefix + stored
                if name not in shapes:
                    _check_superfluous(path, stored)
                    continue
                shape: tuple[int, ...] = tuple(file.get_slice(stored).get_shape())
                if shape != shapes[name]:
                    raise ModelRefused(f"{path}: expected {name} of shape {shapes[name]}, got {shape}")
                weights[name] = _convert(path, name, file.get_tensor(stored), dtype, device)
    except (SafetensorError, OSError) as error:
        raise ModelRefused(f"{path}: is no readable safetensors file: {error}") from error
    return weights


def _check_superfluous(path: Path, name: str) -> None:
    # A tied model's file may still hold the head, which is the embedding again.
    if name != "lm_head.weight" and not name.endswith(DERIVED_SUFFIXES):
        raise ModelRefused(f"{path}: holds a tensor {name[:120]!r} that {CONFIG_FILE} has no place for")


def _convert(path: Path, name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    if not tensor.is_floating_point():
        raise ModelRefused(f"{path}: expected floating point in {name}, got {tensor.dtype}")
    converted = tensor.to(dtype).to(device)
    # After the conversion: a large float32 may overflow in a narrower type.
    if not bool(torch.isfinite(converted).all()):
        raise ModelRefused(f"{path}: expected finite numbers in {name}, got NaN or infinity")
    return converted
