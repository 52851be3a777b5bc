"""Jobs through whole nodes: what is asked at one node settles at all, however the members behave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from node.network import DirectMessage, GossipMessage
from node.wire import TOPIC_CERTIFICATES, FrameKind
from protocol.certificate import check_certificate
from protocol.errors import InvalidTransaction, Rejection
from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import Phase, SeatEnd
from protocol.ledger.queries import get_account, get_job
from protocol.transactions import TRANSACTION_CODEC, Reveal, Submit
from tests.node.harness import answer_wrongly, fail, open_world
from tests.protocol.builders import make_genesis, make_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.harness import LiveNode


async def test_a_job_asked_of_one_node_settles_on_all_and_its_certificate_verifies(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes) as world:
        job, existed = await world.nodes[0].service.submit_job(make_request(), None)
        assert not existed
        for node in world.nodes:
            await node.wait_settled(job)
            report = check_certificate(await node.service.build_certificate(job), node.genesis)
            assert (report.decision, report.text) == (Decision.ACCEPTED, "23+58=")
        assert len({node.ledger.state_root for node in world.nodes if node.height == world.nodes[0].height}) == 1


async def test_a_cheater_falls_outside_and_the_others_win(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes, 3) as world:
        cheater = world.nodes[1]
        assert cheater.generations is not None
        cheater.generations.answer = answer_wrongly
        job, _ = await world.nodes[0].service.submit_job(make_request(), None)
        view = await world.nodes[2].wait_settled(job)
        assert view.settlement is not None and view.settlement.decision is Decision.ACCEPTED
        ends = {seat.member: seat.end for seat in view.seats}
        assert ends[cheater.id] is SeatEnd.OUTSIDE
        assert sorted(end.name for end in ends.values() if end) == ["OUTSIDE", "WINNING", "WINNING"]


async def test_a_job_that_all_members_abstain_from_fails_and_is_refunded(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes) as world:
        for node in world.nodes:
            assert node.generations is not None
            node.generations.answer = fail
        asker, request = world.nodes[0], make_request()
        before = asker.service.get_balance()
        job, _ = await asker.service.submit_job(request, None)
        view = await asker.wait_settled(job)
        assert view.settlement is not None and view.settlement.decision is Decision.FAILED
        assert {seat.end for seat in view.seats} == {SeatEnd.ABSTAINED}
        spent = before - asker.service.get_balance()
        assert spent <= request.fee // 10 + asker.genesis.params.base_fee
        report = check_certificate(await asker.service.build_certificate(job), asker.genesis)
        assert (report.decision, report.text) == (Decision.FAILED, None)


async def test_three_different_answers_are_inconclusive(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes, 3) as world:
        for node in world.nodes:
            assert node.generations is not None
            node.generations.answer = lambda _request, name=node.name: f"answer of {name}"
        job, _ = await world.nodes[0].service.submit_job(make_request(), None)
        view = await world.nodes[0].wait_settled(job)
        assert view.settlement is not None and view.settlement.decision is Decision.INCONCLUSIVE


async def test_a_member_that_never_answers_is_replaced_at_half_the_window(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes, 5) as world:
        asker = world.nodes[0]
        job, _ = await asker.service.submit_job(make_request(commit_ms=20_000), None)
        mute = await _mute_one_member(world.nodes, job)
        view = await asker.wait_settled(job)
        assert view.settlement is not None and view.settlement.decision is Decision.ACCEPTED
        [seat] = [seat for seat in view.seats if seat.drawn == mute.id]
        assert seat.taker not in {None, mute.id} and seat.end is SeatEnd.WINNING
        assert 10_000 <= trio.current_time() * 1000 < 20_000


async def _mute_one_member(nodes: list[LiveNode], job: bytes) -> LiveNode:
    """A member that was drawn just now, silenced before it answers."""
    while True:
        await nodes[0].node.engine.wait_finalized()
        view = get_job(nodes[0].ledger, job)
        if view is not None and view.phase is Phase.COMMITTING:
            break
    mute = next(node for node in nodes[1:] if node.id == view.seats[-1].drawn or node.id == view.seats[0].drawn)
    assert mute.generations is not None
    mute.generations.is_mute = True
    return mute


async def test_a_reveal_that_comes_before_its_closing_block_is_final_here_is_held(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4) as world:
        late, asker = world.nodes[3], world.nodes[0]

        def delay(_source: bytes, target: bytes, event: object) -> float:
            """The late node hears votes and certificates late, transactions at once."""
            match event:
                case DirectMessage(data=data):
                    is_late = data[0] in {FrameKind.VOTE, FrameKind.CERT}
                case GossipMessage(topic=topic):
                    is_late = topic == TOPIC_CERTIFICATES
                case _:
                    is_late = False
            return 0.03 if is_late and target == late.id else 0.0

        world.hub.extra_delay_s = delay
        job, _ = await asker.service.submit_job(make_request(), None)
        await late.wait_settled(job)
        refused = late.list_events("transaction_refused")
        assert "too_early" in {line["reason"] for line in refused}, "no reveal came early: the test says nothing"
        reveals = [body for block in _list_bodies(late) for body in block if isinstance(body, Reveal)]
        assert len(reveals) == 3


def _list_bodies(node: LiveNode) -> list[list[object]]:
    blocks = (node.parts.postbox._storage.get_block(height) for height in range(1, node.height + 1))
    return [[TRANSACTION_CODEC.decode(each).body for each in block.decode().body] for block in blocks if block]


async def test_a_transaction_that_gossip_and_streams_lost_is_repeated(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes) as world:
        asker = world.nodes[0]
        await world.wait_height(1)
        until_s = trio.current_time() + 5
        world.hub.loses_gossip = lambda source, _target, _data: source == asker.id and trio.current_time() < until_s
        world.hub.loses = lambda source, _target, data: (
            source == asker.id
            and data[0] in {FrameKind.TRANSACTIONS, FrameKind.PROPOSAL}
            and trio.current_time() < until_s
        )
        job, _ = await asker.service.submit_job(make_request(), None)
        await world.nodes[1].wait_settled(job)
        assert until_s <= trio.current_time() < until_s + 5


async def test_a_repeated_request_id_makes_no_second_job(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes) as world:
        asker = world.nodes[0]
        first = await asker.service.submit_job(make_request(), "one")
        again = await asker.service.submit_job(make_request(), "one")
        assert (first[1], again) == (False, (first[0], True))
        await asker.wait_settled(first[0])
        assert await asker.service.submit_job(make_request(), "one") == (first[0], True)
        assert len(_list_submits(asker)) == 1


async def test_a_request_is_not_lost_nor_doubled_by_a_restart_before_its_block(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes) as world:
        asker = world.nodes[0]
        await world.wait_height(1)
        for other in world.nodes[1:]:
            world.hub.disconnect(asker.id, other.id)
        job, _ = await asker.service.submit_job(make_request(), "one")
        await asker.stop()
        for other in world.nodes[1:]:
            world.hub.cut.discard(frozenset((asker.id, other.id)))
        await world.start(asker)
        # A new job of another request must not take the waiting one's nonce.
        second, _ = await asker.service.submit_job(make_request(prompt=b"2+2="), "two")
        assert await asker.service.submit_job(make_request(), "one") == (job, True)
        await asker.wait_settled(job)
        await asker.wait_settled(second)
        assert len(_list_submits(asker)) == 2
        assert get_account(asker.ledger, asker.id).nonce == 2


def _list_submits(node: LiveNode) -> list[object]:
    return [body for bodies in _list_bodies(node) for body in bodies if isinstance(body, Submit)]


async def test_a_refused_job_says_why_and_leaves_no_trace(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes) as world:
        asker = world.nodes[0]
        with pytest.raises(InvalidTransaction) as caught:
            await asker.service.submit_job(make_request(prompt=b""), "one")
        assert caught.value.reason is Rejection.EMPTY_PROMPT
        _, existed = await asker.service.submit_job(make_request(), "one")
        assert not existed


async def test_an_unfinished_answer_is_generated_again_after_a_restart_and_a_finished_one_is_not(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 3) as world:
        asker, member = world.nodes[0], world.nodes[1]
        assert member.generations is not None
        member.generations.is_mute = True
        job, _ = await asker.service.submit_job(make_request(commit_ms=20_000), None)
        while not member.generations.asked:
            await member.node.engine.wait_finalized()
        await world.restart(member)
        assert (await asker.wait_settled(job)).settlement is not None
        assert member.generations.asked == [job]
        await world.restart(member)
        await member.node.engine.wait_finalized()
        assert member.generations.asked == []


async def test_an_answer_to_an_open_job_stays_however_old_it_is(homes: Path, autojump_clock: object) -> None:
    genesis = make_genesis(("v0", "v1", "v2"))
    async with open_world(homes, 3, genesis) as world:
        asker, member, mute = world.nodes
        assert mute.generations is not None
        mute.generations.is_mute = True
        job, _ = await asker.service.submit_job(make_request(commit_ms=120_000), None)
        period = genesis.params.epoch_heights
        while member.parts.postbox._storage.get_answer(job) is None:
            await member.node.engine.wait_finalized()
        answered = member.height
        await member.wait_height(answered + 4 * period)
        assert member.parts.postbox._storage.get_answer(job) is not None
        view = await member.wait_settled(job)
        assert {seat.end for seat in view.seats} == {SeatEnd.WINNING, SeatEnd.ABSENT}
        await member.wait_height(member.height + 4 * period)
        assert member.parts.postbox._storage.get_answer(job) is None


async def test_more_jobs_than_the_workers_queue_holds_are_answered_one_after_the_other(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 3) as world:
        asker, busy = world.nodes[0], world.nodes[1]
        assert busy.generations is not None
        busy.generations.most_waiting = 1
        jobs = [(await asker.service.submit_job(make_request(commit_ms=20_000), None))[0] for _ in range(4)]
        for job in jobs:
            view = await asker.wait_settled(job)
            assert {seat.end for seat in view.seats} == {SeatEnd.WINNING}
        assert sorted(busy.generations.asked) == sorted(jobs)
        assert busy.generations.refused == 0
