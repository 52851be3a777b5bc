"""R1 to R4: when a node builds and signs, each rule with what it does, what it must not do, and its boundary."""

from __future__ import annotations

import pytest

from protocol.block import Block
from protocol.evidence import EvidenceKind
from protocol.ordering.effects import (
    Broadcast,
    BuildBlock,
    CheckBlock,
    EvidenceFound,
    FetchBlock,
    FetchCerts,
    Persist,
    SetTimer,
)
from protocol.ordering.events import (
    BlockBuilt,
    BlockChecked,
    BlockReceived,
    BuildDeclined,
    Timer,
    WorkChanged,
)
from protocol.ordering.messages import Proposal
from protocol.ordering.state import Tip
from protocol.units import ZERO_HASH
from tests.protocol.ordering.rig import (
    FINAL,
    GENESIS,
    NOTAR,
    NULL,
    START_MS,
    Rig,
    certs_in,
    charges_in,
    hash_of,
    make_block,
    make_cert,
    make_proposal,
    make_vote,
    node_id,
    tip_of,
    votes_in,
)

BLOCK_1 = make_block(1)
HASH_1 = hash_of(BLOCK_1)
OTHER_1 = make_block(1, salt=b"another")
BLOCK_2 = make_block(2, tip_of(BLOCK_1))
HASH_2 = hash_of(BLOCK_2)


# --- R1: leading


def test_r1_a_leader_with_work_builds_at_the_pace_after_its_parent() -> None:
    rig = Rig(own=1)
    assert [effect for effect in rig.effects if isinstance(effect, SetTimer) and effect.timer is Timer.BUILD][
        -1
    ] == SetTimer(Timer.BUILD, START_MS + 50)
    assert rig.pass_time(49) == []
    assert rig.pass_time(1) == [BuildBlock(1, 1, 0, GENESIS.block_hash, START_MS + 50)]


def test_r1_a_leader_without_work_waits_for_the_idle_interval() -> None:
    rig = Rig(own=1, work=False)
    assert not any(isinstance(effect, BuildBlock) for effect in rig.pass_time(1_999))
    assert any(isinstance(effect, BuildBlock) for effect in rig.pass_time(1))


def test_r1_work_that_shows_up_makes_an_idle_leader_build_at_once() -> None:
    rig = Rig(own=1, work=False)
    rig.pass_time(700)
    assert any(isinstance(effect, BuildBlock) for effect in rig.feed(WorkChanged(rig.now_ms, pending=True)))


def test_r1_the_leader_asks_for_one_block_a_view() -> None:
    rig = Rig(own=1)
    rig.pass_time(60)
    rig.feed(WorkChanged(rig.now_ms, pending=False))
    assert not any(isinstance(effect, BuildBlock) for effect in rig.feed(WorkChanged(rig.now_ms, pending=True)))


def test_r1_the_leader_proposes_what_was_built_durably_and_votes_for_it() -> None:
    rig = Rig(own=1)
    rig.pass_time(50)
    effects = rig.feed(BlockBuilt(rig.now_ms, BLOCK_1))
    proposal = make_proposal(BLOCK_1)
    assert effects[:2] == [Persist(proposal, durable=True), Broadcast(proposal)]
    assert votes_in(effects) == [(NOTAR, 1, HASH_1)]
    assert not any(isinstance(effect, Persist) and isinstance(effect.record, Block) for effect in effects)


def test_r1_a_block_built_too_late_is_dropped() -> None:
    rig = Rig(own=1)
    rig.pass_time(50)
    rig.cert(NULL, 1)
    before = rig.state
    assert rig.feed(BlockBuilt(rig.now_ms, BLOCK_1)) == []
    assert rig.state is before


def test_r1_a_leader_whose_application_cannot_build_steps_back_at_once() -> None:
    rig = Rig(own=1)
    rig.pass_time(50)
    assert votes_in(rig.feed(BuildDeclined(rig.now_ms, 1))) == [(NULL, 1, ZERO_HASH)]


def test_r1_a_leader_that_skipped_certificates_asks_for_them_and_steps_back() -> None:
    rig = Rig(own=0)
    effects = rig.cert(NULL, 3)
    assert rig.state.view == 4
    assert FetchCerts(0, (2, 1), rig.state.context.peers) in effects
    assert votes_in(effects) == [(NULL, 4, ZERO_HASH)]


def test_r1_a_leader_builds_on_the_highest_notarized_block_and_carries_every_skipped_view() -> None:
    rig = Rig(own=0)
    rig.propose(BLOCK_1)
    rig.cert(NOTAR, 1, HASH_1)
    for view in (2, 3):
        rig.cert(NULL, view)
    assert BuildBlock(4, 2, 1, HASH_1, BLOCK_1.header.time_ms + 50) in rig.pass_time(60)
    block = make_block(4, tip_of(BLOCK_1))
    sent = [
        e.message
        for e in rig.feed(BlockBuilt(rig.now_ms, block))
        if isinstance(e, Broadcast) and isinstance(e.message, Proposal)
    ]
    assert [cert.view for cert in sent[0].justification.skipped] == [2, 3]
    assert sent[0].justification.parent == make_cert(NOTAR, 1, HASH_1)


def test_r1_a_leader_never_builds_on_a_body_that_it_does_not_hold() -> None:
    rig = Rig(own=2)
    effects = [*rig.cert(NOTAR, 1, HASH_1), *rig.pass_time(199)]
    assert FetchBlock(HASH_1, (node_id(1), node_id(3))) in effects
    assert not any(isinstance(effect, BuildBlock) for effect in effects)
    assert votes_in(effects) == []
    effects = rig.feed(BlockReceived(rig.now_ms, node_id(1), BLOCK_1))
    assert any(isinstance(effect, BuildBlock) for effect in effects)


def test_r1_a_parent_from_a_fast_clock_does_not_hold_the_leader_up() -> None:
    rig = Rig(own=2)
    ahead = make_block(1, time_ms=START_MS + 450)
    rig.propose(ahead)
    rig.cert(NOTAR, 1, hash_of(ahead))
    assert BuildBlock(2, 2, 1, hash_of(ahead), START_MS + 500) in rig.pass_time(50)


def test_r1_a_genesis_of_the_future_starts_the_first_view_then() -> None:
    future = Tip(0, 0, b"\x11" * 32, START_MS + 3_600_000)
    leader, other = Rig(own=1, tip=future), Rig(tip=future)
    assert not any(isinstance(effect, BuildBlock) for effect in leader.pass_time(3_600_000 - 500 + 49))
    assert any(isinstance(effect, BuildBlock) for effect in leader.pass_time(1))
    assert votes_in(other.pass_time(3_600_000 + 199)) == []
    assert votes_in(other.pass_time(1)) == [(NULL, 1, ZERO_HASH)]


# --- R2: Notar


def test_r2_an_acceptable_proposal_is_executed_made_durable_and_voted_for() -> None:
    rig = Rig()
    effects = rig.propose(BLOCK_1)
    assert effects[0] == CheckBlock(HASH_1, BLOCK_1)
    assert effects[1:] == [
        Persist(BLOCK_1, durable=True),
        Persist(make_vote(NOTAR, 1, HASH_1, 0), durable=True),
        Broadcast(make_vote(NOTAR, 1, HASH_1, 0)),
    ]


def test_r2_the_second_proposal_of_a_view_is_evidence_and_gets_no_vote() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    effects = rig.propose(OTHER_1)
    assert votes_in(effects) == []
    assert [e.evidence.kind for e in effects if isinstance(e, EvidenceFound)] == [EvidenceKind.TWO_PROPOSALS]
    before = rig.state
    assert rig.propose(make_block(1, salt=b"a third")) == []
    assert rig.state is before


def test_r2_a_repeated_proposal_changes_nothing() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    before = rig.state
    assert rig.propose(BLOCK_1) == []
    assert rig.state is before


def test_r2_notar_may_follow_an_own_null() -> None:
    rig = Rig()
    assert votes_in(rig.pass_time(200)) == [(NULL, 1, ZERO_HASH)]
    assert votes_in(rig.propose(BLOCK_1)) == [(NOTAR, 1, HASH_1)]


def test_r2_notar_comes_late_for_a_view_that_was_left() -> None:
    rig = Rig()
    rig.cert(NOTAR, 1, HASH_1)
    assert rig.state.view == 2
    assert votes_in(rig.propose(BLOCK_1)) == [(NOTAR, 1, HASH_1), (FINAL, 1, HASH_1)]


def test_r2_a_proposal_of_a_later_view_brings_its_certificates_along() -> None:
    rig = Rig()
    effects = rig.propose(make_block(3), skipped=(1, 2))
    assert rig.state.view == 3
    assert certs_in(effects) == [(NULL, 1), (NULL, 2)]
    assert votes_in(effects) == [(NOTAR, 3, hash_of(make_block(3)))]


def test_r2_carried_certificates_count_not_held_ones() -> None:
    rig = Rig()
    rig.cert(NULL, 1)
    rig.cert(NULL, 2)
    effects = rig.propose(make_block(3), skipped=(2,))
    assert charges_in(effects) == ["BAD_JUSTIFICATION"]
    assert votes_in(effects) == [(NULL, 3, ZERO_HASH)]


def test_r2_a_block_that_the_application_refuses_gets_null() -> None:
    rig = Rig()
    rig.accepts = False
    assert votes_in(rig.propose(BLOCK_1)) == [(NULL, 1, ZERO_HASH)]


def test_r2_no_vote_before_the_application_answers_and_pending_is_not_invalid() -> None:
    rig = Rig()
    rig.answers = False
    assert votes_in(rig.propose(BLOCK_1)) == []
    assert votes_in(rig.pass_time(299)) == []
    assert votes_in(rig.feed(BlockChecked(rig.now_ms, HASH_1, valid=True))) == [(NOTAR, 1, HASH_1)]


@pytest.mark.parametrize("ahead_ms, waits", [(500, False), (501, True)])
def test_r2_a_header_from_the_future_waits_for_the_clock(ahead_ms: int, waits: bool) -> None:
    rig = Rig()
    block = make_block(1, time_ms=START_MS + ahead_ms)
    effects = rig.propose(block)
    assert (votes_in(effects) == []) is waits
    if waits:
        assert SetTimer(Timer.CLOCK, START_MS + 1) in effects
        assert votes_in(rig.pass_time(1)) == [(NOTAR, 1, hash_of(block))]


@pytest.mark.parametrize(
    "block",
    [
        make_block(2, tip_of(BLOCK_1), time_ms=BLOCK_1.header.time_ms + 49),
        make_block(2, Tip(1, 5, HASH_1, BLOCK_1.header.time_ms)),
    ],
    ids=["faster than the pace", "wrong height"],
)
def test_r2_a_header_that_does_not_follow_its_parent_gets_null(block: Block) -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    assert votes_in(rig.propose(block))[-1:] == [(NULL, 2, ZERO_HASH)]
    assert (NOTAR, 2, hash_of(block)) not in votes_in(rig.effects)


def test_r2_a_missing_parent_is_fetched_from_its_voters_before_voting() -> None:
    rig = Rig()
    effects = rig.propose(BLOCK_2)
    assert votes_in(effects) == []
    assert FetchBlock(HASH_1, (node_id(1), node_id(2), node_id(3))) in effects
    assert votes_in(rig.feed(BlockReceived(rig.now_ms, node_id(3), BLOCK_1))) == [(NOTAR, 2, HASH_2)]


# --- R3: Final


def test_r3_a_notarized_own_choice_gets_final() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    assert votes_in(rig.cert(NOTAR, 1, HASH_1)) == [(FINAL, 1, HASH_1)]


@pytest.mark.parametrize("choice", ["no notar", "other block", "null"])
def test_r3_no_final_without_the_own_notar_for_it_or_after_null(choice: str) -> None:
    rig = Rig()
    if choice == "other block":
        rig.propose(OTHER_1)
    if choice == "null":
        rig.propose(BLOCK_1)
        rig.pass_time(300)
    assert votes_in(rig.cert(NOTAR, 1, HASH_1)) == []


def test_r3_final_is_still_cast_in_a_later_view() -> None:
    rig = Rig()
    rig.answers = False
    rig.propose(BLOCK_1)
    rig.cert(NOTAR, 1, HASH_1)
    rig.cert(NULL, 2)
    assert rig.state.view == 3
    assert votes_in(rig.feed(BlockChecked(rig.now_ms, HASH_1, valid=True))) == [(NOTAR, 1, HASH_1), (FINAL, 1, HASH_1)]


# --- R4: Null


@pytest.mark.parametrize("wait_ms, expected", [(199, []), (200, [(NULL, 1, ZERO_HASH)])])
def test_r4_no_proposal_within_two_delays(wait_ms: int, expected: list[object]) -> None:
    assert votes_in(Rig().pass_time(wait_ms)) == expected


@pytest.mark.parametrize("wait_ms, expected", [(299, []), (300, [(NULL, 1, ZERO_HASH)])])
def test_r4_no_certificate_within_three_delays(wait_ms: int, expected: list[object]) -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    assert votes_in(rig.pass_time(wait_ms)) == expected


def test_r4_an_idle_network_is_given_the_idle_interval() -> None:
    rig = Rig(work=False)
    assert votes_in(rig.pass_time(2_199)) == []
    assert votes_in(rig.pass_time(1)) == [(NULL, 1, ZERO_HASH)]


def test_r4_work_starts_the_clock_and_work_gone_stops_it() -> None:
    rig = Rig(work=False)
    rig.pass_time(500)
    rig.feed(WorkChanged(rig.now_ms, pending=True))
    rig.pass_time(199)
    rig.feed(WorkChanged(rig.now_ms, pending=False))
    assert votes_in(rig.pass_time(2_200 - 699 - 1)) == []
    assert votes_in(rig.pass_time(1)) == [(NULL, 1, ZERO_HASH)]


def test_r4_the_leaders_own_null_ends_the_wait_for_its_proposal() -> None:
    rig = Rig()
    assert votes_in(rig.vote(NULL, 1, signer=2)) == []
    assert votes_in(rig.vote(NULL, 1, signer=1)) == [(NULL, 1, ZERO_HASH)]


def test_r4_null_once_a_view() -> None:
    rig = Rig()
    rig.pass_time(200)
    assert votes_in(rig.pass_time(1_000)) == []


def test_r4_never_null_after_final() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.cert(NOTAR, 1, HASH_1)
    assert (NULL, 1, ZERO_HASH) not in votes_in(rig.pass_time(10_000))
