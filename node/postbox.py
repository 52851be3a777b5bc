"""Transactions on their way: offered by clients, by peers and by this node itself, gossiped in batches, answered once judged.

A batch goes out when 20 ms have passed or 32 KiB are full: one transaction a message would cap the network at a few hundred a
second. What this node itself offers also goes straight to the next leaders, so that a block need not wait for gossip.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import trio

from node.chain import Executed, FinalizedBlock
from node.events import Chore, JobOffered, TransactionOffered
from node.mempool import Mempool, Pending
from node.network import Network
from node.ordering import Ordering
from node.storage import Storage
from node.telemetry import Level, Telemetry
from node.timers import Timers
from node.wire import MAX_BATCH_BYTES, TOPIC_CERTIFICATES, TOPIC_TRANSACTIONS, TransactionBatch
from protocol.codec import encode
from protocol.crypto import SigningKey
from protocol.errors import InvalidMessage, InvalidTransaction, Refusal
from protocol.ledger.draft import Ledger
from protocol.ledger.queries import get_account
from protocol.ordering.events import Timer
from protocol.ordering.messages import QuorumCert
from protocol.transactions import JobRequest, Submit, Transaction, compute_transaction_id, sign_transaction
from protocol.units import Hash, JobId, NodeId
from protocol.validators import compute_leader

R = TypeVar("R")

BATCH_DELAY_MS: Final = 20
REPEAT_AFTER_MS: Final = 2_000  # an own transaction that is in no block after this long was perhaps lost by gossip
VALID_HEIGHTS: Final = 1_024  # how long a job submitted through this node may wait for a block
PRUNE_HEIGHTS: Final = 8  # what can never be included is looked for this often; it is refused by every block anyway


class Postbox:
    """The mempool and the ways in and out of it; owned by the engine."""

    def __init__(
        self, key: SigningKey, mempool: Mempool, ordering: Ordering, network: Network, storage: Storage,
        timers: Timers[Timer | Chore], telemetry: Telemetry, final: Ledger,
    ) -> None:  # fmt: skip
        self._key: Final = key
        self._chain_id: Final = final.constants.chain_id
        self._network: Final = network
        self._storage: Final = storage
        self._timers: Final = timers
        self._telemetry: Final = telemetry
        self._final = final
        self._height = final.chain.height
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._includable: tuple[Hash, int, bool] = (b"", -1, False)
        self._ordering: Final = ordering
        self.mempool: Final = mempool

    def take_offer(self, offer: TransactionOffered | JobOffered) -> None:
        """Judge a client's transaction or job and answer it."""
        try:
            if isinstance(offer, JobOffered):
                _reply(offer.reply, self._take_job(offer.job, offer.request_id))
            else:
                encoded = encode(offer.signed)
                self._admit(encoded, is_own=True)
                _reply(offer.reply, compute_transaction_id(offer.signed.body))
        except Refusal as refusal:
            _reply(offer.reply, refusal)

    def take_batch(self, peer: NodeId, transactions: Sequence[bytes]) -> None:
        """Admit what is new and admissible; what the ledger refuses is dropped, since a peer may be a block behind."""
        for encoded in transactions:
            try:
                self._admit(encoded, is_own=False)
            except InvalidTransaction as refusal:
                self._telemetry.emit(Level.DEBUG, "transaction_refused", peer=peer, reason=refusal.reason.value)
            except InvalidMessage as error:
                self._telemetry.emit(
                    Level.WARNING, "peer_charged", peer=peer, reason=error.reason.value, text=str(error)
                )

    def offer_own(self, body: Transaction) -> None:
        """Sign, admit and send a transaction of this node's own, unless it waits already."""
        if compute_transaction_id(body) in self.mempool:
            return
        try:
            self._admit(encode(sign_transaction(self._key, self._chain_id, body)), is_own=True)
        except InvalidTransaction as refusal:
            self._telemetry.emit(
                Level.WARNING,
                "own_transaction_refused",
                kind=type(body).__name__,
                reason=refusal.reason.value,
                text=str(refusal),
            )

    def take_finalized(self, block: FinalizedBlock) -> None:
        """Drop what the block included, sample how long it took, and look again at what came too early."""
        self._final, self._height = block.ledger, block.header.height
        now_ms = self._now_ms()
        for pending in self.mempool.drop([transaction for transaction, _ in block.transactions]):
            self._telemetry.finality_ms.append(now_ms - pending.received_ms)
        if self._height % PRUNE_HEIGHTS == 0:
            self.mempool.drop_invalid(block.ledger)
        self.take_batch(self._key.public, self.mempool.take_early())

    def has_includable(self, parent: Executed) -> bool:
        """Whether a waiting transaction could be in a block on this parent; judged again only when either changed."""
        parent_hash, version, includable = self._includable
        if (parent_hash, version) != (parent.hash, self.mempool.version):
            includable = self.mempool.has_includable(parent.ledger)
            self._includable = (parent.hash, self.mempool.version, includable)
        return includable

    def publish_batch(self) -> None:
        """Gossip what has gathered."""
        if self._batch:
            self._network.publish(TOPIC_TRANSACTIONS, encode(TransactionBatch(tuple(self._batch))))
            self._batch, self._batch_bytes = [], 0

    def publish_cert(self, cert: QuorumCert) -> None:
        """Gossip a FinalCert for those who are no validators."""
        self._network.publish(TOPIC_CERTIFICATES, encode(cert))

    def repeat_own(self) -> None:
        """Gossip this node's own transactions again that have waited for long."""
        for pending in self.mempool.list_older(self._now_ms() - REPEAT_AFTER_MS, self._key.public):
            self._send_to_leaders(pending.encoded)
            self._gather(pending.encoded)

    def _take_job(self, job: JobRequest, request_id: str | None) -> tuple[JobId, bool]:
        known = None if request_id is None else self._storage.get_request(request_id)
        if known is not None:
            if self._storage.get_transaction(known.job) is None and known.job not in self.mempool:
                self._admit(known.transaction, is_own=True)
            return known.job, True
        sender = self._key.public
        nonce = max(get_account(self._final, sender).nonce, self.mempool.highest_nonce(sender)) + 1
        body = Submit(sender, nonce, self._height + VALID_HEIGHTS, job)
        encoded = encode(sign_transaction(self._key, self._chain_id, body))
        self._check_then(encoded, request_id, compute_transaction_id(body))
        return compute_transaction_id(body), False

    def _check_then(self, encoded: bytes, request_id: str | None, job: JobId) -> None:
        """Admit first, so that a refused job leaves no trace; the request is durable before anything is sent."""
        pending = self.mempool.admit(self._final, encoded, self._now_ms())
        if request_id is not None:
            self._storage.store_request(request_id, job, encoded)
        if pending is not None:
            self._spread(pending, is_own=True)

    def _admit(self, encoded: bytes, *, is_own: bool) -> None:
        pending = self.mempool.admit(self._final, encoded, self._now_ms())
        if pending is not None:
            self._spread(pending, is_own=is_own)

    def _spread(self, pending: Pending, *, is_own: bool) -> None:
        if is_own:
            self._send_to_leaders(pending.encoded)
            self._gather(pending.encoded)

    def _send_to_leaders(self, encoded: bytes) -> None:
        context, view = self._ordering.state.context, self._ordering.state.view
        leaders = {
            compute_leader(context.validators, context.chain, context.epoch, context.seed, upcoming)
            for upcoming in (view, view + 1)
        } - {context.own}
        peers = tuple(context.validators.members[index].node for index in sorted(leaders))
        self._ordering.send(peers, TransactionBatch((encoded,)))

    def _gather(self, encoded: bytes) -> None:
        if self._batch_bytes + len(encoded) > MAX_BATCH_BYTES:
            self.publish_batch()
        if not self._batch:
            self._timers.set(Chore.GOSSIP, self._now_ms() + BATCH_DELAY_MS)
        self._batch.append(encoded)
        self._batch_bytes += len(encoded)

    def _now_ms(self) -> int:
        return self._ordering.now_ms()


def _reply(channel: trio.MemorySendChannel[R], reply: R) -> None:
    try:
        channel.send_nowait(reply)
    except (trio.BrokenResourceError, trio.WouldBlock):
        return  # the client went away: nobody is there to be told
