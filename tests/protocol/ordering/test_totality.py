"""Whatever three colluding validators say, in any order, the machine answers: it never raises, and holds a bounded amount."""

from __future__ import annotations

from dataclasses import replace as replace_context
from itertools import product
from random import Random
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from protocol.errors import InvalidMessage
from protocol.evidence import Evidence, EvidenceKind, check_evidence
from protocol.ordering.effects import BuildBlock, Halt
from protocol.ordering.events import (
    BlockBuilt,
    BlockReceived,
    BuildDeclined,
    CertReceived,
    EpochStarted,
    ProposalReceived,
    Timer,
    TimerFired,
    VoteReceived,
    WorkChanged,
)
from protocol.ordering.justification import compute_signed, is_again
from protocol.ordering.messages import Justification, Proposal, Vote, VoteKind
from protocol.ordering.state import Tip
from protocol.units import ZERO_HASH
from protocol.validators import compute_leader
from tests.protocol.ordering.rig import (
    CHAIN,
    FINAL,
    NOTAR,
    NULL,
    VALIDATORS,
    Rig,
    hash_of,
    make_block,
    make_cert,
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
    from protocol.ordering.messages import QuorumCert


HEIGHTS = 1


class Liar:
    """Three validators' worth of random but well-signed talk about views and epochs near the machine's own."""

    def __init__(self, random: Random, rig: Rig) -> None:
        self.random = random
        self.rig = rig
        self.blocks: list[Block] = []

    def speak(self) -> Event:
        random, now_ms = self.random, self.rig.now_ms
        peer = node_id(random.randint(1, 3))
        view = max(1, self.rig.state.view + random.randint(-4, 3))
        epoch = max(0, self.rig.state.context.epoch + random.choice((0,) * 12 + (-1, 1, 1, 2)))
        kind = random.choice((NOTAR, NULL, FINAL))
        subject = ZERO_HASH if kind == NULL else self.pick_hash()
        match random.randrange(10):
            case 0 | 1:
                return VoteReceived(now_ms, peer, make_vote(kind, view, subject, random.randint(1, 3), epoch))
            case 2:
                return CertReceived(now_ms, peer, make_cert(kind, view, subject, epoch=epoch))
            case 3 | 4:
                return self.propose(view, epoch)
            case 5:
                block = random.choice(self.blocks) if self.blocks else make_block(view)
                return BlockReceived(now_ms, peer, block)
            case 6:
                return WorkChanged(now_ms, random.random() < 0.5)
            case 7:
                return BuildDeclined(now_ms, view)
            case 8:
                return self.propose_again(view)
            case _:
                self.rig.now_ms += random.randrange(400)
                return TimerFired(self.rig.now_ms, random.choice(list(Timer)))

    def pick_hash(self) -> bytes:
        recent = self.blocks[-4:]
        return hash_of(self.random.choice(recent)) if recent else b"\x01" * 32

    def propose(self, view: int, epoch: int) -> Event:
        parent = self.pick_parent(view)
        block = make_block(view, parent, salt=self.random.randbytes(2), epoch=epoch)
        self.blocks.append(block)
        kind, start = self.random.choice((NOTAR, FINAL)), self.rig.state.context.start
        cert = None if parent == start else make_cert(kind, parent.view, parent.block_hash, epoch=epoch)
        return self.sign(block, cert, range(parent.view + 1, view), epoch, view)

    def propose_again(self, view: int) -> Event:
        """Some block once more, mostly one of the epoch's last height, with a certificate of its own."""
        context = self.rig.state.context
        below = [block for block in self.blocks[-8:] if block.header.view < view] or [make_block(1)]
        last = [block for block in below if block.header.height == context.boundary] or below
        block = replace(self.random.choice(last), body=())
        since = self.random.randint(block.header.view, max(block.header.view, view - 1))
        cert = make_cert(NOTAR, since, hash_of(block), epoch=context.epoch)
        return self.sign(block, cert, range(since + 1, view), context.epoch, view)

    def sign(self, block: Block, cert: QuorumCert | None, skipped: range, epoch: int, view: int) -> Event:
        context = self.rig.state.context
        leader = compute_leader(context.validators, context.chain, epoch, context.seed, view)
        nulls = tuple(make_cert(NULL, between, epoch=epoch) for between in skipped)
        proposal = sign_proposal(block, Justification(cert, nulls), leader, view)
        return ProposalReceived(self.rig.now_ms, node_id(leader), proposal)

    def pick_parent(self, view: int) -> Tip:
        below = [block for block in self.blocks[-6:] if block.header.view < view]
        return tip_of(self.random.choice(below)) if below else self.rig.state.context.start

    def answer(self, effects: list[Effect]) -> list[Event]:
        """The application builds what it is asked for, now and then; the node starts the next epoch, sooner or later."""
        state, now_ms = self.rig.state, self.rig.now_ms
        events: list[Event] = []
        for effect in effects:
            if isinstance(effect, BuildBlock) and self.random.random() < 0.8:
                parent = Tip(effect.parent_view, effect.height - 1, effect.parent_hash, effect.not_before_ms - 50)
                events.append(BlockBuilt(now_ms, make_block(effect.view, parent, epoch=state.context.epoch)))
        if state.is_over and self.random.random() < 0.7:
            context = replace_context(
                state.context,
                epoch=state.context.epoch + 1,
                start=state.tip,
                start_cert=state.tip_cert,
                boundary=state.context.boundary + HEIGHTS,
            )
            events.append(EpochStarted(now_ms, context))
        return events


@pytest.mark.parametrize("boundary", [HEIGHTS, 32])
@pytest.mark.parametrize("seed", range(30))
def test_the_machine_answers_any_sequence_of_messages(seed: int, boundary: int) -> None:
    rig = Rig(boundary=boundary)
    liar = Liar(Random(seed), rig)
    for _ in range(150):
        effects = rig.feed(liar.speak())
        for event in liar.answer(effects):
            rig.feed(event)
        state = rig.state
        span = state.view - state.tip.view + 2 * state.context.params.view_window_ahead
        assert len(state.views) <= span + 1
        assert all(len(record.votes) <= 4 * len(VoteKind) for record in state.views.values())
        assert len(state.early) <= 4
    halts = [effect for effect in rig.effects if isinstance(effect, Halt)]
    assert len(halts) <= 1
    assert rig.state.is_halted == bool(halts)


def test_that_talk_crosses_epochs_and_proposes_their_last_blocks_again() -> None:
    crossed, again = 0, set[tuple[int, int, int]]()
    for seed in range(30):
        rig = Rig(boundary=HEIGHTS)
        liar = Liar(Random(seed), rig)
        for _ in range(150):
            for event in liar.answer(rig.feed(liar.speak())):
                rig.feed(event)
            records, epoch = rig.state.views.items(), rig.state.context.epoch
            again |= {(seed, epoch, v) for v, r in records if r.proposal is not None and is_again(r.proposal.proposal)}
        crossed += rig.state.context.epoch
    assert crossed >= 8
    assert len(again) >= 12


def run_and_crash(seed: int, boundary: int, *, forgets: bool) -> Rig:
    """A machine among liars that dies now and then, and starts again on its log, or on nothing."""
    random = Random(seed)
    rig = Rig(boundary=boundary)
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
            yield Evidence(kind, first.epoch, first.view, 0, None, (first, second))
        for one, other in product(signed, signed):
            yield Evidence(kind, one.epoch, one.view, 0, (one, other), None)


def is_conviction(evidence: Evidence) -> bool:
    try:
        check_evidence(evidence, CHAIN, VALIDATORS, verify_cheaply)
    except InvalidMessage:
        return False
    return True


@pytest.mark.parametrize("boundary", [HEIGHTS, 32])
@pytest.mark.parametrize("seed", range(15))
def test_nothing_that_an_honest_machine_ever_signed_can_convict_it(seed: int, boundary: int) -> None:
    rig = run_and_crash(seed, boundary, forgets=False)
    assert any(isinstance(record, Vote) for record in rig.durable)
    assert not any(map(is_conviction, list_pairs(rig)))


def test_a_machine_that_forgets_its_log_is_convicted() -> None:
    assert any(is_conviction(pair) for seed in range(20) for pair in list_pairs(run_and_crash(seed, 32, forgets=True)))
