"""Byzantine validators that run the real machine and change one thing about what leaves it: one habit a class, a few lines each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from protocol.block import Block, compute_header_hash, compute_transactions_root
from protocol.crypto import HashDomain, compute_hash
from protocol.ordering.effects import OrderingMessage
from protocol.ordering.messages import Justification, Proposal, QuorumCert, compute_justification_hash
from protocol.ordering.votes import sign_vote
from protocol.units import ZERO_HASH, Hash, NodeId
from protocol.voting import Vote, VoteKind, proposal_signing_bytes
from tests.simulation.application import HashChain
from tests.simulation.node import SimulatedNode
from tests.simulation.parcels import Answer, Ask, Letter


@dataclass(frozen=True, slots=True)
class Later:
    """What a slow validator will say after a while."""

    peers: tuple[NodeId, ...]
    message: OrderingMessage


class Liar(SimulatedNode):
    """An honest validator so far; what it says and answers is for the classes below."""

    def say(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        """Sends a message of its own making."""
        super().post(peers, message)

    def vote(self, kind: VoteKind, view: int, block_hash: Hash) -> Vote:
        return sign_vote(self.context, kind, view, block_hash)

    def make_up_hash(self) -> Hash:
        return self.world.random.randbytes(32)

    def alter(self, block: Block) -> Block:
        """Another valid block of the same view on the same parent."""
        body = (*block.body, b"other")
        root = compute_transactions_root(body)
        assert isinstance(self.application, HashChain)
        before = self.application.states.get(block.header.parent_hash)
        state_root = compute_hash(HashDomain.NODE, ZERO_HASH if before is None else before.root, root)
        return Block(replace(block.header, tx_root=root, state_root=state_root), body)

    def sign_block(self, block: Block, justification: Justification, view: int) -> Proposal:
        context = self.context
        assert context.own is not None and context.signer is not None
        block_hash, justification_hash = compute_header_hash(block.header), compute_justification_hash(justification)
        message = proposal_signing_bytes(context.chain, context.epoch, view, block_hash, justification_hash)
        return Proposal(block, justification, view, context.own, context.signer.sign(message))


class Slow(Liar):
    """Says everything, between a fifth of a second and two seconds late."""

    def post(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        self.world.remind(self.address, self.world.random.randint(200, 2_000), Later(peers, message))

    def take(self, now_ms: int, parcel: object) -> None:
        if isinstance(parcel, Later):
            self.say(parcel.peers, parcel.message)
        else:
            super().take(now_ms, parcel)


class Equivocator(Liar):
    """Leads with one block for one half and another for the other half, and votes for both."""

    def post(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        if not isinstance(message, Proposal):
            self.say(peers, message)
            return
        block, half = self.alter(message.block), len(peers) // 2
        view, block_hash = message.view, compute_header_hash(block.header)
        block = block if view == block.header.view else replace(block, body=())
        self.say(peers[:half], message)
        self.say(peers[half:], self.sign_block(block, message.justification, view))
        for kind in (VoteKind.NOTAR, VoteKind.FINAL):
            self.say(peers[half:], self.vote(kind, view, block_hash))


class Conflicter(Liar):
    """Votes for its block, and as well for one that does not exist."""

    def post(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        self.say(peers, message)
        if isinstance(message, Vote) and message.kind != VoteKind.NULL:
            self.say(peers, self.vote(message.kind, message.view, self.make_up_hash()))


class Nuller(Liar):
    """Gives up on every view that it votes for, and makes it final too."""

    def post(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        self.say(peers, message)
        if isinstance(message, Vote) and message.kind == VoteKind.NOTAR:
            self.say(peers, self.vote(VoteKind.NULL, message.view, ZERO_HASH))
            self.say(peers, self.vote(VoteKind.FINAL, message.view, message.block_hash))


class Impersonator(Liar):
    """Says whatever it says in the name of its neighbour."""

    def post(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        if isinstance(message, (Vote, Proposal)):
            message = replace(message, signer=(message.signer + 1) % len(self.context.validators.members))
        self.say(peers, message)


class Usurper(Liar):
    """Answers the first proposal that it sees of a view with one of its own, whoever leads it."""

    usurped = (0, 0)

    def take(self, now_ms: int, parcel: object) -> None:
        if isinstance(parcel, Letter) and isinstance(parcel.message, Proposal):
            self.usurp(parcel.message)
        super().take(now_ms, parcel)

    def usurp(self, proposal: Proposal) -> None:
        place = proposal.block.header.epoch, proposal.view
        if place > self.usurped and place[0] == self.context.epoch and self.context.own is not None:
            self.usurped = place
            block = self.alter(proposal.block)
            self.say(self.context.peers, self.sign_block(block, proposal.justification, proposal.view))


class Outdated(Liar):
    """Votes about views long gone."""

    lag: Final = 20

    def post(self, peers: tuple[NodeId, ...], message: OrderingMessage) -> None:
        if isinstance(message, Vote):
            message = self.vote(message.kind, max(1, message.view - self.lag), message.block_hash)
        self.say(peers, message)


class Flooder(Liar):
    """Adds to whatever reaches it a handful of votes about views to come, and a certificate that nobody signed."""

    def take(self, now_ms: int, parcel: object) -> None:
        super().take(now_ms, parcel)
        random = self.world.random
        if not isinstance(parcel, Letter) or random.randrange(4) or self.context.own is None:
            return
        victim = (random.choice(self.addresses.list_others(self.peer)),)
        far = self.state.view + random.choice((1, 2, 10, 100, 1 << 40))
        for kind in VoteKind:
            self.say(victim, self.vote(kind, far, ZERO_HASH if kind == VoteKind.NULL else self.make_up_hash()))
        self.say(
            victim,
            QuorumCert(
                VoteKind.FINAL, self.context.epoch, far, self.make_up_hash(), (0, 1, 2), (random.randbytes(64),) * 3
            ),
        )


class LyingSync(Liar):
    """Answers requests: with other blocks, less than was asked for, another certificate, or nothing."""

    def serve(self, request: Ask) -> None:
        random, end = self.world.random, self.find_end(request.epoch)
        blocks = () if end is None else tuple(self.blocks[request.above_height or 0 : end[0].height])
        if request.views:
            for view in request.views:
                made_up = QuorumCert(VoteKind.NULL, request.epoch, view, ZERO_HASH, (0, 1, 2), (bytes(64),) * 3)
                self.world.send(self.address, request.source, Letter(self.address, self.peer, made_up))
        elif blocks and end is not None:
            cert = end[1]
            lies = (
                Answer(self.peer, (*blocks[:-1], self.alter(blocks[-1])), cert),
                Answer(self.peer, blocks[:-1], cert),
                Answer(self.peer, blocks, replace(cert, view=cert.view + 1000)),
                Answer(self.peer, blocks[::-1], None),
                Answer(self.peer, (), cert),
            )
            self.world.send(self.address, request.source, random.choice(lies))


LIARS: Final[dict[str, type[Liar]]] = {
    "slow": Slow,
    "equivocator": Equivocator,
    "conflicter": Conflicter,
    "nuller": Nuller,
    "impersonator": Impersonator,
    "usurper": Usurper,
    "outdated": Outdated,
    "flooder": Flooder,
    "lying-sync": LyingSync,
}
"""Name -> the validator that takes the Byzantine places of a schedule."""
