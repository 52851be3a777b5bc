"""A simulated validator process: the real machine, a disk that loses what was not synced, an application, and a small sync."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from protocol.block import Block, compute_header_hash
from protocol.errors import InvalidMessage
from protocol.ordering import simplex
from protocol.ordering.effects import (
    Broadcast,
    BuildBlock,
    CatchUp,
    CheckBlock,
    Effect,
    EndEpoch,
    EvidenceFound,
    FetchBlock,
    FetchCerts,
    Finalize,
    Halt,
    Misbehaviour,
    OrderingMessage,
    Persist,
    Send,
    SetTimer,
)
from protocol.ordering.events import (
    BlockBuilt,
    BlockChecked,
    BlockReceived,
    BuildDeclined,
    CertReceived,
    Event,
    ProposalReceived,
    Record,
    Replayed,
    Synced,
    Timer,
    TimerFired,
    VoteReceived,
    WorkChanged,
)
from protocol.ordering.messages import Proposal, QuorumCert, Vote, VoteKind
from protocol.ordering.state import Context, SimplexState, make_state, make_tip
from protocol.ordering.votes import check_quorum_cert
from protocol.units import Hash, NodeId
from tests.simulation.application import Application
from tests.simulation.invariants import Watch
from tests.simulation.parcels import Answer, Ask, Crash, Letter, Restart, Retry, Ring, Submit
from tests.simulation.world import World

RETRY_MS = 200
OBSERVERS = b"observers".ljust(32)  # the key under which `Addresses` lists those who only follow


class Addresses:
    """Which addresses a validator's key is reached at: one, or two for twins."""

    def __init__(self) -> None:
        self.by_node: dict[NodeId, list[int]] = {}

    def reach(self, node: NodeId) -> list[int]:
        return self.by_node.get(node, [])


class SimulatedNode:
    """A process with its disk. `watch` is None where it stands for somebody Byzantine."""

    keeps_wal = True

    def __init__(
        self,
        address: int,
        context: Context,
        application: Application,
        world: World,
        addresses: Addresses,
        watch: Watch | None,
        skew_ms: int = 0,
    ) -> None:
        self.address = address
        self.context = context
        self.application = application
        self.world = world
        self.addresses = addresses
        self.watch = watch
        self.skew_ms = skew_ms
        self.peer = context.validators.members[context.own].node if context.own is not None else b"observer".ljust(32)
        self.wal: list[Record] = []
        self.synced = 0
        self.durable: set[Record] = set()
        self.blocks: list[Block] = []  # the final chain by height - 1, durable
        self.tip = application.genesis
        self.tip_cert: QuorumCert | None = None
        self.is_up = False
        self.is_halted = False
        self.life = 0
        self.crash: Crash | None = None
        self.timers: dict[Timer, int] = {}
        self.target: QuorumCert | None = None
        self.waiting: dict[Hash, None] = {}
        self.local: list[Event] = []
        self.executed: dict[Hash, Block] = {}
        self.state: SimplexState = make_state(context, self.tip, None, 0)

    # --- life

    def start(self) -> None:
        """Opens the disk and the machine."""
        self.is_up = True
        self.life += 1
        self.timers, self.waiting, self.target, self.crash = {}, {}, None, None
        self.executed = {}
        self.application.forget()
        self.state = make_state(self.context, self.tip, self.tip_cert, self.clock())
        self.feed(Replayed(self.clock(), tuple(self.wal)))
        self.look_for_work()

    def stop(self, down_ms: int) -> None:
        """A crash: of what was not synced, only a part reached the disk."""
        self.is_up = False
        self.wal = self.wal[: self.world.random.randint(self.synced, len(self.wal))] if self.keeps_wal else []
        self.synced = len(self.wal)
        self.durable = set(self.wal)
        self.local = []
        self.world.remind(self.address, down_ms, Restart())

    def clock(self) -> int:
        """This node's own clock."""
        return max(0, self.world.now_ms + self.skew_ms)

    def take(self, now_ms: int, parcel: object) -> None:
        """Whatever arrives."""
        if isinstance(parcel, Restart):
            self.start()
        elif not self.is_up or self.is_halted:
            return
        elif isinstance(parcel, Letter):
            self.feed(make_event(self.clock(), parcel.peer, parcel.message))
        elif isinstance(parcel, Ring):
            if parcel.life == self.life and self.timers.get(parcel.timer) == parcel.at_ms:
                del self.timers[parcel.timer]
                self.feed(TimerFired(self.clock(), parcel.timer))
        elif isinstance(parcel, Crash):
            if parcel.effects == 0:
                self.stop(parcel.down_ms)
            else:
                self.crash = parcel
        elif isinstance(parcel, Ask):
            self.serve(parcel)
        elif isinstance(parcel, Answer):
            self.take_answer(parcel)
        elif isinstance(parcel, Retry):
            if parcel.life == self.life:
                self.retry(parcel)
        elif isinstance(parcel, Submit):
            self.application.submit(parcel.transaction)
        else:
            raise AssertionError(parcel)
        if self.is_up:
            self.look_for_work()

    def look_for_work(self) -> None:
        """Tells the machine when work comes or goes."""
        if self.is_up and self.application.has_work() != self.state.has_work:
            self.feed(WorkChanged(self.clock(), self.application.has_work()))

    def feed(self, event: Event) -> None:
        """One event, and the ones that the application's answers make of it at once."""
        self.local.append(event)
        while self.local and self.is_up:
            before = self.state
            self.state, effects = simplex.step(before, self.local.pop(0))
            if self.watch is not None and self.state.view < before.view:
                self.watch.break_rule("monotone-view", f"view {before.view} was followed by {self.state.view}")
            self.perform(effects)

    # --- effects

    def perform(self, effects: tuple[Effect, ...]) -> None:
        """All effects in their order, unless the process dies in between."""
        for effect in effects:
            if self.crash is not None:
                if self.crash.effects == 0:
                    self.stop(self.crash.down_ms)
                    return
                self.crash = replace(self.crash, effects=self.crash.effects - 1)
            self.perform_one(effect)

    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Persist():
                self.wal.append(effect.record)
                if isinstance(effect.record, QuorumCert) and self.watch is not None:
                    self.watch.see_cert(effect.record)
            case Broadcast():
                self.post((*self.context.peers, OBSERVERS), effect.message)
            case Send():
                self.post(effect.peers, effect.message)
            case SetTimer():
                self.timers[effect.timer] = effect.at_ms
                delay = max(0, effect.at_ms - self.clock())
                self.world.remind(self.address, delay, Ring(effect.timer, effect.at_ms, self.life))
            case BuildBlock():
                block = self.application.build(effect, self.clock())
                if block is not None:
                    self.executed[compute_header_hash(block.header)] = block
                answer = BuildDeclined(self.clock(), effect.view) if block is None else BlockBuilt(self.clock(), block)
                self.local.append(answer)
            case CheckBlock():
                valid = self.application.check(effect.block_hash, effect.block)
                self.executed[effect.block_hash] = effect.block
                self.local.append(BlockChecked(self.clock(), effect.block_hash, valid))
            case Finalize():
                self.finalize(effect)
            case EndEpoch():
                raise AssertionError(effect)
            case FetchBlock():
                self.waiting[effect.block_hash] = None
                self.retry(Retry(self.life, effect.block_hash, effect.peers))
            case FetchCerts():
                for node in effect.peers:
                    self.ask(node, Ask(self.address, views=effect.views))
            case CatchUp():
                self.target = effect.target
                self.retry(Retry(self.life, None, ()))
            case EvidenceFound():
                if self.watch is not None:
                    self.watch.see_evidence(effect.evidence)
            case Misbehaviour():
                if self.watch is not None:
                    self.watch.see_charge(effect.peer, effect.text)
            case Halt():
                self.is_halted = True
                if self.watch is not None:
                    self.watch.break_rule("halted", effect.text)
            case _:
                assert_never(effect)

    def post(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        """One sync for everything appended so far, then the message."""
        self.sync()
        if isinstance(message, (Vote, Proposal)) and self.watch is not None and message not in self.durable:
            self.watch.break_rule("wal-before-send", f"{type(message).__name__} was sent before it was durable")
        if isinstance(message, Vote) and message.kind == VoteKind.NOTAR and self.watch is not None:
            bodies = {hash_of_body(record, message.view) for record in self.durable}
            if message.block_hash not in bodies:
                self.watch.break_rule(
                    "body-durable", f"a Notar of view {message.view} was sent before its block's body"
                )
        for node in peers:
            for address in self.addresses.reach(node):
                self.world.send(self.address, address, Letter(self.address, self.peer, message))

    def sync(self) -> None:
        """What is in the log survives from now on."""
        self.durable.update(record for record in self.wal[self.synced :])
        self.synced = len(self.wal)

    def finalize(self, effect: Finalize) -> None:
        """Stores final blocks; the log's older records are obsolete."""
        if self.watch is not None:
            self.watch.see_final(self.tip.height + 1, effect.block_hashes, effect.cert)
        self.application.commit(effect.block_hashes)
        self.blocks.extend(self.executed[block_hash] for block_hash in effect.block_hashes)
        header = self.blocks[-1].header
        self.keep_tip(effect.cert)
        assert header.height == len(self.blocks), header

    def keep_tip(self, cert: QuorumCert) -> None:
        self.tip, self.tip_cert = make_tip(cert.block_hash, self.blocks[-1].header), cert
        kept = [record for record in self.wal if view_of(record) > cert.view]
        self.synced -= len([record for record in self.wal[: self.synced] if view_of(record) <= cert.view])
        self.wal = kept
        self.durable = {record for record in self.durable if view_of(record) > cert.view}
        self.executed = {key: block for key, block in self.executed.items() if block.header.view > cert.view}

    # --- fetching and catching up

    def ask(self, node: NodeId, request: Ask) -> None:
        for address in self.addresses.reach(node):
            self.world.send(self.address, address, request)

    def retry(self, retry: Retry) -> None:
        """Asks the next peer, and comes back if that does not help."""
        if retry.block_hash is None:
            if self.target is not None:
                self.ask(self.world.random.choice(self.context.peers), Ask(self.address, above_height=self.tip.height))
                self.world.remind(self.address, RETRY_MS, retry)
        elif retry.block_hash in self.waiting and retry.peers:
            self.ask(retry.peers[0], Ask(self.address, block_hash=retry.block_hash))
            self.world.remind(self.address, RETRY_MS, Retry(self.life, retry.block_hash, retry.peers[1:]))

    def serve(self, request: Ask) -> None:
        """Answers from what is held."""
        if request.block_hash is not None:
            block = self.find_block(request.block_hash)
            if block is not None:
                self.world.send(self.address, request.source, Answer(self.peer, (block,), None))
        elif request.above_height is not None:
            if self.tip_cert is not None and self.tip.height > request.above_height:
                blocks = tuple(self.blocks[request.above_height :])
                self.world.send(self.address, request.source, Answer(self.peer, blocks, self.tip_cert))
        else:
            certs = dict.fromkeys(cert for view in request.views for cert in self.state.get_certs(view))
            for cert in certs:
                self.world.send(self.address, request.source, Letter(self.address, self.peer, cert))

    def find_block(self, block_hash: Hash) -> Block | None:
        held = self.state.get_block(block_hash)
        if held is not None:
            return held
        return next((block for block in self.blocks[-16:] if compute_header_hash(block.header) == block_hash), None)

    def take_answer(self, answer: Answer) -> None:
        if answer.cert is not None:
            self.take_range(answer.blocks, answer.cert)
            return
        for block in answer.blocks:
            self.waiting.pop(compute_header_hash(block.header), None)
            self.feed(BlockReceived(self.clock(), answer.peer, block))

    def take_range(self, blocks: tuple[Block, ...], cert: QuorumCert) -> None:
        """A range counts if it is linked to the own tip and to a FinalCert at or above the target."""
        if self.target is None or cert.view < self.target.view or not self.is_linked(blocks, cert):
            return
        hashes = tuple(compute_header_hash(block.header) for block in blocks)
        for block_hash, block in zip(hashes, blocks, strict=True):
            assert self.application.check(block_hash, block), block.header
        if self.watch is not None:
            self.watch.see_final(self.tip.height + 1, hashes, cert)
        self.application.commit(hashes)
        self.blocks.extend(blocks)
        self.keep_tip(cert)
        self.target = None
        self.feed(Synced(self.clock(), cert, blocks[-1].header))

    def is_linked(self, blocks: tuple[Block, ...], cert: QuorumCert) -> bool:
        context, parent = self.context, self.tip.block_hash
        for block in blocks:
            if block.header.parent_hash != parent:
                return False
            parent = compute_header_hash(block.header)
        if parent != cert.block_hash:
            return False
        try:
            check_quorum_cert(cert, context.chain, context.epoch, context.validators, context.verify)
        except InvalidMessage:
            return False
        return True


def make_event(now_ms: int, peer: NodeId, message: OrderingMessage) -> Event:
    """The event that a message's arrival is."""
    match message:
        case Vote():
            return VoteReceived(now_ms, peer, message)
        case Proposal():
            return ProposalReceived(now_ms, peer, message)
        case QuorumCert():
            return CertReceived(now_ms, peer, message)


def view_of(record: Record) -> int:
    """The view that a record of the log is about."""
    match record:
        case Vote() | QuorumCert():
            return record.view
        case Proposal():
            return record.block.header.view
        case Block():
            return record.header.view


def hash_of_body(record: Record, view: int) -> Hash | None:
    """Which block of a view a record of the log would bring back."""
    block = record.block if isinstance(record, Proposal) else record
    if not isinstance(block, Block) or block.header.view != view:
        return None
    return compute_header_hash(block.header)
