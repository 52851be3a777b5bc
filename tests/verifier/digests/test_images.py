"""Digests of pictures: the published algorithm's bits, the same on every machine, small distances for near copies."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from protocol.digest import DIGEST_BYTES, IMAGE_FAMILIES, DigestFamily
from verifier.digests.images import (
    HASHES,
    compute_ahash64,
    compute_area_means,
    compute_dhash64,
    compute_image_digest,
    compute_pdq256,
    compute_phash64,
    compute_whash64,
)

Pixels = NDArray[np.uint8]

# Made by pdqhash 0.2.8, the original's C++, over `paint` with these arguments.
PUBLISHED = {
    (64, 64, 3, 0): "e62534ee398c3989e773c2319f9e1daa65a363d201da7343ce36007f15beba80",
    (64, 64, 1, 1): "762968a6f989cd992266d63bbac655ba61e34d9e534a7e0301fa05be7a4ce601",
    (128, 96, 3, 2): "64bcd31cb04400f9d2dca0343dec1ed81f3c6f7817fc6db96003c26fd00393ff",
    (200, 301, 3, 3): "cf2231113f003114f7002115fe00fc2c00ffdefc00ffdef541ef3eb621ef9ed0",
    (512, 512, 3, 4): "f452be6ca538fbaaa983e94d9455f492d134bb2256449ac5b744c5c6f495d03c",
    (70, 640, 1, 5): "0287b32f44e908d2b32aaa8e0ab0229ab8aeaaa22a265545fef8fff35c8d77d9",
}


def paint(height: int, width: int, channels: int, number: int) -> Pixels:
    """Waves and blocks, in integers."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    layers: list[NDArray[np.int64]] = []
    for channel in range(channels):
        blocks = ((x // 7) * (y // 5) * (11 + channel)) % 97
        waves = x * (3 + number + channel) + y * (5 + 2 * number) + (x * y * (number + 1)) // (height + width)
        value = (waves + blocks) % 512
        layers.append(np.where(value < 256, value, 511 - value))
    return np.stack(layers, axis=2).astype(np.uint8)


def soften(height: int, width: int, seed: int) -> Pixels:
    """Spots of many sizes, as pictures of things have."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    total = np.zeros((height, width))
    for _ in range(60):
        at, size = random.random(2) * (height, width), height * (0.03 + 0.15 * random.random() ** 2)
        total += random.normal() * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 * size**2))
    return ((total - total.min()) / np.ptp(total) * 255).astype(np.uint8)[:, :, None]


@pytest.mark.parametrize("measures, published", PUBLISHED.items())
def test_pdq_has_the_published_implementations_bits(measures: tuple[int, int, int, int], published: str) -> None:
    assert compute_image_digest(DigestFamily.IMG_PDQ256, paint(*measures)).bits.hex() == published


def test_the_small_hashes_are_pinned() -> None:
    picture = paint(64, 64, 3, 0)
    made = {name: np.packbits(HASHES[name](picture)).tobytes().hex() for name in sorted(HASHES) if name != "pdq256"}
    assert made == {
        "ahash64": "0f3f7efcf0e0c080",
        "dhash64": "fff0d08080010327",
        "phash64": "c0813f7f36612d27",
        "whash64": "0f3f7efcf0e0c080",
    }


@pytest.mark.parametrize("family", sorted(IMAGE_FAMILIES))
@pytest.mark.parametrize("height, width, channels", [(1, 1, 1), (3, 200, 3), (64, 64, 1), (65, 33, 3)])
def test_a_digest_has_its_familys_size_whatever_the_pictures(
    family: DigestFamily, height: int, width: int, channels: int
) -> None:
    digest = compute_image_digest(family, paint(height, width, channels, 2))
    assert (digest.family, len(digest.bits)) == (family, DIGEST_BYTES[family])


def test_a_picture_of_one_colour_has_no_bits_but_its_brightness() -> None:
    plain = np.full((64, 64, 3), 200, dtype=np.uint8)
    assert not compute_pdq256(plain).any()
    assert np.flatnonzero(compute_phash64(plain)).tolist() == [0]


@pytest.mark.parametrize(
    "name, most", [("pdq256", 40), ("phash64", 6), ("dhash64", 10), ("ahash64", 4), ("whash64", 4)]
)
def test_noise_and_a_new_size_move_few_bits_and_another_picture_half(name: str, most: int) -> None:
    compute = HASHES[name]
    near: list[int] = []
    far: list[int] = []
    for seed in range(12):
        picture = soften(128, 128, seed)
        noise = np.random.default_rng(seed).integers(-2, 3, picture.shape)
        noisy = np.clip(picture.astype(np.int64) + noise, 0, 255).astype(np.uint8)
        bits = compute(picture)
        near += [int((bits != compute(noisy)).sum()), int((bits != compute(picture[::2, ::2])).sum())]
        far.append(int((bits != compute(soften(128, 128, seed + 100))).sum()))
    assert max(near) <= most
    assert np.mean(far) > 0.3 * len(compute(picture))


def test_grey_and_the_same_grey_in_colour_have_one_digest() -> None:
    grey = soften(80, 64, 3)
    for family in IMAGE_FAMILIES:
        assert compute_image_digest(family, grey) == compute_image_digest(family, np.repeat(grey, 3, axis=2))


def test_area_means_share_cut_pixels() -> None:
    picture = np.array([[0, 90, 180]], dtype=np.uint8)[:, :, None]
    # Two cells of one and a half pixels: (0 + 45) and (45 + 180), of a picture of 1 x 3, in thousandths and halves.
    assert compute_area_means(picture, 1, 2).tolist() == [[2 * 45_000, 2 * 225_000]]


def test_difference_average_and_wavelet_hashes_compare_neighbours_mean_and_median() -> None:
    ramp = np.repeat(np.arange(0, 72, dtype=np.uint8)[None, :, None], 72, axis=0)
    assert compute_dhash64(ramp).all()
    assert not compute_dhash64(ramp[:, ::-1]).any()
    assert compute_ahash64(ramp).reshape(8, 8)[0].tolist() == [False] * 4 + [True] * 4
    assert compute_whash64(ramp).reshape(8, 8)[0].tolist() == [False] * 4 + [True] * 4


def test_a_family_of_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="no family of pictures"):
        compute_image_digest(DigestFamily.TEXT_SIMHASH64, paint(64, 64, 1, 0))
