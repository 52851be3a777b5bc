"""The ordering machine at work: feeds it events, performs its effects, holds messages back until what they rest on is durable.

One `flush` a turn of the engine's loop: one fdatasync for everything the turn persisted, then the messages (rule R10).
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from node.application import LedgerApp
from node.chain import Chain, FinalizedBlock
from node.contexts import Contexts
from node.events import Chore
from node.telemetry import Level, Telemetry
from node.timers import Clock, Timers
from node.vote_log import VoteLog
from node.wire import Frame, encode_frame
from protocol.block import Block
from protocol.codec import encode
from protocol.evidence import Evidence
from protocol.ordering import effects, events
from protocol.ordering.engine import Engine
from protocol.ordering.messages import QuorumCert
from protocol.ordering.state import SimplexState, make_state, make_tip
from protocol.params import compute_boundary
from protocol.units import MAX_UINT, Epoch, Hash, NodeId, View
from protocol.validators import compute_leader


class Requests(Protocol):
    """What ordering asks of the rest of the node; answers come back as events."""

    def fetch_block(self, block_hash: Hash, peers: tuple[NodeId, ...]) -> None:
        """Get a body from one of these peers."""
        ...

    def fetch_certs(self, epoch: Epoch, views: tuple[View, ...], peers: tuple[NodeId, ...]) -> None:
        """Get certificates of these views of an epoch."""
        ...

    def charge(self, peer: NodeId, reason: str, text: str) -> None:
        """Note that this peer sent what no honest node sends."""
        ...


@dataclass(frozen=True, slots=True)
class OrderingParts:
    """What ordering works with."""

    chain: Chain
    log: VoteLog
    contexts: Contexts
    clock: Clock
    timers: Timers[events.Timer | Chore]
    telemetry: Telemetry
    requests: Requests
    send: Callable[[NodeId, bytes], bool]
    engine: Engine
    app: LedgerApp


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
        self.led: list[QuorumCert] = []  # of blocks that this node led, final since the engine last took them

    def replay(self) -> None:
        """Start the machine on what the log holds."""
        signing = self._parts.contexts.signing
        records = tuple(record for record in self._parts.log.records if signing.is_replayed(record))
        self.feed(events.Replayed(self.now_ms(), records))

    def restart(self, cert: QuorumCert) -> None:
        """Begin anew on a final block that epochs lie before: nothing of what was heard is of use there."""
        final = self._parts.chain.final
        tip = make_tip(final.hash, final.header)
        context = self._parts.contexts.make(final.ledger, tip, cert)
        self.state = make_state(context, tip, cert, self.now_ms())
        self._parts.log.forget((context.epoch, 0))
        self.replay()

    def permit(self) -> None:
        """Let this node sign in the running epoch, if it is a validator in it and its permission has come."""
        context = self.state.context
        if context.own is not None:
            return
        permitted = self._parts.contexts.make(self._parts.chain.final.ledger, context.start, context.start_cert)
        assert permitted.epoch == context.epoch, (permitted.epoch, context.epoch)
        if permitted.own is not None:
            self.feed(events.MaySign(self.now_ms(), permitted))

    @property
    def wal_position(self) -> int:
        """How far the log has come; stored with every finalized block."""
        return self._parts.log.position

    def now_ms(self) -> int:
        """The node's clock."""
        return self._parts.clock.now_ms()

    def feed(self, event: events.Event) -> None:
        """Let the machine take an event, and every event that its effects lead to at once."""
        self._queue.append(event)
        while self._queue:
            self.state, performed = self._parts.engine.step(self.state, self._queue.popleft())
            for effect in performed:
                self._perform(effect)

    def send(self, peers: tuple[NodeId, ...], message: Frame) -> None:
        """Send with the turn's other messages."""
        self._outbox.append((peers, encode_frame(message)))

    def flush(self) -> tuple[FinalizedBlock, ...]:
        """End the turn: make records durable, let messages go, store finalized blocks; returns these.

        Raises: StorageFailure, after which the node must stop.
        """
        with self._measured_wait():
            self._parts.log.sync()
        outbox, self._outbox = self._outbox, []
        for peers, frame in outbox:
            for peer in peers:
                self._parts.send(peer, frame)
        with self._measured_wait():
            is_stored = self._parts.chain.store()
        if is_stored:
            self._forget_obsolete()
        finalized = tuple(self._parts.app.finalized)
        self._parts.app.finalized.clear()
        return finalized

    @contextmanager
    def _measured_wait(self) -> Iterator[None]:
        started = self._parts.clock.now_us()
        yield
        self._parts.telemetry.disk_wait_us += self._parts.clock.now_us() - started

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Persist(record=record, durable=durable):
                self._parts.log.append(record, durable=durable)
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
                self._finalize(block_hashes, cert)
            case effects.EndEpoch(cert=cert):
                self._queue.append(events.EpochStarted(self.now_ms(), self._parts.app.start_epoch(cert)))
            case effects.FetchBlock(block_hash=block_hash, peers=peers):
                self._parts.requests.fetch_block(block_hash, peers)
            case effects.FetchCerts(epoch=epoch, views=views, peers=peers):
                self._parts.requests.fetch_certs(epoch, views, peers)
            case effects.CatchUp(target=target):
                self.catch_up_target = target
            case effects.EvidenceFound(evidence=evidence):
                self._report_evidence(evidence)
                self.evidence.append(evidence)
            case effects.Misbehaviour(peer=peer, reason=reason, text=text):
                self._parts.requests.charge(peer, reason.value, text)
            case effects.Halt(text=text):
                self.halted = text
                self._parts.telemetry.emit(Level.ERROR, "ordering_halted", text=text)
            case _:
                assert_never(effect)

    def _report_evidence(self, evidence: Evidence) -> None:
        """The proof whole, so that `quorate report` takes it from the log."""
        self._parts.telemetry.emit(
            Level.WARNING, "evidence_found", kind=evidence.kind.name.lower(), epoch=evidence.epoch, view=evidence.view,
            signer=evidence.signer, evidence=encode(evidence),
        )  # fmt: skip

    def _finalize(self, block_hashes: tuple[Hash, ...], cert: QuorumCert) -> None:
        self._parts.app.finalize(block_hashes, cert)
        context = self.state.context
        leader = compute_leader(context.validators, context.chain, context.epoch, context.seed, cert.view)
        if leader == context.own:
            self.led.append(cert)

    def _build(self, request: effects.BuildBlock) -> events.Event:
        block = self._parts.app.build(request, self.state.context, self.now_ms())
        now_ms = self.now_ms()
        return events.BuildDeclined(now_ms, request.view) if block is None else events.BlockBuilt(now_ms, block)

    def _check(self, block_hash: Hash, block: Block) -> events.Event:
        valid = self._parts.app.check(block)
        return events.BlockChecked(self.now_ms(), block_hash, valid=valid)

    def _forget_obsolete(self) -> None:
        """Once its boundary is final, everything of an epoch is obsolete; views above it were spent on the boundary itself."""
        header = self._parts.chain.final.header
        is_over = header.height == compute_boundary(self.state.context.params, header.epoch)
        self._parts.log.forget((header.epoch, MAX_UINT if is_over else header.view))
