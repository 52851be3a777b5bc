"""The machine's rules, each with what it does, what it must not do, and its boundary."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.block import Block
from protocol.errors import Rejection
from protocol.ordering.effects import (
    Broadcast,
    BuildBlock,
    CatchUp,
    CheckBlock,
    EvidenceFound,
    FetchBlock,
    FetchCerts,
    Finalize,
    Halt,
    Misbehaviour,
    Persist,
    Send,
    SetTimer,
)
from protocol.ordering.events import (
    BlockBuilt,
    BlockChecked,
    BlockReceived,
    BuildDeclined,
    ProposalReceived,
    Synced,
    Timer,
    TimerFired,
    WorkChanged,
)
from protocol.ordering.evidence import EvidenceKind
from protocol.ordering.messages import Justification, Proposal, QuorumCert, Vote, VoteKind
from protocol.ordering.simplex import step
from protocol.ordering.state import Tip, make_state
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
    assert FetchCerts((2, 1), rig.state.context.peers) in effects
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


# --- R5: certificates


@pytest.mark.parametrize("kind", [NOTAR, NULL, FINAL])
def test_r5_a_quorum_of_votes_is_a_certificate_that_is_kept_and_sent_once(kind: VoteKind) -> None:
    rig = Rig()
    subject = ZERO_HASH if kind == NULL else HASH_1
    assert certs_in(rig.vote(kind, 1, subject, signer=2)) == []
    assert certs_in(rig.vote(kind, 1, subject, signer=3)) == []
    effects = rig.vote(kind, 1, subject, signer=1)
    cert = make_cert(kind, 1, subject)
    assert Persist(cert, durable=False) in effects
    assert effects.count(Broadcast(cert)) == 1
    before = rig.state
    assert rig.cert(kind, 1, subject) == []
    assert rig.state is before


def test_r5_votes_for_different_blocks_do_not_add_up() -> None:
    rig = Rig()
    rig.vote(NOTAR, 1, HASH_1, signer=1)
    rig.vote(NOTAR, 1, HASH_1, signer=2)
    assert certs_in(rig.vote(NOTAR, 1, hash_of(OTHER_1), signer=3)) == []


def test_r5_a_certificate_goes_only_to_peers_that_have_not_shown_it() -> None:
    effects = Rig().cert(NULL, 1, peer=2)
    assert Send((node_id(1), node_id(3)), make_cert(NULL, 1)) in effects


def test_r5_a_notar_certificate_is_no_news_beside_a_final_one() -> None:
    rig = Rig()
    rig.cert(FINAL, 1, HASH_1)
    before = rig.state
    assert rig.cert(NOTAR, 1, HASH_1) == []
    assert rig.state is before


# --- R6: advancing


@pytest.mark.parametrize(
    "kind, view, expected", [(NOTAR, 1, 2), (NULL, 1, 2), (FINAL, 1, 2), (NULL, 5, 6), (FINAL, 7, 8), (NOTAR, 3, 4)]
)
def test_r6_any_certificate_leads_to_the_view_behind_it(kind: VoteKind, view: int, expected: int) -> None:
    rig = Rig()
    rig.cert(kind, view, ZERO_HASH if kind == NULL else HASH_1)
    assert rig.state.view == expected


def test_r6_never_back() -> None:
    rig = Rig()
    rig.cert(NULL, 5)
    rig.cert(NULL, 2)
    assert rig.state.view == 6


def test_r6_views_that_were_jumped_over_are_asked_for() -> None:
    assert FetchCerts((2, 1), Rig().state.context.peers) in Rig().cert(NULL, 3)


# --- R7: finality


def test_r7_a_final_certificate_makes_its_block_and_all_ancestors_final() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.propose(BLOCK_2)
    cert = make_cert(FINAL, 2, HASH_2)
    assert Finalize((HASH_1, HASH_2), cert) in rig.cert(FINAL, 2, HASH_2)
    assert rig.state.tip == tip_of(BLOCK_2)
    assert rig.state.tip_cert == cert
    assert rig.state.blocks == {}


def test_r7_a_missing_ancestor_is_fetched_first() -> None:
    rig = Rig()
    rig.propose(BLOCK_2)
    effects = rig.cert(FINAL, 2, HASH_2)
    assert not any(isinstance(effect, Finalize) for effect in effects)
    assert HASH_1 in rig.state.wanted
    effects = rig.feed(BlockReceived(rig.now_ms, node_id(1), BLOCK_1))
    assert Finalize((HASH_1, HASH_2), make_cert(FINAL, 2, HASH_2)) in effects


def test_r7_a_missing_certified_body_is_fetched_from_those_who_voted_for_it() -> None:
    assert FetchBlock(HASH_1, tuple(node_id(i) for i in (1, 2, 3))) in Rig().cert(FINAL, 1, HASH_1)


@pytest.mark.parametrize("view, catches_up", [(8, False), (9, True)])
def test_r7_a_node_far_behind_catches_up_by_range(view: int, catches_up: bool) -> None:
    rig = Rig()
    effects = rig.cert(FINAL, view, HASH_1)
    assert (CatchUp(make_cert(FINAL, view, HASH_1)) in effects) is catches_up
    assert any(isinstance(effect, FetchBlock) for effect in effects) is not catches_up


def test_r7_after_catching_up_the_machine_goes_on_from_the_new_tip() -> None:
    rig = Rig()
    far = make_block(20, tip_of(make_block(19)))
    cert = make_cert(FINAL, 20, hash_of(far))
    rig.cert(FINAL, 20, hash_of(far))
    rig.propose(next_block := make_block(21, tip_of(far), time_ms=START_MS + 150))
    rig.feed(Synced(rig.now_ms, cert, far.header))
    assert rig.state.tip == tip_of(far)
    assert rig.state.syncing is None
    assert Finalize((hash_of(next_block),), make_cert(FINAL, 21, hash_of(next_block))) in rig.cert(
        FINAL, 21, hash_of(next_block)
    )


def test_r7_two_final_blocks_of_one_view_halt_for_good() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.cert(FINAL, 1, HASH_1)
    effects = rig.cert(FINAL, 1, hash_of(OTHER_1))
    halts = [effect for effect in effects if isinstance(effect, Halt)]
    assert [cert.view for cert in halts[0].certs] == [1, 1]
    before = rig.state
    assert rig.propose(BLOCK_2) == []
    assert rig.state is before


def test_r7_a_final_branch_beside_the_final_block_halts() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    fork = make_block(3)
    rig.propose(fork, skipped=(1, 2))
    rig.cert(FINAL, 1, HASH_1)
    assert any(isinstance(effect, Halt) for effect in rig.cert(FINAL, 3, hash_of(fork)))


def test_r7_a_final_block_that_the_application_refuses_halts() -> None:
    rig = Rig()
    rig.accepts = False
    rig.propose(BLOCK_1)
    assert any(isinstance(effect, Halt) for effect in rig.cert(FINAL, 1, HASH_1))


def test_r7_an_old_final_certificate_of_the_same_chain_is_no_conflict() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.propose(BLOCK_2)
    rig.cert(FINAL, 2, HASH_2)
    before = rig.state
    assert rig.cert(FINAL, 1, HASH_1) == []
    assert rig.state is before


# --- known faults of other implementations (ledger.md 1.3)


def test_a_certificate_for_the_leaders_other_block_fetches_that_block_and_follows_it() -> None:
    rig = Rig()
    rig.propose(OTHER_1)  # this node was shown, and voted for, the block that lost
    effects = rig.cert(NOTAR, 1, HASH_1)
    assert any(isinstance(effect, FetchBlock) and effect.block_hash == HASH_1 for effect in effects)
    rig.feed(BlockReceived(rig.now_ms, node_id(2), BLOCK_1))
    assert votes_in(rig.propose(BLOCK_2)) == [(NOTAR, 2, HASH_2)]
    assert Finalize((HASH_1, HASH_2), make_cert(FINAL, 2, HASH_2)) in rig.cert(FINAL, 2, HASH_2)


@pytest.mark.parametrize("held", [NOTAR, NULL])
def test_split_certificates_do_not_lock_up(held: VoteKind) -> None:
    """Half the network holds the NotarCert of a view, half its NullCert: either half's proposal carries its own reason."""
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.cert(held, 1, HASH_1 if held == NOTAR else ZERO_HASH)
    proposal = BLOCK_2 if held == NULL else make_block(2)
    assert (NOTAR, 2, hash_of(proposal)) in votes_in(rig.propose(proposal))


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
        (replace(VOTE, epoch=1), Rejection.OUT_OF_RANGE),
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
        (replace(CERT, epoch=1), Rejection.OUT_OF_RANGE),
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


@pytest.mark.parametrize(
    "first, second, kind",
    [
        ((NOTAR, HASH_1), (NOTAR, HASH_2), EvidenceKind.TWO_NOTAR),
        ((FINAL, HASH_1), (FINAL, HASH_2), EvidenceKind.TWO_FINAL),
        ((NOTAR, HASH_1), (FINAL, HASH_2), EvidenceKind.NOTAR_AND_FINAL),
        ((FINAL, HASH_2), (NOTAR, HASH_1), EvidenceKind.NOTAR_AND_FINAL),
        ((NULL, ZERO_HASH), (FINAL, HASH_1), EvidenceKind.NULL_AND_FINAL),
        ((FINAL, HASH_1), (NULL, ZERO_HASH), EvidenceKind.NULL_AND_FINAL),
        ((NOTAR, HASH_1), (NULL, ZERO_HASH), None),
        ((NULL, ZERO_HASH), (NOTAR, HASH_1), None),
        ((NOTAR, HASH_1), (FINAL, HASH_1), None),
    ],
)
def test_contradicting_votes_are_evidence_once(
    first: tuple[VoteKind, bytes], second: tuple[VoteKind, bytes], kind: EvidenceKind | None
) -> None:
    rig = Rig()
    rig.vote(first[0], 1, first[1], signer=3)
    effects = rig.vote(second[0], 1, second[1], signer=3)
    found = [effect.evidence.kind for effect in effects if isinstance(effect, EvidenceFound)]
    assert found == ([] if kind is None else [kind])
    before = rig.state
    rig.vote(second[0], 1, second[1], signer=3)
    assert rig.state is before


def test_a_contradiction_inside_a_certificate_is_evidence_too() -> None:
    rig = Rig()
    rig.vote(FINAL, 1, HASH_1, signer=3)
    effects = rig.cert(NULL, 1)
    assert [e.evidence.signer for e in effects if isinstance(e, EvidenceFound)] == [3]


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
