"""What a hostile peer can say, and the shape of the machine."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.block import Block
from protocol.errors import Rejection
from protocol.ordering.effects import (
    Broadcast,
    BuildBlock,
    Misbehaviour,
    Send,
    SetTimer,
)
from protocol.ordering.events import (
    BlockReceived,
    ProposalReceived,
    Timer,
    TimerFired,
)
from protocol.ordering.messages import Justification, Proposal, QuorumCert, Vote
from protocol.ordering.simplex import step
from protocol.ordering.state import make_state
from protocol.units import ZERO_HASH
from protocol.validators import compute_leader
from tests.protocol.ordering.rig import (
    FINAL,
    GENESIS,
    NOTAR,
    NULL,
    START_MS,
    Rig,
    charges_in,
    hash_of,
    make_block,
    make_cert,
    make_context,
    make_proposal,
    make_vote,
    node_id,
    sign_proposal,
    tip_of,
    votes_in,
)
from tests.simulation.node import make_event

BLOCK_1 = make_block(1)
HASH_1 = hash_of(BLOCK_1)
OTHER_1 = make_block(1, salt=b"another")
BLOCK_2 = make_block(2, tip_of(BLOCK_1))
HASH_2 = hash_of(BLOCK_2)


# --- foreign input


CERT = make_cert(NULL, 1)
VOTE = make_vote(NOTAR, 1, HASH_1, 1)
PROPOSAL = make_proposal(BLOCK_1)


@pytest.mark.parametrize(
    "message, reason",
    [
        (replace(VOTE, signature=bytes(64)), Rejection.BAD_SIGNATURE),
        (replace(VOTE, signer=2), Rejection.BAD_SIGNATURE),
        (replace(VOTE, signer=4), Rejection.UNKNOWN_SIGNER),
        (replace(VOTE, view=0), Rejection.OUT_OF_RANGE),
        (replace(VOTE, block_hash=ZERO_HASH), Rejection.MALFORMED),
        (replace(make_vote(NULL, 1, ZERO_HASH, 1), block_hash=HASH_1), Rejection.MALFORMED),
        (make_cert(NULL, 1, signers=(1, 2)), Rejection.NO_QUORUM),
        (make_cert(NULL, 1, signers=()), Rejection.NO_QUORUM),
        (replace(CERT, signers=(1, 1, 2)), Rejection.MALFORMED),
        (replace(CERT, signers=(2, 1, 3)), Rejection.MALFORMED),
        (replace(CERT, signers=(1, 2)), Rejection.MALFORMED),
        (replace(CERT, signers=(1, 2, 9)), Rejection.UNKNOWN_SIGNER),
        (replace(CERT, view=2), Rejection.BAD_SIGNATURE),
        (replace(CERT, block_hash=HASH_1), Rejection.MALFORMED),
        (replace(PROPOSAL, signer=2), Rejection.NOT_LEADER),
        (replace(PROPOSAL, signature=bytes(64)), Rejection.BAD_SIGNATURE),
        (replace(PROPOSAL, block=Block(BLOCK_1.header, (b"x",))), Rejection.BAD_BODY),
    ],
)
def test_a_message_that_no_honest_node_sends_is_charged_and_changes_nothing(
    message: Vote | QuorumCert | Proposal, reason: Rejection
) -> None:
    rig = Rig()
    before = rig.state
    effects = rig.feed(make_event(START_MS, node_id(3), message))
    assert [(e.peer, e.reason) for e in effects if isinstance(e, Misbehaviour)] == [(node_id(3), reason)]
    assert len(effects) == 1
    assert rig.state is before


@pytest.mark.parametrize(
    "justification",
    [
        Justification(None, ()),
        Justification(None, (make_cert(NULL, 1),)),
        Justification(None, (make_cert(NULL, 2), make_cert(NULL, 1))),
        Justification(None, (make_cert(NULL, 1), make_cert(NULL, 1))),
        Justification(None, (make_cert(NULL, 1), make_cert(NOTAR, 2, HASH_1))),
        Justification(None, (make_cert(NULL, 1), make_cert(NULL, 2), make_cert(NULL, 3))),
        Justification(None, (make_cert(NULL, 1), make_cert(NULL, 2, signers=(1, 2)))),
        Justification(None, (make_cert(NULL, 1), replace(make_cert(NULL, 2), signatures=(bytes(64),) * 3))),
        Justification(make_cert(NOTAR, 1, HASH_1), (make_cert(NULL, 1), make_cert(NULL, 2))),
    ],
)
def test_a_leader_with_an_incomplete_or_false_justification_gets_null(justification: Justification) -> None:
    rig = Rig()
    rig.cert(NULL, 1)
    rig.cert(NULL, 2)
    proposal = sign_proposal(make_block(3), justification, 3)
    effects = rig.feed(ProposalReceived(rig.now_ms, node_id(3), proposal))
    assert len(charges_in(effects)) == 1
    assert votes_in(effects) == [(NULL, 3, ZERO_HASH)]
    before = rig.state
    assert rig.propose(make_block(3)) == []  # the view's one look at a justification is used up
    assert rig.state is before


@pytest.mark.parametrize("view, is_kept", [(7, True), (11, False), (1_003, False)])
def test_a_leader_of_far_views_cannot_fill_the_memory(view: int, is_kept: bool) -> None:
    context = make_context()
    leader = compute_leader(context.validators, context.chain, context.epoch, context.seed, view)
    rig = Rig()
    before = rig.state
    proposal = sign_proposal(make_block(view), Justification(None, ()), leader)
    assert charges_in(rig.feed(ProposalReceived(rig.now_ms, node_id(leader), proposal))) == ["BAD_JUSTIFICATION"]
    assert (rig.state is not before) is is_kept


def test_a_body_that_was_swapped_on_the_way_is_not_the_leaders_fault() -> None:
    rig = Rig()
    rig.feed(ProposalReceived(rig.now_ms, node_id(3), replace(PROPOSAL, block=Block(BLOCK_1.header, (b"x",)))))
    assert votes_in(rig.propose(BLOCK_1)) == [(NOTAR, 1, HASH_1)]


@pytest.mark.parametrize("view, is_kept", [(9, True), (10, False)])
def test_votes_far_ahead_are_dropped_unread(view: int, is_kept: bool) -> None:
    rig = Rig()
    before = rig.state
    rig.vote(NULL, view, signer=1)
    assert (rig.state is not before) is is_kept


@pytest.mark.parametrize("view, is_kept", [(12, True), (11, False)])
def test_votes_far_below_the_final_tip_are_dropped_unread(view: int, is_kept: bool) -> None:
    tip = tip_of(make_block(20))
    rig = Rig(tip=tip, tip_cert=make_cert(FINAL, 20, tip.block_hash))
    before = rig.state
    rig.vote(NULL, view, signer=1)
    assert (rig.state is not before) is is_kept


def test_an_unwanted_body_is_not_kept() -> None:
    rig = Rig()
    before = rig.state
    assert rig.feed(BlockReceived(rig.now_ms, node_id(1), BLOCK_1)) == []
    assert rig.state is before


def test_a_fetched_body_that_does_not_fit_is_charged_and_still_wanted() -> None:
    rig = Rig()
    rig.cert(NOTAR, 1, HASH_1)
    effects = rig.feed(BlockReceived(rig.now_ms, node_id(2), Block(BLOCK_1.header, (b"x",))))
    assert charges_in(effects) == ["BAD_BODY"]
    assert HASH_1 in rig.state.wanted


# --- the shape of the machine


def test_nothing_happens_before_replayed() -> None:
    state = make_state(make_context(), GENESIS, None, START_MS)
    after, effects = step(state, ProposalReceived(START_MS, node_id(1), PROPOSAL))
    assert after is state
    assert effects == ()


def test_an_observer_follows_but_signs_and_forwards_nothing() -> None:
    rig = Rig(own=None)
    rig.propose(BLOCK_1)
    effects = [*rig.cert(NOTAR, 1, HASH_1), *rig.cert(FINAL, 1, HASH_1), *rig.pass_time(5_000)]
    assert rig.state.tip == tip_of(BLOCK_1)
    assert not any(isinstance(effect, (Broadcast, Send, BuildBlock)) for effect in (*rig.effects, *effects))


@pytest.mark.parametrize("timer", list(Timer))
def test_a_timer_that_fires_early_is_set_again_and_changes_nothing(timer: Timer) -> None:
    rig = Rig(own=1)
    before = rig.state
    effects = rig.feed(TimerFired(rig.now_ms, timer))
    assert rig.state is before
    assert effects == ([SetTimer(timer, before.deadlines[timer])] if timer in before.deadlines else [])
