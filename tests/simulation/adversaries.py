"""Byzantine validators of their own making: silent, mutating leaders that sign everything, forge certificates, or skip blocks."""

from __future__ import annotations

from dataclasses import replace as replace_context
from typing import ClassVar, Final

from msgspec.structs import replace

from protocol.block import Block, compute_header_hash
from protocol.ordering.effects import BuildBlock, Effect, Persist
from protocol.ordering.messages import Justification, Proposal, QuorumCert, Vote, VoteKind, compute_justification_hash
from protocol.ordering.signatures import Signer
from protocol.ordering.state import Context, Tip, make_tip
from protocol.units import ZERO_HASH, Hash
from protocol.validators import compute_leader, index_of
from protocol.voting import proposal_signing_bytes, vote_signing_bytes
from tests.simulation.addresses import Addresses
from tests.simulation.application import HashChain
from tests.simulation.keys import CheapSigner
from tests.simulation.node import SimulatedNode
from tests.simulation.parcels import Letter
from tests.simulation.world import World


class Silent:
    """Takes everything, says nothing."""

    def take(self, now_ms: int, parcel: object) -> None:
        """Nothing happens."""


class UnforgettingChain(HashChain):
    """Remembers every state, so that it can build on any block there ever was."""

    def store(self) -> None:
        """Nothing goes but transactions."""
        for transaction in (transaction for block in self.unstored for transaction in block.body):
            self.pool.pop(transaction, None)
        self.stored_hash, self.unstored = self.final_hash, []

    def forget(self) -> None:
        self.final_hash, self.unstored = self.stored_hash, []


class Evil(SimulatedNode):
    """Follows the network as an observer would, votes for everything it hears of, and leads with conflicting blocks on old parents."""

    follows_only = True
    proposals: ClassVar[int] = 3
    reach_ppm: ClassVar[int] = 650_000

    def __init__(
        self, address: int, own: int, context: Context, chain: HashChain, world: World, addresses: Addresses
    ) -> None:
        observer = replace_context(context, own=None, signer=None)
        public = context.validators.members[own].node
        super().__init__(address, observer, chain, world, addresses, None, 0, public)
        self.chain = chain
        self.key: Signer = CheapSigner(public)
        self.certs: dict[tuple[int, VoteKind, int], QuorumCert] = {}
        self.signed: set[tuple[int, int, Hash]] = set()
        self.led = (0, 0)

    @property
    def own(self) -> int | None:
        """Its place in the table of the epoch."""
        return index_of(self.context.validators, self.peer)

    def perform_one(self, effect: Effect) -> None:
        if isinstance(effect, Persist) and isinstance(effect.record, QuorumCert):
            self.certs[effect.record.epoch, effect.record.kind, effect.record.view] = effect.record
            self.leak(effect.record)
        super().perform_one(effect)

    def take(self, now_ms: int, parcel: object) -> None:
        super().take(now_ms, parcel)
        if isinstance(parcel, Letter):
            message = parcel.message
            if isinstance(message, Proposal):
                self.sign_everything(message.view, compute_header_hash(message.block.header))
            elif isinstance(message, Vote) and message.kind != VoteKind.NULL:
                self.sign_everything(message.view, message.block_hash)
        self.lead()

    def tell(self, message: Proposal | Vote | QuorumCert) -> None:
        """Tells some of the others."""
        for node in self.addresses.list_others(self.peer):
            for address in self.addresses.reach(node):
                if self.world.random.randrange(1_000_000) < self.reach_ppm:
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
        context, own = self.context, self.own
        if own is None or (context.epoch, view, block_hash) in self.signed:
            return
        self.signed.add((context.epoch, view, block_hash))
        for kind, subject in ((VoteKind.NOTAR, block_hash), (VoteKind.FINAL, block_hash), (VoteKind.NULL, ZERO_HASH)):
            message = vote_signing_bytes(kind, context.chain, context.epoch, view, subject)
            self.tell(Vote(kind, context.epoch, view, subject, own, self.key.sign(message)))

    def lead(self) -> None:
        """Conflicting proposals for the current view, where it is its own."""
        context, own = self.context, self.own
        early = 2 if self.world.random.randrange(16) == 0 else 1  # early: before it can justify what it says
        last = self.led[1] if self.led[0] == context.epoch else context.start.view
        for view in range(max(last, self.state.view - 1) + 1, self.state.view + early):
            if compute_leader(context.validators, context.chain, context.epoch, context.seed, view) == own:
                self.led = context.epoch, view
                for _ in range(self.proposals):
                    self.propose(view, own)

    def choose_base(self, bases: list[tuple[int, Hash]]) -> tuple[int, Hash]:
        """Which of the latest notarized blocks to build on."""
        return max(bases) if self.world.random.randrange(2) else self.world.random.choice(bases)

    def find_cert(self, kind: VoteKind, view: int) -> QuorumCert | None:
        """A certificate of the epoch."""
        return self.certs.get((self.context.epoch, kind, view))

    def find_null(self, view: int) -> QuorumCert | None:
        """What it can show for having skipped a view."""
        return self.find_cert(VoteKind.NULL, view)

    def propose(self, view: int, own: int) -> None:
        """A valid block on some notarized parent, or the epoch's last one again, justified as far as its certificates go."""
        context, start = self.context, self.context.start
        bases = [(start.view, start.block_hash)]
        bases += [
            (v, c.block_hash)
            for (e, k, v), c in self.certs.items()
            if (e, k) == (context.epoch, VoteKind.NOTAR) and v < view
        ]
        bases = [base for base in bases if base[1] in self.chain.states][-6:]
        base_view, base_hash = self.choose_base(bases)
        parent = self.chain.blocks.get(base_hash)
        if parent is not None and parent.header.height == context.boundary:
            block = self.choose_last(parent)
        else:
            block = self.build_on(
                base_view, base_hash, start if parent is None else make_tip(base_hash, parent.header), view
            )
        skipped = (self.find_null(between) for between in range(base_view + 1, view))
        justification = Justification(
            self.find_cert(VoteKind.NOTAR, base_view), tuple(cert for cert in skipped if cert is not None)
        )
        block_hash = compute_header_hash(block.header)
        message = proposal_signing_bytes(
            context.chain, context.epoch, view, block_hash, compute_justification_hash(justification)
        )
        self.tell(Proposal(block, justification, view, own, self.key.sign(message)))
        self.sign_everything(view, block_hash)

    def build_on(self, base_view: int, base_hash: Hash, parent: Tip, view: int) -> Block:
        """A block that it builds nowhere else."""
        self.application.submit(self.world.random.randbytes(8))
        earliest_ms = parent.time_ms + self.context.params.pace_ms
        request = BuildBlock(view, parent.height + 1, base_view, base_hash, earliest_ms)
        block = self.application.build(request, self.clock())
        assert block is not None
        return block

    def choose_last(self, block: Block) -> Block:
        """What it proposes in a later view where this block is the epoch's last: this one, or another of its height."""
        others = [held for held in self.chain.blocks.values() if held.header.height == block.header.height]
        return replace(block if self.world.random.randrange(2) else self.world.random.choice(others), body=())


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
        is_new = (self.context.epoch, view, block_hash) not in self.signed
        super().sign_everything(view, block_hash)
        if is_new and self.own is not None:
            for kind in (VoteKind.NOTAR, VoteKind.FINAL):
                self.tell(self.forge(kind, view, block_hash))

    def forge(self, kind: VoteKind, view: int, block_hash: Hash) -> QuorumCert:
        """Its own signature, once or many times over."""
        context = self.context
        times = self.world.random.choice((1, len(context.validators.members)))
        message = vote_signing_bytes(kind, context.chain, context.epoch, view, block_hash)
        signatures = (self.key.sign(message),) * times
        return QuorumCert(kind, context.epoch, view, block_hash, (self.own or 0,) * times, signatures)


LEADERS: Final[dict[str, type[Evil]]] = {"evil": Evil, "skipper": Skipper, "forger": Forger}
"""Name -> the mutating leader that takes the Byzantine places of a schedule."""
