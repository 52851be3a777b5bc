"""The verdict on a schedule over the ledger: every transaction, state, settlement and certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocol.certificate import check_certificate
from protocol.errors import Refusal
from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import SeatEnd, SettledSeat, Settlement
from protocol.ledger.draft import ledger_from_entries
from protocol.trust import trust_genesis, walk_steps
from tests.simulation.ledger_clients import LONG_REVEAL_MS
from tests.simulation.ledger_members import CORRECT, Conduct
from tests.simulation.ledger_pool import is_includable

if TYPE_CHECKING:
    from protocol.units import JobId
    from tests.simulation.ledger_network import LedgerNetwork
    from tests.simulation.ledger_node import LedgerActor

ANSWERED: Final = frozenset({SeatEnd.WINNING, SeatEnd.OUTSIDE})
MAY_END: Final = {
    Conduct.CHEAP: ANSWERED,
    Conduct.ABSTAINER: frozenset({SeatEnd.ABSTAINED}),
    Conduct.ABSENT: frozenset[SeatEnd](),
    Conduct.MUTE: frozenset({SeatEnd.SILENT}),
    Conduct.COPIER: frozenset({SeatEnd.SILENT}),
    Conduct.HONEST: ANSWERED,
    Conduct.HASTY: ANSWERED,
}
"""How a seat may end beside those ways that bad weather explains."""
WEATHER: Final = frozenset({SeatEnd.ABSENT, SeatEnd.SILENT, SeatEnd.UNASKED})


def judge(whole: LedgerNetwork) -> None:
    """Ends in a Violation where anything is not as promised."""
    for actor in whole.honest:
        judge_node(whole, actor)
    for job, settlement in whole.town.settlements.items():
        judge_forfeits(whole, job, settlement)
        judge_seats(whole, job, settlement)
        judge_decision(whole, job, settlement)


def judge_node(whole: LedgerNetwork, actor: LedgerActor) -> None:
    """One node's disk, pool and certificates."""
    town, application = whole.town, actor.application
    rebuilt = ledger_from_entries(town.genesis, application.disk)  # adds every entry up again
    if rebuilt.state_root != application.final.header.state_root:
        town.fail("disk", f"node {actor.address} kept other entries than its last block left")
    for name, signed in whole.offered.items():
        if name not in application.included and is_includable(rebuilt, signed):
            town.fail("lost", f"a {type(signed.body).__name__} that could be in a block is in none")
    for job in town.submitted:
        judge_certificate(whole, actor, job)


def judge_certificate(whole: LedgerNetwork, actor: LedgerActor, job: JobId) -> None:
    """Every node's own certificate satisfies a stranger and says what was settled."""
    settlement = whole.town.settlements[job]
    try:
        trust = walk_steps(trust_genesis(whole.town.genesis), actor.application.steps)
        report = check_certificate(actor.application.certificates[job], trust)
    except Refusal as refusal:
        whole.town.fail("certificate", f"node {actor.address}, job {job.hex()[:12]}: {refusal}")
        return
    if (report.job, report.decision, report.winner_hash) != (job, settlement.decision, settlement.winner_hash):
        whole.town.fail("certificate", f"job {job.hex()[:12]} is certified otherwise than it was settled")


def judge_forfeits(whole: LedgerNetwork, job: JobId, settlement: Settlement) -> None:
    """Nobody honest loses its bond, unless it was kept from revealing for the whole window."""
    _, submit = whole.town.submitted[job]
    if job not in whole.calm_jobs and submit.job.reveal_ms < LONG_REVEAL_MS:
        return
    for forfeit in settlement.forfeits:
        if whole.conducts[forfeit.node] is Conduct.HONEST:
            text = f"{forfeit.node.hex()[:8]} was honest and lost {forfeit.amount}"
            whole.town.fail("honest-forfeit", f"job {job.hex()[:12]}: {text}")


def judge_seats(whole: LedgerNetwork, job: JobId, settlement: Settlement) -> None:
    """Every seat ends as its holder's conduct says, and no answer is open before all commits are closed."""
    last_commit = max(seat.commit_height for seat in settlement.seats)
    for seat, conduct in list_held(whole, settlement):
        name = f"job {job.hex()[:12]}: a seat of conduct {conduct.value}"
        if 0 < seat.reveal_height <= last_commit:
            whole.town.fail("early-reveal", f"{name} revealed at {seat.reveal_height}, a commit came at {last_commit}")
        excused = WEATHER
        if job in whole.calm_jobs and conduct in CORRECT:  # a job whose commits are too few asks nobody to reveal
            excused = frozenset({SeatEnd.UNASKED})
        if seat.end not in MAY_END[conduct] | excused:
            whole.town.fail("seat", f"{name} ended as {seat.end.name}")


def judge_decision(whole: LedgerNetwork, job: JobId, settlement: Settlement) -> None:
    """Where correct answers are more than half of the seats, they win and nobody else does."""
    held = list_held(whole, settlement)
    correct = sum(conduct in CORRECT and seat.end in ANSWERED for seat, conduct in held)
    if 2 * correct <= len(settlement.seats):
        return
    winners = {conduct for seat, conduct in held if seat.end is SeatEnd.WINNING}
    if settlement.decision is not Decision.ACCEPTED or not winners <= CORRECT:
        text = f"{settlement.decision.name} against {correct} correct seats, won by {winners}"
        whole.town.fail("majority", f"job {job.hex()[:12]}: {text}")


def list_held(whole: LedgerNetwork, settlement: Settlement) -> list[tuple[SettledSeat, Conduct]]:
    """The seats that somebody holds about whom something is promised."""
    return [
        (seat, whole.conducts[seat.holder])
        for seat in settlement.seats
        if seat.holder is not None and seat.holder not in whole.byzantine
    ]
