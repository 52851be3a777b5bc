"""A validator dies right after each single thing that it writes or sends, one schedule for each, with every fate of what was not synced.

Epochs are two heights long, so that deaths come before, in and behind their ends.
"""

from __future__ import annotations

import pytest

from protocol.ordering.effects import Broadcast, Effect, Persist, Send
from tests.simulation.epoch_mutants import EPOCH_MUTANTS
from tests.simulation.invariants import Violation
from tests.simulation.mutants import MUTANTS
from tests.simulation.node import SimulatedNode
from tests.simulation.parcels import Crash
from tests.simulation.schedule import Network, Plan, make_network, run_calm, submit
from tests.simulation.world import Weather

STORM_MS = 1_500
JUDGED_ELSEWHERE = frozenset({"wal-before-send", "body-durable"})  # when it is the deaths that are to show it
DOWN_MS = 40


class Doomed(SimulatedNode):
    """Counts what it writes and sends, and dies after the one that is fatal."""

    fatal = 0  # never
    written = 0
    tail = "lost"
    stores = True  # otherwise nothing final is stored before its death: the log alone says what it signed, in every epoch so far
    network: Network | None = None  # where everybody else is to die at the same time

    def finish_turn(self) -> None:
        if self.stores or self.life > 1:
            super().finish_turn()

    def perform_one(self, effect: Effect) -> None:
        super().perform_one(effect)
        if isinstance(effect, (Persist, Broadcast, Send)):
            self.written += 1
            if self.written == self.fatal:
                self.crash = Crash(0, DOWN_MS)

    def stop(self, down_ms: int) -> None:
        kept = {"lost": self.synced, "kept": len(self.wal), "torn": max(self.synced, len(self.wal) - 1)}[self.tail]
        self.wal, self.synced = self.wal[:kept], kept
        super().stop(down_ms)
        for node in self.network.honest if self.network is not None else ():
            if node is not self:
                self.world.remind(node.address, 0, Crash(0, DOWN_MS))
        self.network = None


def make_doomed(adversary: str) -> Network:
    byzantine = frozenset({3}) if adversary != "none" else frozenset[int]()
    plan = Plan(4, (1, 1, 1, 1), byzantine, adversary, Weather(1, 250, 100_000), STORM_MS, 0, 0, 0, 2)
    network = make_network(plan, make_node=Doomed)
    for number in range(12):
        submit(network, 50 * number, b"%d" % number)
    return network


def count_boundaries(adversary: str, victim: int) -> int:
    """How often this validator writes or sends in the schedule without a crash."""
    network = make_doomed(adversary)
    network.watch.ignored = JUDGED_ELSEWHERE
    network.start()
    network.world.run(STORM_MS, lambda: False)
    node = network.honest[victim]
    assert isinstance(node, Doomed)
    return node.written


def die_at(
    boundary: int,
    tail: str,
    adversary: str,
    victim: int,
    *,
    everybody: bool = False,
    stores: bool = True,
    ignored: frozenset[str] = frozenset(),
) -> str:
    """The invariant that a death at this boundary breaks, or nothing."""
    network = make_doomed(adversary)
    network.watch.ignored = ignored
    node = network.honest[victim]
    assert isinstance(node, Doomed)
    node.fatal, node.tail, node.network = boundary, tail, network if everybody else None
    for other in network.honest:
        assert isinstance(other, Doomed)
        other.stores = stores
    try:
        network.start()
        network.world.run(STORM_MS, lambda: False)
        assert node.life == 2 or node.crash is not None or not node.is_up, boundary
        run_calm(network)
    except Violation as violation:
        return f"{boundary}: {violation}"
    return ""


@pytest.mark.parametrize(
    "adversary, tail, everybody",
    [
        ("evil", "lost", False),
        ("evil", "kept", False),
        ("evil", "torn", False),
        ("evil", "lost", True),
        ("none", "lost", True),
    ],
)
def test_death_at_every_write_and_send_breaks_nothing(adversary: str, tail: str, everybody: bool) -> None:
    boundaries = count_boundaries(adversary, 0)
    assert boundaries >= 30
    broken = [die_at(place, tail, adversary, 0, everybody=everybody) for place in range(1, boundaries + 1)]
    assert [text for text in broken if text] == []


@pytest.mark.parametrize("everybody", [False, True])
def test_the_log_alone_carries_validators_over_the_ends_of_epochs(everybody: bool) -> None:
    places = range(1, count_boundaries("evil", 0) + 1)
    broken = [die_at(place, "kept", "evil", 0, everybody=everybody, stores=False) for place in places]
    assert [text for text in broken if text] == []


def test_some_death_shows_what_a_log_forgets_of_a_later_epoch() -> None:
    with EPOCH_MUTANTS["later-records-dropped"]():
        boundaries = range(1, count_boundaries("evil", 0) + 1)
        found = (die_at(place, "kept", "evil", 0, everybody=True, stores=False) for place in boundaries)
        assert "framed" in next((text for text in found if text), "")


@pytest.mark.parametrize("mutant", ["log-after-send", "null-not-recovered", "proposal-not-logged", "no-wal"])
def test_some_death_shows_what_a_log_forgets(mutant: str) -> None:
    """Not by the check that the log comes before the message: by what is signed twice, or never again, after the restart."""
    with MUTANTS[mutant]():
        found = (
            die_at(place, "lost", "evil", 0, everybody=everybody, ignored=JUDGED_ELSEWHERE)
            for place in range(1, count_boundaries("evil", 0) + 1)
            for everybody in (True, False)
        )
        assert next((text for text in found if text), "")
