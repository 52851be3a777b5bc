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
    EpochStarted,
    Event,
    ProposalReceived,
    Replayed,
    Synced,
    Timer,
    TimerFired,
    VoteReceived,
    WorkChanged,
)
from protocol.ordering.messages import Proposal, QuorumCert, Vote, VoteKind
from protocol.ordering.state import Context, SimplexState, make_state
from protocol.ordering.votes import check_quorum_cert
from protocol.units import Hash, NodeId
from protocol.validators import index_of
from tests.simulation.addresses import Addresses
from tests.simulation.application import Application
from tests.simulation.disk import Disk
from tests.simulation.invariants import Watch
from tests.simulation.keys import CheapSigner
from tests.simulation.parcels import Answer, Ask, Crash, Letter, Restart, Retry, Ring, Submit
from tests.simulation.world import World

RETRY_MS = 200


class SimulatedNode(Disk):
    """A process with its disk. `watch` is None where it stands for somebody Byzantine.

    `public` names it where it is no validator of the first epoch; with a signer it votes in every epoch whose set it is in.
    """

    follows_only = False
    stores_late = True

    def __init__(
        self,
        address: int,
        context: Context,
        application: Application,
        world: World,
        addresses: Addresses,
        watch: Watch | None,
        skew_ms: int = 0,
        public: NodeId | None = None,
    ) -> None:
        super().__init__(application.genesis)
        self.address = address
        self.application = application
        self.world = world
        self.addresses = addresses
        self.watch = watch
        self.skew_ms = skew_ms
        own = b"observer".ljust(32) if context.own is None else context.validators.members[context.own].node
        self.peer = own if public is None else public
        self.signer = context.signer if public is None else CheapSigner(public)
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

    @property
    def context(self) -> Context:
        """The epoch that its machine is in."""
        return self.state.context

    def make_context(self) -> Context:
        """The epoch of the block behind the last final one."""
        terms, (start, start_cert) = self.application.get_terms(), self.epoch_start
        own = None if self.signer is None or self.follows_only else index_of(terms.validators, self.peer)
        context = replace(
            self.state.context,
            epoch=terms.epoch,
            seed=terms.seed,
            validators=terms.validators,
            own=own,
            signer=None if own is None else self.signer,
            start=start,
            start_cert=start_cert,
            boundary=terms.boundary,
        )
        if self.watch is not None:
            self.watch.see_epoch(context)
        return context

    # --- life

    def start(self) -> None:
        """Opens the disk and the machine."""
        self.is_up = True
        self.life += 1
        self.timers, self.waiting, self.target, self.crash = {}, {}, None, None
        self.executed = {}
        self.application.forget()
        self.state = make_state(self.make_context(), self.tip, self.tip_cert, self.clock())
        self.feed(Replayed(self.clock(), tuple(self.wal)))
        if self.is_up:
            self.finish_turn()
            self.look_for_work()
            self.finish_turn()

    def stop(self, down_ms: int) -> None:
        """A crash."""
        self.is_up = False
        self.lose(self.world.random)
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
            self.finish_turn()
            self.look_for_work()
            self.finish_turn()

    def finish_turn(self) -> None:
        """What has become final is stored now, or later: messages never wait for that."""
        if self.stored[0] < len(self.blocks) and not (self.stores_late and self.world.random.randrange(2)):
            self.store()

    def store(self) -> None:
        super().store()
        self.application.store()

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
            is_back = (self.state.context.epoch, self.state.view) < (before.context.epoch, before.view)
            if self.watch is not None and is_back:
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
                self.post(self.addresses.list_others(self.peer), effect.message)
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
                self.local.append(EpochStarted(self.clock(), self.make_context()))
            case FetchBlock():
                self.waiting[effect.block_hash] = None
                self.retry(Retry(self.life, effect.block_hash, effect.peers))
            case FetchCerts():
                for node in effect.peers:
                    self.ask(node, Ask(self.address, views=effect.views, epoch=effect.epoch))
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
        if isinstance(message, (Vote, Proposal)) and self.watch is not None:
            self.watch.see_signed(self.peer, message)
        is_notar = isinstance(message, Vote) and message.kind == VoteKind.NOTAR
        if self.watch is not None and is_notar and message.block_hash not in self.bodies:
            self.watch.break_rule("body-durable", f"a Notar of view {message.view} was sent before its block's body")
        for node in peers:
            for address in self.addresses.reach(node):
                self.world.send(self.address, address, Letter(self.address, self.peer, message))

    def finalize(self, effect: Finalize) -> None:
        """Blocks are final; they are stored at the end of the turn."""
        if self.watch is not None:
            self.watch.see_final(self.tip.height + 1, effect.block_hashes, effect.cert)
        self.application.commit(effect.block_hashes)
        self.keep_tip([self.executed[block_hash] for block_hash in effect.block_hashes], effect.cert)

    def keep_tip(self, blocks: list[Block], cert: QuorumCert) -> None:
        self.keep_final(blocks, cert, self.context.boundary)
        self.executed = {key: block for key, block in self.executed.items() if block.header.view > self.tip.view}

    # --- fetching and catching up

    def ask(self, node: NodeId, request: Ask) -> None:
        for address in self.addresses.reach(node):
            self.world.send(self.address, address, request)

    def retry(self, retry: Retry) -> None:
        """Asks the next peer, and comes back if that does not help."""
        if retry.block_hash is None:
            if self.target is not None:
                peer = self.world.random.choice(self.addresses.list_others(self.peer))
                self.ask(peer, Ask(self.address, above_height=self.tip.height, epoch=self.context.epoch))
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
            end = self.find_end(request.epoch)
            if end is not None and end[0].height > request.above_height:
                blocks = tuple(self.blocks[request.above_height : end[0].height])
                self.world.send(self.address, request.source, Answer(self.peer, blocks, end[1]))
        else:
            for cert in self.find_certs(request.epoch, request.views):
                self.world.send(self.address, request.source, Letter(self.address, self.peer, cert))

    def find_certs(self, epoch: int, views: tuple[int, ...]) -> tuple[QuorumCert, ...]:
        """What lets views of this epoch be left, and one that is over."""
        if epoch < len(self.ends):
            return (self.ends[epoch][1],)
        found = (cert for view in views for cert in self.state.get_certs(view))
        return tuple(dict.fromkeys(found)) if epoch == self.context.epoch else ()

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
        if self.target is None or not blocks or not self.is_linked(blocks, cert):
            return
        if cert.view < self.target.view and cert.block_hash != self.target.block_hash:
            return
        hashes = tuple(compute_header_hash(block.header) for block in blocks)
        for block_hash, block in zip(hashes, blocks, strict=True):
            assert self.application.check(block_hash, block), block.header
        if self.watch is not None:
            self.watch.see_final(self.tip.height + 1, hashes, cert)
        self.application.commit(hashes)
        self.keep_tip(list(blocks), cert)
        self.target = None
        self.feed(Synced(self.clock(), cert, blocks[-1].header))

    def is_linked(self, blocks: tuple[Block, ...], cert: QuorumCert) -> bool:
        context, parent = self.context, self.tip.block_hash
        for block in blocks:
            if block.header.parent_hash != parent:
                return False
            parent = compute_header_hash(block.header)
        if parent != cert.block_hash or blocks[-1].header.height > context.boundary:
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
