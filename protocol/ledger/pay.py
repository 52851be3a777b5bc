"""What a job's escrow is worth to whom (rules M3 to M5), and the end of a job as the ledger writes it.

Integer remainders are burned, everywhere: sharing them out would pay for being the one who is left.
"""

from collections import Counter
from dataclasses import dataclass

from msgspec.structs import replace

from protocol.jobs.agreement import Agreement, Decision, decide
from protocol.jobs.life import compute_seat_ends, find_entry, list_answers, list_bonded_nodes, list_transaction_ids
from protocol.jobs.reputation import NEW_RECORD, RECORD_CODEC, apply_seat_missed, apply_seat_served
from protocol.jobs.settlement import Job, Payment, Phase, SeatEnd, SettledSeat, Settlement, compute_reveal_set_hash
from protocol.ledger.accounts import burn_bond, credit, unlock
from protocol.ledger.draft import Draft
from protocol.ledger.entries import closed_job_key, open_job_key, record_key, settlement_key
from protocol.models import ModelCard
from protocol.params import Params
from protocol.transactions import JobRequest
from protocol.units import Height, Micro, Milliseconds, NodeId

_PPM = 1_000_000
_ANSWERED = frozenset({SeatEnd.OUTSIDE, SeatEnd.WINNING})


@dataclass(frozen=True, slots=True)
class Shares:
    """How an escrow is divided: per seat that is paid, back to the asker, burned."""

    seat: Micro
    refund: Micro
    burned: Micro


def compute_shares(request: JobRequest, params: Params, decision: Decision, paid_seats: int) -> Shares:
    """The division of a job's fee; `paid_seats` won (accepted), or revealed an answer (otherwise)."""
    if (
        decision is Decision.ACCEPTED
    ):  # M3: fee / n each, whoever else is missing; sharing it all would pay for knocking colleagues out
        seat = request.fee // request.seats
        return Shares(seat, 0, request.fee - seat * paid_seats)
    share_ppm = params.inconclusive_share_ppm if decision is Decision.INCONCLUSIVE else params.failed_share_ppm
    pool = request.fee * share_ppm // _PPM  # M4, M5
    seat = pool // paid_seats if paid_seats else 0
    return Shares(seat, request.fee - pool, pool - seat * paid_seats)


def compute_bond_at_risk(request: JobRequest, params: Params) -> Micro:
    """What each member's free bond must cover while the job is open, and loses by a commit without a reveal (M6).

    It is counted once a job, whatever the number of the member's seats: toggling the job to inconclusive gains at most one fee.
    """
    return params.forfeit_fees * request.fee


def settle(
    draft: Draft, job: Job, params: Params, card: ModelCard, height: Height, time_ms: Milliseconds
) -> Settlement:
    """The settlement of a job that has ended: decided, paid, recorded, and moved to the closed ones (J11 to J14)."""
    assert job.draw is not None, job.job.hex()
    agreement = decide(tuple(list_answers(job)), card.tolerance_bits, job.request.seats, job.draw.beacon)
    winning = frozenset(agreement.winning_seats) if agreement.decision is Decision.ACCEPTED else frozenset[int]()
    ends = compute_seat_ends(job, winning)
    forfeits = _release_bonds(draft, job, params, ends)
    _move_records(draft, job, params, agreement.decision, ends, height, time_ms)
    settlement = _pay(draft, _compute_settlement(job, params, agreement, ends, forfeits, height), job.requester)
    draft.remove(open_job_key(job.job))
    draft.put(closed_job_key(job.job), replace(job, phase=Phase.SETTLED))
    draft.put(settlement_key(job.job), settlement)
    return settlement


def _compute_settlement(
    job: Job,
    params: Params,
    agreement: Agreement,
    ends: tuple[SeatEnd, ...],
    forfeits: tuple[Payment, ...],
    height: Height,
) -> Settlement:
    assert job.draw is not None
    paying = {SeatEnd.WINNING} if agreement.decision is Decision.ACCEPTED else _ANSWERED
    paid = [seat.holder for seat, end in zip(job.seats, ends, strict=True) if end in paying]
    shares = compute_shares(job.request, params, agreement.decision, len(paid))
    counts = Counter(node for node in paid if node is not None)
    return Settlement(
        job=job.job,
        submit_height=job.submit_height,
        snapshot_height=job.snapshot_height,
        candidates_root=job.candidates_root,
        maturity_height=job.draw.height,
        maturity_view=job.draw.view,
        maturity_parent=job.draw.parent_hash,
        beacon=job.draw.beacon,
        seats=_compute_settled_seats(job, ends),
        skipped=job.draw.skipped,
        decision=agreement.decision,
        winner_hash=agreement.winner_hash,
        agreement_ppm=agreement.agreement_ppm,
        entropy_millibits=agreement.entropy_millibits,
        reveal_set=compute_reveal_set_hash(list_transaction_ids(job)),
        payments=tuple(Payment(node, shares.seat * counts[node]) for node in sorted(counts)) if shares.seat else (),
        forfeits=forfeits,
        refund=shares.refund,
        burned=shares.burned,
        settle_height=height,
    )


def _compute_settled_seats(job: Job, ends: tuple[SeatEnd, ...]) -> tuple[SettledSeat, ...]:
    settled: list[SettledSeat] = []
    for seat, end in zip(job.seats, ends, strict=True):
        entry = find_entry(job, seat.holder)
        heights = (0, 0) if entry is None else (entry.commit_height, entry.reveal_height)
        settled.append(SettledSeat(seat.drawn, seat.taker, end, *heights))
    return tuple(settled)


def _pay(draft: Draft, settlement: Settlement, requester: NodeId) -> Settlement:
    for payment in settlement.payments:
        credit(draft, payment.node, payment.amount)
    credit(draft, requester, settlement.refund)
    draft.burned += settlement.burned
    return settlement


def _release_bonds(draft: Draft, job: Job, params: Params, ends: tuple[SeatEnd, ...]) -> tuple[Payment, ...]:
    at_risk = compute_bond_at_risk(job.request, params)
    for node in list_bonded_nodes(job):
        unlock(draft, node, at_risk)
    silent = {seat.holder for seat, end in zip(job.seats, ends, strict=True) if end is SeatEnd.SILENT}
    nodes = sorted(node for node in silent if node is not None)  # J13
    return tuple(Payment(node, burn_bond(draft, node, at_risk)) for node in nodes)


def _move_records(
    draft: Draft,
    job: Job,
    params: Params,
    decision: Decision,
    ends: tuple[SeatEnd, ...],
    height: Height,
    time_ms: Milliseconds,
) -> None:
    """J14: reliability by seats served in time; nobody's where a failed job missed more than a third of its seats."""
    missing = sum(end not in _ANSWERED for end in ends)
    if decision is Decision.FAILED and 3 * missing > len(ends):
        return
    for seat, end in zip(job.seats, ends, strict=True):
        if seat.taker is not None and seat.drawn is not None:
            _move_record(draft, params, seat.drawn, False, height, time_ms)
        if seat.holder is not None:
            _move_record(draft, params, seat.holder, end in _ANSWERED, height, time_ms)


def _move_record(
    draft: Draft, params: Params, node: NodeId, is_served: bool, height: Height, time_ms: Milliseconds
) -> None:
    record = draft.get(record_key(node), RECORD_CODEC) or NEW_RECORD
    moved = apply_seat_served(record, params) if is_served else apply_seat_missed(record, params, height, time_ms)
    draft.put(record_key(node), moved)
