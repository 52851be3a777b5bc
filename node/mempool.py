"""Transactions that wait for a block: admitted once, bounded a sender and in bytes, dropped when included or no longer valid."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from protocol.block import MAX_BLOCK_BYTES
from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.draft import Ledger
from protocol.ledger.queries import get_account
from protocol.ledger.state import check_transaction
from protocol.params import Params
from protocol.transactions import (
    TRANSACTION_CODEC,
    Commit,
    Reveal,
    SignedTransaction,
    author_of,
    check_transaction_signature,
    compute_transaction_id,
)
from protocol.units import ChainId, Hash, NodeId

EARLY_REASONS: Final = frozenset({Rejection.TOO_EARLY, Rejection.WRONG_PHASE, Rejection.UNKNOWN_JOB, Rejection.NOT_A_MEMBER})
"""Another node may have finalized a block, and acted on it, a moment before this one: a refusal for these reasons may pass."""
MAX_EARLY: Final = 512  # a committee's messages of a few jobs; the oldest go first


@dataclass(frozen=True, slots=True)
class Pending:
    """One waiting transaction. Units: received_ms since the epoch."""

    id: Hash
    encoded: bytes
    signed: SignedTransaction
    received_ms: int


class Mempool:
    """The waiting transactions of one node; owned by the engine."""

    def __init__(self, chain: ChainId, params: Params) -> None:
        self._chain: Final = chain
        self._params: Final = params
        self._pending: dict[Hash, Pending] = {}
        self._by_author: Counter[NodeId] = Counter()
        self._verified: set[bytes] = set()
        self._early: dict[Hash, bytes] = {}
        self._bytes = 0
        self.version = 0  # grows with every change

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, transaction: Hash) -> bool:
        return transaction in self._pending

    @property
    def verified(self) -> set[bytes]:
        """The encoded transactions waiting here: their signatures are known to be good. Not to be changed."""
        return self._verified

    def admit(self, ledger: Ledger, encoded: bytes, now_ms: int) -> Pending | None:
        """The transaction as it now waits, or None where it was waiting already.

        Raises: InvalidMessage where the bytes are no transaction; InvalidTransaction where the ledger refuses it (UNAFFORDABLE,
        EXPIRED, …), its signature is wrong, or the pool has no room for it (TOO_MANY).
        """
        signed = TRANSACTION_CODEC.decode(encoded)
        transaction = compute_transaction_id(signed.body)
        if transaction in self._pending:
            return None
        self._check_room(author_of(signed.body), len(encoded))
        try:
            check_transaction(ledger, signed, pending_nonce=self.highest_nonce(author_of(signed.body)) or None)
        except InvalidTransaction as refusal:
            if refusal.reason in EARLY_REASONS:
                check_transaction_signature(self._chain, signed)
                self._hold(transaction, encoded)
            raise
        check_transaction_signature(self._chain, signed)
        pending = Pending(transaction, encoded, signed, now_ms)
        self._pending[transaction] = pending
        self._verified.add(encoded)
        self.version += 1
        self._by_author[author_of(signed.body)] += 1
        self._bytes += len(encoded)
        return pending

    def _check_room(self, author: NodeId, size: int) -> None:
        limit = self._params.max_sender_transactions
        if self._by_author[author] >= limit:
            raise InvalidTransaction(
                Rejection.TOO_MANY,
                f"{author.hex()[:8]} has {limit} transactions waiting already: wait for a block, then send it again",
            )
        if self._bytes + size > self._params.max_mempool_bytes:
            raise InvalidTransaction(
                Rejection.TOO_MANY,
                f"the node holds {self._bytes} bytes of waiting transactions: wait for a block, then send it again",
            )

    def _hold(self, transaction: Hash, encoded: bytes) -> None:
        self._early[transaction] = encoded
        while len(self._early) > MAX_EARLY:
            del self._early[next(iter(self._early))]

    def take_early(self) -> list[bytes]:
        """What came before this node knew the block that admits it; to be offered again after each finalized block."""
        early, self._early = list(self._early.values()), {}
        return early

    def drop(self, transactions: Iterable[Hash]) -> list[Pending]:
        """Take these out (they are in a block, or refused) and return those that were waiting."""
        dropped = [self._pending.pop(transaction) for transaction in transactions if transaction in self._pending]
        self.version += 1 if dropped else 0
        for pending in dropped:
            self._verified.discard(pending.encoded)
            author = author_of(pending.signed.body)
            self._by_author[author] -= 1
            if not self._by_author[author]:
                del self._by_author[author]
            self._bytes -= len(pending.encoded)
        return dropped

    def drop_invalid(self, ledger: Ledger) -> list[Pending]:
        """Take out what this (final) state will never admit again: expired, nonce used, unaffordable, phase over."""
        return self.drop(
            [pending.id for pending in self._pending.values() if not is_admissible(ledger, pending.signed)]
        )

    def has_includable(self, ledger: Ledger) -> bool:
        """Whether any waiting transaction could be in a block on this state (protocol.md section 2: that is work)."""
        return any(self._is_includable(ledger, pending) for pending in self._pending.values())

    def list_candidates(self) -> list[bytes]:
        """Encoded transactions for a block, in lanes: job transactions first, then accounts' by nonce; about one block of them."""
        job = [pending for pending in self._pending.values() if isinstance(pending.signed.body, Commit | Reveal)]
        account = [
            pending for pending in self._pending.values() if not isinstance(pending.signed.body, Commit | Reveal)
        ]
        account.sort(key=_nonce_of)
        chosen: list[bytes] = []
        room = MAX_BLOCK_BYTES
        for pending in (*job, *account):
            room -= len(pending.encoded)
            if room < 0:
                break
            chosen.append(pending.encoded)
        return chosen

    def list_older(self, than_ms: int, author: NodeId) -> list[Pending]:
        """An author's transactions that have waited since before `than_ms`: gossip may have lost them."""
        return [
            pending
            for pending in self._pending.values()
            if pending.received_ms < than_ms and author_of(pending.signed.body) == author
        ]

    def highest_nonce(self, author: NodeId) -> int:
        """The highest nonce of an author's waiting account transactions; 0 where none waits."""
        nonces = (_nonce_of(pending) for pending in self._pending.values() if author_of(pending.signed.body) == author)
        return max(nonces, default=0) if self._by_author[author] else 0

    @staticmethod
    def _is_includable(ledger: Ledger, pending: Pending) -> bool:
        body = pending.signed.body
        if not isinstance(body, Commit | Reveal) and body.nonce != get_account(ledger, body.sender).nonce + 1:
            return False
        return is_admissible(ledger, pending.signed)


def is_admissible(ledger: Ledger, signed: SignedTransaction) -> bool:
    """Whether this state admits the transaction, now or after others of its sender."""
    try:
        check_transaction(ledger, signed)
    except InvalidTransaction:
        return False
    return True


def _nonce_of(pending: Pending) -> int:
    body = pending.signed.body
    return 0 if isinstance(body, Commit | Reveal) else body.nonce
