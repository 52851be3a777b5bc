"""What one input cost: its CPU time, and the most memory that was allocated at once on its way."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fuzz.target import Verdict, judge

if TYPE_CHECKING:
    from tests.fuzz.target import Target

MAX_MS = 5.0
MAX_TIMES = 4
"""What an input may cost: so long, and so many times its own size in memory besides the target's allowance."""


@dataclass(frozen=True)
class Cost:
    """Units: cpu_ms of this process, peak_bytes above what was allocated before."""

    verdict: Verdict
    cpu_ms: float
    peak_bytes: int = 0


def time_input(target: Target, content: bytes) -> Cost:
    """The verdict and its time. Raises: as `judge`."""
    started = time.process_time_ns()
    verdict = judge(target, content)
    return Cost(verdict, (time.process_time_ns() - started) / 1e6)


def weigh_input(target: Target, content: bytes) -> Cost:
    """The verdict and its memory; the time is that of a process that counts every allocation. Raises: as `judge`."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        cost = time_input(target, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return Cost(cost.verdict, cost.cpu_ms, peak - before)


def is_heavy(target: Target, content: bytes, peak_bytes: int) -> bool:
    """Whether an input took more memory than it may."""
    return peak_bytes > MAX_TIMES * len(content) + target.allowance
