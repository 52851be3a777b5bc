"""Rules R2 and R11: on what a block may stand, and which block may be proposed again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.block import Block
from protocol.evidence import EvidenceKind
from protocol.ordering.effects import (
    Broadcast,
    BuildBlock,
    CheckBlock,
    EndEpoch,
    EvidenceFound,
    FetchBlock,
    Finalize,
    Persist,
)
from protocol.ordering.events import (
    BlockReceived,
)
from protocol.ordering.messages import Justification, Proposal
from protocol.voting import Vote
from tests.protocol.ordering.epoch_rig import (
    AGAIN,
    DELAY_MS,
    END,
    FIRST,
    LAST,
    LAST_HASH,
    OTHER,
    count,
    lead_next,
    make_notarized,
    make_over,
    make_rig,
    receive,
    repeat,
    start_next,
)
from tests.protocol.ordering.rig import (
    FINAL,
    NOTAR,
    NULL,
    Rig,
    charges_in,
    hash_of,
    make_block,
    make_cert,
    node_id,
    sign_proposal,
    tip_of,
    votes_in,
)


def test_the_last_block_is_accepted_again_without_another_look_or_another_copy() -> None:
    rig = make_notarized()
    effects = receive(rig, repeat(3), 3)
    assert votes_in(effects) == [(NOTAR, 3, LAST_HASH)]
    assert count(effects, CheckBlock) == 0
    assert not any(isinstance(effect, Persist) and isinstance(effect.record, Block) for effect in effects)
    assert votes_in(rig.cert(NOTAR, 3, LAST_HASH)) == [(FINAL, 3, LAST_HASH)]
    again = make_cert(FINAL, 3, LAST_HASH)
    effects = receive(rig, again)
    assert Finalize((LAST_HASH,), again) in effects
    assert effects[-1] == EndEpoch(tip_of(LAST), again)
    start_next(rig)
    assert rig.state.view == 3  # behind the block's own view, whatever it took to make it final


def test_skipped_views_are_shown_and_any_acceptance_of_the_block_will_do() -> None:
    rig = make_notarized()
    skipped = tuple(make_cert(NULL, view) for view in (3, 4, 5))
    assert votes_in(receive(rig, repeat(6, Justification(AGAIN.parent, skipped)), 2)) == [(NOTAR, 6, LAST_HASH)]
    later = Justification(make_cert(NOTAR, 6, LAST_HASH), ())
    assert votes_in(receive(rig, repeat(7, later), 3)) == [(FINAL, 6, LAST_HASH), (NOTAR, 7, LAST_HASH)]
    final = Justification(make_cert(FINAL, 7, LAST_HASH), ())
    assert count(receive(rig, repeat(8, final), 0), EndEpoch) == 1


@pytest.mark.parametrize(
    "proposal, reason",
    [
        (repeat(3, block=OTHER), "BAD_JUSTIFICATION"),
        (repeat(3, Justification(make_cert(NOTAR, 2, hash_of(OTHER)), ())), "BAD_JUSTIFICATION"),
        (repeat(3, Justification(None, ())), "BAD_JUSTIFICATION"),
        (repeat(3, Justification(make_cert(NULL, 2), ())), "BAD_JUSTIFICATION"),
        (repeat(3, Justification(make_cert(NOTAR, 1, LAST_HASH), (make_cert(NULL, 2),))), "BAD_JUSTIFICATION"),
        (repeat(4, AGAIN), "BAD_JUSTIFICATION"),
        (repeat(4, Justification(AGAIN.parent, (make_cert(NULL, 2),))), "BAD_JUSTIFICATION"),
        (repeat(3, Justification(make_cert(NOTAR, 2, LAST_HASH, (1, 2)), ())), "NO_QUORUM"),
        (repeat(3, Justification(make_cert(NOTAR, 2, LAST_HASH, epoch=1), ())), "OUT_OF_RANGE"),
        (repeat(3, body=(b"body",)), "BAD_BODY"),
        (replace(repeat(3), view=7), "BAD_SIGNATURE"),
        (sign_proposal(replace(LAST, body=()), AGAIN, 2, 3), "NOT_LEADER"),
        (repeat(3, Justification(make_cert(NOTAR, 2, hash_of(FIRST)), ()), FIRST), "BAD_JUSTIFICATION"),
        (repeat(3, AGAIN, replace(LAST, header=replace(LAST.header, view=7))), "BAD_JUSTIFICATION"),
    ],
)
def test_nothing_but_the_accepted_last_block_may_be_proposed_again(proposal: Proposal, reason: str) -> None:
    rig = make_notarized()
    effects = receive(rig, proposal, 3)
    assert charges_in(effects) == [reason]
    assert not any(kind == NOTAR for kind, _, _ in votes_in(effects))


def test_who_lacks_the_body_gets_it_from_those_who_accepted_it() -> None:
    rig = make_rig(3)
    rig.propose(FIRST)
    rig.cert(FINAL, 1, hash_of(FIRST))
    proposal = repeat(4, Justification(make_cert(NOTAR, 2, LAST_HASH, (0, 1, 2)), (make_cert(NULL, 3),)))
    effects = receive(rig, proposal, 0)
    fetches = [effect for effect in effects if isinstance(effect, FetchBlock)]
    assert [(fetch.block_hash, set(fetch.peers)) for fetch in fetches] == [
        (LAST_HASH, {node_id(0), node_id(1), node_id(2)})
    ]
    effects = rig.feed(BlockReceived(rig.now_ms, node_id(1), LAST))
    written = next(effect.record for effect in effects if isinstance(effect, Persist))
    assert written == LAST  # durable before the vote for it
    assert votes_in(effects) == [(NOTAR, 4, LAST_HASH)]


def test_the_leader_gives_the_final_votes_half_a_delay_and_then_proposes_the_block_again_without_its_body() -> None:
    rig = make_notarized(3)
    half_ms = DELAY_MS * 3 // 2 // 2  # the tip is two views back
    assert count(rig.pass_time(half_ms - 1), Broadcast) == 0
    effects = rig.pass_time(1)
    proposals = [
        effect.record for effect in effects if isinstance(effect, Persist) and isinstance(effect.record, Proposal)
    ]
    assert proposals == [repeat(3, proposals[0].justification)]
    assert proposals[0].justification == AGAIN
    assert votes_in(effects) == [(NOTAR, 3, LAST_HASH)]
    assert count(effects, BuildBlock) == 0


def test_two_blocks_in_one_view_are_an_offence_and_one_block_in_two_views_is_none() -> None:
    rig = make_notarized()
    receive(rig, repeat(3), 3)
    effects = receive(rig, sign_proposal(replace(OTHER, body=()), AGAIN, 3, 3), 3)
    found = [effect.evidence for effect in effects if isinstance(effect, EvidenceFound)]
    assert [(proof.kind, proof.view, proof.signer) for proof in found] == [(EvidenceKind.TWO_PROPOSALS, 3, 3)]
    again = Justification(make_cert(NOTAR, 3, LAST_HASH), (make_cert(NULL, 4), make_cert(NULL, 5)))
    effects = receive(rig, repeat(6, again), 2)  # who had proposed it in view 2
    assert count(effects, EvidenceFound) == 0
    assert charges_in(effects) == []


def test_a_proposal_made_again_binds_after_a_restart() -> None:
    rig = make_notarized(3)
    rig.pass_time(DELAY_MS)
    records = rig.durable
    assert isinstance(records[-1], Vote)
    rig = Rig(3, boundary=2, tip=tip_of(FIRST), tip_cert=make_cert(FINAL, 1, hash_of(FIRST)), records=records)
    record = rig.state.views[3]
    assert record.proposal is not None and record.proposal.block_hash == LAST_HASH
    assert LAST_HASH in rig.state.blocks
    assert not any(isinstance(effect.record, Proposal) for effect in rig.effects if isinstance(effect, Persist))


def test_the_first_block_of_an_epoch_stands_on_its_start_and_shows_no_certificate_for_it() -> None:
    rig = make_over()
    start_next(rig)
    leader = lead_next(3)
    block = make_block(3, tip_of(LAST), epoch=1)
    effects = receive(rig, sign_proposal(block, Justification(END, ()), leader))
    assert charges_in(effects) == ["BAD_JUSTIFICATION"]
    rig = make_over()
    start_next(rig)
    assert votes_in(receive(rig, sign_proposal(block, Justification(None, ()), leader))) == [(NOTAR, 3, hash_of(block))]


@pytest.mark.parametrize("parent", [tip_of(OTHER), tip_of(FIRST)])
def test_no_other_block_begins_an_epoch(parent: object) -> None:
    rig = make_over()
    start_next(rig)
    assert isinstance(parent, type(tip_of(LAST)))
    block = make_block(3, parent, epoch=1)
    skipped = tuple(make_cert(NULL, view, epoch=1) for view in range(parent.view + 1, 3))
    effects = receive(rig, sign_proposal(block, Justification(None, skipped), lead_next(3)))
    assert charges_in(effects) == ["BAD_JUSTIFICATION"]


def test_a_leader_of_the_first_view_builds_on_the_boundary_without_a_certificate() -> None:
    rig = make_over(lead_next(3))
    effects = [*start_next(rig, lead_next(3)), *rig.pass_time(1_000)]
    assert [(e.view, e.height, e.parent_hash) for e in effects if isinstance(e, BuildBlock)] == [(3, 3, LAST_HASH)]
