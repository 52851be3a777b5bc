"""One perturbation on real processes: done, held, undone, and how long the network and the struck nodes needed afterwards."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from devnet.perturbation.checks import find_progress_without_quorum
from devnet.perturbation.fleet import Fleet
from devnet.perturbation.report import Outcome
from devnet.perturbation.schedule import AIM_S, Perturbation, Way
from devnet.perturbation.sightings import Recovery, Sightings, compute_recovery, get_tip

PATIENCE_S: Final = 60.0  # who has not recovered by then is left behind, and told
GRACE_S: Final = 4.0  # what was on its way when the nodes went down may still become final
LEAST_HOLD_S: Final = GRACE_S + 4.0  # of a perturbation during which progress is judged


@dataclass(frozen=True, slots=True)
class Field:
    """Where it happens. `wait` passes that many seconds, attending to what else there is; may raise."""

    fleet: Fleet
    sightings: Sightings
    wait: Callable[[float], None]
    began_s: float


def strike(field: Field, planned: Perturbation) -> Outcome:
    """What came of it. Raises: Interrupted."""
    at_s = time.monotonic()
    for index in planned.nodes:
        _do(field.fleet, index, planned)
    struck_s = time.monotonic()
    field.wait(planned.hold_s)
    undoing_s = time.monotonic()
    looks = field.sightings.list_since(struck_s)
    blocks = find_progress_without_quorum(looks, struck_s + min(GRACE_S, planned.hold_s / 2), undoing_s)
    if planned.way is Way.SKEW:
        for index in planned.nodes:
            field.fleet.end(index)
    tip = get_tip(field.sightings.list_since(at_s - 10), time.monotonic())
    undone_s = time.monotonic()
    for index in planned.nodes:
        _undo(field.fleet, index, planned)
    recovery = wait_recovery(field, planned, undone_s, tip)
    return describe(planned, at_s - field.began_s, blocks, recovery)


def wait_recovery(field: Field, planned: Perturbation, undone_s: float, tip: int) -> Recovery:
    """How long it took, or as much as is known when patience ends."""
    while True:
        recovery = compute_recovery(field.sightings.list_since(undone_s), planned.nodes, undone_s, tip)
        if None not in (recovery.finality_s, recovery.tip_s) or time.monotonic() - undone_s > PATIENCE_S:
            return recovery
        field.wait(0)
        field.sightings.wait_news()


def describe(planned: Perturbation, at_s: float, blocks: int, recovery: Recovery) -> Outcome:
    """The outcome, with what is wrong about it."""
    both = (recovery.finality_s, recovery.tip_s)
    times = [each for each in both if each is not None]
    total = max(times) if len(times) == len(both) else None
    return Outcome(
        number=planned.number,
        kind=planned.kind.value,
        way=planned.way.value,
        nodes=planned.nodes,
        at_s=round(at_s, 1),
        hold_s=planned.hold_s,
        skew_ms=planned.skew_ms,
        blocks_meanwhile=blocks,
        answers_s=recovery.answers_s,
        finality_s=recovery.finality_s,
        tip_s=recovery.tip_s,
        recovery_s=total,
        problem=_judge(planned, blocks, recovery, total),
    )


def _judge(planned: Perturbation, blocks: int, recovery: Recovery, total: float | None) -> str:
    if recovery.finality_s is None:
        return f"no block became final within {PATIENCE_S:.0f} s"
    if total is None:
        return f"not every struck node had come back to the tip within {PATIENCE_S:.0f} s"
    if total > AIM_S:
        return f"recovered after {total:.1f} s instead of {AIM_S:.0f}"
    if not planned.has_quorum and blocks:
        return f"{blocks} blocks became final without a quorum"
    if planned.has_quorum and planned.hold_s >= LEAST_HOLD_S and not blocks:
        return "the others did not go on meanwhile"
    return ""


def _do(fleet: Fleet, index: int, planned: Perturbation) -> None:
    match planned.way:
        case Way.KILL:
            fleet.kill(index)
        case Way.PAUSE:
            fleet.pause(index)
        case Way.CUT:
            fleet.cut(index)
        case Way.END:
            fleet.end(index)
        case Way.SKEW:
            fleet.end(index)
            fleet.start(index, planned.skew_ms)


def _undo(fleet: Fleet, index: int, planned: Perturbation) -> None:
    match planned.way:
        case Way.PAUSE:
            fleet.resume(index)
        case Way.CUT:
            fleet.heal(index)
        case Way.KILL | Way.END | Way.SKEW:
            fleet.start(index)
