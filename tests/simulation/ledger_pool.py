"""The transactions that wait at a simulated node: everything well signed is held until the final state rules it out."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import InvalidMessage, InvalidTransaction, Rejection
from protocol.ledger.draft import Ledger
from protocol.ledger.queries import get_account
from protocol.ledger.state import check_transaction
from protocol.transactions import (
    TRANSACTION_CODEC,
    AccountTransaction,
    SignedTransaction,
    Transaction,
    check_transaction_signature,
    compute_transaction_id,
)
from protocol.units import Hash

LATER = frozenset(
    {
        Rejection.TOO_EARLY,
        Rejection.BUSY,
        Rejection.TOO_FEW_CANDIDATES,
        Rejection.UNKNOWN_JOB,
        Rejection.NOT_A_MEMBER,
        Rejection.WRONG_PHASE,
    }
)
"""What may become valid although it is not now: this node may be behind, or the sender early."""
MAX_WAIT_MS = 20_000  # after that whoever wants it offers it again


@dataclass(slots=True)
class Waiting:
    """One transaction; `repeat_ms` is when its origin says it again, 0 where it came from somebody else."""

    encoded: bytes
    signed: SignedTransaction
    since_ms: int
    repeat_ms: int


class Pool:
    """What waits at one node."""

    def __init__(self, verified: set[bytes]) -> None:
        self.verified = verified
        self.waiting: dict[Hash, Waiting] = {}
        self.version = 0
        self.judged: tuple[Hash, int, bool] = (b"", -1, False)

    def add(self, ledger: Ledger, encoded: bytes, now_ms: int, *, is_own: bool) -> Transaction | None:
        """The transaction if it is new here and well signed."""
        try:
            signed = TRANSACTION_CODEC.decode(encoded)
            if encoded not in self.verified:
                check_transaction_signature(ledger.constants.chain_id, signed)
        except (InvalidMessage, InvalidTransaction):
            return None
        name = compute_transaction_id(signed.body)
        if name in self.waiting or is_ruled_out(ledger, signed):
            return None
        self.waiting[name] = Waiting(encoded, signed, now_ms, now_ms + 1_500 if is_own else 0)
        self.version += 1
        return signed.body

    def drop(self, ledger: Ledger, included: set[Hash], now_ms: int) -> None:
        """Takes out what a final block included, what this state rules out, and what nobody asked for again."""
        kept = {
            name: entry
            for name, entry in self.waiting.items()
            if name not in included and now_ms < entry.since_ms + MAX_WAIT_MS and not is_ruled_out(ledger, entry.signed)
        }
        if len(kept) != len(self.waiting):
            self.waiting = kept
            self.version += 1

    def list_candidates(self) -> list[bytes]:
        """Everything, in the order it came."""
        return [entry.encoded for entry in self.waiting.values()]

    def list_repeats(self, now_ms: int) -> list[bytes]:
        """This node's own transactions that are due to be said again."""
        due = [entry for entry in self.waiting.values() if 0 < entry.repeat_ms <= now_ms]
        for entry in due:
            entry.repeat_ms = now_ms + 2_000
        return [entry.encoded for entry in due]

    def has_includable(self, block_hash: Hash, ledger: Ledger) -> bool:
        """Whether the next block on this state could hold something of it."""
        if self.judged[:2] != (block_hash, self.version):
            found = any(is_includable(ledger, entry.signed) for entry in self.waiting.values())
            self.judged = (block_hash, self.version, found)
        return self.judged[2]


def is_includable(ledger: Ledger, signed: SignedTransaction) -> bool:
    """Whether the next block on this state could hold the transaction as its first."""
    body = signed.body
    if isinstance(body, AccountTransaction) and body.nonce != get_account(ledger, body.sender).nonce + 1:
        return False
    try:
        check_transaction(ledger, signed)
    except InvalidTransaction:
        return False
    return True


def is_ruled_out(ledger: Ledger, signed: SignedTransaction) -> bool:
    """Whether no block on this state will ever hold the transaction."""
    try:
        check_transaction(ledger, signed)
    except InvalidTransaction as refusal:
        return refusal.reason not in LATER
    return False
