"""The ordering machine at work: feeds it events, performs its effects, holds messages back until what they rest on is durable.

One `flush` a turn of the engine's loop: one fdatasync for everything the turn persisted, then the messages (rule R10).
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Final, Protocol, assert_never

from node.chain import Chain, FinalizedBlock
from node.events import Chore
from node.records import decode_record, encode_record, view_of
from node.telemetry import Level, Telemetry
from node.timers import Clock, Timers
from node.wal import VoteWal
from node.wire import Frame, encode_frame
from protocol.block import MAX_BLOCK_BYTES, Block
from protocol.errors import InvalidBlock
from protocol.evidence import Evidence
from protocol.ledger.draft import Ledger
from protocol.ledger.state import BuildContext, get_onion_gap
from protocol.ordering import effects, events
from protocol.ordering.messages import MAX_PROPOSAL_BYTES, Proposal, QuorumCert, Vote
from protocol.ordering.simplex import step
from protocol.ordering.state import SimplexState
from protocol.units import Hash, NodeId, View

EMPTY_BLOCK_BYTES: Final = 4 * 1024
SIGNATURE_BYTES: Final = (
    70  # in a certificate, with its signer and msgpack's marks; one more stands for the certificate's own fields
)
WAL_ROTATE_BYTES: Final = 4 * 1024 * 1024


class Requests(Protocol):
    """What ordering asks of the rest of the node; answers come back as events."""

    def fetch_block(self, block_hash: Hash, peers: tuple[NodeId, ...]) -> None:
        """Get a body from one of these peers."""
        ...

    def fetch_certs(self, views: tuple[View, ...], peers: tuple[NodeId, ...]) -> None:
        """Get certificates of these views."""
        ...

    def charge(self, peer: NodeId, reason: str, text: str) -> None:
        """Note that this peer sent what no honest node sends."""
        ...


class BlockSource(Protocol):
    """Where a leader's transactions come from."""

    def list_candidates(self, ledger: Ledger) -> list[bytes]:
        """Encoded transactions for a block on this state, in the order they should be tried."""
        ...

    @property
    def verified(self) -> frozenset[bytes] | set[bytes]:
        """Encoded transactions whose signatures were checked already."""
        ...


@dataclass(frozen=True, slots=True)
class OrderingParts:
    """What ordering works with."""

    chain: Chain
    wal: VoteWal
    clock: Clock
    timers: Timers[events.Timer | Chore]
    telemetry: Telemetry
    source: BlockSource
    requests: Requests
    send: Callable[[NodeId, bytes], bool]
    reveal: Callable[
        [Ledger, int], Hash | None
    ]  # the preimage `gap` slots after this node's last; None where the onion has none left


class Ordering:
    """The machine's state and the effects of the running turn; owned by the engine."""

    def __init__(self, parts: OrderingParts, state: SimplexState) -> None:
        self._parts: Final = parts
        self.state = state
        self.halted = ""
        self.catch_up_target: QuorumCert | None = None  # what the machine asked to catch up to; taken by the engine
        self.evidence: list[Evidence] = []  # of broken rules, found since the engine last took it
        self._queue: deque[events.Event] = deque()
        self._outbox: list[tuple[tuple[NodeId, ...], bytes]] = []
        self._records: list[tuple[View, bytes]] = []
        self._is_sync_due = False
        self._finalized: list[FinalizedBlock] = []

    def replay(self, records: tuple[bytes, ...]) -> None:
        """Start the machine on what the log held."""
        decoded = tuple(decode_record(record) for record in records)
        if self.state.context.own is None:
            # A follower whose log fell behind: it has votes of a key that does not sign any more.
            kept = [not isinstance(record, Vote | Proposal) for record in decoded]
            records, decoded = tuple(compress(records, kept)), tuple(compress(decoded, kept))
        self._records = [(view_of(record), encoded) for record, encoded in zip(decoded, records, strict=True)]
        self.feed(events.Replayed(self.now_ms(), decoded))

    @property
    def wal_position(self) -> int:
        """How far the log has come; stored with every finalized block."""
        return self._parts.wal.position

    def now_ms(self) -> int:
        """The node's clock."""
        return self._parts.clock.now_ms()

    def feed(self, event: events.Event) -> None:
        """Let the machine take an event, and every event that its effects lead to at once."""
        self._queue.append(event)
        while self._queue:
            self.state, performed = step(self.state, self._queue.popleft())
            for effect in performed:
                self._perform(effect)

    def send(self, peers: tuple[NodeId, ...], message: Frame) -> None:
        """Send with the turn's other messages."""
        self._outbox.append((peers, encode_frame(message)))

    def flush(self) -> tuple[FinalizedBlock, ...]:
        """End the turn: make records durable, let messages go, store finalized blocks; returns these.

        Raises: StorageFailure, after which the node must stop.
        """
        if self._is_sync_due:
            with self._measured_wait():
                self._parts.wal.sync()
            self._is_sync_due = False
        outbox, self._outbox = self._outbox, []
        for peers, frame in outbox:
            for peer in peers:
                self._parts.send(peer, frame)
        with self._measured_wait():
            is_stored = self._parts.chain.store()
        if is_stored:
            self._forget_obsolete()
        finalized, self._finalized = tuple(self._finalized), []
        return finalized

    @contextmanager
    def _measured_wait(self) -> Iterator[None]:
        started = self._parts.clock.now_us()
        yield
        self._parts.telemetry.disk_wait_us += self._parts.clock.now_us() - started

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Persist(record=record, durable=durable):
                self._persist(record, durable)
            case effects.Broadcast(message=message):
                self.send(self.state.context.peers, message)
            case effects.Send(peers=peers, message=message):
                self.send(peers, message)
            case effects.SetTimer(timer=timer, at_ms=at_ms):
                self._parts.timers.set(timer, at_ms)
            case effects.BuildBlock():
                self._queue.append(self._build(effect))
            case effects.CheckBlock(block_hash=block_hash, block=block):
                self._queue.append(self._check(block_hash, block))
            case effects.Finalize(block_hashes=block_hashes, cert=cert):
                self._finalized.extend(self._parts.chain.finalize(block_hashes, cert, self._parts.wal.position))
            case effects.EndEpoch():
                raise AssertionError(effect)  # epoch 0 has no end yet
            case effects.FetchBlock(block_hash=block_hash, peers=peers):
                self._parts.requests.fetch_block(block_hash, peers)
            case effects.FetchCerts(views=views, peers=peers):
                self._parts.requests.fetch_certs(views, peers)
            case effects.CatchUp(target=target):
                self.catch_up_target = target
            case effects.EvidenceFound(evidence=evidence):
                self._parts.telemetry.emit(Level.WARNING, "evidence_found", evidence=repr(evidence)[:500])
                self.evidence.append(evidence)
            case effects.Misbehaviour(peer=peer, reason=reason, text=text):
                self._parts.requests.charge(peer, reason.value, text)
            case effects.Halt(text=text):
                self.halted = text
                self._parts.telemetry.emit(Level.ERROR, "ordering_halted", text=text)
            case _:
                assert_never(effect)

    def _persist(self, record: events.Record, durable: bool) -> None:
        encoded = encode_record(record)
        self._parts.wal.append((encoded,))
        self._records.append((view_of(record), encoded))
        self._is_sync_due = self._is_sync_due or durable

    def _build(self, effect: effects.BuildBlock) -> events.Event:
        parent = self._parts.chain.get_executed(effect.parent_hash)
        assert parent is not None, effect
        proposer, gap, _ = get_onion_gap(parent.ledger, parent.header, effect.view)
        reveal = self._parts.reveal(parent.ledger, gap)
        now_ms = self.now_ms()
        if reveal is None:
            self._parts.telemetry.emit(Level.ERROR, "onion_exhausted", view=effect.view, gap=gap)
            return events.BuildDeclined(now_ms, effect.view)
        room = self._compute_room(effect)
        if room < EMPTY_BLOCK_BYTES:
            self._parts.telemetry.emit(
                Level.ERROR, "justification_too_large", view=effect.view, parent=effect.parent_view
            )
            return events.BuildDeclined(now_ms, effect.view)
        context = BuildContext(
            epoch=self.state.context.epoch,
            view=effect.view,
            proposer=proposer,
            time_ms=max(now_ms, effect.not_before_ms),
            beacon_reveal=reveal,
            candidates=self._parts.source.list_candidates(parent.ledger) if room >= MAX_BLOCK_BYTES else (),
        )
        built = self._parts.chain.build(effect.parent_hash, context, self._parts.source.verified)
        return events.BlockBuilt(self.now_ms(), built.block)

    def _compute_room(self, effect: effects.BuildBlock) -> int:
        """The bytes that a proposal's justification leaves for the block: one certificate for each skipped view."""
        certs = effect.view - effect.parent_view
        return MAX_PROPOSAL_BYTES - certs * SIGNATURE_BYTES * (len(self.state.context.validators.members) + 1)

    def _check(self, block_hash: Hash, block: Block) -> events.Event:
        try:
            self._parts.chain.check(block, self._parts.source.verified)
        except InvalidBlock as error:
            self._parts.telemetry.emit(
                Level.WARNING,
                "block_refused",
                height=block.header.height,
                view=block.header.view,
                reason=error.reason.value,
                text=str(error),
            )
            return events.BlockChecked(self.now_ms(), block_hash, valid=False)
        return events.BlockChecked(self.now_ms(), block_hash, valid=True)

    def _forget_obsolete(self) -> None:
        view = self._parts.chain.final.header.view
        self._records = [record for record in self._records if record[0] > view]
        if self._parts.wal.size_bytes > WAL_ROTATE_BYTES:
            self._parts.wal.rotate([encoded for _, encoded in self._records])
