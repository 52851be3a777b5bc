"""`python -P -m verifier.bench_compare --pairs N --rounds R`: one process that compares with bare numpy and bare faiss, turn about.

It prints one line of JSON. A process of its own, because the memory it reports is the process's.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from verifier.compare import MAX_THREADS, Comparer, NumpyComparer, Words
from verifier.compare_faiss import FaissComparer, choose_comparer

TOLERANCE: Final = 10  # bits of 64
BARE_STRIP: Final = 65_536


def count_bare_numpy(left: Words, right: Words, tolerance: int) -> int:
    """The shortest fast loop: XOR, count, compare, two threads, nothing checked."""
    columns = right[:, 0]

    def count(rows: Words) -> int:
        total, xor = 0, np.empty(BARE_STRIP, np.uint64)
        bits, near = np.empty(BARE_STRIP, np.uint8), np.empty(BARE_STRIP, np.bool_)
        for start in range(0, len(columns), BARE_STRIP):
            strip = columns[start : start + BARE_STRIP]
            x, b, n = xor[: len(strip)], bits[: len(strip)], near[: len(strip)]
            for row in rows[:, 0]:
                np.bitwise_xor(strip, row, out=x)
                np.bitwise_count(x, out=b)
                np.less_equal(b, tolerance, out=n)
                total += int(np.count_nonzero(n))
        return total

    with ThreadPoolExecutor(MAX_THREADS) as pool:
        return sum(pool.map(count, np.array_split(left, MAX_THREADS)))


def measure_compare(pairs: int, rounds: int) -> dict[str, float | int | str]:
    """Medians over the rounds, in each of which every way counts the same pairs once."""
    random = np.random.default_rng(1)
    rows = max(MAX_THREADS, round(pairs**0.5))
    left, right = (random.integers(0, 2**64, (rows, 1), dtype=np.uint64) for _ in range(2))
    ways: dict[str, Callable[[], int]] = {
        "numpy_bare": lambda: count_bare_numpy(left, right, TOLERANCE),
        "numpy": lambda: NumpyComparer().count_within(left, right, TOLERANCE),
    }
    chosen = choose_comparer()
    if isinstance(chosen, FaissComparer):
        ways["faiss_bare"] = lambda: chosen.count_bare(left, right, TOLERANCE)
        ways["faiss"] = _counting(chosen, left, right)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        counts = {name: _timed(way, seconds[name]) for name, way in ways.items()}
        if len(set(counts.values())) != 1:
            raise AssertionError(counts)
    return {
        "pairs": rows * rows,
        "comparer": chosen.name,
        "seconds": round(statistics.median(seconds[chosen.name]), 4),
        "over_numpy": _compute_ratio(seconds["numpy"], seconds["numpy_bare"]),
        **({"over_faiss": _compute_ratio(seconds["faiss"], seconds["faiss_bare"])} if "faiss" in ways else {}),
        "numpy_seconds": round(statistics.median(seconds["numpy"]), 4),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _counting(comparer: Comparer, left: Words, right: Words) -> Callable[[], int]:
    return lambda: comparer.count_within(left, right, TOLERANCE)


def _timed(way: Callable[[], int], seconds: list[float]) -> int:
    started = time.perf_counter()
    count = way()
    seconds.append(time.perf_counter() - started)
    return count


def _compute_ratio(ours: Sequence[float], bare: Sequence[float]) -> float:
    """The median of the rounds' ratios: what slows the machine for a moment slows both."""
    return round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 3)


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="verifier.bench_compare")
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    wish = parser.parse_args(arguments)
    print(json.dumps(measure_compare(wish.pairs, wish.rounds)))


if __name__ == "__main__":
    main(sys.argv[1:])
