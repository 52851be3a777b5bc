"""Rule R11: an epoch ends with its last block final, then the next one begins on it; what is said and kept across."""

from __future__ import annotations

from dataclasses import replace as replace_context

import pytest
from msgspec.structs import replace

from protocol.ordering import epochs
from protocol.ordering.effects import (
    Broadcast,
    CatchUp,
    CheckBlock,
    EndEpoch,
    FetchBlock,
    FetchCerts,
    Finalize,
    Send,
)
from protocol.ordering.events import (
    BlockReceived,
    EpochStarted,
    MaySign,
    Synced,
    Timer,
    TimerFired,
    VoteReceived,
    WorkChanged,
)
from protocol.ordering.messages import Justification, Proposal, QuorumCert
from protocol.params import DEVNET
from protocol.voting import Vote
from tests.protocol.ordering.epoch_rig import (
    DELAY_MS,
    END,
    FIRST,
    LAST,
    LAST_HASH,
    OTHER,
    count,
    lead_next,
    make_next,
    make_notarized,
    make_over,
    make_rig,
    receive,
    start_next,
)
from tests.protocol.ordering.rig import (
    FINAL,
    NOTAR,
    NULL,
    SEED,
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


def test_the_epoch_ends_right_after_its_last_block_became_final() -> None:
    rig = make_notarized()
    effects = rig.cert(FINAL, 2, LAST_HASH)
    place = effects.index(Finalize((LAST_HASH,), END))
    assert effects[place:][-1] == EndEpoch(tip_of(LAST), END)
    assert EndEpoch(tip_of(LAST), END) not in effects[:place]
    assert rig.state.is_over


def test_the_block_before_the_last_ends_nothing() -> None:
    rig = make_rig()
    rig.propose(FIRST)
    effects = rig.cert(FINAL, 1, hash_of(FIRST))
    assert count(effects, Finalize) == 1
    assert count(effects, EndEpoch) == 0


def test_between_two_epochs_nothing_is_signed_and_work_is_noted() -> None:
    rig = make_over()
    assert rig.pass_time(60_000) == []
    assert rig.propose(make_block(3, tip_of(LAST))) == []
    assert receive(rig, make_cert(NULL, 3)) == []
    assert rig.feed(TimerFired(rig.now_ms, Timer.STANDSTILL)) == []
    assert rig.feed(BlockReceived(rig.now_ms, node_id(1), OTHER)) == []
    assert rig.feed(WorkChanged(rig.now_ms, pending=False)) == []
    assert not rig.state.has_work


def test_the_next_epoch_begins_in_the_view_behind_the_boundary_with_a_clean_slate() -> None:
    rig = make_over()
    start_next(rig)
    state = rig.state
    assert (state.context.epoch, state.view, state.tip, state.tip_cert) == (1, 3, tip_of(LAST), END)
    assert list(state.views) == [3]
    assert not state.blocks
    assert state.has_work
    assert state.deadlines[Timer.PROPOSAL] == tip_of(LAST).time_ms + 2 * DELAY_MS


def test_catching_up_to_the_boundary_ends_the_epoch_too() -> None:
    rig = make_rig()
    assert rig.feed(Synced(rig.now_ms, END, LAST.header))[-1] == EndEpoch(tip_of(LAST), END)


def test_a_stored_boundary_asks_for_its_epoch_at_the_start() -> None:
    rig = Rig(boundary=2, tip=tip_of(LAST), tip_cert=END)
    assert rig.effects[-1] == EndEpoch(tip_of(LAST), END)


def test_a_block_above_the_boundary_is_refused() -> None:
    rig = make_notarized()
    block = make_block(3, tip_of(LAST))
    effects = rig.propose(block)
    assert votes_in(effects) == [(NULL, 3, bytes(32))]
    assert not any(isinstance(effect, CheckBlock) and effect.block_hash == hash_of(block) for effect in effects)


def list_early() -> tuple[Proposal | Vote | QuorumCert, ...]:
    block = make_block(3, tip_of(LAST), epoch=1)
    votes = tuple(make_vote(NOTAR, 3, hash_of(block), signer, epoch=1) for signer in (1, 2))
    return sign_proposal(block, Justification(None, ()), lead_next(3)), *votes


@pytest.mark.parametrize("make", [make_rig, make_notarized, make_over])
def test_messages_of_the_next_epoch_wait_for_it_and_are_nobodys_offence(make: object) -> None:
    assert callable(make)
    rig: Rig = make(0)
    for message in list_early():
        effects = receive(rig, message, 2)
        assert charges_in(effects) == []
        assert votes_in(effects) == []
    if not rig.state.is_over:
        rig.feed(Synced(rig.now_ms, END, LAST.header))
    cast = votes_in(start_next(rig))
    assert [(kind, view) for kind, view, _ in cast] == [(NOTAR, 3), (FINAL, 3)]
    assert not rig.state.early


def test_what_waits_is_bounded_and_the_newest_stays() -> None:
    rig = make_rig()
    limit = epochs.MAX_EARLY_MESSAGES
    votes = [make_vote(NULL, view, bytes(32), 1, epoch=1) for view in range(3, 3 + 2 * limit)]
    for vote in votes:
        receive(rig, vote)
    (kept,) = rig.state.early.values()
    assert [message.event for message in kept] == [
        VoteReceived(rig.now_ms, node_id(1), vote) for vote in votes[-limit:]
    ]


def test_large_messages_wait_within_a_budget_of_bytes_for_each_peer_and_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epochs, "MAX_EARLY_BYTES", 5_000)
    monkeypatch.setattr(epochs, "MAX_ALL_EARLY_BYTES", 12_000)
    rig = make_rig()
    proposal = sign_proposal(make_block(3, tip_of(LAST), salt=bytes(2_000), epoch=1), Justification(None, ()), 1)
    receive(rig, make_vote(NULL, 3, bytes(32), 2, epoch=1), 9 % 4)
    for peer in (2, 3, 0, 2, 3, 0, 2):
        receive(rig, proposal, peer)
    sizes = {peer: sum(message.size for message in kept) for peer, kept in rig.state.early.items()}
    assert max(sizes.values()) <= 5_000
    assert sum(sizes.values()) <= 12_000
    assert sizes[node_id(1)] > 0  # the largest gives way


def test_a_proposal_too_large_to_wait_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "MAX_EARLY_BYTES", 100)
    rig = make_rig()
    receive(rig, list_early()[0])
    assert not any(rig.state.early.values())


def test_who_speaks_of_a_later_epoch_is_asked_how_this_one_ended_once_a_while() -> None:
    rig = make_rig()
    far = make_vote(NULL, 9, bytes(32), 1, epoch=5)
    ask = FetchCerts(0, (1,), (node_id(1),))
    assert receive(rig, far, 1) == [ask]
    assert receive(rig, far, 1) == []
    assert receive(rig, far, 2) == [FetchCerts(0, (1,), (node_id(2),))]
    rig.pass_time(DEVNET.resend_interval_ms)
    asked = [effect for effect in receive(rig, far, 1) if isinstance(effect, FetchCerts)]
    assert [(effect.epoch, effect.peers) for effect in asked] == [(0, (node_id(1),))]
    assert not rig.state.early  # only the next epoch's messages are kept


def test_who_was_behind_by_more_than_one_epoch_asks_on_as_soon_as_the_next_one_starts() -> None:
    rig = make_rig()
    receive(rig, make_vote(NULL, 9, bytes(32), 1, epoch=1), 1)
    receive(rig, make_vote(NULL, 9, bytes(32), 2, epoch=1), 2)
    receive(rig, make_vote(NULL, 9, bytes(32), 2, epoch=7), 2)
    rig.feed(Synced(rig.now_ms, END, LAST.header))
    asked = [effect for effect in start_next(rig) if isinstance(effect, FetchCerts)]
    assert asked == [FetchCerts(1, (3,), (node_id(2),))]


def test_a_final_block_whose_body_is_missing_is_caught_up_to_where_others_are_in_later_epochs() -> None:
    rig = make_rig()
    assert count(receive(rig, END), CatchUp) == 0
    rig = make_rig()
    receive(rig, make_vote(NULL, 9, bytes(32), 1, epoch=1), 1)
    assert CatchUp(END) in receive(rig, END)


def test_who_speaks_of_the_epoch_before_is_told_how_it_ended_but_not_at_once_and_not_again_and_again() -> None:
    rig = make_over()
    start_next(rig)
    late = make_vote(FINAL, 2, LAST_HASH, 2)
    assert receive(rig, late, 2) == []  # the certificate is on its way to everybody
    rig.pass_time(DEVNET.resend_interval_ms)
    told = Send((node_id(2),), END)
    assert receive(rig, late, 2) == [told]
    assert receive(rig, late, 2) == []
    assert receive(rig, make_cert(NULL, 3), 3) == [Send((node_id(3),), END)]
    rig.pass_time(DEVNET.resend_interval_ms)
    assert receive(rig, END, 2) == []  # it knows
    assert receive(rig, make_cert(FINAL, 5, LAST_HASH), 2) == []
    assert receive(rig, late, 2) == [told]


def test_nothing_of_epochs_long_over_is_answered_or_charged() -> None:
    rig = make_over()
    rig.feed(EpochStarted(rig.now_ms, make_next()))
    rig.state = replace(
        rig.state, context=replace_context(rig.state.context, epoch=2, start_cert=replace(END, epoch=1))
    )
    rig.pass_time(DEVNET.resend_interval_ms)
    for message in (make_vote(FINAL, 2, LAST_HASH, 2), make_cert(NULL, 1), make_proposal(FIRST)):
        assert receive(rig, replace(message, epoch=0) if not isinstance(message, Proposal) else message, 2) == []


# --- the log


def test_records_of_a_later_epoch_wait_for_it_and_bind_in_it() -> None:
    block = make_block(3, tip_of(LAST), epoch=1)
    vote = make_vote(NOTAR, 3, hash_of(block), 0, epoch=1)
    null = make_vote(NULL, 4, bytes(32), 0, epoch=1)
    far = make_vote(NULL, 9, bytes(32), 0, epoch=2)
    cert = make_cert(NULL, 3, epoch=1)
    rig = make_rig(records=(make_vote(NULL, 1, bytes(32), 0), far, block, vote, cert, null))
    assert rig.state.view == 1
    assert Broadcast(vote) not in rig.effects
    rig.feed(Synced(rig.now_ms, END, LAST.header))
    effects = start_next(rig)
    assert rig.state.view == 4
    assert rig.state.later == (far,)
    assert Broadcast(null) in effects
    assert {(NOTAR, 0)} == {key for key in rig.state.views[3].votes if key[1] == 0}
    other = make_block(3, tip_of(LAST), salt=b"other", epoch=1)
    assert votes_in(receive(rig, sign_proposal(other, Justification(None, ()), lead_next(3)))) == []


def test_records_of_an_epoch_that_is_over_say_nothing() -> None:
    rig = Rig(boundary=4, records=(make_vote(NULL, 3, bytes(32), 0),))
    assert rig.state.view == 3
    state = replace(rig.state, is_started=False, context=make_next(), views={}, view=3)
    rig.state = replace(state, tip=tip_of(LAST), tip_cert=END)
    rig.restart_here((make_vote(NULL, 3, bytes(32), 0), make_cert(NULL, 9)))
    assert rig.state.view == 3
    assert all(not record.votes for record in rig.state.views.values())


# --- permission to sign


def test_nothing_is_signed_up_to_the_floor() -> None:
    rig = make_rig()
    rig.state = replace(rig.state, context=replace_context(rig.state.context, floor=1))
    assert votes_in(rig.propose(FIRST)) == []
    assert votes_in(rig.pass_time(60_000)) == []
    rig.cert(NOTAR, 1, hash_of(FIRST))
    assert votes_in(rig.propose(LAST)) == [(NOTAR, 2, LAST_HASH)]


def test_an_observer_that_may_sign_votes_for_what_it_has_heard_already() -> None:
    rig = make_rig(None)
    rig.propose(FIRST)
    assert votes_in(rig.effects) == []
    effects = rig.feed(MaySign(rig.now_ms, make_context(0, boundary=2)))
    assert votes_in(effects) == [(NOTAR, 1, hash_of(FIRST))]
    assert rig.state.deadlines[Timer.CERTIFICATE] == rig.now_ms + 3 * DELAY_MS


def test_permission_changes_no_epoch() -> None:
    rig = make_rig(None)
    with pytest.raises(AssertionError):
        rig.feed(MaySign(rig.now_ms, make_next()))


def test_a_seed_is_the_epochs_own() -> None:
    assert make_next().seed != SEED
    rig = make_over()
    start_next(rig)
    assert rig.state.views[3].leader == lead_next(3)


def test_a_body_that_nobody_gives_any_more_is_caught_up_to_when_others_turn_out_to_be_in_a_later_epoch() -> None:
    """The last FinalCert of the epoch came first; no later one of it will ever come."""
    rig = make_rig()
    assert count(receive(rig, END), FetchBlock) == 1
    assert count(receive(rig, make_vote(NULL, 9, bytes(32), 1, epoch=3), 1), CatchUp) == 0
    assert CatchUp(END) in rig.pass_time(DEVNET.resend_interval_ms)
