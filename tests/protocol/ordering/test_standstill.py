"""R9: a node that sees nothing become final repeats what others may lack: newest first, within a budget, nothing obsolete."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.codec import encode
from protocol.ordering.effects import Broadcast, Effect, FetchBlock, FetchCerts
from protocol.ordering.events import BlockBuilt, Timer, TimerFired
from protocol.ordering.messages import Proposal, QuorumCert, Vote
from protocol.params import DEVNET
from protocol.units import ZERO_HASH
from tests.protocol.ordering.rig import (
    FINAL,
    NOTAR,
    NULL,
    Rig,
    hash_of,
    make_block,
    make_cert,
    make_vote,
    tip_of,
)

BLOCK_1 = make_block(1)
HASH_1 = hash_of(BLOCK_1)


def repeat(rig: Rig) -> list[Effect]:
    """The effects of the standstill timer alone, at its time."""
    rig.now_ms = max(rig.now_ms, rig.state.tip_since_ms + 10_000_000)
    return rig.feed(TimerFired(rig.now_ms, Timer.STANDSTILL))


def sent_in(effects: list[Effect]) -> list[Vote | Proposal | QuorumCert]:
    return [effect.message for effect in effects if isinstance(effect, Broadcast)]


def test_r9_certificates_and_votes_above_the_final_tip_are_repeated_newest_first() -> None:
    tip = tip_of(BLOCK_1)
    rig = Rig(tip=tip, tip_cert=make_cert(FINAL, 1, HASH_1))
    rig.cert(NULL, 2)
    rig.cert(NOTAR, 3, b"\x33" * 32)
    rig.pass_time(2_000 - 1)
    own = make_vote(NULL, 4, ZERO_HASH, 0)
    assert sent_in(repeat(rig)) == [
        make_cert(FINAL, 1, HASH_1),
        own,
        make_cert(NOTAR, 3, b"\x33" * 32),
        make_cert(NULL, 2),
    ]


def test_r9_votes_that_a_certificate_replaced_are_not_repeated_but_a_final_vote_is() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.cert(NOTAR, 1, HASH_1)
    sent = sent_in(repeat(rig))
    assert make_vote(FINAL, 1, HASH_1, 0) in sent
    assert make_vote(NOTAR, 1, HASH_1, 0) not in sent


def test_r9_the_own_unfinished_proposal_is_repeated() -> None:
    rig = Rig(own=1)
    rig.pass_time(50)
    rig.feed(BlockBuilt(rig.now_ms, BLOCK_1))
    assert any(isinstance(message, Proposal) for message in sent_in(repeat(rig)))


def test_r9_not_before_two_seconds_and_not_again_within_two() -> None:
    rig = Rig()
    first = rig.pass_time(1_999)
    assert rig.state.deadlines[Timer.STANDSTILL] == rig.state.tip_since_ms + 2_000
    assert make_vote(NULL, 1, ZERO_HASH, 0) in sent_in(first)
    again = rig.pass_time(1)
    assert sent_in(again) == [make_vote(NULL, 1, ZERO_HASH, 0)]
    assert sent_in(rig.pass_time(1_999)) == []
    assert sent_in(rig.pass_time(1)) == [make_vote(NULL, 1, ZERO_HASH, 0)]


def test_r9_a_new_final_block_starts_the_wait_anew() -> None:
    rig = Rig()
    rig.pass_time(1_000)
    rig.propose(BLOCK_1)
    rig.cert(FINAL, 1, HASH_1)
    assert rig.state.deadlines[Timer.STANDSTILL] == rig.now_ms + 2_000


def test_r9_an_idle_chain_is_not_a_stalled_one() -> None:
    rig = Rig(work=False)
    assert not any(isinstance(effect, (FetchCerts, Broadcast)) for effect in rig.pass_time(2_100))


def test_r9_repetitions_stay_within_the_budget_and_the_newest_survive() -> None:
    budget = 2 * 1_000 * 1_000 // 1_000
    rig = Rig(params=replace(DEVNET, resend_budget_bytes=budget // 2))
    for view in range(1, 60):
        rig.cert(NULL, view)
    sent = sent_in(repeat(rig))
    assert 0 < sum(len(encode(message)) * 3 for message in sent) <= budget
    assert next(message.view for message in sent if isinstance(message, QuorumCert)) == 59


def test_r9_what_is_missing_is_asked_for_again() -> None:
    rig = Rig()
    rig.cert(NOTAR, 1, HASH_1)
    rig.cert(NULL, 5)
    effects = repeat(rig)
    assert any(isinstance(effect, FetchBlock) and effect.block_hash == HASH_1 for effect in effects)
    assert FetchCerts(0, (4, 3, 2), rig.state.context.peers) in effects


def test_r9_a_follower_asks_those_who_may_know_more() -> None:
    """Nobody repeats anything to it."""
    rig = Rig(None)
    rig.cert(NULL, 1)
    assert FetchCerts(0, (2,), rig.state.context.peers) in repeat(rig)
