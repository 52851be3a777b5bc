"""Bulk comparison: numpy and faiss agree with the plain definition, bit for bit."""

from collections import Counter

import numpy as np
import pytest
import torch

from protocol.digest import Digest, DigestFamily, compute_distance
from verifier.compare import STRETCH, STRIP, Comparer, NumpyComparer, Words, pack_bits, pack_digests
from verifier.compare_faiss import FaissComparer, choose_comparer

COMPARERS = [NumpyComparer(1), NumpyComparer(2), NumpyComparer(7), FaissComparer(1), FaissComparer(2)]
SIZES = {1: DigestFamily.TEXT_SIMHASH64, 4: DigestFamily.TEXT_MINHASH256}


def make_rows(seed: int, rows: int, words: int) -> Words:
    """Few distinct rows, so that ties and distance 0 are common."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 2**64, (max(1, rows // 3), words), dtype=np.uint64)
    return kinds[random.integers(0, len(kinds), rows)]


def measure(left: Words, right: Words) -> list[list[int]]:
    """All distances by the protocol's own definition."""
    family = SIZES[left.shape[1]]
    digests = [[Digest(family, row.tobytes()) for row in rows] for rows in (left, right)]
    return [[compute_distance(a, b) for b in digests[1]] for a in digests[0]]


@pytest.mark.parametrize("comparer", COMPARERS)
@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize("shape", [(1, 1), (23, 41), (41, 5)])
def test_every_result_is_the_definitions(comparer: Comparer, words: int, shape: tuple[int, int]) -> None:
    left, right = make_rows(1, shape[0], words), make_rows(2, shape[1], words)
    right[:: max(1, shape[1] // 3)] = left[0]
    distances = measure(left, right)
    for tolerance in (0, words * 30, words * 64):
        expected = [(i, j, d) for i, row in enumerate(distances) for j, d in enumerate(row) if d <= tolerance]
        assert comparer.count_within(left, right, tolerance) == len(expected)
        found = [
            triple
            for pairs in comparer.find_within(left, right, tolerance)
            for triple in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.distances.tolist(), strict=True)
        ]
        assert found == expected
    counts = Counter(d for row in distances for d in row)
    assert comparer.count_distances(left, right).tolist() == [counts[d] for d in range(words * 64 + 1)]
    nearest = comparer.find_nearest(left, right)
    assert nearest.distances.tolist() == [min(row) for row in distances]
    assert nearest.indexes.tolist() == [row.index(min(row)) for row in distances]


@pytest.mark.parametrize("comparer", COMPARERS)
def test_opposite_digests_of_256_bits_are_256_apart(comparer: Comparer) -> None:
    left, right = np.zeros((1, 4), np.uint64), np.full((1, 4), 2**64 - 1, np.uint64)
    assert comparer.count_distances(left, right)[256] == 1
    assert comparer.count_within(left, right, 255) == 0
    assert comparer.find_nearest(left, right).distances.tolist() == [256]


def test_both_ways_agree_beyond_one_strip_and_one_stretch() -> None:
    left, right = make_rows(3, STRETCH + 3, 1), make_rows(4, STRIP + 5, 1)
    base, fast = NumpyComparer(), FaissComparer()
    assert base.count_within(left, right, 14) == fast.count_within(left, right, 14) > 0
    for ours, theirs in zip(base.find_within(left, right, 14), fast.find_within(left, right, 14), strict=True):
        assert np.array_equal(ours.left, theirs.left)
        assert np.array_equal(ours.right, theirs.right)
        assert np.array_equal(ours.distances, theirs.distances)
    ours, theirs = base.find_nearest(left[:50], right), fast.find_nearest(left[:50], right)
    assert np.array_equal(ours.indexes, theirs.indexes)
    assert np.array_equal(ours.distances, theirs.distances)


@pytest.mark.parametrize("comparer", COMPARERS)
def test_nothing_compared_with_something_gives_nothing(comparer: Comparer) -> None:
    nothing, something = np.empty((0, 1), np.uint64), make_rows(5, 3, 1)
    for left, right in ((nothing, something), (something, nothing), (nothing, nothing)):
        assert comparer.count_within(left, right, 64) == 0
        assert sum(len(pairs.left) for pairs in comparer.find_within(left, right, 64)) == 0
        assert comparer.count_distances(left, right).sum() == 0
    assert len(comparer.find_nearest(nothing, something).indexes) == 0
    with pytest.raises(ValueError, match="none to compare with"):
        comparer.find_nearest(something, nothing)


@pytest.mark.parametrize("comparer", COMPARERS)
def test_tables_of_different_widths_are_refused(comparer: Comparer) -> None:
    with pytest.raises(ValueError, match="equal width"):
        comparer.count_within(make_rows(1, 2, 1), make_rows(1, 2, 4), 3)


def test_digests_are_packed_by_rows() -> None:
    digests = [Digest(DigestFamily.TEXT_SIMHASH64, bytes([n] * 8)) for n in range(3)]
    assert pack_digests(digests).tobytes() == b"".join(digest.bits for digest in digests)
    assert pack_digests(digests).shape == (3, 1)


def test_digests_of_two_families_or_of_a_wrong_length_are_refused() -> None:
    mixed = [Digest(DigestFamily.TEXT_SIMHASH64, bytes(8)), Digest(DigestFamily.TEXT_MINHASH256, bytes(32))]
    with pytest.raises(ValueError, match="one family"):
        pack_digests(mixed)
    with pytest.raises(ValueError, match="8 bytes each"):
        pack_bits([bytes(8), bytes(9)], 8)


def test_the_accelerator_is_taken_where_it_is_installed() -> None:
    assert choose_comparer().name == "faiss"


def test_comparing_leaves_the_process_its_number_of_threads() -> None:
    torch.set_num_threads(1)
    rows = make_rows(6, 5, 1)
    for comparer in COMPARERS:
        comparer.count_within(rows, rows, 10)
        list(comparer.find_within(rows, rows, 10))
        comparer.find_nearest(rows, rows)
        assert torch.get_num_threads() == 1
