"""Whole nodes over many epochs: validators come and go, nodes stop at boundaries and fall epochs behind, and nobody honest is blamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from node.disk import StorageFailure
from node.join import JoinMode
from node.wire import (
    CHAIN_CODEC,
    FETCH_REQUEST_CODEC,
    BlockRange,
    Chain,
    FetchBlocks,
    FetchChain,
    FrameKind,
    decode_frame,
)
from protocol.codec import encode
from protocol.ordering.messages import QUORUM_CERT_CODEC, Vote
from protocol.params import MINIMAL, UNIT
from protocol.transactions import Unbond
from protocol.trust import STEP_CODEC, trust_genesis, walk_steps
from tests.node.harness import PATIENCE_S, open_world
from tests.node.test_lifetimes import assert_one_voice
from tests.protocol.builders import make_genesis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from node.stored import BlockCommit
    from protocol.block import Header
    from tests.node.harness import LiveNode, World

QUICK = replace(MINIMAL, idle_interval_ms=100)
PERIOD = MINIMAL.epoch_heights
NAMES = ("v0", "v1", "v2", "v3")


def make_five():
    """Four validators, and an account of a fifth node."""
    return make_genesis(NAMES, accounts=("asker", "v4"), params=QUICK)


def list_votes(world: World, node: LiveNode, epoch: int) -> Iterator[Vote]:
    for source, frame in world.hub.sent:
        if source == node.id and frame[0] == FrameKind.VOTE:
            vote = decode_frame(frame)
            assert isinstance(vote, Vote)
            if vote.epoch == epoch:
                yield vote


def assert_same_chain(nodes: list[LiveNode]) -> None:
    height = min(node.height for node in nodes)
    assert len({node.storage.get_block(height).hash for node in nodes}) == 1


def list_changes(node: LiveNode) -> list[Header]:
    """At the end of which epochs the validators changed; whose votes prove it may differ from node to node."""
    return [STEP_CODEC.decode(step).header for step in node.storage.get_steps(0, 2**20)]


async def wait_epoch(nodes: list[LiveNode], epoch: int) -> None:
    """Until this epoch has begun, and its first block is final, on all of them."""
    for node in nodes:
        await node.wait_height(epoch * PERIOD + 1)


async def test_boundaries_are_crossed_at_full_pace_and_every_one_has_its_own_certificate(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        started = trio.current_time()
        await world.wait_height(5 * PERIOD + 1)
        assert trio.current_time() - started < (5 * PERIOD + 1) * 0.13
        for node in world.nodes:
            assert node.count_charges() == {}
            assert [event["epoch"] for event in node.list_events("epoch_started")] == [1, 2, 3, 4, 5]
            for epoch in range(5):
                boundary = node.storage.get_block((epoch + 1) * PERIOD)
                cert = QUORUM_CERT_CODEC.decode(boundary.certificate)
                assert (cert.epoch, cert.block_hash) == (epoch, boundary.hash)
            assert node.storage.get_steps(0, 2**20) == ()
        assert_same_chain(world.nodes)


async def test_a_fifth_validator_joins_votes_and_leaves_while_all_run(homes: Path, autojump_clock: object) -> None:
    genesis = make_five()
    async with open_world(homes, 5, genesis) as world:
        newcomer = world.nodes[4]
        await world.wait_height(2)
        await newcomer.become_validator()
        joined = newcomer.epoch + 2
        await wait_epoch(world.nodes, joined)
        assert all(node.find_index(joined) is not None for node in [newcomer])
        assert list(list_votes(world, newcomer, joined - 1)) == []
        await wait_epoch(world.nodes, joined + 3)
        assert list(list_votes(world, newcomer, joined))
        heights = range(joined * PERIOD + 1, newcomer.height)
        revealed = {newcomer.storage.get_block(height).decode().header.beacon_reveal for height in heights}
        assert revealed & {newcomer.load_onion(1).reveal(slot) for slot in range(1, 20)}, "it led a block"
        await newcomer.send(Unbond, 100 * UNIT)
        left = newcomer.epoch + 2
        await wait_epoch(world.nodes, left + 1)
        assert newcomer.find_index(left) is None
        assert list(list_votes(world, newcomer, left)) == []
        assert not newcomer.service.get_snapshot().is_validator
        assert all(node.count_charges() == {} for node in world.nodes)
        assert not newcomer.list_events("onion_exhausted")
        for node in world.nodes:
            steps = [STEP_CODEC.decode(step) for step in node.storage.get_steps(0, 2**20)]
            assert [step.header.epoch for step in steps] == [joined - 1, left - 1]
            assert walk_steps(trust_genesis(genesis), steps).eras[-1].epoch == left
        assert_same_chain(world.nodes)


@pytest.mark.parametrize("height", [PERIOD - 1, PERIOD, PERIOD + 1])
async def test_nodes_that_stop_around_a_boundary_go_on_from_there(
    homes: Path, autojump_clock: object, height: int
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        one = world.nodes[1]
        await one.wait_height(height)
        await world.restart(one)
        await world.wait_height(2 * PERIOD)
        for node in world.nodes:
            await node.stop()
        await world.start(*world.nodes)
        await world.wait_height(4 * PERIOD + 1)
        assert all(node.count_charges() == {} for node in world.nodes)
        for node in world.nodes:
            assert_one_voice_by_epoch(world, node)
        assert_same_chain(world.nodes)


def assert_one_voice_by_epoch(world: World, node: LiveNode) -> None:
    """As `assert_one_voice`, which knows no epochs: views of the boundary's may come again in the next one."""
    everything = world.hub.sent
    for epoch in range(node.epoch + 1):
        world.hub.sent = [(source, frame) for source, frame in everything if _epoch_of(frame) == epoch]
        assert_one_voice(world, node)
    world.hub.sent = everything


def _epoch_of(frame: bytes) -> int | None:
    message = decode_frame(frame)
    if frame[0] == FrameKind.PROPOSAL:
        return message.block.header.epoch
    return message.epoch if frame[0] == FrameKind.VOTE else None


async def test_a_node_whose_boundary_was_voted_on_but_not_stored_restores_what_it_said_in_the_next_epoch(
    homes: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        await world.wait_height(PERIOD - 2)
        victim = world.nodes[2]
        commit = type(victim.storage).commit_blocks

        def fail_at_boundary(storage: object, commits: tuple[BlockCommit, ...], certificates: object = ()) -> None:
            if storage is victim_storage and any(each.block.height >= PERIOD for each in commits):
                raise StorageFailure("the disk failed")
            commit(storage, commits, certificates)

        victim_storage = victim.storage
        monkeypatch.setattr("node.storage.Storage.commit_blocks", fail_at_boundary)
        await victim.wait_end()
        assert isinstance(victim.error, StorageFailure)
        await world.wait_height(2 * PERIOD, [node for node in world.nodes if node is not victim])
        await world.start(victim)
        await world.wait_height(3 * PERIOD + 1)
        assert all(node.count_charges() == {} for node in world.nodes)
        assert_one_voice_by_epoch(world, victim)
        assert_same_chain(world.nodes)


async def test_a_node_three_epochs_behind_comes_back_through_every_change_of_the_validators(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 5, make_five()) as world:
        behind, newcomer = world.nodes[3], world.nodes[4]
        running = [node for node in world.nodes if node is not behind]
        await world.wait_height(2)
        await newcomer.become_validator(300)
        await behind.stop()
        await wait_epoch(running, newcomer.epoch + 4)
        world.hub.requests.clear()
        started = trio.current_time()
        await world.start(behind)
        with trio.fail_after(PATIENCE_S):
            await wait_epoch(world.nodes, newcomer.epoch + 1)
        assert trio.current_time() - started < 10
        assert behind.count_charges() == {}
        world.hub.sent.clear()
        await wait_epoch(world.nodes, newcomer.epoch + 1)
        assert list(list_votes(world, behind, behind.epoch - 1))
        assert list_changes(behind) == list_changes(newcomer) != []
        assert_same_chain(world.nodes)


def flip_signature(answer: Chain) -> Chain:
    step = answer.steps[0]
    signatures = step.final_cert.signatures
    wrong = bytes(signatures[0][:-1]) + bytes((signatures[0][-1] ^ 1,))
    cert = replace(step.final_cert, signatures=(wrong, *signatures[1:]))
    return Chain((replace(step, final_cert=cert), *answer.steps[1:]))


def add_weight(answer: Chain) -> Chain:
    step = answer.steps[0]
    first = step.validators.members[0]
    heavier = replace(
        step.validators, members=(replace(first, weight=first.weight * 100), *step.validators.members[1:])
    )
    return Chain((replace(step, validators=heavier), *answer.steps[1:]))


STEP_LIES: dict[str, Callable[[Chain], Chain]] = {
    "a wrong signature": flip_signature,
    "another validator set": add_weight,
    "no steps": lambda _: Chain(()),
    "the last step alone": lambda answer: Chain(answer.steps[-1:]),
}


async def test_a_joiner_follows_every_change_of_the_validators_to_its_snapshot_and_liars_are_charged(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 6, make_six(), running=5) as world:
        joiner, liar, newcomer = world.nodes[5], world.nodes[0], world.nodes[4]
        running = world.nodes[:5]
        await world.wait_height(2, running)
        await newcomer.become_validator()
        await wait_epoch(running, newcomer.epoch + 3)
        await newcomer.send(Unbond, 100 * UNIT)
        await wait_epoch(running, newcomer.epoch + 4)
        changes = list_changes(liar)
        assert len(changes) == 2
        honest = world.hub.ports[liar.id].handler
        joiner.join = JoinMode.ALWAYS
        for name, wrong in STEP_LIES.items():

            async def answer(asker: bytes, encoded: bytes, wrong: Callable[[Chain], Chain] = wrong) -> bytes:
                truth = await honest(asker, encoded)
                request = FETCH_REQUEST_CODEC.decode(encoded)
                is_asked = isinstance(request, FetchChain) and request.from_epoch == 0
                return encode(wrong(CHAIN_CODEC.decode(truth))) if is_asked else truth

            world.hub.ports[liar.id].handler = answer
            joiner.home, joiner.log = homes / name, type(joiner.log)()
            await world.start(joiner)
            await joiner.wait_height(liar.height + 2)
            assert joiner.storage.base_height > 2 * PERIOD
            assert list_changes(joiner) == changes
            assert set(joiner.count_charges()) <= {liar.id.hex()}, name
            assert_same_chain([joiner, liar])
            await joiner.stop()
        assert joiner.list_events("snapshot_joined")


def make_six():
    """As `make_five`, and a sixth node that only follows."""
    return make_genesis(NAMES, accounts=("asker", "v4", "v5"), params=QUICK)


async def test_a_range_that_goes_on_behind_a_boundary_is_charged(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        behind, liar = world.nodes[3], world.nodes[0]
        await world.wait_height(2)
        await behind.stop()
        await world.wait_height(3 * PERIOD, world.nodes[:3])
        honest = world.hub.ports[liar.id].handler

        async def answer(asker: bytes, encoded: bytes) -> bytes:
            request = FETCH_REQUEST_CODEC.decode(encoded)
            if not isinstance(request, FetchBlocks):
                return await honest(asker, encoded)
            stored = liar.storage.get_range(request.start, request.start + PERIOD + 2, 2**20)
            cert = next(block.certificate for block in reversed(stored) if block.certificate is not None)
            last = next(index for index, block in enumerate(stored) if block.certificate == cert)
            blocks = tuple(block.decode() for block in stored[: last + 1])
            return encode(BlockRange(blocks, (), QUORUM_CERT_CODEC.decode(cert)))

        world.hub.ports[liar.id].handler = answer
        await world.start(behind)
        await world.wait_height(4 * PERIOD)
        assert set(behind.count_charges()) <= {liar.id.hex()}
        assert "out_of_range" in behind.count_charges().get(liar.id.hex(), [])
        assert_same_chain(world.nodes)
