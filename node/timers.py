"""The node's clock and its timers: time comes in here, and reaches the engine only inside events.

The clock is the wall clock read once and carried on by the monotonic one, so that a step of the system's time moves no timer.
"""

import heapq
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import trio

K = TypeVar("K", bound=Hashable)

MOST_STALE = 1_024  # replaced settings that may wait for their time: some are set anew with every message


class Clock(Protocol):
    """What a node needs of a clock."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch that never run backwards."""
        ...

    def now_us(self) -> int:
        """A monotonic time in microseconds, to measure durations with."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The computer's clock. Units: milliseconds"""

    offset_ms: int

    def now_ms(self) -> int:
        """The time now."""
        return time.monotonic_ns() // 1_000_000 + self.offset_ms

    @staticmethod
    def now_us() -> int:
        """A monotonic time in microseconds, to measure durations with."""
        return time.monotonic_ns() // 1_000


def read_clock(skew_ms: int = 0) -> SystemClock:
    """A clock set by the system's time now, wrong by as much as a test wants."""
    return SystemClock(time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000 + skew_ms)


class MillisecondClock(Protocol):
    """What timers need of a clock."""

    def now_ms(self) -> int:
        """The time now."""
        ...


class Timers(Generic[K]):
    """Timers by key; setting a key again replaces its time. `wait_due` is for one task."""

    def __init__(self, clock: MillisecondClock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, K]] = []
        self._at: dict[K, int] = {}
        self._count = 0
        self._changed = trio.Event()

    def set(self, key: K, at_ms: int) -> None:
        """Let this timer fire at that time (at once where it is past)."""
        if self._at.get(key) == at_ms:
            return
        self._count += 1
        self._at[key] = at_ms
        heapq.heappush(self._heap, (at_ms, self._count, key))
        if len(self._heap) > MOST_STALE + len(self._at):
            self._heap = [entry for entry in self._heap if not self._is_stale(entry)]
            heapq.heapify(self._heap)
        self._changed.set()

    def cancel(self, key: K) -> None:
        """Forget this timer, if it is set."""
        self._at.pop(key, None)

    async def wait_due(self) -> K:
        """The key of the next timer whose time has come; it is forgotten."""
        while True:
            self._changed = trio.Event()
            key = self._pop_due()
            if key is not None:
                return key
            if not self._heap:
                await self._changed.wait()
                continue
            # The clock goes on between looking for what is due and this: the next one may have become so.
            with trio.move_on_after(max(0, self._heap[0][0] - self._clock.now_ms()) / 1000):
                await self._changed.wait()

    def _pop_due(self) -> K | None:
        while self._heap and (self._is_stale(self._heap[0]) or self._heap[0][0] <= self._clock.now_ms()):
            entry = heapq.heappop(self._heap)
            if not self._is_stale(entry):
                del self._at[entry[2]]
                return entry[2]
        return None

    def _is_stale(self, entry: tuple[int, int, K]) -> bool:
        return self._at.get(entry[2]) != entry[0]
