"""Digests in bulk: how many pairs lie within a tolerance, which they are, how distances spread, and which digest is nearest.

A calibration compares a billion pairs. Here it is numpy: XOR, count bits, compare, each over a strip that stays in the cache, the
rows dealt out to threads (numpy lets go of the interpreter while it works). verifier/compare_faiss.py does the same with faiss.
Shapes: digests are rows of 64-bit words, (n, words); their bits' order does not matter to a Hamming distance.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from protocol.digest import DIGEST_BYTES, Digest

Words = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]

WORD_BITS: Final = 64
STRIP: Final = 32_768  # columns at a time: 256 KiB of words, which a core's second-level cache holds
STRETCH: Final = 1_024  # rows at a time where pairs are listed
MAX_THREADS: Final = 2

_EMPTY: Final = np.empty(0, np.int64)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which pairs lie within a tolerance. Shapes: (k,) each, ordered by left, then right."""

    left: Counts
    right: Counts
    distances: Counts


@dataclass(frozen=True, slots=True)
class Nearest:
    """For each query the nearest digest, the first of those equally near. Shapes: (queries,) each."""

    indexes: Counts
    distances: Counts


class Comparer(Protocol):
    """One way of comparing; all ways give the same results, bit for bit."""

    @property
    def name(self) -> str:
        """What a report calls it."""
        ...

    def count_within(self, left: Words, right: Words, tolerance: int) -> int:
        """How many of the len(left) * len(right) pairs have a distance of at most `tolerance` bits."""
        ...

    def find_within(self, left: Words, right: Words, tolerance: int) -> Iterator[Pairs]:
        """Those pairs, a stretch of left rows at a time: memory stays bounded by the pairs of one stretch."""
        ...

    def count_distances(self, left: Words, right: Words) -> Counts:
        """How many pairs have each distance. Shapes: (bits + 1,)."""
        ...

    def find_nearest(self, queries: Words, base: Words) -> Nearest:
        """The nearest of `base`, which is not empty, for each query."""
        ...


def pack_digests(digests: Sequence[Digest]) -> Words:
    """The digests, all of one family, as rows of words. Raises: ValueError."""
    families = {digest.family for digest in digests}
    if len(families) != 1:
        raise ValueError(f"digests to compare: expected one family, got {sorted(family.name for family in families)}")
    return pack_bits([digest.bits for digest in digests], DIGEST_BYTES[next(iter(families))])


def pack_bits(rows: Sequence[bytes], size: int) -> Words:
    """Rows of `size` bytes as rows of words. Raises: ValueError."""
    if size % 8 or any(len(row) != size for row in rows):
        raise ValueError(f"digests to compare: expected {size} bytes each, a multiple of 8")
    return np.frombuffer(b"".join(rows), np.uint64).reshape(len(rows), size // 8)


class NumpyComparer:
    """The base: no accelerator needed."""

    name = "numpy"

    def __init__(self, threads: int = MAX_THREADS) -> None:
        self._threads: Final = threads

    def count_within(self, left: Words, right: Words, tolerance: int) -> int:
        """See Comparer."""
        check_shapes(left, right)
        return sum(self._share_out(lambda rows: _count_rows(rows, right, tolerance), left))

    def find_within(self, left: Words, right: Words, tolerance: int) -> Iterator[Pairs]:
        """See Comparer."""
        check_shapes(left, right)
        for start in range(0, len(left), STRETCH):
            rows = left[start : start + STRETCH]
            yield join_pairs(start, self._share_out(lambda part: _find_pairs(part, right, tolerance), rows))

    def count_distances(self, left: Words, right: Words) -> Counts:
        """See Comparer."""
        check_shapes(left, right)
        bits = left.shape[1] * WORD_BITS
        parts = self._share_out(lambda rows: _count_row_distances(rows, right, bits), left)
        total = np.zeros(bits + 1, np.int64)
        for part in parts:
            total += part
        return total

    def find_nearest(self, queries: Words, base: Words) -> Nearest:
        """See Comparer."""
        check_shapes(queries, base)
        if not len(base):
            raise ValueError("nearest digest: there is none to compare with")
        parts = self._share_out(lambda rows: _find_row_nearest(rows, base), queries)
        found = np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
        return Nearest(found[:, 0], found[:, 1])

    def _share_out(self, work: Callable[[Words], T], rows: Words) -> list[T]:
        """The work's results for contiguous parts of the rows, in their order, one thread a part."""
        parts = [part for part in np.array_split(rows, self._threads) if len(part)]
        if len(parts) <= 1:
            return [work(part) for part in parts]
        with ThreadPoolExecutor(len(parts)) as pool:
            return list(pool.map(work, parts))


def join_pairs(start: int, parts: Sequence[tuple[int, Pairs]]) -> Pairs:
    """The pairs of consecutive parts of the left rows, which begin at row `start`. Each part: how many rows it has, its pairs."""
    offsets = np.cumsum([start, *(rows for rows, _ in parts)])
    return Pairs(
        np.concatenate([_EMPTY, *(pairs.left + offset for offset, (_, pairs) in zip(offsets, parts, strict=False))]),
        np.concatenate([_EMPTY, *(pairs.right for _, pairs in parts)]),
        np.concatenate([_EMPTY, *(pairs.distances for _, pairs in parts)]),
    )


class _Strip:
    """Distances of one row to a strip of columns, in buffers that are used again: a fresh array a row would cost half the time."""

    def __init__(self, columns: int, words: int) -> None:
        self._xor: Final = np.empty(columns, np.uint64)
        self._bits: Final = np.empty(columns, np.uint8)
        self._sum: Final = np.empty(columns if words > 1 else 0, np.uint16)  # 256 bits do not fit a byte
        self._near: Final = np.empty(columns, np.bool_)

    def compute(self, row: Words, columns: Words) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Shapes: row (words,), columns (words, n): the result (n,), valid until the next call."""
        n = columns.shape[1]
        xor, bits = self._xor[:n], self._bits[:n]
        np.bitwise_xor(columns[0], row[0], out=xor)
        np.bitwise_count(xor, out=bits)
        if len(row) == 1:
            return bits
        total = self._sum[:n]
        total[:] = bits
        for word in range(1, len(row)):
            np.bitwise_xor(columns[word], row[word], out=xor)
            np.bitwise_count(xor, out=bits)
            np.add(total, bits, out=total)
        return total

    def mark_within(self, row: Words, columns: Words, tolerance: int) -> npt.NDArray[np.bool_]:
        """Which columns are near. Shapes: as `compute`."""
        near = self._near[: columns.shape[1]]
        np.less_equal(self.compute(row, columns), tolerance, out=near)
        return near


def _cut_strips(right: Words) -> list[tuple[int, Words]]:
    """Where each strip begins, and its columns. Shapes: (words, at most STRIP)."""
    columns = np.ascontiguousarray(right.T)
    return [(start, columns[:, start : start + STRIP]) for start in range(0, len(right), STRIP)]


def _count_rows(rows: Words, right: Words, tolerance: int) -> int:
    strip, total = _Strip(STRIP, right.shape[1]), 0
    for _, columns in _cut_strips(right):
        for row in rows:
            total += int(np.count_nonzero(strip.mark_within(row, columns, tolerance)))
    return total


def _count_row_distances(rows: Words, right: Words, bits: int) -> Counts:
    strip, counts = _Strip(STRIP, right.shape[1]), np.zeros(bits + 1, np.int64)
    for _, columns in _cut_strips(right):
        for row in rows:
            counts += np.bincount(strip.compute(row, columns), minlength=bits + 1)
    return counts


def _find_pairs(rows: Words, right: Words, tolerance: int) -> tuple[int, Pairs]:
    strip, strips = _Strip(STRIP, right.shape[1]), _cut_strips(right)
    lefts, rights, distances = [_EMPTY], [_EMPTY], [_EMPTY]
    for index, row in enumerate(rows):
        for start, columns in strips:
            near = np.flatnonzero(strip.mark_within(row, columns, tolerance))
            if len(near):
                lefts.append(np.full(len(near), index, np.int64))
                rights.append(near + start)
                distances.append(np.bitwise_count(columns[:, near] ^ row[:, np.newaxis]).sum(axis=0, dtype=np.int64))
    return len(rows), Pairs(np.concatenate(lefts), np.concatenate(rights), np.concatenate(distances))


def _find_row_nearest(rows: Words, base: Words) -> Counts:
    strip, strips = _Strip(STRIP, base.shape[1]), _cut_strips(base)
    found = np.empty((len(rows), 2), np.int64)
    for index, row in enumerate(rows):
        nearest = (base.shape[1] * WORD_BITS + 1, 0)
        for start, columns in strips:
            distances = strip.compute(row, columns)
            place = int(np.argmin(distances))
            nearest = min(nearest, (int(distances[place]), start + place))
        found[index] = nearest[1], nearest[0]
    return found


def check_shapes(left: Words, right: Words) -> None:
    """Raises: ValueError where the tables cannot be compared."""
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise ValueError(f"digests to compare: expected two tables of equal width, got {left.shape} and {right.shape}")
