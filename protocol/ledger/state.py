"""A block's way into the state: build_block proposes, check_block judges and executes at once (the ABCI-like boundary).

check_block is deterministic: an InvalidBlock means that no honest leader could have built the block on this parent.
"""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from protocol.block import (
    Block,
    Header,
    compute_header_hash,
    compute_transactions_root,
)
from protocol.errors import InvalidBlock, Rejection
from protocol.genesis import Genesis
from protocol.jobs.beacon import compute_beacon, is_reveal_valid
from protocol.jobs.life import get_deadline_ms
from protocol.jobs.settlement import JOB_CODEC, Phase
from protocol.ledger.accounts import get_account
from protocol.ledger.admission import check_account_transaction
from protocol.ledger.body import BodyDraft, check_body_size, execute_body, sort_into_lanes
from protocol.ledger.draft import Draft, Ledger, list_keys
from protocol.ledger.entries import ONION_CODEC, Kind, onion_key
from protocol.ledger.epochs import EpochTerms, get_epoch, get_epoch_terms, get_leader_seed, get_validators
from protocol.ledger.execution import (
    Turn,
    apply_job_transaction,
    close_turn,
    step_jobs,
)
from protocol.ledger.slashing import check_report
from protocol.ledger.start import MAX_TIME_MS, start_ledger
from protocol.transactions import (
    Commit,
    Report,
    Reveal,
    SignedTransaction,
)
from protocol.units import ZERO_HASH, Epoch, Hash, Milliseconds, View
from protocol.validators import compute_leader, compute_validator_set_hash, index_of

MAX_SKIPPED_VIEWS: Final = 2**20  # as long as an onion: nobody could reveal behind a longer gap

_FIELD_REASONS: Final = {
    "chain_id": Rejection.WRONG_CHAIN,
    "epoch": Rejection.BAD_PARENT,
    "leader_seed": Rejection.BAD_BEACON,
    "view": Rejection.BAD_PARENT,
    "height": Rejection.BAD_HEIGHT,
    "parent_view": Rejection.BAD_PARENT,
    "parent_hash": Rejection.BAD_PARENT,
    "tx_root": Rejection.BAD_ROOT,
    "state_root": Rejection.BAD_ROOT,
    "valset_hash": Rejection.BAD_ROOT,
    "next_valset_hash": Rejection.BAD_ROOT,
    "candidates_root": Rejection.BAD_ROOT,
    "beacon_reveal": Rejection.BAD_BEACON,
    "beacon": Rejection.BAD_BEACON,
    "time_ms": Rejection.BAD_TIME,
}


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a leader brings to its own block; candidates are encoded signed transactions in the order they came."""

    epoch: Epoch
    view: View
    proposer: int
    time_ms: Milliseconds  # raised to the parent's time plus the pace
    beacon_reveal: Hash
    candidates: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class BuiltBlock:
    """A leader's block, the state after it, and the candidates that will not become valid by waiting."""

    block: Block
    ledger: Ledger
    invalid: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Why a block is wanted: `due` at once; otherwise `next_ms` is when the next window closes (None: none is open)."""

    due: bool
    next_ms: Milliseconds | None


def create_genesis(genesis: Genesis) -> tuple[Ledger, Header]:
    """The first state and the header of height 0, view 0, whose hash is the root of the chain.

    Raises: InvalidGenesis.
    """
    ledger = start_ledger(genesis)
    valset_hash = compute_validator_set_hash(get_validators(ledger, 0))
    header = Header(
        chain_id=ledger.constants.chain_id,
        epoch=0,
        leader_seed=genesis.seed,
        view=0,
        height=0,
        parent_view=0,
        parent_hash=ZERO_HASH,
        tx_root=compute_transactions_root(()),
        state_root=ledger.state_root,
        valset_hash=valset_hash,
        next_valset_hash=valset_hash,
        candidates_root=ledger.chain.candidates_root,
        beacon_reveal=ZERO_HASH,
        beacon=genesis.seed,
        time_ms=genesis.time_ms,
    )
    return ledger, header


def build_block(
    ledger: Ledger, parent: Header, context: BuildContext, *, verified: Container[bytes] = frozenset()
) -> BuiltBlock:
    """PrepareProposal: a block of what is includable. `verified`: encoded transactions whose signatures are known to be good.

    Raises: InvalidBlock where the context itself allows no block (wrong epoch, wrong leader, wrong reveal).
    """
    terms = get_epoch_terms(ledger)
    if context.epoch != terms.epoch:
        raise InvalidBlock(
            Rejection.BAD_PARENT,
            f"the next block is of epoch {terms.epoch}, not of {context.epoch}: there it cannot be",
        )
    time_ms = max(context.time_ms, parent.time_ms + ledger.constants.params.pace_ms)
    turn = _start_turn(ledger, parent, context.view, time_ms, context.beacon_reveal)
    if context.proposer != index_of(terms.validators, turn.proposer):
        raise InvalidBlock(
            Rejection.NOT_LEADER,
            f"validator {context.proposer} is not the leader of view {context.view}: that is {index_of(terms.validators, turn.proposer)}",
        )
    draft = Draft(ledger)
    lanes = sort_into_lanes(ledger, context.candidates, verified)
    body = BodyDraft()
    for encoded, signed in (*lanes.reports, *lanes.jobs):
        body.offer(draft, turn, encoded, signed)
    step_jobs(draft, turn)
    for encoded, signed in lanes.accounts:
        body.offer(draft, turn, encoded, signed)
    child = close_turn(draft, turn)
    taken = tuple(body.taken)
    header = _make_header(ledger, parent, turn, taken, child.state_root)
    return BuiltBlock(Block(header, taken), child, (*lanes.invalid, *body.invalid))


def check_block(ledger: Ledger, parent: Header, block: Block, *, verified: Container[bytes] = frozenset()) -> Ledger:
    """ProcessProposal and execution: the state after the block. `verified`: as in `build_block`.

    Raises: InvalidBlock.
    """
    header = block.header
    check_body_size(block.body)
    turn = _start_turn(ledger, parent, header.view, header.time_ms, header.beacon_reveal)
    _check_header(_make_header(ledger, parent, turn, block.body, header.state_root), header)  # L13
    draft = Draft(ledger)
    execute_body(draft, turn, block.body, verified)
    child = close_turn(draft, turn)
    _check_header(replace(header, state_root=child.state_root), header)  # L8
    return child


def check_transaction(ledger: Ledger, signed: SignedTransaction, *, pending_nonce: int | None = None) -> None:
    """Accept what the next block could hold, or one after the sender's waiting transactions; the signature is not judged here.

    `pending_nonce`: the sender's highest nonce that waits already; nonces up to params.nonce_gap above the used one, and the next
    after those that wait, are accepted for later. Raises: InvalidTransaction with a sentence for the command line's user.
    """
    draft, body = Draft(ledger), signed.body
    height = ledger.chain.height + 1
    if isinstance(body, Report):
        check_report(draft, body, height, ledger.chain.time_ms)
        return
    if isinstance(body, Commit | Reveal):
        apply_job_transaction(draft, _next_turn(ledger), body)
        return
    used = get_account(draft, body.sender).nonce
    latest = max(used + ledger.constants.params.nonce_gap, (pending_nonce or 0) + 1)
    check_account_transaction(draft, body, height, latest_nonce=latest)


def has_work(ledger: Ledger, now_ms: Milliseconds) -> Work:
    """Whether a leader should propose at once, transactions aside (rule L12), and when to look again."""
    deadlines: list[Milliseconds] = []
    for key in list_keys(ledger, bytes((Kind.OPEN_JOB,))):
        job = JOB_CODEC.decode(ledger.entries[key])
        deadline_ms = get_deadline_ms(job)
        if job.phase is Phase.SUBMITTED or (deadline_ms is not None and deadline_ms <= now_ms):  # L12
            return Work(due=True, next_ms=None)
        deadlines.extend(() if deadline_ms is None else (deadline_ms,))
    return Work(due=False, next_ms=min(deadlines, default=None))


def get_onion_gap(ledger: Ledger, parent: Header, view: View) -> tuple[int, int, Hash]:
    """(index of the leader of `view`, how many layers lie between its next reveal and its stored tip, that tip)."""
    terms = get_epoch_terms(ledger)
    leader = _compute_leader(ledger, terms, view)
    onion = ONION_CODEC.decode(ledger.entries[onion_key(terms.validators.members[leader].node)])
    gap = onion.slots - onion.tip_slot + _count_slots(ledger, terms, parent.view, view)[leader]
    return leader, gap, onion.tip


# --- before execution


def _start_turn(ledger: Ledger, parent: Header, view: View, time_ms: Milliseconds, reveal: Hash) -> Turn:
    assert ledger.state_root == parent.state_root, (ledger.chain.height, parent.height)
    params = ledger.constants.params
    if not parent.view < view <= parent.view + MAX_SKIPPED_VIEWS:  # L2
        raise InvalidBlock(
            Rejection.BAD_PARENT,
            f"view {view} must be above the parent's {parent.view}, by at most {MAX_SKIPPED_VIEWS}",
        )
    least_ms = parent.time_ms + params.pace_ms
    if not least_ms <= time_ms <= MAX_TIME_MS:  # L3
        raise InvalidBlock(
            Rejection.BAD_TIME,
            f"time {time_ms} must be {least_ms} (the parent's plus {params.pace_ms} ms) to {MAX_TIME_MS}",
        )
    leader, gap, tip = get_onion_gap(ledger, parent, view)
    if not is_reveal_valid(tip, reveal, gap, params.onion_max_gap):  # L4
        raise InvalidBlock(
            Rejection.BAD_BEACON,
            f"the reveal of validator {leader} for view {view} is not {gap} layers (at most {params.onion_max_gap}) inside its tip {tip.hex()[:12]}",
        )
    terms = get_epoch_terms(ledger)
    members, slots = terms.validators.members, _count_slots(ledger, terms, parent.view, view)
    return Turn(
        height=parent.height + 1,
        view=view,
        time_ms=time_ms,
        parent_hash=compute_header_hash(parent),
        proposer=members[leader].node,
        beacon_reveal=reveal,
        beacon=compute_beacon(parent.beacon, reveal),
        slots=tuple((members[index].node, count) for index, count in sorted(slots.items())),
    )


def _compute_leader(ledger: Ledger, terms: EpochTerms, view: View) -> int:
    return compute_leader(terms.validators, ledger.constants.chain_id, terms.epoch, terms.seed, view)


def _count_slots(ledger: Ledger, terms: EpochTerms, after: View, to: View) -> Counter[int]:
    """An epoch's views go on from its start's, so a view beyond the boundary of the epoch before is nobody's slot there."""
    return Counter(_compute_leader(ledger, terms, view) for view in range(after + 1, to + 1))


def _next_turn(ledger: Ledger) -> Turn:
    """The turn that job transactions are admitted for: they depend on its height alone."""
    chain = ledger.chain
    return Turn(chain.height + 1, chain.view + 1, chain.time_ms, ZERO_HASH, ZERO_HASH, ZERO_HASH, chain.beacon, ())


def _make_header(ledger: Ledger, parent: Header, turn: Turn, body: tuple[bytes, ...], state_root: Hash) -> Header:
    epoch = get_epoch(ledger)
    return Header(
        chain_id=ledger.constants.chain_id,
        epoch=epoch,
        leader_seed=get_leader_seed(ledger),
        view=turn.view,
        height=turn.height,
        parent_view=parent.view,
        parent_hash=turn.parent_hash,
        tx_root=compute_transactions_root(body),
        state_root=state_root,
        valset_hash=compute_validator_set_hash(get_validators(ledger, epoch)),  # L7
        next_valset_hash=compute_validator_set_hash(get_validators(ledger, epoch + 1)),
        candidates_root=ledger.chain.candidates_root,
        beacon_reveal=turn.beacon_reveal,
        beacon=turn.beacon,
        time_ms=turn.time_ms,
    )


def _check_header(expected: Header, header: Header) -> None:
    if expected == header:
        return
    for name, reason in _FIELD_REASONS.items():
        wanted, got = getattr(expected, name), getattr(header, name)
        if wanted != got:
            raise InvalidBlock(reason, f"header {name}: expected {_show(wanted)}, got {_show(got)}")


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
