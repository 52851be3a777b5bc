"""Rule R11: an epoch's last block is proposed again until it is final, then the next epoch begins on it.

Here the second height is the last one: block 1 of view 1, block 2 of view 2 (LAST).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace as replace_context

import pytest
from msgspec.structs import replace

from protocol.block import Block
from protocol.evidence import EvidenceKind
from protocol.ordering import epochs
from protocol.ordering.context import Context
from protocol.ordering.effects import (
    Broadcast,
    BuildBlock,
    CatchUp,
    CheckBlock,
    Effect,
    EndEpoch,
    EvidenceFound,
    FetchBlock,
    FetchCerts,
    Finalize,
    Persist,
    Send,
)
from protocol.ordering.events import (
    BlockReceived,
    CertReceived,
    EpochStarted,
    MaySign,
    ProposalReceived,
    Record,
    Synced,
    Timer,
    TimerFired,
    VoteReceived,
    WorkChanged,
)
from protocol.ordering.messages import Justification, Proposal, QuorumCert
from protocol.params import DEVNET
from protocol.validators import compute_leader
from protocol.voting import Vote
from tests.protocol.ordering.rig import (
    CHAIN,
    FINAL,
    NOTAR,
    NULL,
    SEED,
    VALIDATORS,
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

FIRST = make_block(1)
LAST = make_block(2, tip_of(FIRST), salt=b"body")
OTHER = make_block(2, tip_of(FIRST), salt=b"other")
LAST_HASH = hash_of(LAST)
END = make_cert(FINAL, 2, LAST_HASH)
AGAIN = Justification(make_cert(NOTAR, 2, LAST_HASH), ())
DELAY_MS = DEVNET.base_delay_ms


def repeat(
    view: int, justification: Justification = AGAIN, block: Block = LAST, body: tuple[bytes, ...] = ()
) -> Proposal:
    """A re-proposal by the leader of a view."""
    return sign_proposal(replace(block, body=body), justification, view % 4, view)


def make_rig(own: int | None = 0, records: tuple[Record, ...] = ()) -> Rig:
    return Rig(own, boundary=2, records=records)


def make_notarized(own: int | None = 0) -> Rig:
    """The last block is notarized and not final, the machine is in view 3."""
    rig = make_rig(own)
    rig.propose(FIRST)
    rig.cert(NOTAR, 1, hash_of(FIRST))
    rig.cert(FINAL, 1, hash_of(FIRST))
    rig.propose(LAST)
    rig.cert(NOTAR, 2, LAST_HASH)
    assert (rig.state.view, rig.state.tip.height) == (3, 1)
    return rig


def make_over(own: int | None = 0) -> Rig:
    """The last block is final."""
    rig = make_notarized(own)
    rig.cert(FINAL, 2, LAST_HASH)
    return rig


def make_next(own: int | None = 0, epoch: int = 1) -> Context:
    """The epoch on LAST: another seed of leaders, the same table."""
    start = tip_of(LAST)
    return replace_context(make_context(own), epoch=epoch, seed=bytes(32), start=start, start_cert=END, boundary=4)


def start_next(rig: Rig, own: int | None = 0) -> list[Effect]:
    return rig.feed(EpochStarted(rig.now_ms, make_next(own)))


def lead_next(view: int) -> int:
    return compute_leader(VALIDATORS, CHAIN, 1, bytes(32), view)


def receive(rig: Rig, message: Proposal | Vote | QuorumCert, peer: int = 1) -> list[Effect]:
    match message:
        case Proposal():
            return rig.feed(ProposalReceived(rig.now_ms, node_id(peer), message))
        case Vote():
            return rig.feed(VoteReceived(rig.now_ms, node_id(peer), message))
        case QuorumCert():
            return rig.feed(CertReceived(rig.now_ms, node_id(peer), message))


def count(effects: Iterable[Effect], kind: type[Effect]) -> int:
    return sum(isinstance(effect, kind) for effect in effects)


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


# --- across epochs


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
