"""The same comparisons with faiss, the optional extra `calibrate`: four times as fast on pairs, and twice on counting.

faiss is untyped; everything of it that is called is named in `_Faiss`.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from verifier.compare import MAX_THREADS, STRETCH, Comparer, Counts, Nearest, NumpyComparer, Pairs, Words, check_shapes

COUNTED_WIDTHS: Final = (8, 16, 32, 64)  # bytes a digest; faiss counts no others


class _RangeIndex(Protocol):
    def add(self, rows: npt.NDArray[np.uint8]) -> None: ...

    def search(self, rows: npt.NDArray[np.uint8], k: int) -> tuple[npt.NDArray[np.int32], Counts]: ...

    def range_search(
        self, rows: npt.NDArray[np.uint8], radius: int
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32], Counts]: ...


class _Faiss(Protocol):
    def IndexBinaryFlat(self, bits: int) -> _RangeIndex: ...

    def swig_ptr(self, array: npt.NDArray[np.uint8] | npt.NDArray[np.uint64]) -> object: ...

    def hamming_count_thres(
        self, left: object, right: object, left_rows: int, right_rows: int, tolerance: int, width: int, count: object
    ) -> None: ...

    def omp_get_max_threads(self) -> int: ...

    def omp_set_num_threads(self, threads: int) -> None: ...


def choose_comparer() -> Comparer:
    """faiss where it is installed, numpy otherwise."""
    try:
        return FaissComparer()
    except ModuleNotFoundError:
        return NumpyComparer()


class FaissComparer:
    """Raises: ModuleNotFoundError where the extra is not installed."""

    name = "faiss"

    def __init__(self, threads: int = MAX_THREADS) -> None:
        self._faiss: Final = cast("_Faiss", importlib.import_module("faiss"))
        self._threads: Final = threads
        self._numpy: Final = NumpyComparer(threads)

    def count_within(self, left: Words, right: Words, tolerance: int) -> int:
        """See Comparer."""
        check_shapes(left, right)
        width = left.shape[1] * 8
        if width not in COUNTED_WIDTHS or not len(left) or not len(right):
            return self._numpy.count_within(left, right, tolerance)
        return self.count_bare(left, right, tolerance)

    def count_bare(self, left: Words, right: Words, tolerance: int) -> int:
        """faiss's own call and nothing else: the yardstick of `bench compare`. Neither table may be empty."""
        count = np.zeros(1, np.uint64)
        ptr, a, b = self._faiss.swig_ptr, _as_bytes(left), _as_bytes(right)
        with self._using_threads():
            self._faiss.hamming_count_thres(ptr(a), ptr(b), len(a), len(b), tolerance, a.shape[1], ptr(count))
        return int(count[0])

    def find_within(self, left: Words, right: Words, tolerance: int) -> Iterator[Pairs]:
        """See Comparer."""
        check_shapes(left, right)
        if not len(right):
            return
        index = self._make_index(right)
        for start in range(0, len(left), STRETCH):
            rows = left[start : start + STRETCH]
            with self._using_threads():
                limits, distances, columns = index.range_search(_as_bytes(rows), tolerance + 1)  # faiss: strictly below
            lefts = np.repeat(np.arange(start, start + len(rows)), np.diff(limits.astype(np.int64)))
            order = np.lexsort((columns, lefts))  # faiss promises no order within a row
            yield Pairs(lefts, columns[order], distances[order].astype(np.int64))

    def count_distances(self, left: Words, right: Words) -> Counts:
        """See Comparer. faiss has nothing faster: it would store every distance."""
        return self._numpy.count_distances(left, right)

    def find_nearest(self, queries: Words, base: Words) -> Nearest:
        """See Comparer. faiss keeps the first of those equally near: a later one would have to be nearer."""
        check_shapes(queries, base)
        if not len(base):
            raise ValueError("nearest digest: there is none to compare with")
        if not len(queries):
            return self._numpy.find_nearest(queries, base)
        with self._using_threads():
            distances, indexes = self._make_index(base).search(_as_bytes(queries), 1)
        return Nearest(indexes[:, 0], distances[:, 0].astype(np.int64))

    @contextmanager
    def _using_threads(self) -> Iterator[None]:
        """OpenMP's threads belong to the process: torch, which shares them, has its own number back afterwards."""
        before = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(self._threads)
        try:
            yield
        finally:
            self._faiss.omp_set_num_threads(before)

    def _make_index(self, rows: Words) -> _RangeIndex:
        index = self._faiss.IndexBinaryFlat(rows.shape[1] * 64)
        index.add(_as_bytes(rows))
        return index


def _as_bytes(rows: Words) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(rows).view(np.uint8)
