"""A block's body: which transactions fit into one, in which order, and their execution (rules L5, L14, T14)."""

from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from protocol.block import MAX_BLOCK_BYTES, MAX_BLOCK_TRANSACTIONS
from protocol.errors import InvalidBlock, InvalidMessage, InvalidTransaction, Rejection
from protocol.ledger.draft import Draft, Ledger
from protocol.ledger.execution import Turn, apply_account_transaction, apply_job_transaction, step_jobs
from protocol.ledger.slashing import apply_report
from protocol.transactions import (
    TRANSACTION_CODEC,
    Commit,
    FreeTransaction,
    Report,
    Reveal,
    SignedTransaction,
    Transaction,
    check_transaction_signature,
)
from protocol.units import NodeId

_HEADER_BYTES: Final = 1024  # more than any header with its framing
_FRAMING_BYTES: Final = 5  # of one transaction in a body
_LATER: Final = frozenset({Rejection.TOO_EARLY, Rejection.BUSY})


class Lane(IntEnum):
    """The parts of a body, in their order."""

    REPORTS = 0
    JOBS = 1
    ACCOUNTS = 2


@dataclass(frozen=True, slots=True)
class Lanes:
    """Candidates by lane, decoded, and those that are no signed transactions of this chain."""

    reports: tuple[tuple[bytes, SignedTransaction], ...]
    jobs: tuple[tuple[bytes, SignedTransaction], ...]
    accounts: tuple[tuple[bytes, SignedTransaction], ...]
    invalid: tuple[bytes, ...]


class BodyDraft:
    """The body under construction: what fitted, and what was refused for good."""

    __slots__ = ("_room", "invalid", "taken")

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.invalid: list[bytes] = []
        self._room = MAX_BLOCK_BYTES - _HEADER_BYTES

    def offer(self, draft: Draft, turn: Turn, encoded: bytes, signed: SignedTransaction) -> None:
        """Take the transaction if it fits and this draft admits it."""
        size = len(encoded) + _FRAMING_BYTES
        if size > self._room or len(self.taken) == MAX_BLOCK_TRANSACTIONS:
            return
        try:
            _apply(draft, turn, signed)
        except InvalidTransaction as refusal:
            self.invalid.extend(() if refusal.reason in _LATER else (encoded,))
            return
        self._room -= size
        self.taken.append(encoded)


def check_body_size(body: tuple[bytes, ...]) -> None:
    """Accept a body that fits a block. Raises: InvalidBlock(TOO_LARGE)."""
    size = _HEADER_BYTES + sum(len(encoded) + _FRAMING_BYTES for encoded in body)
    if size > MAX_BLOCK_BYTES or len(body) > MAX_BLOCK_TRANSACTIONS:  # L14
        raise InvalidBlock(
            Rejection.TOO_LARGE,
            f"a block holds at most {MAX_BLOCK_BYTES} bytes and {MAX_BLOCK_TRANSACTIONS} transactions, got {size} and {len(body)}",
        )


def sort_into_lanes(ledger: Ledger, candidates: Iterable[bytes], verified: Container[bytes]) -> Lanes:
    """The candidates in the order a block may hold them: reports and job transactions as they came, accounts' by nonce."""
    reports: list[tuple[bytes, SignedTransaction]] = []
    jobs: list[tuple[bytes, SignedTransaction]] = []
    accounts: list[tuple[bytes, SignedTransaction]] = []
    invalid: list[bytes] = []
    for encoded in dict.fromkeys(candidates):
        try:
            signed = _decode(ledger, encoded, verified)
        except (InvalidMessage, InvalidTransaction):
            invalid.append(encoded)
            continue
        (reports, jobs, accounts)[get_lane(signed.body)].append((encoded, signed))
    return Lanes(tuple(reports), tuple(jobs), _order_by_nonce(accounts), tuple(invalid))


def get_lane(body: Transaction) -> Lane:
    """Which part of a block's body the transaction belongs to (L5)."""
    match body:
        case Report():
            return Lane.REPORTS
        case Commit() | Reveal():
            return Lane.JOBS
        case _:
            return Lane.ACCOUNTS


def _order_by_nonce(lane: list[tuple[bytes, SignedTransaction]]) -> tuple[tuple[bytes, SignedTransaction], ...]:
    """Senders keep the places they came in; each sender's own transactions fill its places by nonce."""
    queues: dict[NodeId, list[tuple[int, bytes, SignedTransaction]]] = {}
    order: list[NodeId] = []
    for encoded, signed in lane:
        body = signed.body
        assert not isinstance(body, FreeTransaction)
        queues.setdefault(body.sender, []).append((body.nonce, encoded, signed))
        order.append(body.sender)
    sorted_queues = {sender: deque(sorted(queue, key=lambda item: item[:2])) for sender, queue in queues.items()}
    return tuple(sorted_queues[sender].popleft()[1:] for sender in order)


def execute_body(draft: Draft, turn: Turn, body: tuple[bytes, ...], verified: Container[bytes]) -> None:
    """Do everything a body says, the open jobs moved between its lanes. Raises: InvalidBlock(BAD_BODY)."""
    lane = Lane.REPORTS
    for index, encoded in enumerate(body):
        try:
            signed = _decode(draft.base, encoded, verified)
            own_lane = get_lane(signed.body)
            if own_lane < lane:
                raise InvalidBlock(
                    Rejection.BAD_BODY,
                    f"transaction {index} is a {type(signed.body).__name__} behind {lane.name.lower()}: reports come first, then job transactions, then those of accounts",
                )  # L5
            if lane < Lane.ACCOUNTS and own_lane is Lane.ACCOUNTS:
                step_jobs(draft, turn)
            lane = own_lane
            _apply(draft, turn, signed)
        except (InvalidMessage, InvalidTransaction) as refusal:
            raise InvalidBlock(
                Rejection.BAD_BODY, f"transaction {index} is invalid on this state ({refusal.reason.value}): {refusal}"
            ) from refusal
    if lane < Lane.ACCOUNTS:
        step_jobs(draft, turn)


def _decode(ledger: Ledger, encoded: bytes, verified: Container[bytes]) -> SignedTransaction:
    signed = TRANSACTION_CODEC.decode(encoded)
    if encoded not in verified:  # T14
        check_transaction_signature(ledger.constants.chain_id, signed)
    return signed


def _apply(draft: Draft, turn: Turn, signed: SignedTransaction) -> None:
    body = signed.body
    if isinstance(body, Report):
        apply_report(draft, body, turn.height, turn.time_ms)
    elif isinstance(body, Commit | Reveal):
        apply_job_transaction(draft, turn, body)
    else:
        apply_account_transaction(draft, turn, body)
