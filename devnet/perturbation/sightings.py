"""What the nodes say of themselves during a run, look by look; and how long one took to recover, read from it."""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from node.commands.bench_job import list_new
from node.rpc_types import NodeStatus

_GRAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Look:
    """One node at one time. Units: monotonic seconds."""

    node: int
    began_s: float
    ended_s: float
    height: int
    block_hash: str
    halted: str = ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took. Units: seconds from the moment when the perturbation was undone; None: not within the time there was."""

    answers_s: float | None  # until every struck node answered its RPC: mostly how long a process takes to start
    finality_s: float | None
    tip_s: float | None


@dataclass(slots=True)
class Sightings:
    """All looks at all nodes; threads add to it."""

    looks: list[Look] = field(default_factory=list[Look])
    finality_ms: list[int] = field(default_factory=list[int])
    rss: dict[int, list[tuple[float, int]]] = field(default_factory=dict[int, list[tuple[float, int]]])
    views: int = 0
    _samples: dict[int, tuple[int, ...]] = field(default_factory=dict[int, tuple[int, ...]])
    _started: dict[int, int] = field(default_factory=dict[int, int])
    _lock: threading.Condition = field(default_factory=threading.Condition)

    def add(self, node: int, began_s: float, status: NodeStatus) -> None:
        """One more look."""
        look = Look(node, began_s, time.monotonic(), status.height, status.block_hash, status.halted)
        with self._lock:
            self.looks.append(look)
            before = self._samples.get(node, ()) if self._started.get(node) == status.started_ms else ()
            self.finality_ms.extend(list_new(before, status.finality_ms_recent))
            self._samples[node], self._started[node] = status.finality_ms_recent, status.started_ms
            self.rss.setdefault(node, []).append((look.ended_s, status.rss_bytes))
            self.views = max(self.views, status.view)
            self._lock.notify_all()

    def list_since(self, at_s: float) -> list[Look]:
        """The looks that ended after that time."""
        with self._lock:
            return [look for look in reversed(self.looks) if look.ended_s >= at_s][::-1]

    def wait_news(self) -> None:
        """Goes on after the next look, or shortly after."""
        with self._lock:
            self._lock.wait(_GRAIN_S)


def get_tip(looks: Sequence[Look], before_s: float) -> int:
    """The greatest height that any node had told by then."""
    return max((look.height for look in looks if look.ended_s <= before_s), default=0)


def compute_recovery(looks: Sequence[Look], struck: Collection[int], undone_s: float, tip: int) -> Recovery:
    """Until finality goes on above the tip there was, and until each struck node is where the others are.

    A node is there when it tells a height above that tip which is no less than what any other had told before it was asked.
    """
    later = sorted((look for look in looks if look.began_s >= undone_s), key=lambda look: look.ended_s)
    advanced = next((look.ended_s for look in later if look.height > tip), None)
    answers: dict[int, float] = {}
    there: dict[int, float] = {}
    for look in later:
        if look.node in struck:
            answers.setdefault(look.node, look.ended_s)
            if look.height > tip and look.height >= _tell(later, look):
                there.setdefault(look.node, look.ended_s)
    return Recovery(
        _measure_last(answers, struck, undone_s),
        None if advanced is None else round(advanced - undone_s, 2),
        _measure_last(there, struck, undone_s),
    )


def _measure_last(when: Mapping[int, float], struck: Collection[int], undone_s: float) -> float | None:
    return round(max(when.values()) - undone_s, 2) if when.keys() >= set(struck) else None


def _tell(later: Sequence[Look], look: Look) -> int:
    return max(
        (other.height for other in later if other.node != look.node and other.ended_s <= look.began_s), default=0
    )
