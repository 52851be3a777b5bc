"""One machine among four equal validators, and everything that the others could say to it.

View v is led by validator v % 4 (views 1 to 8); the machine is validator 0 unless said otherwise. Delay D is 100 ms.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.block import Block, Header, compute_header_hash, compute_transactions_root
from protocol.ordering.effects import Broadcast, CheckBlock, Effect, Misbehaviour, Persist
from protocol.ordering.events import (
    BlockChecked,
    CertReceived,
    Event,
    ProposalReceived,
    Record,
    Replayed,
    Timer,
    TimerFired,
    VoteReceived,
    WorkChanged,
)
from protocol.ordering.messages import Justification, Proposal, QuorumCert, Vote, VoteKind, compute_justification_hash
from protocol.ordering.simplex import step
from protocol.ordering.state import Context, SimplexState, Tip, make_state, make_tip
from protocol.params import DEVNET, Params
from protocol.units import ZERO_HASH, Hash, NodeId
from protocol.validators import Validator, ValidatorSet
from protocol.voting import proposal_signing_bytes, vote_signing_bytes
from tests.simulation.keys import CheapSigner, make_public, verify_cheaply

CHAIN = b"\x07" * 32
SEED = (3408).to_bytes(32, "big")  # found by trying: leaders 1 2 3 0 1 2 3 0
START_MS = 100_000
GENESIS = Tip(0, 0, b"\x11" * 32, START_MS)
VALIDATORS = ValidatorSet(tuple(Validator(make_public(index), 1) for index in range(4)))
NOTAR, NULL, FINAL = VoteKind.NOTAR, VoteKind.NULL, VoteKind.FINAL


def node_id(index: int) -> NodeId:
    return VALIDATORS.members[index].node


def make_context(
    own: int | None = 0,
    params: Params = DEVNET,
    validators: ValidatorSet = VALIDATORS,
    boundary: int = DEVNET.epoch_heights,
) -> Context:
    signer = None if own is None else CheapSigner(validators.members[own].node)
    return Context(CHAIN, 0, SEED, validators, own, params, signer, verify_cheaply, GENESIS, None, boundary)


def make_vote(kind: VoteKind, view: int, block_hash: Hash, signer: int, epoch: int = 0) -> Vote:
    message = vote_signing_bytes(kind, CHAIN, epoch, view, block_hash)
    return Vote(kind, epoch, view, block_hash, signer, CheapSigner(node_id(signer)).sign(message))


def make_cert(
    kind: VoteKind, view: int, block_hash: Hash = ZERO_HASH, signers: Iterable[int] = (1, 2, 3), epoch: int = 0
) -> QuorumCert:
    chosen = tuple(signers)
    signatures = tuple(make_vote(kind, view, block_hash, signer, epoch).signature for signer in chosen)
    return QuorumCert(kind, epoch, view, block_hash, chosen, signatures)


def make_block(
    view: int, parent: Tip = GENESIS, *, salt: bytes = b"", time_ms: int | None = None, epoch: int = 0
) -> Block:
    body = (salt,) if salt else ()
    header = Header(
        chain_id=CHAIN,
        epoch=epoch,
        leader_seed=ZERO_HASH,
        view=view,
        height=parent.height + 1,
        parent_view=parent.view,
        parent_hash=parent.block_hash,
        tx_root=compute_transactions_root(body),
        state_root=ZERO_HASH,
        valset_hash=ZERO_HASH,
        next_valset_hash=ZERO_HASH,
        candidates_root=ZERO_HASH,
        beacon_reveal=ZERO_HASH,
        beacon=ZERO_HASH,
        time_ms=parent.time_ms + 50 if time_ms is None else time_ms,
    )
    return Block(header, body)


def hash_of(block: Block) -> Hash:
    return compute_header_hash(block.header)


def tip_of(block: Block) -> Tip:
    return make_tip(hash_of(block), block.header)


def sign_proposal(block: Block, justification: Justification, signer: int, view: int | None = None) -> Proposal:
    header = block.header
    view = header.view if view is None else view
    message = proposal_signing_bytes(
        CHAIN, header.epoch, view, hash_of(block), compute_justification_hash(justification)
    )
    return Proposal(block, justification, view, signer, CheapSigner(node_id(signer)).sign(message))


def make_proposal(block: Block, skipped: Iterable[int] | None = None) -> Proposal:
    """The leader's proposal with the justification that its parent needs, or with these null certificates instead."""
    header = block.header
    parent = None if header.parent_view == 0 else make_cert(NOTAR, header.parent_view, header.parent_hash)
    views = range(header.parent_view + 1, header.view) if skipped is None else skipped
    justification = Justification(parent, tuple(make_cert(NULL, view) for view in views))
    return sign_proposal(block, justification, header.view % 4)


class Rig:
    """A machine and what it has wanted so far; its application accepts every block unless told otherwise."""

    def __init__(
        self,
        own: int | None = 0,
        *,
        params: Params = DEVNET,
        records: tuple[Record, ...] = (),
        tip: Tip = GENESIS,
        tip_cert: QuorumCert | None = None,
        work: bool = True,
        boundary: int = DEVNET.epoch_heights,
    ) -> None:
        self.now_ms = START_MS
        self.accepts = True
        self.answers = True
        self.effects: list[Effect] = []
        self.first = make_context(own, params, boundary=boundary)
        self.state: SimplexState = make_state(self.first, tip, tip_cert, self.now_ms)
        self.feed(Replayed(self.now_ms, records))
        if work:
            self.feed(WorkChanged(self.now_ms, pending=True))

    def feed(self, event: Event) -> list[Effect]:
        """The effects of one event, and of the application's answers to it."""
        self.state, effects = step(self.state, event)
        found = list(effects)
        self.effects += effects
        if self.answers:
            for effect in effects:
                if isinstance(effect, CheckBlock):
                    found += self.feed(BlockChecked(self.now_ms, effect.block_hash, self.accepts))
        return found

    @property
    def durable(self) -> tuple[Record, ...]:
        """What its log holds: everything durable, and all that was appended before."""
        records = [effect for effect in self.effects if isinstance(effect, Persist)]
        last = max((place for place, effect in enumerate(records) if effect.durable), default=-1)
        return tuple(effect.record for effect in records[: last + 1])

    def restart(self, records: tuple[Record, ...]) -> None:
        """A crash, and a new machine on these records."""
        self.state = make_state(self.first, GENESIS, None, self.now_ms)
        self.feed(Replayed(self.now_ms, records))
        self.feed(WorkChanged(self.now_ms, pending=True))

    def restart_here(self, records: tuple[Record, ...]) -> None:
        """The state as it is set, and these records."""
        self.feed(Replayed(self.now_ms, records))

    def vote(self, kind: VoteKind, view: int, block_hash: Hash = ZERO_HASH, *, signer: int) -> list[Effect]:
        return self.feed(VoteReceived(self.now_ms, node_id(signer), make_vote(kind, view, block_hash, signer)))

    def cert(self, kind: VoteKind, view: int, block_hash: Hash = ZERO_HASH, *, peer: int = 1) -> list[Effect]:
        return self.feed(CertReceived(self.now_ms, node_id(peer), make_cert(kind, view, block_hash)))

    def propose(self, block: Block, skipped: Iterable[int] | None = None) -> list[Effect]:
        proposal = make_proposal(block, skipped)
        return self.feed(ProposalReceived(self.now_ms, node_id(proposal.signer), proposal))

    def pass_time(self, delay_ms: int) -> list[Effect]:
        """The clock moves on; timers fire in the order of their time."""
        end, found, fired = self.now_ms + delay_ms, list[Effect](), set[tuple[Timer, int]]()
        while True:
            due = [(at_ms, timer.value, timer) for timer, at_ms in self.state.deadlines.items() if at_ms <= end]
            due = [entry for entry in due if (entry[2], entry[0]) not in fired]
            if not due:
                self.now_ms = end
                return found
            at_ms, _, timer = min(due)
            fired.add((timer, at_ms))
            self.now_ms = max(self.now_ms, at_ms)
            found += self.feed(TimerFired(self.now_ms, timer))


def votes_in(effects: Iterable[Effect]) -> list[tuple[VoteKind, int, Hash]]:
    """The votes that were cast: made durable, then sent. A vote that is only sent is a repetition."""
    listed = list(effects)
    cast: list[tuple[VoteKind, int, Hash]] = []
    for place, effect in enumerate(listed):
        if isinstance(effect, Persist) and isinstance(effect.record, Vote):
            assert effect.durable and Broadcast(effect.record) in listed[place:], effect
            cast.append((effect.record.kind, effect.record.view, effect.record.block_hash))
    return cast


def charges_in(effects: Iterable[Effect]) -> list[str]:
    """The reasons why peers were charged."""
    return [effect.reason.name for effect in effects if isinstance(effect, Misbehaviour)]


def certs_in(effects: Iterable[Effect]) -> list[tuple[VoteKind, int]]:
    """The certificates that were new."""
    return [
        (effect.record.kind, effect.record.view)
        for effect in effects
        if isinstance(effect, Persist) and isinstance(effect.record, QuorumCert)
    ]
