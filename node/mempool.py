"""Transactions that wait for a block: admitted once, bounded a sender and in bytes, dropped when included or no longer valid.

One transaction waits for each nonce of an account, one for each thing a member owes a job, one against each validator: a second one could never be in a block
beside the first. Nothing here costs more with every waiting transaction: not admission, nor the question whether there is work.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from protocol.block import MAX_BLOCK_BYTES
from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.draft import Ledger
from protocol.ledger.queries import get_account
from protocol.ledger.state import check_transaction
from protocol.params import Params
from protocol.transactions import (
    TRANSACTION_CODEC,
    Commit,
    FreeTransaction,
    Report,
    Reveal,
    SignedTransaction,
    Transaction,
    author_of,
    check_transaction_signature,
    compute_transaction_id,
)
from protocol.units import ChainId, Hash, Milliseconds, NodeId

EARLY_REASONS: Final = frozenset({Rejection.TOO_EARLY, Rejection.UNKNOWN_JOB, Rejection.NOT_A_MEMBER})
"""Another node may have finalized a block, and acted on it, a moment before this one: a refusal for these reasons may pass."""
LATER_REASONS: Final = frozenset({Rejection.TOO_EARLY, Rejection.BUSY, Rejection.TOO_FEW_CANDIDATES})
"""What waits may become valid although it is not now: others of its sender come first, or other jobs hold the room or the bonds."""
MAX_EARLY: Final = 512  # a committee's messages of a few jobs; the oldest go first
MAX_SENDER_EARLY: Final = 64
EARLY_MS: Final = 10_000  # a node that is behind for longer hears it again from its author
FIRST_REPEAT_MS: Final = 2_000  # what this node offered and is in no block after this long was perhaps lost on its way
LONGEST_REPEAT_MS: Final = 16_000
REPEAT_BYTES: Final = 64 * 1024  # repeated at once: repeating everything at once is how a slow network drowns itself
PRUNED_AT_ONCE: Final = 128  # so that thousands that wait hold up no turn of the engine

_Slot: TypeAlias = tuple[type[FreeTransaction], bytes, bytes]


@dataclass(frozen=True, slots=True)
class Pending:
    """One waiting transaction; `is_own`: it was offered to this node, which repeats it. Units: received_ms since the epoch."""

    id: Hash
    encoded: bytes
    signed: SignedTransaction
    received_ms: Milliseconds
    order: int  # of arrival
    is_own: bool


@dataclass(frozen=True, slots=True)
class _Early:
    """A transaction whose signature is good, and whose block this node may not have yet."""

    pending: Pending
    until_ms: Milliseconds


class Mempool:
    """The waiting transactions of one node; owned by the engine."""

    def __init__(self, chain: ChainId, params: Params) -> None:
        self._chain: Final = chain
        self._params: Final = params
        self._pending: dict[Hash, Pending] = {}
        self._accounts: dict[NodeId, dict[int, Pending]] = {}  # by nonce
        self._free: dict[_Slot, Pending] = {}  # by what they are about: none has a nonce or a fee
        self._early: dict[Hash, _Early] = {}
        self._early_by_author: Counter[NodeId] = Counter()
        self._verified: set[bytes] = set()
        self._repeats: dict[Hash, tuple[Milliseconds, Milliseconds]] = {}  # own ones: when again, after which wait
        self._bytes = 0
        self._arrivals = 0
        self._has_gaps = False
        self._judged_on: Hash = b""  # the block that the next three are about
        self._unjudged: deque[Pending] = deque()
        self._witness: Hash = b""  # one that is includable
        self._unpruned: deque[Hash] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, transaction: Hash) -> bool:
        return transaction in self._pending

    @property
    def verified(self) -> set[bytes]:
        """The encoded transactions waiting here: their signatures are known to be good. Not to be changed."""
        return self._verified

    # In

    def admit(self, ledger: Ledger, encoded: bytes, now_ms: Milliseconds, *, is_own: bool = False) -> Pending | None:
        """The transaction as it now waits, or None where it was waiting already.

        Raises: InvalidMessage where the bytes are no transaction; InvalidTransaction where the ledger refuses it (UNAFFORDABLE,
        EXPIRED, …), its signature is wrong, another waits in its place (DUPLICATE), or the pool has no room for it (TOO_MANY).
        """
        if encoded in self._verified:
            return None  # most come twice, from their author and by gossip: the cheapest look comes first
        signed = TRANSACTION_CODEC.decode(encoded)
        transaction = compute_transaction_id(signed.body)
        if transaction in self._pending:
            return None
        self._check_place(signed.body)
        self._arrivals += 1
        pending = Pending(transaction, encoded, signed, now_ms, self._arrivals, is_own)
        try:
            check_transaction(ledger, signed, pending_nonce=self.find_highest_nonce(author_of(signed.body)))
        except InvalidTransaction as refusal:
            if refusal.reason in EARLY_REASONS and self._has_early_room(ledger, pending):
                check_transaction_signature(self._chain, signed)
                self._hold(pending)
            raise
        check_transaction_signature(self._chain, signed)
        self._check_room(ledger, pending)
        self._insert(pending)
        return pending

    def readmit(self, ledger: Ledger, now_ms: Milliseconds) -> list[Pending]:
        """What came before this node knew the block that admits it, and waits from now on; to be asked after each finalized block."""
        admitted: list[Pending] = []
        for early in list(self._early.values()):
            pending = early.pending
            refusal = find_refusal(ledger, pending.signed)
            if refusal in EARLY_REASONS and now_ms < early.until_ms:
                continue
            self._release(pending)
            if refusal is None and pending.id not in self._pending and self._is_place_free(pending.signed.body):
                self._insert(pending)
                admitted.append(pending)
        return admitted

    def _check_place(self, body: Transaction) -> None:
        author = author_of(body)
        if not self._is_place_free(body):
            raise InvalidTransaction(
                Rejection.DUPLICATE,
                f"another transaction of {author.hex()[:8]} waits in its place already: wait for a block, then look again",
            )
        limit = self._params.max_sender_transactions
        if not isinstance(body, FreeTransaction) and len(self._accounts.get(author, ())) >= limit:
            raise InvalidTransaction(
                Rejection.TOO_MANY,
                f"{author.hex()[:8]} has {limit} transactions waiting already: wait for a block, then send it again",
            )

    def _is_place_free(self, body: Transaction) -> bool:
        if isinstance(body, FreeTransaction):
            return _slot_of(body) not in self._free
        return body.nonce not in self._accounts.get(body.sender, {})

    def _check_room(self, ledger: Ledger, pending: Pending) -> None:
        """Make room for a transaction: what cannot be in a block yet, since others of its sender are missing, costs it nothing to keep."""
        if isinstance(pending.signed.body, FreeTransaction):
            return  # open jobs and validators bound these; who cannot get them in loses a bond, or a liar keeps one
        excess = self._bytes + len(pending.encoded) - self._params.max_mempool_bytes
        if excess > 0 and self._has_gaps:
            gapped = [other for other in self._list_gapped(ledger) if not other.is_own]
            for other in gapped:
                if excess <= 0:
                    break
                excess -= len(other.encoded)
                self._remove(other)
            self._has_gaps = excess <= 0
        if excess > 0:
            raise InvalidTransaction(
                Rejection.TOO_MANY,
                f"the node holds {self._bytes} bytes of waiting transactions: wait for a block, then send it again",
            )

    def _list_gapped(self, ledger: Ledger) -> list[Pending]:
        """Account transactions behind a missing nonce, oldest first."""
        gapped: list[Pending] = []
        for author, waiting in self._accounts.items():
            next_nonce = self.find_free_nonce(author, get_account(ledger, author).nonce)
            gapped.extend(pending for nonce, pending in waiting.items() if nonce > next_nonce)
        return sorted(gapped, key=_order_of)

    def _insert(self, pending: Pending) -> None:
        body = pending.signed.body
        if isinstance(body, FreeTransaction):
            self._free[_slot_of(body)] = pending
        else:
            waiting = self._accounts.setdefault(body.sender, {})
            self._has_gaps = self._has_gaps or body.nonce - 1 not in waiting
            waiting[body.nonce] = pending
        self._pending[pending.id] = pending
        self._verified.add(pending.encoded)
        self._bytes += len(pending.encoded)
        self._unjudged.append(pending)
        self._unpruned.append(pending.id)
        if pending.is_own:
            self._repeats[pending.id] = (pending.received_ms + FIRST_REPEAT_MS, FIRST_REPEAT_MS)

    def _has_early_room(self, ledger: Ledger, pending: Pending) -> bool:
        """Whether to keep what is not valid yet: only members' messages, which nobody without a bond sends."""
        body = pending.signed.body
        if not isinstance(body, Commit | Reveal) or pending.id in self._early:
            return False
        is_bonded = get_account(ledger, body.member).bonded >= self._params.min_bond
        return is_bonded and self._early_by_author[body.member] < MAX_SENDER_EARLY

    def _hold(self, pending: Pending) -> None:
        self._early[pending.id] = _Early(pending, pending.received_ms + EARLY_MS)
        self._early_by_author[author_of(pending.signed.body)] += 1
        while len(self._early) > MAX_EARLY:
            self._release(next(iter(self._early.values())).pending)

    def _release(self, pending: Pending) -> None:
        del self._early[pending.id]
        author = author_of(pending.signed.body)
        self._early_by_author[author] -= 1
        if not self._early_by_author[author]:
            del self._early_by_author[author]

    # Out

    def drop_final(
        self, ledger: Ledger, included: Iterable[tuple[Hash, Transaction]]
    ) -> tuple[list[Pending], list[Pending]]:
        """Take out (what a final block included, what it made impossible by using its nonce), and return both."""
        dropped: list[Pending] = []
        authors: set[NodeId] = set()
        for transaction, body in included:
            authors.add(author_of(body))
            if transaction in self._pending:
                dropped.append(self._remove(self._pending[transaction]))
        beaten: list[Pending] = []
        for author in authors:
            used = get_account(ledger, author).nonce
            waiting = self._accounts.get(author, {})
            beaten.extend(self._remove(waiting[nonce]) for nonce in sorted(waiting) if nonce <= used)
        return dropped, beaten

    def prune(self, ledger: Ledger) -> list[Pending]:
        """Look at some of what waits, in turn, and take out what this (final) state will never admit again: expired, unaffordable, over."""
        dropped: list[Pending] = []
        for _ in range(min(PRUNED_AT_ONCE, len(self._unpruned))):
            pending = self._pending.get(self._unpruned.popleft())
            if pending is None:
                continue
            refusal = find_refusal(ledger, pending.signed)
            if refusal is None or refusal in LATER_REASONS:
                self._unpruned.append(pending.id)
            else:
                dropped.append(self._remove(pending))
        return dropped

    def _remove(self, pending: Pending) -> Pending:
        body = pending.signed.body
        if isinstance(body, FreeTransaction):
            del self._free[_slot_of(body)]
        else:
            waiting = self._accounts[body.sender]
            del waiting[body.nonce]
            if not waiting:
                del self._accounts[body.sender]
            self._has_gaps = True
        del self._pending[pending.id]
        self._repeats.pop(pending.id, None)
        self._verified.discard(pending.encoded)
        self._bytes -= len(pending.encoded)
        return pending

    # Questions

    def has_includable(self, block_hash: Hash, ledger: Ledger) -> bool:
        """Whether any waiting transaction could be in a block on this state (rule L12: that is work).

        `block_hash` names the state. On the same one every transaction is judged at most once.
        """
        if block_hash != self._judged_on:
            self._judged_on, self._witness = block_hash, b""
            self._unjudged = deque((*self._free.values(), *self._list_heads(ledger)))
        while self._witness not in self._pending:
            if not self._unjudged:
                return False
            pending = self._unjudged.popleft()
            if pending.id in self._pending and _is_includable(ledger, pending):
                self._witness = pending.id
        return True

    def list_candidates(self, ledger: Ledger) -> list[bytes]:
        """Encoded transactions for a block on this state, in lanes: job transactions, then accounts' as they came; about two blocks of them.

        Only an unbroken row of an account's nonces counts, from the next one on, so that what cannot be included takes nobody's place.
        """
        chosen: list[bytes] = []
        room = 2 * MAX_BLOCK_BYTES
        for pending in (*self._free.values(), *self._list_rows(ledger)):
            room -= len(pending.encoded)
            if room < 0:
                break
            chosen.append(pending.encoded)
        return chosen

    def take_repeats(self, now_ms: Milliseconds) -> list[Pending]:
        """What was offered to this node and has waited for long, oldest first; each is due again after twice the time."""
        due: list[Pending] = []
        room = REPEAT_BYTES
        for transaction, (at_ms, wait_ms) in self._repeats.items():
            pending = self._pending[transaction]
            if at_ms <= now_ms and len(pending.encoded) <= room:
                room -= len(pending.encoded)
                due.append(pending)
                longer_ms = min(2 * wait_ms, LONGEST_REPEAT_MS)
                self._repeats[transaction] = (now_ms + longer_ms, longer_ms)
        return due

    def find_highest_nonce(self, author: NodeId) -> int | None:
        """The highest nonce of an author's waiting account transactions."""
        return max(self._accounts.get(author, ()), default=None)

    def find_free_nonce(self, author: NodeId, used: int) -> int:
        """The lowest nonce above the used one that no waiting transaction has."""
        waiting, nonce = self._accounts.get(author, {}), used + 1
        while nonce in waiting:
            nonce += 1
        return nonce

    def _list_heads(self, ledger: Ledger) -> Iterator[Pending]:
        """Each account's transaction with its next nonce."""
        for author, waiting in self._accounts.items():
            head = waiting.get(get_account(ledger, author).nonce + 1)
            if head is not None:
                yield head

    def _list_rows(self, ledger: Ledger) -> Iterator[Pending]:
        """Account transactions in the order they came, as far as no earlier nonce of their account is missing."""
        heap = [(head.order, head) for head in self._list_heads(ledger)]
        heapq.heapify(heap)
        while heap:
            _, pending = heapq.heappop(heap)
            yield pending
            body = pending.signed.body
            assert not isinstance(body, FreeTransaction), pending.id.hex()
            following = self._accounts[body.sender].get(body.nonce + 1)
            if following is not None:
                heapq.heappush(heap, (following.order, following))


def find_refusal(ledger: Ledger, signed: SignedTransaction) -> Rejection | None:
    """Why this state does not admit the transaction now."""
    try:
        check_transaction(ledger, signed)
    except InvalidTransaction as refusal:
        return refusal.reason
    return None


def _is_includable(ledger: Ledger, pending: Pending) -> bool:
    body = pending.signed.body
    if not isinstance(body, FreeTransaction) and body.nonce != get_account(ledger, body.sender).nonce + 1:
        return False
    return find_refusal(ledger, pending.signed) is None


def _slot_of(body: FreeTransaction) -> _Slot:
    if isinstance(body, Report):
        accused = body.evidence.signer.to_bytes(2, "big")
        return Report, accused, body.evidence.epoch.to_bytes(8, "big")
    return type(body), body.member, body.job


def _order_of(pending: Pending) -> int:
    return pending.order
