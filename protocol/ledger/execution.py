"""What a block does to its draft, in the order of rule L5: reports, job transactions, open jobs, account transactions, fees, snapshot."""

from dataclasses import dataclass
from typing import assert_never

from msgspec.structs import replace

from protocol.errors import InvalidTransaction, Rejection
from protocol.jobs.beacon import is_mature
from protocol.jobs.committee import Draw, draw, draw_replacements
from protocol.jobs.life import apply_commit, apply_reveal, create_job, list_bonded_nodes, start_committing, step_job
from protocol.jobs.settlement import JOB_CODEC, SETTLEMENT_CODEC, Drawn, Job, Phase, compute_sampling_seed
from protocol.ledger.accounts import bond, credit, debit, get_account, lock, pay_base_fee
from protocol.ledger.admission import AccountBody, check_account_transaction, get_card, is_able
from protocol.ledger.attendance import move_attendance, release
from protocol.ledger.draft import Draft, Ledger
from protocol.ledger.entries import (
    Kind,
    Milestone,
    Named,
    Serving,
    card_key,
    closed_job_key,
    name_key,
    open_job_key,
    serve_key,
)
from protocol.ledger.epochs import get_epoch, get_validators
from protocol.ledger.milestones import add_milestone
from protocol.ledger.onions import Slots, move_onions, register_renewal
from protocol.ledger.pay import compute_bond_at_risk, settle
from protocol.ledger.snapshot import forget_snapshots, get_candidates, is_snapshot_height, take_snapshot
from protocol.ledger.succession import end_epoch, forget_sets
from protocol.ledger.unbonding import release_unbonded, start_unbonding
from protocol.models import compute_model_id
from protocol.params import compute_boundary
from protocol.transactions import (
    Bond,
    Commit,
    JobTransaction,
    RegisterModel,
    RenewOnion,
    Reveal,
    Serve,
    Submit,
    Transfer,
    Unbond,
    Unjail,
    Withdraw,
    compute_transaction_id,
)
from protocol.units import Hash, Height, JobId, Milliseconds, NodeId, View
from protocol.validators import ValidatorSet


@dataclass(frozen=True, slots=True)
class Turn:
    """The block under execution, as far as the state depends on it."""

    height: Height
    view: View
    time_ms: Milliseconds
    parent_hash: Hash
    proposer: NodeId
    beacon_reveal: Hash
    beacon: Hash
    slots: tuple[tuple[NodeId, int], ...]  # (validator, slots it had since the parent's view)


def apply_job_transaction(draft: Draft, turn: Turn, body: JobTransaction) -> None:
    """Write a Commit or a Reveal into its job (T15). Raises: InvalidTransaction; the draft is then as it was."""
    constants = draft.base.constants
    job = _get_open_job(draft, body.job)
    transaction_id = compute_transaction_id(body)
    match body:
        case Commit():
            job = apply_commit(job, body, transaction_id, turn.height)
        case Reveal():
            card = get_card(draft, job.request.model)
            job = apply_reveal(job, body, transaction_id, turn.height, constants.chain_id, card)
        case _:
            assert_never(body)
    draft.put(open_job_key(body.job), job)


def apply_account_transaction(draft: Draft, turn: Turn, body: AccountBody) -> None:
    """Do what an account transaction says. Raises: InvalidTransaction; the draft is then as it was."""
    check_account_transaction(draft, body, turn.height, latest_nonce=get_account(draft, body.sender).nonce + 1)
    pay_base_fee(draft, body.sender, draft.base.constants.params.base_fee)
    match body:
        case Transfer():
            debit(draft, body.sender, body.amount)
            credit(draft, body.recipient, body.amount)
        case Bond():
            bond(draft, body.sender, body.amount)
        case Serve():
            draft.put(serve_key(body.model, body.sender), Serving(turn.height))
        case RegisterModel():
            draft.put(card_key(compute_model_id(body.card)), body.card)
            draft.put(name_key(body.card.name), Named(compute_model_id(body.card)))
        case Submit():
            debit(draft, body.sender, body.job.fee)
            chain, job = draft.base.chain, compute_transaction_id(body)
            entry = create_job(job, body, turn.height, turn.time_ms, chain.snapshot_height, chain.candidates_root)
            draft.put(open_job_key(job), entry)
        case Unbond():
            start_unbonding(draft, body, turn.height, turn.time_ms)
        case Withdraw():
            draft.remove(serve_key(body.model, body.sender))
        case RenewOnion():
            register_renewal(draft, body, turn.height)
        case Unjail():
            release(draft, body.sender)
        case _:
            assert_never(body)


def step_jobs(draft: Draft, turn: Turn) -> None:
    """Move every open job by this block's time and beacon: first the ends of phases, which free bonds, then the draws (L6)."""
    jobs = [_get_open_job(draft, key[1:]) for key in draft.list_keys(bytes((Kind.OPEN_JOB,)))]
    validators = get_validators(draft.base, get_epoch(draft.base))
    for job in jobs:
        if job.phase is not Phase.SUBMITTED:
            _step_job(draft, turn, job)
    for job in jobs:
        if job.phase is Phase.SUBMITTED and _is_beacon_mature(draft, validators, turn, job):
            _step_job(draft, turn, _draw(draft, turn, job))


def close_turn(draft: Draft, turn: Turn) -> Ledger:
    """The ledger after the block: the proposer's fees, its onion, what an epoch's end brings, the totals."""
    chain, params = draft.base.chain, draft.base.constants.params
    credit(draft, turn.proposer, draft.fees)  # M2
    release_unbonded(draft, turn.height, turn.time_ms)  # U3
    add_milestone(draft, Milestone(turn.height, turn.view, turn.time_ms))  # E3
    slots = Slots(turn.proposer, turn.beacon_reveal, turn.slots)
    move_onions(draft, slots, turn.height)
    move_attendance(draft, slots)
    forget_sets(draft, turn.height, turn.time_ms)
    snapshot_height, root = chain.snapshot_height, chain.candidates_root
    if is_snapshot_height(params, turn.height):  # L9
        _forget_closed_jobs(draft, turn.height - params.retention_epochs * params.epoch_heights)
        snapshot_height, root = turn.height, take_snapshot(draft, params, turn.height, turn.time_ms)
        forget_snapshots(draft)
    is_boundary = turn.height == compute_boundary(params, get_epoch(draft.base))
    if is_boundary:
        end_epoch(draft, turn.time_ms)
    return draft.seal(
        replace(
            chain,
            height=turn.height,
            view=turn.view,
            time_ms=turn.time_ms,
            beacon=turn.beacon,
            leader_seed=turn.beacon if is_boundary else chain.leader_seed,  # V2
            leaders=(*chain.leaders, turn.proposer)[-params.beacon_max_blocks :],
            snapshot_height=snapshot_height,
            candidates_root=root,
            burned=chain.burned + draft.burned,
        )
    )


def _get_open_job(draft: Draft, job: JobId) -> Job:
    found = draft.get(open_job_key(job), JOB_CODEC)
    if found is not None:
        return found
    if draft.has(closed_job_key(job)):
        raise InvalidTransaction(Rejection.WRONG_PHASE, f"job {job.hex()[:12]} has settled: nothing can be added to it")
    raise InvalidTransaction(
        Rejection.UNKNOWN_JOB, f"no job {job.hex()[:12]} is open: it was never submitted here, or settled long ago"
    )


def _step_job(draft: Draft, turn: Turn, job: Job) -> None:
    params = draft.base.constants.params
    moved, has_ended = step_job(job, params, turn.height, turn.time_ms)
    if has_ended:
        card = get_card(draft, job.request.model)
        settle(draft, moved, params, card, turn.height, turn.time_ms)
    elif moved is not job:
        draft.put(open_job_key(job.job), moved)


def _is_beacon_mature(draft: Draft, validators: ValidatorSet, turn: Turn, job: Job) -> bool:
    most = draft.base.constants.params.beacon_max_blocks
    leaders = (*draft.base.chain.leaders, turn.proposer)[-(turn.height - job.submit_height) :]
    return is_mature(validators, leaders, most)  # J3


def _draw(draft: Draft, turn: Turn, job: Job) -> Job:
    """The job with its committee, everybody's bond held. The snapshot is the one in force when it was submitted (L10)."""
    params, request = draft.base.constants.params, job.request
    candidates = get_candidates(draft, job.snapshot_height, request.model)

    def is_eligible(node: NodeId) -> bool:
        return is_able(draft, node, request, turn.height, turn.time_ms)

    shape = (job.job, turn.beacon, candidates, request.rule, request.seats, params.seat_cap_divisor)
    first = draw(*shape, is_eligible)
    rest = draw_replacements(first, *shape, is_eligible, request.seats // 3)
    drawn = _describe_draw(turn, job.job, first, rest)
    started = start_committing(job, drawn, first.members, turn.time_ms)
    for node in list_bonded_nodes(started):
        lock(draft, node, compute_bond_at_risk(request, params))
    draft.put(open_job_key(job.job), started)
    return started


def _describe_draw(turn: Turn, job: JobId, first: Draw, rest: Draw) -> Drawn:
    return Drawn(
        height=turn.height,
        view=turn.view,
        parent_hash=turn.parent_hash,
        beacon=turn.beacon,
        seed=compute_sampling_seed(turn.beacon, job),
        skipped=(*first.skipped, *rest.skipped),
        standbys=tuple(node for node in rest.members if node is not None),
    )


def _forget_closed_jobs(draft: Draft, latest: int) -> None:
    """L11: what settled at or before this height leaves the state; its certificate stays valid."""
    for key in draft.list_keys(bytes((Kind.SETTLEMENT,))):
        settlement = draft.get(key, SETTLEMENT_CODEC)
        assert settlement is not None, key.hex()
        if settlement.settle_height <= latest:
            draft.remove(key)
            draft.remove(closed_job_key(key[1:]))
