"""A simulated node with a ledger: transactions spread from node to node, members work, windows that end make work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol.ordering.events import WorkChanged
from tests.simulation.addresses import Addresses
from tests.simulation.adversaries import Evil
from tests.simulation.ledger_application import EquivocatingLedger, Executed, LedgerApplication
from tests.simulation.node import SimulatedNode
from tests.simulation.parcels import Crash

if TYPE_CHECKING:
    from protocol.block import Block
    from protocol.ledger.queries import GenerateDuty
    from protocol.ordering.messages import QuorumCert
    from protocol.ordering.state import Context
    from protocol.units import Hash
    from tests.simulation.ledger_town import NotedSigner
    from tests.simulation.world import World

CHORE_MS = 500
CLIENT_MS = 1_500
FORWARDED = 2  # a new transaction is passed on to this many


@dataclass(frozen=True, slots=True)
class Gossip:
    """A transaction on its way."""

    encoded: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """A client's transaction at a node. The client goes on to another one until it is in a final block there, or gives up."""

    name: Hash
    encoded: bytes
    attempts: int


@dataclass(frozen=True, slots=True)
class Generated:
    """A worker has an answer."""

    life: int
    member: int
    duty: GenerateDuty


@dataclass(frozen=True, slots=True)
class Chore:
    """Time to repeat what may have been lost."""

    life: int


@dataclass(frozen=True, slots=True)
class Look:
    """Time at which a window ends: there may be work now."""

    life: int


class LedgerActor(SimulatedNode):
    """What every simulated node with a ledger does, honest or not."""

    stores_late = False
    application: LedgerApplication
    acted_on: tuple[int, Hash] = (0, b"")
    looking_ms: int = 0
    clients: tuple[int, ...] = ()  # addresses at which clients try
    fragile_until_ms: int = 0  # up to then it often dies just when it has said something for a job

    def start(self) -> None:
        self.looking_ms = 0
        self.application.now_ms = self.clock()
        super().start()
        self.world.remind(self.address, CHORE_MS, Chore(self.life))

    def take(self, now_ms: int, parcel: object) -> None:
        self.application.now_ms = self.clock()
        match parcel:
            case Offer():
                self.take_offer(parcel)
            case Gossip() | Generated() | Chore() | Look():
                if not self.is_up or self.is_halted:
                    return
                self.take_own(parcel)
            case _:
                super().take(now_ms, parcel)
        if self.is_up and not self.is_halted:
            self.do_duties()
            self.look_for_work()
            self.finish_turn()

    def take_own(self, parcel: Gossip | Generated | Chore | Look) -> None:
        match parcel:
            case Gossip():
                if self.application.receive(parcel.encoded):
                    self.pass_on(parcel.encoded)
            case Generated():
                if parcel.life == self.life:
                    self.application.members[parcel.member].keep_answer(parcel.duty)
                    self.acted_on = (0, b"")
            case Chore():
                if parcel.life == self.life:
                    for encoded in self.application.pool.list_repeats(self.clock()):
                        self.spread(encoded)
                    self.acted_on = (0, b"")
                    self.world.remind(self.address, CHORE_MS, parcel)
            case Look():
                return  # the end of the turn looks for work

    def take_offer(self, offer: Offer) -> None:
        if offer.name in self.application.included or offer.attempts == 0:
            return
        if self.is_up and not self.is_halted and self.application.receive(offer.encoded, is_own=True):
            self.spread(offer.encoded)
        again = Offer(offer.name, offer.encoded, offer.attempts - 1)
        self.world.remind(self.world.random.choice(self.clients), CLIENT_MS, again)

    def do_duties(self) -> None:
        """Once for every final block and every answer: acts on final blocks only."""
        now = (self.life, self.application.final.hash)
        if self.acted_on == now:
            return
        self.acted_on = now
        for place, member in enumerate(self.application.members):
            for duty in member.list_requests(self.application.final.ledger):
                delay_ms = self.world.random.randint(20, 400)
                self.world.remind(self.address, delay_ms, Generated(self.life, place, duty))
        for encoded in self.application.list_owed():
            if self.application.receive(encoded, is_own=True):
                self.spread(encoded)
                if self.world.now_ms < self.fragile_until_ms and self.world.random.randrange(3) == 0:
                    crash = Crash(0, self.world.random.randint(20, 2_500))
                    self.world.remind(self.address, self.world.random.randrange(400), crash)

    def spread(self, encoded: bytes) -> None:
        """To everybody: an own transaction."""
        for address in self.world.actors:
            if address != self.address:
                self.world.send(self.address, address, Gossip(encoded))

    def pass_on(self, encoded: bytes) -> None:
        """To a few: somebody else's."""
        others = [address for address in self.world.actors if address != self.address]
        for address in self.world.random.sample(others, min(FORWARDED, len(others))):
            self.world.send(self.address, address, Gossip(encoded))

    def look_for_work(self) -> None:
        """Work is judged on the block that the next one would be built on."""
        if not self.is_up or self.is_halted:
            return
        now_ms = self.clock()
        pending, next_ms = self.application.has_work_on(self.find_parent(), now_ms)
        if next_ms is not None and not now_ms < self.looking_ms <= next_ms:
            self.looking_ms = next_ms
            self.world.remind(self.address, max(1, next_ms - now_ms), Look(self.life))
        if pending != self.state.has_work:
            self.feed(WorkChanged(now_ms, pending))

    def find_parent(self) -> Executed:
        """The highest executed block that is known to be notarized."""
        for view in sorted(self.state.views, reverse=True):
            notar = self.state.views[view].notar
            executed = None if notar is None else self.application.executed.get(notar.block_hash)
            if executed is not None:
                return executed
        return self.application.final

    def keep_tip(self, blocks: list[Block], cert: QuorumCert) -> None:
        super().keep_tip(blocks, cert)
        self.application.certify(self.blocks, cert)


class LedgerEvil(LedgerActor, Evil):
    """The mutating leader, over a ledger that it never forgets."""

    def __init__(
        self,
        address: int,
        own: int,
        context: Context,
        application: EquivocatingLedger,
        world: World,
        addresses: Addresses,
        signer: NotedSigner,
    ) -> None:
        Evil.__init__(self, address, own, context, application, world, addresses)
        self.key = signer
