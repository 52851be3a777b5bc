"""Byzantine validators of their own making: silent, mutating leaders that sign everything, forge certificates, or skip blocks."""

from __future__ import annotations

from dataclasses import replace as replace_context
from typing import ClassVar, Final

from msgspec.structs import replace

from protocol.block import compute_header_hash
from protocol.ordering.effects import BuildBlock, Effect, Persist
from protocol.ordering.messages import Justification, Proposal, QuorumCert, Vote, VoteKind, compute_justification_hash
from protocol.ordering.state import Context
from protocol.units import ZERO_HASH, Hash
from protocol.validators import compute_leader
from protocol.voting import proposal_signing_bytes, vote_signing_bytes
from tests.simulation.application import HashChain
from tests.simulation.keys import CheapSigner
from tests.simulation.node import Addresses, SimulatedNode
from tests.simulation.parcels import Letter
from tests.simulation.world import World


class Silent:
    """Takes everything, says nothing."""

    def take(self, now_ms: int, parcel: object) -> None:
        """Nothing happens."""


class UnforgettingChain(HashChain):
    """Remembers every state, so that it can build on any block there ever was."""

    def commit(self, block_hashes: tuple[Hash, ...]) -> None:
        for block_hash in block_hashes:
            self.final_hash = block_hash
            for transaction in self.blocks[block_hash].body:
                self.pool.pop(transaction, None)

    def forget(self) -> None:
        """Never."""


class Evil(SimulatedNode):
    """Follows the network as an observer would, votes for everything it hears of, and leads with conflicting blocks on old parents."""

    proposals: ClassVar[int] = 3
    reach_ppm: ClassVar[int] = 650_000

    def __init__(
        self, address: int, own: int, context: Context, chain: HashChain, world: World, addresses: Addresses
    ) -> None:
        observer = replace_context(context, own=None, signer=None)
        super().__init__(address, observer, chain, world, addresses, None)
        self.own = own
        self.chain = chain
        self.peer = context.validators.members[own].node
        self.signer = CheapSigner(self.peer)
        self.certs: dict[tuple[VoteKind, int], QuorumCert] = {}
        self.signed: set[tuple[int, Hash]] = set()
        self.led = 0

    def perform_one(self, effect: Effect) -> None:
        if isinstance(effect, Persist) and isinstance(effect.record, QuorumCert):
            self.certs[effect.record.kind, effect.record.view] = effect.record
            self.leak(effect.record)
        super().perform_one(effect)

    def take(self, now_ms: int, parcel: object) -> None:
        super().take(now_ms, parcel)
        if isinstance(parcel, Letter):
            message = parcel.message
            if isinstance(message, Proposal):
                self.sign_everything(message.block.header.view, compute_header_hash(message.block.header))
            elif isinstance(message, Vote) and message.kind != VoteKind.NULL:
                self.sign_everything(message.view, message.block_hash)
        self.lead()

    def tell(self, message: Proposal | Vote | QuorumCert) -> None:
        """Tells some of the others."""
        for node in self.context.peers:
            for address in self.addresses.reach(node):
                if address != self.address and self.world.random.randrange(1_000_000) < self.reach_ppm:
                    self.world.send(self.address, address, Letter(self.address, self.peer, message))

    def leak(self, cert: QuorumCert) -> None:
        """Certificates pass, damaged at times."""
        if self.world.random.randrange(8) == 0:
            damaged = replace(cert, signatures=(bytes(64), *cert.signatures[1:]))
            self.tell(damaged if self.world.random.randrange(2) else replace(cert, signers=cert.signers[1:]))
        else:
            self.tell(cert)

    def sign_everything(self, view: int, block_hash: Hash) -> None:
        """All three votes, whatever was signed before."""
        if (view, block_hash) in self.signed:
            return
        self.signed.add((view, block_hash))
        for kind, subject in ((VoteKind.NOTAR, block_hash), (VoteKind.FINAL, block_hash), (VoteKind.NULL, ZERO_HASH)):
            message = vote_signing_bytes(kind, self.context.chain, self.context.epoch, view, subject)
            self.tell(Vote(kind, self.context.epoch, view, subject, self.own, self.signer.sign(message)))

    def lead(self) -> None:
        """Conflicting proposals for the current view, where it is its own."""
        context = self.context
        early = 2 if self.world.random.randrange(16) == 0 else 1  # early: before it can justify what it says
        for view in range(max(self.led, self.state.view - 1) + 1, self.state.view + early):
            if compute_leader(context.validators, context.chain, context.epoch, context.seed, view) == self.own:
                self.led = view
                for _ in range(self.proposals):
                    self.propose(view)

    def choose_base(self, bases: list[tuple[int, Hash]]) -> tuple[int, Hash]:
        """Which of the latest notarized blocks to build on."""
        return max(bases) if self.world.random.randrange(2) else self.world.random.choice(bases)

    def find_null(self, view: int) -> QuorumCert | None:
        """What it can show for having skipped a view."""
        return self.certs.get((VoteKind.NULL, view))

    def propose(self, view: int) -> None:
        """A valid block on some notarized parent, justified as far as its certificates go."""
        random = self.world.random
        bases = [(0, self.application.genesis.block_hash)]
        bases += [(v, c.block_hash) for (k, v), c in self.certs.items() if k == VoteKind.NOTAR and v < view]
        bases = [base for base in bases if base[1] in self.chain.roots][-6:]
        base_view, base_hash = self.choose_base(bases)
        parent = self.chain.blocks.get(base_hash)
        height, time_ms = (
            (0, self.application.genesis.time_ms) if parent is None else (parent.header.height, parent.header.time_ms)
        )
        self.application.submit(random.randbytes(8))
        pace = self.context.params.pace_ms
        block = self.application.build(BuildBlock(view, height + 1, base_view, base_hash, time_ms + pace), self.clock())
        assert block is not None
        skipped = (self.find_null(between) for between in range(base_view + 1, view))
        justification = Justification(
            self.certs.get((VoteKind.NOTAR, base_view)), tuple(cert for cert in skipped if cert is not None)
        )
        block_hash = compute_header_hash(block.header)
        message = proposal_signing_bytes(
            self.context.chain, self.context.epoch, view, block_hash, compute_justification_hash(justification)
        )
        self.tell(Proposal(block, justification, view, self.own, self.signer.sign(message)))
        self.sign_everything(view, block_hash)


class Skipper(Evil):
    """Leads with one block for everybody, beside the last notarized one and without a reason for that."""

    proposals: ClassVar[int] = 1
    reach_ppm: ClassVar[int] = 1_000_000

    def choose_base(self, bases: list[tuple[int, Hash]]) -> tuple[int, Hash]:
        return sorted(bases)[-2:][0]


class Forger(Evil):
    """Fills the gaps in its reasons with certificates that nobody else signed, and claims a quorum for whatever it votes for."""

    def find_null(self, view: int) -> QuorumCert | None:
        return super().find_null(view) or self.forge(VoteKind.NULL, view, ZERO_HASH)

    def sign_everything(self, view: int, block_hash: Hash) -> None:
        is_new = (view, block_hash) not in self.signed
        super().sign_everything(view, block_hash)
        if is_new:
            for kind in (VoteKind.NOTAR, VoteKind.FINAL):
                self.tell(self.forge(kind, view, block_hash))

    def forge(self, kind: VoteKind, view: int, block_hash: Hash) -> QuorumCert:
        """Its own signature, once or many times over."""
        context = self.context
        times = self.world.random.choice((1, len(context.validators.members)))
        message = vote_signing_bytes(kind, context.chain, context.epoch, view, block_hash)
        signatures = (self.signer.sign(message),) * times
        return QuorumCert(kind, context.epoch, view, block_hash, (self.own,) * times, signatures)


LEADERS: Final[dict[str, type[Evil]]] = {"evil": Evil, "skipper": Skipper, "forger": Forger}
"""Name -> the mutating leader that takes the Byzantine places of a schedule."""
