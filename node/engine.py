"""The sole owner of a node's state: takes events from one bounded channel, a turn at a time, and acts on what becomes final.

A turn takes what waits in the channel (bounded), feeds it to ordering, the mempool and the member, then flushes once: one
fdatasync, then the messages, then the finalized blocks' transaction. Nothing here blocks on a peer, a client or the worker.
"""

from dataclasses import dataclass
from typing import Final, assert_never

import trio

from node.acquaintances import Acquaintances
from node.catch_up import CatchUp
from node.chain import Chain, Executed, FinalizedBlock
from node.errands import Errands
from node.events import (
    AddressesFetched,
    BlockFetched,
    CertsFetched,
    Chore,
    FetchFailed,
    JobOffered,
    NodeEvent,
    RangeFetched,
    RecollectionFetched,
    SnapshotFetched,
    SnapshotMissing,
    TimerDue,
    TransactionOffered,
)
from node.inference import InferenceDone, InferenceFailed, WorkerDown, WorkerReady
from node.member import Generations, Member
from node.network import (
    CallbackFault,
    DirectMessage,
    GossipMessage,
    Misbehaviour,
    Network,
    PeerDown,
    PeerRefused,
    PeerUp,
)
from node.offences import Offences
from node.onions import Onions
from node.ordering import Ordering
from node.postbox import Postbox
from node.signing import Signing
from node.snapshots import SnapshotWriter
from node.telemetry import Level, Telemetry
from node.timers import Timers
from node.wire import TOPIC_CERTIFICATES, Recollection, Status, TransactionBatch, decode_batch, decode_frame
from protocol.errors import InvalidMessage
from protocol.ledger.epochs import find_validators, get_epoch
from protocol.ledger.state import Work, has_work
from protocol.models import ModelCard
from protocol.ordering import events
from protocol.ordering.events import Timer
from protocol.ordering.messages import QUORUM_CERT_CODEC, Proposal, QuorumCert, Vote
from protocol.units import Milliseconds, NodeId

MAX_TURN_EVENTS: Final = 256  # so that a flood of one kind cannot hold back the votes of this turn for long
STATUS_INTERVAL_MS: Final = 1_000
MAX_STATUSES: Final = 256  # more than may be connected; peers speak every second, so those that are stay in
MAX_DOWN_REASONS: Final = 1_024  # strangers may come under ever new keys


@dataclass(frozen=True, slots=True)
class EngineParts:
    """The open resources and the owned machines that the engine drives."""

    node: NodeId
    chain: Chain
    ordering: Ordering
    postbox: Postbox
    member: Member
    onions: Onions
    catch_up: CatchUp
    snapshots: SnapshotWriter
    errands: Errands
    offences: Offences
    signing: Signing
    acquaintances: Acquaintances
    network: Network
    generations: Generations
    timers: Timers[Timer | Chore]
    telemetry: Telemetry


class Engine:
    """One node's loop and what it shows of itself."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts: Final = parts
        self._finalized = trio.Event()
        self._work = (b"", Work(due=False, next_ms=None))
        self.tick_ms: Milliseconds = 0
        self.statuses: dict[NodeId, tuple[Milliseconds, Status]] = {}
        parts.catch_up.watch(self.statuses)
        self.down_reasons: dict[NodeId, str] = {}
        self.worker_down = "starting"
        self.worker_models: tuple[ModelCard, ...] = ()

    async def run(self, inbound: trio.MemoryReceiveChannel[NodeEvent]) -> None:
        """Turn after turn until the channel closes or the node must stop.

        Raises: StorageFailure.
        """
        self._parts.postbox.restore_requests()
        self._do_chore(Chore.STATUS)
        self._finish_turn()
        async for event in inbound:
            self._take(event)
            for _ in range(MAX_TURN_EVENTS):
                try:
                    self._take(inbound.receive_nowait())
                except trio.WouldBlock:
                    break
            self._finish_turn()

    async def wait_finalized(self) -> None:
        """Return when the next block becomes final."""
        await self._finalized.wait()

    # Events

    def _take(self, event: NodeEvent) -> None:
        match event:
            case DirectMessage(node_id=peer, data=data):
                self._take_frame(peer, data)
            case GossipMessage():
                self._take_gossip(event)
            case TimerDue(timer=timer):
                self._take_timer(timer)
            case TransactionOffered() | JobOffered():
                self._parts.postbox.take_offer(event)
            case InferenceDone() | InferenceFailed():
                self._take_answer(event)
            case WorkerReady() | WorkerDown():
                self._take_worker(event)
            case BlockFetched(peer=peer, block=block):
                self._feed(events.BlockReceived(self._now_ms(), peer, block))
            case CertsFetched(peer=peer, certs=certs):
                for cert in certs:
                    self._feed(events.CertReceived(self._now_ms(), peer, cert))
            case RecollectionFetched(peer=peer, recollection=recollection):
                self._take_recollection(peer, recollection)
            case AddressesFetched(peer=peer, addresses=addresses):
                self._parts.acquaintances.take(peer, addresses)
            case RangeFetched() | FetchFailed() | SnapshotFetched() | SnapshotMissing():
                self._parts.catch_up.take(event)
            case PeerUp() | PeerDown() | PeerRefused() | Misbehaviour() | CallbackFault():
                self._take_peer(event)
            case _:
                assert_never(event)

    def _take_timer(self, timer: Timer | Chore) -> None:
        if isinstance(timer, Timer):
            self._feed(events.TimerFired(self._now_ms(), timer))
        else:
            self._do_chore(timer)

    def _take_frame(self, peer: NodeId, data: bytes) -> None:
        if self._parts.offences.is_muted(peer):
            return
        try:
            message = decode_frame(data)
        except InvalidMessage as error:
            self._parts.offences.charge(peer, error.reason.value, str(error))
            return
        match message:
            case Vote():
                self._feed(events.VoteReceived(self._now_ms(), peer, message))
            case QuorumCert():
                self._feed(events.CertReceived(self._now_ms(), peer, message))
            case Proposal():
                self._feed(events.ProposalReceived(self._now_ms(), peer, message))
            case TransactionBatch(transactions=transactions):
                self._parts.postbox.take_batch(peer, transactions)
            case Status():
                self._note_status(peer, message)
            case _:
                assert_never(message)

    def _note_status(self, peer: NodeId, status: Status) -> None:
        """Keep a peer's last word. One that was under way when its sender left comes after the farewell: the oldest go first."""
        self.statuses.pop(peer, None)
        self.statuses[peer] = (self._now_ms(), status)
        self._parts.acquaintances.hear(peer, status.listens)
        while len(self.statuses) > MAX_STATUSES:
            del self.statuses[next(iter(self.statuses))]

    def _take_recollection(self, peer: NodeId, recollection: Recollection) -> None:
        """Note what a validator remembers of this node's signatures (rule R10)."""
        try:
            self._parts.signing.take(peer, recollection, self._parts.ordering.state.context.validators)
        except InvalidMessage as error:
            self._parts.offences.charge(peer, error.reason.value, str(error))

    def _take_gossip(self, event: GossipMessage) -> None:
        if self._parts.offences.is_muted(event.node_id):
            return
        try:
            if event.topic == TOPIC_CERTIFICATES:
                cert = QUORUM_CERT_CODEC.decode(event.data)
                self._feed(events.CertReceived(self._now_ms(), event.node_id, cert))
            else:
                self._parts.postbox.take_batch(event.node_id, decode_batch(event.data).transactions)
        except InvalidMessage as error:
            self._parts.offences.charge(event.node_id, error.reason.value, str(error))

    def _take_answer(self, event: InferenceDone | InferenceFailed) -> None:
        if isinstance(event, InferenceDone):
            self._parts.telemetry.generation_ms.append(event.duration_ms)
        else:
            self._parts.telemetry.emit(Level.WARNING, "generation_failed", job=event.request_id, reason=event.reason)
        self._parts.member.keep_answer(event, self._parts.chain.final.header.height)
        self._do_duties(self._parts.chain.final)

    def _take_worker(self, event: WorkerReady | WorkerDown) -> None:
        match event:
            case WorkerReady(cards=cards):
                self.worker_down, self.worker_models = "", cards
                self._parts.telemetry.emit(Level.INFO, "worker_ready", models=len(self.worker_models))
            case WorkerDown(reason=reason):
                self.worker_down, self.worker_models = reason, ()
                self._parts.telemetry.emit(Level.WARNING, "worker_down", reason=reason)

    def _take_peer(self, event: PeerUp | PeerDown | PeerRefused | Misbehaviour | CallbackFault) -> None:
        emit = self._parts.telemetry.emit
        match event:
            case PeerUp(node_id=peer, software=software):
                self.down_reasons.pop(peer, None)
                emit(Level.INFO, "peer_up", peer=peer, software=software)
                self._greet(peer)
                self._ask_recollection()
            case PeerDown(node_id=peer, reason=reason):
                self._note_down(peer, reason)
                emit(Level.INFO, "peer_down", peer=peer, reason=reason)
            case PeerRefused(node_id=peer, reason=reason):
                self._note_down(peer, reason)
                emit(Level.WARNING, "peer_refused", peer=peer, reason=reason)
            case Misbehaviour(node_id=peer, offence=offence, detail=detail):
                self._parts.offences.charge(peer, offence.value, detail)
            case CallbackFault(where=where, detail=detail):
                emit(Level.ERROR, "callback_fault", where=where, detail=detail)
            case _:
                assert_never(event)

    def _note_down(self, peer: NodeId, reason: str) -> None:
        self.statuses.pop(peer, None)
        self.down_reasons.pop(peer, None)
        self.down_reasons[peer] = reason
        while len(self.down_reasons) > MAX_DOWN_REASONS:
            del self.down_reasons[next(iter(self.down_reasons))]

    def _greet(self, peer: NodeId) -> None:
        """Tell a peer where this node stands: a FinalCert lets one that is behind begin to catch up at once."""
        self._parts.ordering.send((peer,), self._make_status())
        cert = self._parts.ordering.state.tip_cert
        if cert is not None:
            self._parts.ordering.send((peer,), cert)

    def _ask_recollection(self) -> None:
        """Ask the validators that are here, and have not said yet, what they remember."""
        connected = self._parts.network.connected()
        for peer in self._parts.signing.list_unheard(self._parts.ordering.state.context.validators):
            if peer in connected:
                self._parts.errands.fetch_recollection(peer)

    # Turns

    def _finish_turn(self) -> None:
        context = self._parts.ordering.state.context
        if self._parts.signing.decide(context.validators, context.epoch):
            self._parts.ordering.permit()
        target, self._parts.ordering.catch_up_target = self._parts.ordering.catch_up_target, None
        if target is not None:
            self._parts.catch_up.start(target)
        evidence, self._parts.ordering.evidence = self._parts.ordering.evidence, []
        for proof in evidence:
            self._parts.postbox.report(proof)
        self._update_work()
        finalized = (*self._parts.catch_up.take_finalized(), *self._parts.ordering.flush())
        while finalized:
            self._act_on(finalized)
            self._update_work()
            finalized = self._parts.ordering.flush()
        self.tick_ms = self._now_ms()

    def _act_on(self, finalized: tuple[FinalizedBlock, ...]) -> None:
        for block in finalized:
            self._parts.postbox.take_finalized(block)
            self._parts.snapshots.offer(block.header.height, block.ledger)
        newest = finalized[-1]
        self._parts.member.forget_old(newest.ledger)
        self._parts.telemetry.emit(
            Level.INFO,
            "block_final",
            height=newest.header.height,
            view=newest.header.view,
            transactions=len(newest.transactions),
        )
        led, self._parts.ordering.led = self._parts.ordering.led, []
        for cert in led[-1:]:
            self._parts.postbox.publish_cert(cert)  # those who are no validators hear of it once, from its leader
        self._do_duties(self._parts.chain.final)
        self._finalized.set()
        self._finalized = trio.Event()

    def _do_duties(self, final: Executed) -> None:
        requests, owed = self._parts.member.list_due(final.ledger, self._parts.generations.room)
        for request in requests:
            self._parts.generations.submit(request)
        for body in owed:
            self._parts.postbox.offer_own(body)
        renewal = self._parts.onions.find_renewal(final.ledger)
        if renewal is not None:
            self._parts.postbox.renew_onion(*renewal)

    def _update_work(self) -> None:
        """Tell ordering whether there is work on the block that the next one would be built on (rule L12)."""
        state = self._parts.ordering.state
        parent = self._find_parent()
        now_ms = self._now_ms()
        work = self._find_work(parent, now_ms)
        if work.next_ms is not None:
            self._parts.timers.set(Chore.WINDOW, work.next_ms)
        # What is notarized only becomes final with a later block where its own votes were lost: somebody waits for that, too.
        is_awaited = work.next_ms is not None or self._parts.chain.has_unfinal_transactions(parent)
        is_unfinal = parent.hash != self._parts.chain.final.hash and is_awaited
        pending = work.due or is_unfinal or self._parts.postbox.has_includable(parent)
        if pending != state.has_work and state.is_started:
            self._feed(events.WorkChanged(now_ms, pending))

    def _find_work(self, parent: Executed, now_ms: Milliseconds) -> Work:
        """Whether jobs want a block on this parent: it reads every open job, so it is asked once a parent and window's end."""
        parent_hash, work = self._work
        if parent_hash != parent.hash or (work.next_ms is not None and work.next_ms <= now_ms):
            work = has_work(parent.ledger, now_ms)
            self._work = (parent.hash, work)
        return work

    def _find_parent(self) -> Executed:
        state = self._parts.ordering.state
        for view in sorted(state.views, reverse=True):
            notar = state.views[view].notar
            executed = None if notar is None else self._parts.chain.get_executed(notar.block_hash)
            if executed is not None:
                return executed
        return self._parts.chain.final

    def _do_chore(self, chore: Chore) -> None:
        match chore:
            case Chore.GOSSIP:
                self._parts.postbox.publish_batch()
            case Chore.WINDOW:
                return  # the turn's end looks for work
            case Chore.STATUS:
                self._parts.timers.set(Chore.STATUS, self._now_ms() + STATUS_INTERVAL_MS)
                self._parts.ordering.send(tuple(self._parts.network.connected()), self._make_status())
                self._parts.postbox.repeat_own()
                self._ask_recollection()
                self._parts.catch_up.retry()
                self._parts.catch_up.look_ahead()
                self._parts.acquaintances.seek(self._list_validators(), self._now_ms())
            case _:
                assert_never(chore)

    def _list_validators(self) -> set[NodeId]:
        """Who votes in this epoch, and who will in the next."""
        ledger = self._parts.chain.final.ledger
        sets = (find_validators(ledger, epoch) for epoch in (get_epoch(ledger), get_epoch(ledger) + 1))
        return {member.node for validators in sets if validators is not None for member in validators.members}

    def _make_status(self) -> Status:
        final = self._parts.chain.final
        sees = tuple(sorted(self._parts.network.connected()))
        base, state = self._parts.chain.base_height, self._parts.ordering.state
        listens = self._parts.acquaintances.listens
        return Status(final.header.height, final.hash, base, state.context.epoch, state.view, sees, listens)

    def _feed(self, event: events.Event) -> None:
        self._parts.ordering.feed(event)

    def _now_ms(self) -> Milliseconds:
        return self._parts.ordering.now_ms()
