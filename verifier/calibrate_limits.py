"""From what honest units measured to limits, and from limits to error rates with exact bounds.

Pairs of classes are pooled in two: those in which both compute in at least 24 bits, and those with bfloat16 on either side. Honest
machines that were never calibrated differ from these as these differ from each other, and a pool has more of such differences than a
single pair. A limit is the largest value among the jobs that set it, times a margin of safety, and not below a floor.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from verifier.audit import Measured, measure_choice, measure_sketch
from verifier.calibrate_plan import HONEST, LENGTHS, list_claim_lengths, list_lengths
from verifier.calibrate_run import Record, Seen, get_slack
from verifier.classes import ComputeClass
from verifier.margin import ONE_NAT
from verifier.prefill import Reading
from verifier.sampling import Integers
from verifier.sketch import DIMENSIONS, DISTANCE_UNITS, STEPS
from verifier.tolerances import Cell, FalseAlarm, Table, Tolerance

TABLE_LENGTHS: Final = (1, 2, 4, *LENGTHS)
MARGIN_SAFETY: Final = 1.5  # single margins have long tails
DISTANCE_SAFETY: Final = 1.25  # means over many codes have short ones
LEAST_MARGIN: Final = ONE_NAT // 1024
LEAST_MEAN: Final = 4
LEAST_DISTANCE: Final = DISTANCE_UNITS * STEPS // 2048  # two code steps: rounding at their edges, and instruction sets
LEAST_SCORE: Final = 4500
CONFIDENCE: Final = 0.95


def set_tolerances(
    records: Sequence[Record], executors: Sequence[ComputeClass], auditors: Sequence[ComputeClass]
) -> tuple[Tolerance, ...]:
    """The limits for every pair, from the units that set them."""
    setting = [record for record in records if record.unit.sets_limits]
    exact = {one.name: one.is_exact for one in (*executors, *auditors)}
    pools: dict[bool, Tolerance] = {}
    for is_exact in {exact[one.name] and exact[other.name] for one in executors for other in auditors}:
        pool = [
            seen
            for record in setting
            for name, seen in record.seen.items()
            if (exact[record.unit.executor] and exact[name]) == is_exact
        ]
        pools[is_exact] = _pool(pool, is_exact=is_exact)
    return tuple(
        _name_pair(pools[exact[one.name] and exact[other.name]], one.name, other.name)
        for one in executors
        for other in auditors
    )


def measure_cells(records: Sequence[Record], tolerances: Sequence[Tolerance]) -> list[Cell]:
    """How often each kind of claim was rejected, by pair of classes and length."""
    limits = {(one.executor, one.auditor): one for one in tolerances}
    counts: dict[tuple[str, str, str, int], list[int]] = {}
    for record in records:
        if record.unit.sets_limits:
            continue
        for auditor, seen in record.seen.items():
            tolerance = limits[record.unit.executor, auditor]
            own = record.seen.get(record.unit.executor)
            for length in _list_beginnings(record):
                tally = counts.setdefault((record.unit.kind, record.unit.executor, auditor, length), [0] * 6)
                for job in range(len(seen.margins)):
                    if not is_harmless(record, own, job, length):
                        _count(tally, seen, job, length, tolerance)
    return [_build_cell(*key, tally) for key, tally in counts.items()]


def measure_false_alarms(records: Sequence[Record], tolerances: Sequence[Tolerance]) -> FalseAlarm:
    """Honest jobs of the reporting half that any auditor rejected, out of all of them. The bound is one-sided, as of a rate to stay under."""
    limits = {(one.executor, one.auditor): one for one in tolerances}
    jobs = alarms = hard = 0
    for record in records:
        if record.unit.kind != HONEST or record.unit.sets_limits:
            continue
        for job in range(len(next(iter(record.seen.values())).margins)):
            results = [
                result
                for auditor, seen in record.seen.items()
                for result in measure_all(seen, job, record.tokens, limits[record.unit.executor, auditor])
            ]
            jobs += 1
            alarms += any(result.value > result.limit for result in results)
            hard += any(result.value > 2 * result.limit for result in results)
    return FalseAlarm(alarms / max(jobs, 1), compute_upper(alarms, jobs, CONFIDENCE), jobs, hard)


def measure_all(seen: Seen, job: int, length: int, tolerance: Tolerance) -> list[Measured]:
    """The tests of an audit on a claim's beginning, in the order margin, mean margin, sketch, window."""
    reading = Reading(seen.margins[job, :length], None, None)
    return [*measure_choice(reading, tolerance), *measure_sketch(seen.gaps[job, :length], tolerance)]


def compute_upper(hits: int, runs: int, confidence: float) -> float:
    """The largest rate that so few hits do not contradict: Clopper and Pearson's one-sided bound."""
    if hits >= runs:
        return 1.0
    at = np.arange(hits + 1)
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, runs + 1)))))
    ways = factorials[runs] - factorials[at] - factorials[runs - at]
    low, high = 0.0, 1.0
    for _ in range(50):
        rate = (low + high) / 2
        tail = float(np.exp(ways + at * math.log(rate) + (runs - at) * math.log1p(-rate)).sum())
        low, high = (rate, high) if tail > 1 - confidence else (low, rate)
    return high


def compute_lower(hits: int, runs: int, confidence: float) -> float:
    """The smallest rate that so many hits do not contradict."""
    return 1.0 - compute_upper(runs - hits, runs, confidence) if runs else 0.0


def _list_beginnings(record: Record) -> list[int]:
    whole = list_claim_lengths(record.unit.kind, record.tokens)
    return list_lengths(record.tokens) if len(whole) == 1 else [record.tokens]


def is_harmless(record: Record, own: Seen | None, job: int, length: int) -> bool:
    """Whether a cheat's beginning is, token by token and code by code, what an honest executor says: then there is nothing to catch."""
    if record.unit.kind == HONEST or own is None:
        return False
    return not own.margins[job, :length].any() and int(own.gaps[job, :length].max()) <= DIMENSIONS


def _count(tally: list[int], seen: Seen, job: int, length: int, tolerance: Tolerance) -> None:
    results = measure_all(seen, job, length, tolerance)
    by_margin = any(result.value > result.limit for result in results[:2])
    by_sketch = any(result.value > result.limit for result in results[2:])
    is_hard = any(result.value > 2 * result.limit for result in results)
    by_likelihood = bool(seen.scores.size) and _is_unlikely(seen, job, length, tolerance)
    for index, hit in enumerate((True, by_margin or by_sketch, is_hard, by_margin, by_sketch, by_likelihood)):
        tally[index] += hit


def _is_unlikely(seen: Seen, job: int, length: int, tolerance: Tolerance) -> bool:
    column = [*LENGTHS].index(length) if length in LENGTHS else -1
    return column < seen.scores.shape[1] and abs(int(seen.scores[job, column])) > tolerance.score


def _pool(pool: Sequence[Seen], *, is_exact: bool) -> Tolerance:
    largest = _raise(max(int(seen.margins.max()) for seen in pool), MARGIN_SAFETY, LEAST_MARGIN)
    clipped = [np.minimum(seen.margins, largest) for seen in pool]
    scores = [int(np.abs(seen.scores).max()) for seen in pool if seen.scores.size]
    return Tolerance(
        "",
        "",
        get_slack(not is_exact),
        largest,
        _tabulate(clipped, lambda total, tokens: -(-total // tokens), MARGIN_SAFETY, LEAST_MEAN),
        _tabulate(
            [seen.gaps for seen in pool],
            lambda total, tokens: -(-total * DISTANCE_UNITS // (DIMENSIONS * tokens)),
            DISTANCE_SAFETY,
            LEAST_DISTANCE,
        ),
        _raise(max(scores, default=0), DISTANCE_SAFETY, LEAST_SCORE),
    )


def _tabulate(values: Sequence[Integers], compute: Callable[[int, int], int], safety: float, least: int) -> Table:
    """For each length the limit of what is computed from the sum over any stretch of that many tokens; never rising with the length."""
    rows: list[tuple[int, int]] = []
    for tokens in TABLE_LENGTHS:
        sums = [_sum_stretches(one, tokens) for one in values if one.shape[1] >= tokens]
        if sums:
            limit = _raise(compute(max(int(one.max()) for one in sums), tokens), safety, least)
            rows.append((tokens, min([limit, *(before for _, before in rows)])))
    return tuple(rows)


def _sum_stretches(values: Integers, tokens: int) -> Integers:
    """Sums over all stretches of so many tokens. Shapes: [jobs, all]; [jobs, all - tokens + 1]"""
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    return sums[:, tokens:] - sums[:, :-tokens]


def _raise(value: int, safety: float, least: int) -> int:
    return max(least, math.ceil(value * safety))


def _name_pair(pool: Tolerance, executor: str, auditor: str) -> Tolerance:
    return Tolerance(executor, auditor, pool.slack, pool.margin_largest, pool.margin_means, pool.distances, pool.score)


def _build_cell(kind: str, executor: str, auditor: str, tokens: int, tally: Sequence[int]) -> Cell:
    runs, caught, hard, by_margin, by_sketch, by_likelihood = tally
    low, high = _bound(caught, runs)
    return Cell(kind, executor, auditor, tokens, runs, caught, hard, by_margin, by_sketch, by_likelihood, low, high)


def _bound(hits: int, runs: int) -> tuple[float, float]:
    """Two-sided bounds at 95 %, rounded outwards."""
    side = (1 + CONFIDENCE) / 2
    low, high = compute_lower(hits, runs, side), compute_upper(hits, runs, side) if runs else 1.0
    return math.floor(low * 1e6) / 1e6, math.ceil(high * 1e6) / 1e6
