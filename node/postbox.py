"""Transactions on their way: offered by clients, by peers and by this node itself, gossiped in batches, answered once judged.

A batch goes out when 20 ms have passed or 32 KiB are full: one transaction a message would cap the network at a few hundred a
second. What this node itself offers also goes straight to the next leaders, so that a block need not wait for gossip.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import trio

from node.chain import Executed, FinalizedBlock
from node.events import Chore, JobOffered, TransactionOffered
from node.mempool import Mempool, Pending
from node.network import Network
from node.offences import Offences
from node.ordering import Ordering
from node.storage import Storage, StoredRequest
from node.telemetry import Level, Telemetry
from node.timers import Timers
from node.wire import MAX_BATCH_BYTES, TOPIC_CERTIFICATES, TOPIC_TRANSACTIONS, TransactionBatch
from protocol.codec import encode
from protocol.crypto import SigningKey
from protocol.errors import InvalidMessage, InvalidTransaction, Refusal, Rejection
from protocol.evidence import Evidence
from protocol.ledger.draft import Ledger
from protocol.ledger.epochs import find_validators
from protocol.ledger.queries import get_account, get_conviction
from protocol.ordering.events import Timer
from protocol.ordering.messages import QuorumCert
from protocol.transactions import (
    JobRequest,
    RenewOnion,
    Report,
    Submit,
    Transaction,
    compute_transaction_id,
    sign_transaction,
)
from protocol.units import Hash, JobId, NodeId
from protocol.validators import compute_leader

R = TypeVar("R")

BATCH_DELAY_MS: Final = 20
MAX_REFUSED: Final = 500  # of one peer between two repetitions: 25 ms of looking at what is worth nothing
VALID_HEIGHTS: Final = 1_024  # how long a job submitted through this node may wait for a block
NEVER_VALID: Final = frozenset(
    {Rejection.BAD_NONCE, Rejection.EXPIRED}
)  # on a final state: not in any block to come either


class Postbox:
    """The mempool and the ways in and out of it; owned by the engine."""

    def __init__(
        self, key: SigningKey, mempool: Mempool, ordering: Ordering, network: Network, storage: Storage,
        timers: Timers[Timer | Chore], telemetry: Telemetry, offences: Offences, final: Ledger,
    ) -> None:  # fmt: skip
        self._key: Final = key
        self._chain_id: Final = final.constants.chain_id
        self._network: Final = network
        self._storage: Final = storage
        self._timers: Final = timers
        self._telemetry: Final = telemetry
        self._offences: Final = offences
        self._final = final
        self._height = final.chain.height
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._refused: Counter[NodeId] = Counter()
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
        """Admit what is new and admissible; what the ledger refuses is dropped, since a peer may be a block behind.

        What is no transaction, or not its author's, no honest node hands on: the rest of such a batch is not worth a look. Nor is anything
        more from a peer of which too much was refused lately; what mattered in it comes again.
        """
        for encoded in transactions:
            if self._refused[peer] >= MAX_REFUSED:
                return
            try:
                self._admit(encoded, is_own=False)
            except InvalidMessage as error:
                self._offences.charge(peer, error.reason.value, str(error))
                return
            except InvalidTransaction as refusal:
                if refusal.reason is Rejection.BAD_SIGNATURE:
                    self._offences.charge(peer, refusal.reason.value, str(refusal))
                    return
                self._refused[peer] += 1
                self._telemetry.emit(Level.DEBUG, "transaction_refused", peer=peer, reason=refusal.reason.value)

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

    def report(self, evidence: Evidence) -> None:
        """Tell the ledger who broke a voting rule, unless it knows (rule E4)."""
        validators = find_validators(self._final, evidence.epoch)
        if validators is not None and get_conviction(self._final, validators.members[evidence.signer].node) is None:
            self.offer_own(Report(self._key.public, evidence))

    def renew_onion(self, tip: Hash, renewal: int) -> None:
        """Register this node's next hash onion; a try that no block takes ends with the snapshot period, when the next is made."""
        sender, period = self._key.public, self._final.constants.params.epoch_heights
        nonce = self.mempool.find_free_nonce(sender, get_account(self._final, sender).nonce)
        self._telemetry.emit(Level.INFO, "onion_renewed", renewal=renewal)
        self.offer_own(RenewOnion(sender, nonce, self._height + period, tip, renewal))

    def take_finalized(self, block: FinalizedBlock) -> None:
        """Drop what the block included, sample how long it took, and look again at what came too early."""
        self._final, self._height = block.ledger, block.header.height
        now_ms = self._now_ms()
        included, beaten = self.mempool.drop_final(block.ledger, block.transactions)
        self._telemetry.finality_ms.extend(now_ms - pending.received_ms for pending in included)
        self._report_lost((*beaten, *self.mempool.prune(block.ledger)))
        self.mempool.readmit(block.ledger, now_ms)

    def has_includable(self, parent: Executed) -> bool:
        """Whether a waiting transaction could be in a block on this parent."""
        return self.mempool.has_includable(parent.hash, parent.ledger)

    def publish_batch(self) -> None:
        """Gossip what has gathered; the first of it went to the leaders when it came."""
        if self._batch:
            if len(self._batch) > 1:
                self._send_to_leaders(tuple(self._batch[1:]))
            self._network.publish(TOPIC_TRANSACTIONS, encode(TransactionBatch(tuple(self._batch))))
            self._batch, self._batch_bytes = [], 0

    def publish_cert(self, cert: QuorumCert) -> None:
        """Gossip a FinalCert for those who are no validators."""
        self._network.publish(TOPIC_CERTIFICATES, encode(cert))

    def repeat_own(self) -> None:
        """Send again what was offered to this node and has waited for long; every peer's refusals count anew."""
        self._refused.clear()
        for pending in self.mempool.take_repeats(self._now_ms()):
            self._spread(pending)

    def restore_requests(self) -> None:
        """Take up again what clients were promised before the node stopped: nobody else may have it."""
        for encoded in self._storage.list_open_requests():
            try:
                self._admit(encoded, is_own=True)
            except InvalidTransaction as refusal:
                self._telemetry.emit(
                    Level.WARNING, "request_not_restored", reason=refusal.reason.value, text=str(refusal)
                )

    def _report_lost(self, dropped: Iterable[Pending]) -> None:
        for pending in dropped:
            if pending.is_own:
                self._telemetry.emit(
                    Level.WARNING, "transaction_lost", id=pending.id, kind=type(pending.signed.body).__name__
                )

    def _take_job(self, job: JobRequest, request_id: str | None) -> tuple[JobId, bool]:
        known = None if request_id is None else self._storage.get_request(request_id)
        if known is not None and self._is_alive(known):
            return known.job, True
        sender = self._key.public
        nonce = self.mempool.find_free_nonce(sender, get_account(self._final, sender).nonce)
        body = Submit(sender, nonce, self._height + VALID_HEIGHTS, job)
        encoded = encode(sign_transaction(self._key, self._chain_id, body))
        job_id = compute_transaction_id(body)
        # Admitted first, so that a refused job leaves no trace; durable before anything is sent.
        pending = self.mempool.admit(self._final, encoded, self._now_ms(), is_own=True)
        if request_id is not None and known is None:
            self._storage.store_request(request_id, job_id, encoded)
        elif request_id is not None:
            self._storage.replace_request(request_id, job_id, encoded)
        if pending is not None:
            self._spread(pending)
        return job_id, False

    def _is_alive(self, known: StoredRequest) -> bool:
        """Whether the job that a request id stands for is in a block, or may still get there; it is sent again where it is not waiting.

        Raises: InvalidTransaction where it is refused for now.
        """
        if self._storage.get_transaction(known.job) is not None or known.job in self.mempool:
            return True
        try:
            self._admit(known.transaction, is_own=True)
        except InvalidTransaction as refusal:
            if refusal.reason in NEVER_VALID:
                return False
            raise
        return True

    def _admit(self, encoded: bytes, *, is_own: bool) -> None:
        pending = self.mempool.admit(self._final, encoded, self._now_ms(), is_own=is_own)
        if pending is not None and is_own:
            self._spread(pending)

    def _spread(self, pending: Pending) -> None:
        """To the next leaders at once, and to all with the batch; under load what follows within a batch takes one message together."""
        if self._batch_bytes + len(pending.encoded) > MAX_BATCH_BYTES:
            self.publish_batch()
        if not self._batch:
            self._send_to_leaders((pending.encoded,))
            self._timers.set(Chore.GOSSIP, self._now_ms() + BATCH_DELAY_MS)
        self._batch.append(pending.encoded)
        self._batch_bytes += len(pending.encoded)

    def _send_to_leaders(self, transactions: tuple[bytes, ...]) -> None:
        context, view = self._ordering.state.context, self._ordering.state.view
        leaders = {
            compute_leader(context.validators, context.chain, context.epoch, context.seed, upcoming)
            for upcoming in (view, view + 1)
        } - {context.own}
        peers = tuple(context.validators.members[index].node for index in sorted(leaders))
        self._ordering.send(peers, TransactionBatch(transactions))

    def _now_ms(self) -> int:
        return self._ordering.now_ms()


def _reply(channel: trio.MemorySendChannel[R], reply: R) -> None:
    try:
        channel.send_nowait(reply)
    except (trio.BrokenResourceError, trio.WouldBlock):
        return  # the client went away: nobody is there to be told
