"""What happens to which validators and when: drawn from a seed before anything starts, so that a run can be told and repeated."""

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final

LEAST_NODES: Final = 4  # the fewest of which one may fail

PAUSE_S: Final = 10.0
CUT_S: Final = 10.0
DOWN_S: Final = 10.0
SKEWED_S: Final = 12.0
MOST_DEAD_S: Final = 5.0  # of one that was killed alone: it may come back at once, or late
LEAST_SKEW_MS: Final = 2_000  # well above what a header's time may be ahead of a clock
MOST_SKEW_MS: Final = 10_000

AIM_S: Final = 10.0  # to recover in
CALM_S: Final = 5.0  # between two perturbations the network is left alone
LATE_S: Final = (
    2.0  # by so much a perturbation may come later than the one before allows, so that none is in step with the epochs
)


class Kind(Enum):
    """What is tested."""

    KILL = "kill"
    PAUSE = "pause"
    DISCONNECT = "disconnect"
    RESTART = "restart"
    SKEW = "clock skew"
    F_DOWN = "f down"
    F1_DOWN = "f+1 down"


class Way(Enum):
    """What is done to a node."""

    KILL = "SIGKILL"
    PAUSE = "SIGSTOP"
    CUT = "link down"
    END = "SIGTERM"
    SKEW = "wrong clock"


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One thing that happens. Units: at_s from the start of the load, hold_s until it is undone; skew_ms of the clock."""

    number: int  # from 1
    kind: Kind
    way: Way
    nodes: tuple[int, ...]
    at_s: float
    hold_s: float
    skew_ms: int = 0

    @property
    def has_quorum(self) -> bool:
        """Whether the others are enough to go on."""
        return self.kind is not Kind.F1_DOWN

    def describe(self) -> str:
        """In a few words."""
        if self.kind is Kind.RESTART:
            return f"{self.kind.value} of {name_nodes(self.nodes)}"
        detail = f", {self.skew_ms / 1000:+.1f} s" if self.skew_ms else ""
        return f"{self.kind.value}: {self.way.value} of {name_nodes(self.nodes)} for {self.hold_s:.1f} s{detail}"


def count_faulty(nodes: int) -> int:
    """f: how many equal validators may fail while the others have more than two thirds."""
    return (nodes - 1) // 3


def name_nodes(nodes: tuple[int, ...]) -> str:
    """The nodes in words."""
    return ("node " if len(nodes) == 1 else "nodes ") + ", ".join(map(str, nodes))


def build_schedule(nodes: int, seconds: float, seed: int) -> tuple[Perturbation, ...]:
    """All kinds in an order of chance, then again in another, as long as there is time for one more with its recovery."""
    assert nodes >= LEAST_NODES, nodes
    chance = random.Random(seed)
    schedule: list[Perturbation] = []
    at_s = CALM_S
    while True:
        for kind in chance.sample(tuple(Kind), len(Kind)):
            at_s = round(at_s + chance.uniform(0, LATE_S), 1)
            drawn = _draw(chance, len(schedule) + 1, kind, nodes, at_s)
            at_s += drawn.hold_s + AIM_S + CALM_S
            if at_s > seconds:
                return tuple(schedule)
            schedule.append(drawn)


def _draw(chance: random.Random, number: int, kind: Kind, nodes: int, at_s: float) -> Perturbation:
    match kind:
        case Kind.KILL:
            way, hold_s = Way.KILL, round(chance.uniform(0, MOST_DEAD_S), 1)
        case Kind.PAUSE:
            way, hold_s = Way.PAUSE, PAUSE_S
        case Kind.DISCONNECT:
            way, hold_s = Way.CUT, CUT_S
        case Kind.RESTART:
            way, hold_s = Way.END, 0.0
        case Kind.SKEW:
            way, hold_s = Way.SKEW, SKEWED_S
        case Kind.F_DOWN | Kind.F1_DOWN:
            way, hold_s = chance.choice((Way.KILL, Way.PAUSE, Way.CUT)), DOWN_S
    count = {Kind.F_DOWN: count_faulty(nodes), Kind.F1_DOWN: count_faulty(nodes) + 1}.get(kind, 1)
    struck = tuple(sorted(chance.sample(range(nodes), count)))
    skew_ms = chance.choice((-1, 1)) * chance.randrange(LEAST_SKEW_MS, MOST_SKEW_MS, 100) if kind is Kind.SKEW else 0
    return Perturbation(number, kind, way, struck, at_s, hold_s, skew_ms)
