"""Whatever three colluding validators say, in any order, the machine answers: it never raises, and holds a bounded amount."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import TYPE_CHECKING

import pytest

from protocol.errors import InvalidMessage
from protocol.evidence import Evidence, EvidenceKind, check_evidence
from protocol.ordering.effects import BuildBlock, Halt
from protocol.ordering.events import (
    BlockBuilt,
    BlockReceived,
    BuildDeclined,
    CertReceived,
    ProposalReceived,
    Timer,
    TimerFired,
    VoteReceived,
    WorkChanged,
)
from protocol.ordering.justification import compute_signed
from protocol.ordering.messages import Justification, Proposal, Vote, VoteKind
from protocol.ordering.state import Tip
from protocol.units import ZERO_HASH
from protocol.validators import compute_leader
from tests.protocol.ordering.rig import (
    CHAIN,
    FINAL,
    GENESIS,
    NOTAR,
    NULL,
    VALIDATORS,
    Rig,
    hash_of,
    make_block,
    make_cert,
    make_context,
    make_vote,
    node_id,
    sign_proposal,
    tip_of,
)
from tests.simulation.keys import verify_cheaply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protocol.block import Block
    from protocol.ordering.effects import Effect
    from protocol.ordering.events import Event


class Liar:
    """Three validators' worth of random but well-signed talk about views near the machine's own."""

    def __init__(self, random: Random, rig: Rig) -> None:
        self.random = random
        self.rig = rig
        self.context = make_context()
        self.blocks: list[Block] = []

    def speak(self) -> Event:
        random, now_ms = self.random, self.rig.now_ms
        peer = node_id(random.randint(1, 3))
        view = max(1, self.rig.state.view + random.randint(-4, 3))
        kind = random.choice((NOTAR, NULL, FINAL))
        subject = ZERO_HASH if kind == NULL else self.pick_hash()
        match random.randrange(9):
            case 0 | 1:
                return VoteReceived(now_ms, peer, make_vote(kind, view, subject, random.randint(1, 3)))
            case 2:
                return CertReceived(now_ms, peer, make_cert(kind, view, subject))
            case 3 | 4:
                return self.propose(view)
            case 5:
                block = random.choice(self.blocks) if self.blocks else make_block(view)
                return BlockReceived(now_ms, peer, block)
            case 6:
                return WorkChanged(now_ms, random.random() < 0.5)
            case 7:
                return BuildDeclined(now_ms, view)
            case _:
                self.rig.now_ms += random.randrange(400)
                return TimerFired(self.rig.now_ms, random.choice(list(Timer)))

    def pick_hash(self) -> bytes:
        recent = self.blocks[-4:]
        return hash_of(self.random.choice(recent)) if recent else b"\x01" * 32

    def propose(self, view: int) -> Event:
        parent = self.pick_parent(view)
        block = make_block(view, parent, salt=self.random.randbytes(2))
        self.blocks.append(block)
        cert = (
            None if parent.view == 0 else make_cert(self.random.choice((NOTAR, FINAL)), parent.view, parent.block_hash)
        )
        skipped = tuple(make_cert(NULL, between) for between in range(parent.view + 1, view))
        leader = compute_leader(self.context.validators, self.context.chain, 0, self.context.seed, view)
        proposal = sign_proposal(block, Justification(cert, skipped), leader)
        return ProposalReceived(self.rig.now_ms, node_id(leader), proposal)

    def pick_parent(self, view: int) -> Tip:
        below = [block for block in self.blocks[-6:] if block.header.view < view]
        return tip_of(self.random.choice(below)) if below else GENESIS

    def answer(self, effects: list[Effect]) -> list[Event]:
        """The application builds what it is asked for, now and then."""
        asked = [effect for effect in effects if isinstance(effect, BuildBlock)]
        built = [
            make_block(
                effect.view, Tip(effect.parent_view, effect.height - 1, effect.parent_hash, effect.not_before_ms - 50)
            )
            for effect in asked
        ]
        return [BlockBuilt(self.rig.now_ms, block) for block in built if self.random.random() < 0.8]


@pytest.mark.parametrize("seed", range(40))
def test_the_machine_answers_any_sequence_of_messages(seed: int) -> None:
    rig = Rig()
    liar = Liar(Random(seed), rig)
    for _ in range(150):
        effects = rig.feed(liar.speak())
        for event in liar.answer(effects):
            rig.feed(event)
        span = rig.state.view - rig.state.tip.view + 2 * rig.state.context.params.view_window_ahead
        assert len(rig.state.views) <= span + 1
        assert all(len(record.votes) <= 4 * len(VoteKind) for record in rig.state.views.values())
    halts = [effect for effect in rig.effects if isinstance(effect, Halt)]
    assert len(halts) <= 1
    assert rig.state.is_halted == bool(halts)


def run_and_crash(seed: int, *, forgets: bool) -> Rig:
    """A machine among liars that dies now and then, and starts again on its log, or on nothing."""
    random = Random(seed)
    rig = Rig()
    liar = Liar(random, rig)
    for _ in range(300):
        effects = rig.feed(liar.speak())
        for event in liar.answer(effects):
            rig.feed(event)
        if random.random() < 0.03:
            rig.restart(() if forgets else rig.durable)
    return rig


def list_pairs(rig: Rig) -> Iterator[Evidence]:
    """Everything that could be made of any two messages that the machine ever signed."""
    votes = [record for record in rig.durable if isinstance(record, Vote)]
    proposals = [record for record in rig.durable if isinstance(record, Proposal)]
    signed = [compute_signed(proposal, hash_of(proposal.block)) for proposal in proposals]
    for kind in EvidenceKind:
        for first, second in product(votes, votes):
            yield Evidence(kind, 0, first.view, 0, None, (first, second))
        for one, other in product(signed, signed):
            yield Evidence(kind, 0, one.view, 0, (one, other), None)


def is_conviction(evidence: Evidence) -> bool:
    try:
        check_evidence(evidence, CHAIN, VALIDATORS, verify_cheaply)
    except InvalidMessage:
        return False
    return True


@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_an_honest_machine_ever_signed_can_convict_it(seed: int) -> None:
    rig = run_and_crash(seed, forgets=False)
    assert any(isinstance(record, Vote) for record in rig.durable)
    assert not any(map(is_conviction, list_pairs(rig)))


def test_a_machine_that_forgets_its_log_is_convicted() -> None:
    assert any(is_conviction(pair) for seed in range(20) for pair in list_pairs(run_and_crash(seed, forgets=True)))
