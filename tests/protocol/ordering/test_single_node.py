"""The engine of one validator as a machine: what it signs, when, and whom it does not listen to."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.block import compute_header_hash
from protocol.ordering import effects as do
from protocol.ordering import events as happened
from protocol.ordering.events import Timer
from protocol.ordering.messages import QuorumCert, Vote, VoteKind
from protocol.ordering.single_node import SINGLE_NODE
from protocol.ordering.state import SimplexState, make_state
from protocol.ordering.votes import check_quorum_cert
from protocol.params import DEVNET
from protocol.validators import Validator, ValidatorSet
from tests.protocol.ordering.rig import (
    CHAIN,
    GENESIS,
    START_MS,
    VALIDATORS,
    make_block,
    make_cert,
    make_context,
    make_vote,
)
from tests.simulation.keys import verify_cheaply

ALONE = ValidatorSet(VALIDATORS.members[:1])
PACE_MS, IDLE_MS = DEVNET.pace_ms, DEVNET.idle_interval_ms


class Node:
    """The machine and the effects of its last step."""

    def __init__(self, records: tuple[happened.Record, ...] = (), own: int | None = 0) -> None:
        context = make_context(own, validators=ALONE)
        self.state: SimplexState = make_state(context, GENESIS, None, START_MS)
        self.effects: tuple[do.Effect, ...] = ()
        self.tell(happened.Replayed(START_MS, records))

    def tell(self, event: happened.Event) -> tuple[do.Effect, ...]:
        self.state, self.effects = SINGLE_NODE.step(self.state, event)
        return self.effects

    def list(self, kind: type) -> list[object]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def make_final(self, salt: bytes = b"") -> QuorumCert:
        """One more block, all the way."""
        at_ms = self.state.deadlines[Timer.BUILD]
        (request,) = self.tell(happened.TimerFired(at_ms, Timer.BUILD))
        assert isinstance(request, do.BuildBlock)
        self.tell(happened.BlockBuilt(at_ms, make_block(request.view, self.state.tip, salt=salt)))
        (final,) = self.list(do.Finalize)
        assert isinstance(final, do.Finalize)
        return final.cert


def test_work_is_ordered_after_the_pace_and_idleness_after_its_interval() -> None:
    node = Node()
    assert node.effects == (do.SetTimer(Timer.BUILD, START_MS + IDLE_MS),)
    assert node.tell(happened.WorkChanged(START_MS + 7, True)) == (do.SetTimer(Timer.BUILD, START_MS + PACE_MS),)
    assert node.tell(happened.TimerFired(START_MS + 8, Timer.BUILD)) == (do.SetTimer(Timer.BUILD, START_MS + PACE_MS),)
    (request,) = node.tell(happened.TimerFired(START_MS + PACE_MS, Timer.BUILD))
    assert request == do.BuildBlock(1, 1, 0, GENESIS.block_hash, START_MS + PACE_MS)


def test_a_block_is_logged_with_its_vote_and_certificate_before_it_is_final_and_everybody_can_check_it() -> None:
    node = Node()
    cert = node.make_final()
    check_quorum_cert(cert, CHAIN, 0, ALONE, verify_cheaply)
    kinds = [type(effect) for effect in node.effects]
    assert kinds[:5] == [do.Persist, do.Persist, do.Persist, do.Finalize, do.Broadcast]
    assert [effect.durable for effect in node.effects if isinstance(effect, do.Persist)] == [False, False, True]
    assert (node.state.tip.height, node.state.view) == (1, 2)
    assert node.make_final().view == 2


def test_no_view_is_signed_twice_even_where_the_log_lost_the_block() -> None:
    vote = make_vote(VoteKind.FINAL, 5, b"h" * 32, 0)
    node = Node((vote,))
    assert node.make_final().view == 6
    late = make_block(6, GENESIS, salt=b"late")
    assert node.tell(happened.BlockBuilt(START_MS, late)) == ()


def list_records(blocks: int) -> tuple[list[happened.Record], list[QuorumCert]]:
    """What the log of so many blocks holds."""
    node, records, certs = Node(), [], []
    for _ in range(blocks):
        certs.append(node.make_final())
        records += [effect.record for effect in node.effects if isinstance(effect, do.Persist)]
    return records, certs


def test_signed_blocks_that_were_not_stored_are_executed_again_in_their_order_before_anything_is_signed() -> None:
    records, certs = list_records(2)
    node = Node(tuple(records))
    for cert in certs:
        (check,) = node.list(do.CheckBlock)
        assert isinstance(check, do.CheckBlock)
        assert check.block_hash == cert.block_hash
        assert node.tell(happened.TimerFired(START_MS + 10 * IDLE_MS, Timer.BUILD)) == ()
        node.tell(happened.BlockChecked(START_MS, check.block_hash, valid=True))
        assert node.list(do.Finalize) == [do.Finalize((cert.block_hash,), cert)]
    assert node.make_final().view == 3


def test_a_signed_block_that_the_application_refuses_stops_the_engine() -> None:
    records, certs = list_records(1)
    node = Node(tuple(records))
    node.tell(happened.BlockChecked(START_MS, certs[0].block_hash, valid=False))
    assert node.list(do.Halt)
    assert node.tell(happened.WorkChanged(START_MS, True)) == ()


@pytest.mark.parametrize("cut", [1, 2])
def test_a_log_torn_before_the_certificate_signs_a_later_view(cut: int) -> None:
    records, _ = list_records(1)
    node = Node(tuple(records[:cut]))
    assert not node.list(do.CheckBlock)
    signed = [record.view for record in records[:cut] if isinstance(record, Vote)]
    assert node.make_final(b"other").view == max(signed, default=0) + 1


def test_what_others_send_changes_nothing() -> None:
    node = Node()
    block = make_block(1)
    block_hash = compute_header_hash(block.header)
    before = node.state
    for event in (
        happened.VoteReceived(START_MS, b"p" * 32, make_vote(VoteKind.NULL, 1, bytes(32), 0)),
        happened.CertReceived(START_MS, b"p" * 32, make_cert(VoteKind.FINAL, 1, block_hash, (0,))),
        happened.BlockReceived(START_MS, b"p" * 32, block),
        happened.BlockChecked(START_MS, block_hash, valid=True),
        happened.BuildDeclined(START_MS, 9),
    ):
        assert node.tell(event) == ()
    assert node.state == before


def test_a_leader_that_cannot_build_tries_again_after_the_idle_interval() -> None:
    node = Node()
    at_ms = node.state.deadlines[Timer.BUILD]
    node.tell(happened.TimerFired(at_ms, Timer.BUILD))
    assert node.tell(happened.BuildDeclined(at_ms, 1)) == (do.SetTimer(Timer.BUILD, at_ms + IDLE_MS),)
    assert node.tell(happened.TimerFired(at_ms + IDLE_MS, Timer.BUILD))


def test_the_engine_stops_where_the_set_has_another_validator() -> None:
    both = replace(ALONE, members=(*ALONE.members, Validator(b"q" * 32, 1)))
    state = make_state(make_context(0, validators=both), GENESIS, None, START_MS)
    state, effects = SINGLE_NODE.step(state, happened.Replayed(START_MS, ()))
    assert state.is_halted
    assert "ordering.engine = simplex" in effects[0].text


def test_the_last_block_of_an_epoch_ends_it_and_the_next_one_goes_on() -> None:
    node = Node()
    while not node.list(do.EndEpoch):
        node.make_final()
    assert node.state.tip.height == DEVNET.epoch_heights
    assert node.tell(happened.TimerFired(START_MS + 10**9, Timer.BUILD)) == ()
    context = make_context(0, validators=ALONE, boundary=2 * DEVNET.epoch_heights)
    node.tell(happened.EpochStarted(START_MS + 10**6, context))
    assert node.state.deadlines


def test_without_its_key_it_follows_like_any_observer() -> None:
    node = Node(own=None)
    block = make_block(1)
    node.tell(
        happened.CertReceived(
            START_MS, b"p" * 32, make_cert(VoteKind.FINAL, 1, compute_header_hash(block.header), (0,))
        )
    )
    assert node.list(do.FetchBlock)
