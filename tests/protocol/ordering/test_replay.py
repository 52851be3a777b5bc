"""R10, the replay half: what was signed before a crash binds the node after it."""

from __future__ import annotations

import pytest

from protocol.block import Block
from protocol.ordering.effects import Broadcast, BuildBlock, CheckBlock, Persist
from protocol.ordering.events import BlockBuilt, Record
from protocol.ordering.messages import Proposal, QuorumCert, Vote
from protocol.units import ZERO_HASH
from tests.protocol.ordering.rig import (
    FINAL,
    NOTAR,
    NULL,
    Rig,
    hash_of,
    make_block,
    make_cert,
    make_proposal,
    make_vote,
    tip_of,
    votes_in,
)

BLOCK_1 = make_block(1)
OTHER_1 = make_block(1, salt=b"other")
HASH_1 = hash_of(BLOCK_1)


def log_of(rig: Rig) -> tuple[Record, ...]:
    """What the write-ahead log holds."""
    return tuple(effect.record for effect in rig.effects if isinstance(effect, Persist))


def restart(rig: Rig, own: int = 0) -> Rig:
    return Rig(own=own, records=log_of(rig))


def test_r10_no_second_notar_after_a_restart() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    again = restart(rig)
    assert (NOTAR, 1, hash_of(OTHER_1)) not in votes_in(again.propose(OTHER_1))


def test_r10_no_final_for_a_view_that_was_given_up_before_the_restart() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.pass_time(300)
    assert votes_in(restart(rig).cert(NOTAR, 1, HASH_1)) == []


def test_r10_no_null_for_a_view_that_was_finished_before_the_restart() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.cert(NOTAR, 1, HASH_1)
    again = restart(rig)
    assert again.state.view == 2
    assert (NULL, 1, ZERO_HASH) not in votes_in(again.pass_time(10_000))


def test_r10_a_final_vote_that_was_due_is_cast_after_the_restart() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    again = Rig(records=(*log_of(rig), make_cert(NOTAR, 1, HASH_1)))
    assert votes_in(again.effects) == [(FINAL, 1, HASH_1)]


def test_r10_no_second_proposal_after_a_restart_and_the_first_is_sent_again() -> None:
    rig = Rig(own=1)
    rig.pass_time(50)
    rig.feed(BlockBuilt(rig.now_ms, BLOCK_1))
    again = restart(rig, own=1)
    assert Broadcast(make_proposal(BLOCK_1)) in again.effects
    assert not any(isinstance(effect, BuildBlock) for effect in again.pass_time(100))
    assert not any(
        isinstance(effect, Broadcast) and isinstance(effect.message, Proposal)
        for effect in again.feed(BlockBuilt(again.now_ms, OTHER_1))
    )


def test_r10_a_leader_that_died_before_proposing_proposes_after_the_restart() -> None:
    rig = Rig(own=1)
    rig.pass_time(50)
    assert any(isinstance(effect, BuildBlock) for effect in restart(rig, own=1).pass_time(60))


def test_r10_own_votes_are_sent_again() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    assert Broadcast(make_vote(NOTAR, 1, HASH_1, 0)) in restart(rig).effects


def test_r10_bodies_are_executed_anew_in_order() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.propose(block_2 := make_block(2, tip_of(BLOCK_1)))
    again = restart(rig)
    assert [effect.block_hash for effect in again.effects if isinstance(effect, CheckBlock)] == [
        HASH_1,
        hash_of(block_2),
    ]


def test_r10_certificates_survive_a_restart() -> None:
    rig = Rig()
    rig.cert(NULL, 1)
    rig.cert(NULL, 2)
    again = restart(rig)
    assert again.state.view == 3
    assert [cert.view for view in (1, 2) for cert in again.state.get_certs(view)] == [1, 2]


def test_r10_records_at_or_below_the_final_tip_are_obsolete() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.pass_time(300)
    again = Rig(records=log_of(rig), tip=tip_of(make_block(5)), tip_cert=make_cert(FINAL, 5, hash_of(make_block(5))))
    assert again.state.view == 6
    assert [view for view, record in again.state.views.items() if record.votes or record.certs] == []


@pytest.mark.parametrize("kept", range(5))
def test_r10_whatever_part_of_the_log_survives_the_node_stays_honest(kept: int) -> None:
    """The log's order is what counts: a vote never survives without what it was cast for."""
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.cert(NOTAR, 1, HASH_1)
    kinds = [type(record) for record in log_of(rig)]
    assert kinds == [Block, Vote, QuorumCert, Vote]
    again = Rig(records=log_of(rig)[:kept])
    again.propose(OTHER_1)
    again.cert(NOTAR, 1, HASH_1)
    again.pass_time(1_000)
    cast = {
        (kind, block_hash)
        for kind, view, block_hash in (*votes_in(again.effects), *votes_of(log_of(rig)[:kept]))
        if view == 1
    }
    assert len({block_hash for kind, block_hash in cast if kind == NOTAR}) <= 1
    assert not ({NULL, FINAL} <= {kind for kind, _ in cast})


def votes_of(records: tuple[Record, ...]) -> list[tuple[object, int, bytes]]:
    return [(record.kind, record.view, record.block_hash) for record in records if isinstance(record, Vote)]
