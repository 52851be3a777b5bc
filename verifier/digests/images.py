"""Perceptual digests of pictures, in integers throughout: whoever has the pixels has the digest, bit for bit, on any machine.

`img-pdq256` is PDQ: brightness, two rounds of box filters, 64 x 64 samples, the 16 x 16 lowest frequencies but the constant one against
their median. `img-phash64` is 8 x 8 frequencies of 32 x 32 area means against their median. Difference, average and wavelet hashes are
for comparison only. Fixed point stands where the originals have floating point (and area means where imagehash resamples), so single bits
near a median may differ from theirs.
Source: Facebook 2019, The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm; Zauner 2010, phash.org
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocol.digest import Digest, DigestFamily
from protocol.models import ImageOutput

Pixels = NDArray[np.uint8]
Integers = NDArray[np.int64]
Bits = NDArray[np.bool_]

LUMA: Final = np.array([299, 587, 114], dtype=np.int64)  # thousandths of red, green, blue (BT.601)
SAMPLES: Final = 64
PDQ_SIDE: Final = 16
_BLUR_ROUNDS: Final = 2
_BLUR_DIVISOR: Final = 2 * SAMPLES
_LUMA_BITS: Final = 8  # below a thousandth of a brightness step: 26 bits in all
_WAVE_BITS: Final = 22
_HALFWAY_SHIFT: Final = 18  # 52 bits after the first product, 34 after this, 60 after the second


def compute_image_digest(family: DigestFamily, pixels: Pixels) -> Digest:
    """The digest of a picture.

    Shapes: pixels [height, width, 1 or 3]
    """
    match family:
        case DigestFamily.IMG_PDQ256:
            bits = compute_pdq256(pixels)
        case DigestFamily.IMG_PHASH64:
            bits = compute_phash64(pixels)
        case DigestFamily.TEXT_MINHASH256 | DigestFamily.TEXT_SIMHASH64 | DigestFamily.SYNTHETIC64:
            raise ValueError(f"{family.name} is no family of pictures; the card names one")
    return Digest(family, np.packbits(bits).tobytes())


def compute_pdq256(pixels: Pixels) -> Bits:
    """256 bits, highest vertical frequency first, as PDQ's text form has them.

    Shapes: [height, width, 1 or 3]; [256]
    """
    luma = compute_luma(pixels) << _LUMA_BITS
    for _ in range(_BLUR_ROUNDS):
        luma = _blur_rows(_blur_rows(luma.T).T)
    rows, columns = _choose_samples(luma.shape[0]), _choose_samples(luma.shape[1])
    waves = _make_waves(range(1, PDQ_SIDE + 1), SAMPLES)
    halfway = (waves @ luma[np.ix_(rows, columns)]) >> _HALFWAY_SHIFT
    return _exceed_median(halfway @ waves.T)[::-1]


def compute_phash64(pixels: Pixels) -> Bits:
    """64 bits. Shapes: [height, width, 1 or 3]; [64]"""
    means = (compute_area_means(pixels, 32, 32) << _LUMA_BITS) // pixels[:, :, 0].size
    waves = _make_waves(range(8), 32)
    halfway = (waves @ means) >> _HALFWAY_SHIFT
    return _exceed_median(halfway @ waves.T)


def compute_dhash64(pixels: Pixels) -> Bits:
    """Whether it gets brighter to the right, at 8 x 8 places. Shapes: [height, width, 1 or 3]; [64]"""
    means = compute_area_means(pixels, 8, 9)
    return (means[:, 1:] > means[:, :-1]).reshape(-1)


def compute_ahash64(pixels: Pixels) -> Bits:
    """Which of 8 x 8 areas are brighter than all on average. Shapes: [height, width, 1 or 3]; [64]"""
    means = compute_area_means(pixels, 8, 8)
    return (means * means.size > means.sum()).reshape(-1)


def compute_whash64(pixels: Pixels) -> Bits:
    """Which of 8 x 8 areas are brighter than most: the Haar wavelet's coarse part against its median. Shapes: [height, width, 1 or 3]; [64]"""
    return _exceed_median(compute_area_means(pixels, 8, 8))


HASHES: Final[dict[str, Callable[[Pixels], Bits]]] = {
    "pdq256": compute_pdq256,
    "phash64": compute_phash64,
    "dhash64": compute_dhash64,
    "ahash64": compute_ahash64,
    "whash64": compute_whash64,
}


def read_pixels(output: ImageOutput) -> Pixels:
    """An output's pixels as an array. Shapes: [height, width, 1 or 3]"""
    return np.frombuffer(output.pixels, dtype=np.uint8).reshape(output.height, output.width, output.channels)


def compute_luma(pixels: Pixels) -> Integers:
    """Brightness. Units: thousandths of a step. Shapes: [height, width, 1 or 3]; [height, width]"""
    assert pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.dtype == np.uint8, (pixels.shape, pixels.dtype)
    if pixels.shape[2] == 1:
        return pixels[:, :, 0].astype(np.int64) * 1000
    return pixels.astype(np.int64) @ LUMA


def compute_area_means(pixels: Pixels, rows: int, columns: int) -> Integers:
    """The brightness of each cell of a grid laid over the picture, cut pixels by their share; all times the picture's height and width.

    Shapes: [rows, columns]
    """
    luma = compute_luma(pixels)
    return _make_overlaps(rows, luma.shape[0]) @ luma @ _make_overlaps(columns, luma.shape[1]).T


def _make_overlaps(cells: int, pixels: int) -> Integers:
    """How much of each pixel lies in each cell, both measured in parts of 1 / (cells x pixels). Shapes: [cells, pixels]"""
    cell, pixel = np.arange(cells)[:, None], np.arange(pixels)[None, :]
    start = np.maximum(cell * pixels, pixel * cells)
    end = np.minimum((cell + 1) * pixels, (pixel + 1) * cells)
    return np.maximum(end - start, 0).astype(np.int64)


def _blur_rows(luma: Integers) -> Integers:
    """Every value becomes the mean of a window along its row, cut off at the edges, rounded down."""
    width = luma.shape[1]
    window = (width + _BLUR_DIVISOR - 1) // _BLUR_DIVISOR
    if window == 1:
        return luma
    before = (window + 2) // 2 - 1  # PDQ's own, lopsided for even windows
    sums = np.concatenate((np.zeros((luma.shape[0], 1), dtype=np.int64), np.cumsum(luma, axis=1)), axis=1)
    at = np.arange(width, dtype=np.int64)
    first, end = np.maximum(at - (window - 1 - before), 0), np.minimum(at + before + 1, width)
    return (sums[:, end] - sums[:, first]) // (end - first)


def _choose_samples(pixels: int) -> Integers:
    """The pixels nearest to 64 evenly spaced places."""
    return (2 * np.arange(SAMPLES, dtype=np.int64) + 1) * pixels // (2 * SAMPLES)


def _make_waves(frequencies: range, samples: int) -> Integers:
    """Cosines, in units of 2^-22 of the orthonormal ones. Shapes: [frequencies, samples]"""
    scale = math.sqrt(2 / samples) * (1 << _WAVE_BITS)
    rows = [
        [round(scale * math.cos(math.pi / (2 * samples) * frequency * (2 * at + 1))) for at in range(samples)]
        for frequency in frequencies
    ]
    return np.array(rows, dtype=np.int64)


def _exceed_median(values: Integers) -> Bits:
    """Which values are above the lower of the two middle ones: half of them, where no two are equal."""
    flat = values.reshape(-1)
    return flat > np.sort(flat)[(flat.size - 1) // 2]
