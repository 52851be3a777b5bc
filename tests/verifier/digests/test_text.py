"""Digests of texts: pinned bits, small distances for near copies, about half the bits for strangers."""

from __future__ import annotations

import hashlib
import random

import pytest

from protocol.digest import DIGEST_BYTES, DigestFamily, compute_distance
from verifier.digests.text import compute_minhash256, compute_simhash64, compute_text_digest, list_shingles

TEXT_FAMILIES = (DigestFamily.TEXT_MINHASH256, DigestFamily.TEXT_SIMHASH64)


def draw_tokens(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(50_000), k=count)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 100])
def test_a_digest_has_its_familys_size_and_depends_on_the_tokens_alone(family: DigestFamily, count: int) -> None:
    digest = compute_text_digest(family, draw_tokens(1, count))
    assert len(digest.bits) == DIGEST_BYTES[family]
    assert digest == compute_text_digest(family, tuple(draw_tokens(1, count)))


def test_bits_are_pinned() -> None:
    tokens = draw_tokens(7, 40)
    assert hashlib.sha256(compute_minhash256(tokens).bits).hexdigest()[:16] == "474fcdbbd22ef4b6"
    assert compute_simhash64(tokens).bits.hex() == "025710481b7e1067"


@pytest.mark.parametrize("count", [1, 2, 3, 10, 200])
def test_strangers_differ_in_about_half_the_bits(count: int) -> None:
    distances = [
        compute_distance(compute_minhash256(draw_tokens(n, count)), compute_minhash256(draw_tokens(n + 100, count)))
        for n in range(20)
    ]
    # 128 expected, 8 the standard deviation of one, 1.8 that of their mean.
    assert min(distances) > 90 and max(distances) < 166
    assert 120 < sum(distances) / 20 < 136


def test_minhash_bits_of_one_shingle_are_not_one_bit_repeated() -> None:
    ones = [int.from_bytes(compute_minhash256([token]).bits, "big") for token in range(200)]
    assert len(set(ones)) == 200


def test_distance_follows_the_share_of_common_shingles() -> None:
    whole = draw_tokens(3, 402)
    half = [*whole[:202], *draw_tokens(4, 200)]
    # Jaccard similarity 200 / 600, so 128 x 2/3 is expected.
    assert 60 < compute_distance(compute_minhash256(whole), compute_minhash256(half)) < 110


def test_one_changed_token_in_a_long_text_moves_few_bits() -> None:
    tokens = draw_tokens(5, 300)
    changed = [*tokens[:150], 1, *tokens[151:]]
    assert compute_distance(compute_minhash256(tokens), compute_minhash256(changed)) < 20
    assert compute_distance(compute_simhash64(tokens), compute_simhash64(changed)) < 12


def test_a_repeated_shingle_leaves_minhash_unchanged_but_not_simhash() -> None:
    assert compute_minhash256([5] * 3) == compute_minhash256([5] * 30)
    once, often = [1, 2, 3, 1, 2, 3], [1, 2, 3] * 20
    assert compute_minhash256([*once, 1, 2]) == compute_minhash256([*often, 1, 2])


def test_shingles_are_three_tokens_or_the_whole_shorter_text() -> None:
    assert [len(shingle) for shingle in list_shingles([1, 2, 3, 4])] == [12, 12]
    assert [len(shingle) for shingle in list_shingles([1, 2])] == [8]
    assert list_shingles([258])[0] == b"\x02\x01\x00\x00"


def test_the_synthetic_family_is_made_by_no_text() -> None:
    with pytest.raises(ValueError, match="made by no output"):
        compute_text_digest(DigestFamily.SYNTHETIC64, [1])
