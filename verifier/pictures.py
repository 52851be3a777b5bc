"""From few large values to many small ones, in integers: the decoder of models that draw their pixels themselves."""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from verifier.digests.images import Pixels
from verifier.noise import ONE, Latents

_WHITE: Final = 255
MAX_FACTOR: Final = 16  # keeps every sum below 2^63
MAX_LEVELS: Final = 256


def enlarge(latents: Latents, factor: int) -> Pixels:
    """The picture that these values are, cut off at -1 (black) and 1 (white), `factor` times as large, smooth between them.

    Shapes: [channels, height, width], channels 1 or 3; [factor x height, factor x width, channels]
    """
    assert 1 <= factor <= MAX_FACTOR, factor
    levels = np.clip(latents.astype(np.int64) + ONE, 0, 2 * ONE)
    rows, columns = _make_weights(latents.shape[1], factor), _make_weights(latents.shape[2], factor)
    spread = rows @ levels @ columns.T
    # Weights are eighths of the factor's cube, in both directions; halves round up.
    whole = (2 * (2 * factor) ** 3) ** 2 * 2 * ONE
    drawn = np.clip((spread * _WHITE * 2 + whole) // (2 * whole), 0, _WHITE)
    return np.ascontiguousarray(drawn.transpose(1, 2, 0)).astype(np.uint8)


def round_levels(latents: Latents, levels: int) -> Latents:
    """The latents at the nearest of so many even levels from -1 to 1; halves go up. Shapes: any; the same

    Where makers' pictures had few levels, nothing is lost, and kernels that differ in the last bits end in the same picture.
    """
    assert 2 <= levels <= MAX_LEVELS, levels
    above = np.clip(latents.astype(np.int64), -ONE, ONE) + ONE
    nearest = (above * (levels - 1) + ONE) // (2 * ONE)
    return (nearest * (2 * ONE) // (levels - 1) - ONE).astype(np.int32)


@lru_cache(maxsize=16)
def _make_weights(size: int, factor: int) -> NDArray[np.int64]:
    """Catmull-Rom weights of `size` values at the places of factor x size pixels; beyond the edge the edge goes on.

    Units: 1 / (2 (2 factor)^3). Shapes: [factor x size, size]
    """
    whole = 2 * factor
    weights = np.zeros((factor * size, size), dtype=np.int64)
    for pixel in range(factor * size):
        place = 2 * pixel + 1 - factor  # the pixel's middle, counted from the first value's, in 1 / whole
        first, t = place // whole, place % whole
        square, cube = t * t, t * t * t
        parts = (
            -cube + 2 * whole * square - whole**2 * t,
            3 * cube - 5 * whole * square + 2 * whole**3,
            -3 * cube + 4 * whole * square + whole**2 * t,
            cube - whole * square,
        )
        for step, part in enumerate(parts, start=-1):
            weights[pixel, min(max(first + step, 0), size - 1)] += part
    return weights
