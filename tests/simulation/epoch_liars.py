"""Byzantine validators that make trouble where one epoch ends and the next one begins."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from protocol.block import Block, compute_header_hash
from protocol.ordering.effects import OrderingMessage
from protocol.ordering.justification import is_again
from protocol.ordering.messages import Proposal, QuorumCert
from protocol.units import Hash, NodeId
from protocol.voting import Vote, VoteKind
from tests.simulation.liars import Liar
from tests.simulation.parcels import Letter

KEPT: Final = 256


class Changeling(Liar):
    """Proposes another block where an epoch's last one is to be proposed again, and now and then repeats a block that may not be."""

    def start(self) -> None:
        self.hidden: dict[Hash, Block] = {}  # blocks that it made up, and has to show
        super().start()

    def post(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        if isinstance(message, Proposal) and is_again(message):
            self.swap(peers, message)
        elif isinstance(message, Proposal) and self.world.random.randrange(4) == 0:
            self.repeat(peers, message)
        else:
            self.say(peers, message)

    def swap(self, peers: tuple[NodeId, ...], message: Proposal) -> None:
        """Another block of the same height and view, with the reason for the real one, and its votes for it."""
        real = self.state.get_block(compute_header_hash(message.block.header))
        assert real is not None, message.view
        other = self.alter(real)
        block_hash = compute_header_hash(other.header)
        self.hidden[block_hash] = other
        self.say(peers, self.sign_block(replace(other, body=()), message.justification, message.view))
        for kind in (VoteKind.NOTAR, VoteKind.FINAL):
            self.say(peers, self.vote(kind, message.view, block_hash))

    def repeat(self, peers: tuple[NodeId, ...], message: Proposal) -> None:
        """The parent once more, in place of a block on it."""
        parent = self.find_block(message.block.header.parent_hash)
        if parent is None:
            self.say(peers, message)
        else:
            self.say(peers, self.sign_block(replace(parent, body=()), message.justification, message.view))

    def find_block(self, block_hash: Hash) -> Block | None:
        return self.hidden.get(block_hash) or super().find_block(block_hash)


class Replayer(Liar):
    """Repeats to somebody what anybody said long ago, from epochs that are over as well."""

    def start(self) -> None:
        self.kept: list[OrderingMessage] = []
        super().start()

    def take(self, now_ms: int, parcel: object) -> None:
        super().take(now_ms, parcel)
        random = self.world.random
        if isinstance(parcel, Letter):
            self.kept = [*self.kept[-KEPT:], parcel.message] if random.randrange(4) == 0 else self.kept
            if self.kept and random.randrange(3) == 0:
                self.say((random.choice(self.addresses.list_others(self.peer)),), random.choice(self.kept))


class Herald(Liar):
    """Adds to what it says the same about epochs to come, and certificates of them that nobody signed."""

    def post(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        self.say(peers, message)
        random = self.world.random
        epoch = self.context.epoch + random.choice((1, 1, 1, 2, 3, 1_000))
        match message:
            case Vote():
                self.say(peers, replace(message, epoch=epoch))
            case Proposal():
                header = replace(message.block.header, epoch=epoch)
                self.say(peers, replace(message, block=Block(header, message.block.body)))
            case QuorumCert():
                self.say(peers, replace(message, epoch=epoch))
                made_up = (random.randbytes(64),) * len(message.signers)
                self.say(
                    peers,
                    QuorumCert(VoteKind.FINAL, epoch, message.view, self.make_up_hash(), message.signers, made_up),
                )


EPOCH_LIARS: Final[dict[str, type[Liar]]] = {"changeling": Changeling, "replayer": Replayer, "herald": Herald}
"""Name -> the validator that takes the Byzantine places of a schedule."""
