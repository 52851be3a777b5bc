"""What the interfaces show of a frozen snapshot: pure reading, no waiting."""

from functools import lru_cache
from typing import Final, Literal, assert_never

from node.api import NodeSnapshot, PeerView
from node.rpc_types import (
    AccountResult,
    CaptureState,
    Check,
    JobState,
    ModelState,
    PeerState,
    Readiness,
    SeatState,
    SigningName,
    StatusName,
    UnbondingState,
)
from protocol.digest import Digest, compute_distance
from protocol.jobs.agreement import Decision
from protocol.jobs.capture import Capture, compute_capture
from protocol.jobs.committee import Candidate, weight_of
from protocol.jobs.settlement import Phase, SeatEnd, Settlement
from protocol.ledger.epochs import get_epoch_terms
from protocol.ledger.queries import (
    JobView,
    SeatView,
    get_account,
    get_candidates,
    get_conviction,
    get_onion,
    get_standing,
    list_models,
    list_served_models,
    list_unbonding,
)
from protocol.models import ModelCard
from protocol.transactions import AgreementRule
from protocol.units import ZERO_HASH, Height, ModelId, NodeId, PartsPerMillion

STALE_TICK_MS: Final = 5_000  # the loop turns at least every idle interval (2 s); 5 s without a turn is a stall
BAD_SHARE_PPM: Final = 200_000  # the share of bad weight that the printed chance of capture supposes

SeatName = Literal["waiting", "committed", "revealed", "abstained", "silent", "absent", "empty"]
PhaseName = Literal["submitted", "committing", "revealing", "settled"]
RuleLabel = Literal["majority", "reputation"]
_END_NAMES: Final[dict[SeatEnd, SeatName]] = {
    SeatEnd.EMPTY: "empty",
    SeatEnd.ABSENT: "absent",
    SeatEnd.SILENT: "silent",
    SeatEnd.ABSTAINED: "abstained",
    SeatEnd.OUTSIDE: "revealed",
    SeatEnd.WINNING: "revealed",
    SeatEnd.UNASKED: "committed",  # the job ended before anybody could reveal
}
_PHASE_NAMES: Final[dict[Phase, PhaseName]] = {
    Phase.SUBMITTED: "submitted",
    Phase.COMMITTING: "committing",
    Phase.REVEALING: "revealing",
    Phase.SETTLED: "settled",
}
_RULE_NAMES: Final[dict[AgreementRule, RuleLabel]] = {
    AgreementRule.MAJORITY: "majority",
    AgreementRule.REPUTATION: "reputation",
}


def find_models(snapshot: NodeSnapshot, wanted: str) -> list[tuple[ModelId, ModelCard]]:
    """The registered models with this name, this id, or an id that starts with these 8 or more hex digits."""
    prefix = wanted.lower() if len(wanted) >= 8 else None
    return [
        (model, card)
        for model, card in list_models(snapshot.ledger).items()
        if card.name == wanted or (prefix is not None and model.hex().startswith(prefix))
    ]


def view_models(snapshot: NodeSnapshot) -> tuple[ModelState, ...]:
    """All registered models, by name, with the nodes that may be drawn for each now."""
    height = snapshot.ledger.chain.snapshot_height
    states = [
        ModelState(
            model.hex(),
            card.name,
            card.dtype,
            card.context_tokens,
            card.token_ms,
            card.tolerance_bits,
            len(_list_candidates(snapshot, height, model)),
        )
        for model, card in list_models(snapshot.ledger).items()
    ]
    return tuple(sorted(states, key=lambda state: (state.name, state.model)))


def view_job(snapshot: NodeSnapshot, view: JobView, *, with_capture: bool = True) -> JobState:
    """A job as the snapshot has it; the chance of capture may take a fifth of a second to count, once for each committee size."""
    request = view.request
    settlement = view.settlement
    height = snapshot.ledger.chain.snapshot_height if settlement is None else settlement.snapshot_height
    candidates = _list_candidates(snapshot, height, request.model)
    card = list_models(snapshot.ledger).get(request.model)
    return JobState(
        job=view.job.hex(),
        status=_name_status(settlement),
        phase=_PHASE_NAMES[view.phase],
        progress=describe_progress(view),
        model=request.model.hex(),
        model_name=card.name if card else request.model.hex()[:8],
        prompt=request.prompt.decode("utf-8", "replace"),
        rule=_RULE_NAMES[request.rule],
        requester=view.requester.hex(),
        fee=request.fee,
        cost=request.fee - settlement.refund + snapshot.ledger.constants.params.base_fee if settlement else None,
        submit_height=view.submit_height,
        maturity_height=view.maturity_height,
        settle_height=settlement.settle_height if settlement else None,
        window_ends_ms=view.window_ends_ms,
        agreement_ppm=settlement.agreement_ppm if settlement else None,
        entropy_millibits=settlement.entropy_millibits if settlement else None,
        output_hash=settlement.winner_hash.hex() if settlement and settlement.winner_hash != ZERO_HASH else None,
        seats=_view_seats(view),
        candidates=len(candidates),
        candidate_share_ppm=_compute_share(snapshot, candidates),
        capture=_view_capture(snapshot, view, candidates) if with_capture else None,
    )


def _name_status(settlement: Settlement | None) -> StatusName:
    if settlement is None:
        return "open"
    match settlement.decision:
        case Decision.ACCEPTED | Decision.CHOSEN:
            return "accepted"
        case Decision.FAILED:
            return "failed"
        case Decision.INCONCLUSIVE:
            return "inconclusive"
        case _:
            assert_never(settlement.decision)


def describe_progress(view: JobView) -> str:
    """What job_wait compares: it changes whenever the job has moved."""
    committed = sum(seat.committed for seat in view.seats)
    revealed = sum(seat.revealed for seat in view.seats)
    return f"{_PHASE_NAMES[view.phase]} {committed}/{revealed}/{len(view.seats)}"


def _view_seats(view: JobView) -> tuple[SeatState, ...]:
    winner = _find_winning_digest(view)
    return tuple(_view_seat(index, seat, winner) for index, seat in enumerate(view.seats))


def _find_winning_digest(view: JobView) -> Digest | None:
    if view.settlement is None or view.settlement.winner_hash == ZERO_HASH:
        return None
    for seat in view.seats:
        if seat.reveal is not None and seat.reveal.output_hash == view.settlement.winner_hash:
            return seat.reveal.digest
    return None


def _view_seat(index: int, seat: SeatView, winner: Digest | None) -> SeatState:
    answer = seat.reveal if seat.reveal is not None and not seat.reveal.abstained else None
    return SeatState(
        seat=index,
        node=seat.member.hex() if seat.member else None,
        replaced=seat.taker is not None,
        state=_name_seat(seat),
        inside=None if seat.end is None else seat.end is SeatEnd.WINNING,
        output_hash=answer.output_hash.hex() if answer else None,
        digest_distance=_measure(answer.digest, winner) if answer else None,
    )


def _name_seat(seat: SeatView) -> SeatName:
    if seat.end is not None:
        return _END_NAMES[seat.end]
    if seat.reveal is not None:
        return "abstained" if seat.reveal.abstained else "revealed"
    return "committed" if seat.committed else "waiting"


def _measure(digest: Digest | None, winner: Digest | None) -> int | None:
    if digest is None or winner is None or digest.family != winner.family or len(digest.bits) != len(winner.bits):
        return None
    return compute_distance(digest, winner)


def _list_candidates(snapshot: NodeSnapshot, height: Height, model: ModelId) -> tuple[Candidate, ...]:
    frozen = get_candidates(snapshot.ledger, height)
    return () if frozen is None else frozen.candidates.get(model, ())


def _compute_share(snapshot: NodeSnapshot, candidates: tuple[Candidate, ...]) -> PartsPerMillion:
    """How much of all bonded stake serves the model: below a third of it a decision is by a thin set."""
    total = get_epoch_terms(snapshot.ledger).validators.total_weight
    stake = sum(weight_of(candidate, AgreementRule.MAJORITY) for candidate in candidates)
    return min(1_000_000, stake * 1_000_000 // total)


def _view_capture(snapshot: NodeSnapshot, view: JobView, candidates: tuple[Candidate, ...]) -> CaptureState:
    divisor = snapshot.ledger.constants.params.seat_cap_divisor
    chance = _compute_capture(candidates, view.request.rule, view.request.seats, divisor)
    return CaptureState(BAD_SHARE_PPM, chance.exact_ppb, chance.binomial_ppb)


@lru_cache(maxsize=64)  # every job_wait asks again, and an exact count is no task for the node's loop
def _compute_capture(candidates: tuple[Candidate, ...], rule: AgreementRule, seats: int, divisor: int) -> Capture:
    return compute_capture(candidates, rule, seats, divisor, BAD_SHARE_PPM)


def view_account(snapshot: NodeSnapshot, node: NodeId) -> AccountResult:
    """An account, its stake and its vote."""
    ledger = snapshot.ledger
    account, onion = get_account(ledger, node), get_onion(ledger, node)
    unbonding, standing = list_unbonding(ledger, node), get_standing(ledger, node)
    in_force = onion is not None and onion.tip != ZERO_HASH
    return AccountResult(
        node=node.hex(),
        balance=account.balance,
        bonded=account.bonded,
        locked=account.locked,
        nonce=account.nonce,
        unbonding=tuple(UnbondingState(entry.amount, height, entry.release_ms) for height, entry in unbonding),
        weight=standing.weight,
        next_weight=standing.next_weight,
        onion="in_force" if in_force else "none" if onion is None else "waiting",
        missed_slots=standing.missed_slots,
        jailed_until_ms=standing.jailed_until_ms,
        convicted=get_conviction(ledger, node) is not None,
    )


def name_signing(snapshot: NodeSnapshot) -> SigningName:
    """Whether this node signs in this epoch, and why not."""
    if snapshot.is_validator:
        return "yes"
    if snapshot.signs_from is not None and snapshot.signs_from > snapshot.epoch:
        return "waiting"
    if get_standing(snapshot.ledger, snapshot.node).weight == 0:
        return "no"
    return "asking"


def view_peer(peer: PeerView) -> PeerState:
    """A peer as it travels."""
    return PeerState(
        peer.node.hex(),
        peer.address,
        peer.connected,
        peer.sees_me,
        peer.rtt_ms,
        peer.last_seen_ms,
        peer.height,
        peer.reason,
        peer.slowed,
        peer.dropped,
        peer.offences,
    )


def check_readiness(snapshot: NodeSnapshot, now_ms: int) -> Readiness:
    """Whether the node can serve, with every condition."""
    checks = (
        _check_loop(snapshot, now_ms),
        _make_check("ordering", not snapshot.halted, snapshot.halted, "read the log, then restart the node"),
        _check_peers(snapshot),
        _check_worker(snapshot),
        _make_check(
            "height", snapshot.header.height >= 1, "no block is final yet", "wait until more validators are up"
        ),
    )
    target = snapshot.sync_target
    tip = _make_check(
        "tip", target is None, f"at height {snapshot.header.height}, the network is at {target}", "wait: it catches up"
    )
    if not all(check.ok for check in checks):
        return Readiness("not_ready", (*checks, tip))
    return Readiness("ready" if tip.ok else "syncing", (*checks, tip))


def _make_check(name: str, ok: bool, reason: str, cure: str) -> Check:
    return Check(name, True, "", "") if ok else Check(name, False, reason, cure)


def _check_loop(snapshot: NodeSnapshot, now_ms: int) -> Check:
    age_ms = now_ms - snapshot.tick_ms
    return _make_check("loop", age_ms < STALE_TICK_MS, f"the last turn was {age_ms} ms ago", "restart the node")


def _check_worker(snapshot: NodeSnapshot) -> Check:
    """A node that serves no model needs no worker: it only votes and follows."""
    serves = list_served_models(snapshot.ledger, snapshot.node)
    reason = snapshot.worker.reason or "the worker is not up yet"
    return _make_check("worker", snapshot.worker.ready or not serves, reason, "wait; if it stays so, read the log")


def _check_peers(snapshot: NodeSnapshot) -> Check:
    """Who confirms that they see a validator must, with it, be able to form a quorum; a follower needs one peer to follow."""
    seeing = {peer.node for peer in snapshot.peers if peer.connected and peer.sees_me} | {snapshot.node}
    weights = {member.node: member.weight for member in get_epoch_terms(snapshot.ledger).validators.members}
    if snapshot.node not in weights:
        return _make_check(
            "peers",
            len(seeing) > 1,
            "no peer confirms that it sees this node",
            "add one with `quorate init --peer ADDR`, or check the addresses of `quorate peers`",
        )
    weight = sum(weights.get(node, 0) for node in seeing)
    total = sum(weights.values())
    return _make_check(
        "peers",
        3 * weight > 2 * total,
        f"{len(seeing) - 1} peers confirm that they see this node, with {weight * 100 // total} % of the stake of 67 % needed",
        "check the addresses of `quorate peers` and that those nodes run",
    )
