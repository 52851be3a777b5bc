"""A network in a heap of timed events: links that delay, lose and cut, clocks that differ; one seed makes everything that happens."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Weather:
    """How links behave. Units: milliseconds, ppm."""

    min_delay_ms: int
    max_delay_ms: int
    loss_ppm: int


STORM = Weather(1, 250, 150_000)
RAIN = Weather(1, 30, 10_000)
CALM = Weather(1, 20, 0)


class Actor(Protocol):
    """Something at an address: a validator's process, or an adversary in its place."""

    def take(self, now_ms: int, parcel: object) -> None:
        """Something arrived: a message, an answer, or a reminder that this actor set for itself."""
        ...


@dataclass(slots=True)
class World:
    """The heap, the links and the log. Addresses are small integers; one validator may have two (twins)."""

    random: Random
    weather: Weather
    now_ms: int = 0
    groups: dict[int, int] = field(
        default_factory=dict
    )  # address -> side of a partition; none: everybody reaches everybody
    actors: dict[int, Actor] = field(default_factory=dict)
    heap: list[tuple[int, int, int, object]] = field(default_factory=list)
    count: int = 0
    steps: int = 0
    log: hashlib._Hash = field(default_factory=hashlib.sha256)

    def send(self, source: int, target: int, parcel: object) -> None:
        """One message over a link: late, or never."""
        if self.groups and self.groups.get(source) != self.groups.get(target):
            return
        weather = self.weather
        if weather.loss_ppm and self.random.randrange(1_000_000) < weather.loss_ppm:
            return
        delay = self.random.randint(weather.min_delay_ms, weather.max_delay_ms)
        self.remind(target, delay, parcel)

    def remind(self, target: int, delay_ms: int, parcel: object) -> None:
        """Something that happens at an address after a while, whatever the links do."""
        self.count += 1
        heapq.heappush(self.heap, (self.now_ms + delay_ms, self.count, target, parcel))

    def run(self, until_ms: int, is_done: Callable[[], bool]) -> None:
        """Lets things happen until a time, or until there is nothing left to wait for."""
        while self.heap and self.heap[0][0] <= until_ms and not is_done():
            self.now_ms, _, target, parcel = heapq.heappop(self.heap)
            self.steps += 1
            self.log.update(b"%d %d %s " % (self.now_ms, target, type(parcel).__name__.encode()))
            self.actors[target].take(self.now_ms, parcel)
        self.now_ms = max(self.now_ms, until_ms) if not is_done() else self.now_ms
