"""A node that is far behind catches up whoever lies to it; every lie is charged to the liar, and costs a bounded number of requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from node.network import DirectMessage
from node.wire import (
    BLOCK_RANGE_CODEC,
    BODY_CODEC,
    FETCH_REQUEST_CODEC,
    BlockRange,
    Body,
    FetchBlocks,
    FetchBody,
    FrameKind,
    Status,
    encode_frame,
)
from protocol.codec import encode
from protocol.params import MINIMAL
from tests.node.harness import World, open_world
from tests.protocol.builders import make_genesis, make_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.harness import LiveNode

QUICK = replace(MINIMAL, idle_interval_ms=100)
NAMES = ("v0", "v1", "v2", "v3")
BEHIND = 100

Lie = Callable[[BlockRange], bytes]


def flip_signature(answer: BlockRange) -> bytes:
    cert = answer.final_cert
    assert cert is not None
    wrong = bytes(cert.signatures[0][:-1]) + bytes((cert.signatures[0][-1] ^ 1,))
    return encode(replace(answer, final_cert=replace(cert, signatures=(wrong, *cert.signatures[1:]))))


def change_body(answer: BlockRange) -> bytes:
    block = answer.blocks[1]
    return encode(replace(answer, blocks=(answer.blocks[0], replace(block, body=(b"x",)), *answer.blocks[2:])))


LIES: dict[str, Lie] = {
    "a wrong signature": flip_signature,
    "a wrong body": change_body,
    "a missing block": lambda answer: encode(replace(answer, blocks=answer.blocks[1:])),
    "blocks without a certificate": lambda answer: encode(replace(answer, final_cert=None)),
    "a certificate without blocks": lambda answer: encode(replace(answer, blocks=())),
    "a certificate of another block": lambda answer: encode(replace(answer, blocks=answer.blocks[:-1])),
    "too many bytes": lambda _: bytes(2 * 1024 * 1024),
    "no message": lambda _: b"\xc1" * 100,
}


async def fall_behind(world: World, heights: int = BEHIND) -> LiveNode:
    """The last node, stopped, with the others this far ahead."""
    behind = world.nodes[-1]
    await world.wait_height(2)
    await behind.stop()
    await world.wait_height(heights, world.nodes[:-1])
    return behind


def lie(world: World, node: LiveNode, answer: Callable[[bytes, bytes], Awaitable[bytes]]) -> None:
    """Let a node answer fetches this way."""
    world.hub.ports[node.id].handler = answer


def distort(world: World, node: LiveNode, wrong: Lie) -> list[FetchBlocks]:
    """Let a node answer range requests wrongly; those that it was asked."""
    honest = world.hub.ports[node.id].handler
    asked: list[FetchBlocks] = []

    async def answer(asker: bytes, encoded: bytes) -> bytes:
        truth, request = await honest(asker, encoded), FETCH_REQUEST_CODEC.decode(encoded)
        if not isinstance(request, FetchBlocks):
            return truth
        asked.append(request)
        return wrong(BLOCK_RANGE_CODEC.decode(truth))

    lie(world, node, answer)
    return asked


async def be_silent(_asker: bytes, _request: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


def assert_same_chain(world: World) -> None:
    storages = [node.parts.postbox._storage for node in world.nodes]
    height = min(node.height for node in world.nodes)
    hashes = {stored.hash for storage in storages if (stored := storage.get_block(height)) is not None}
    assert len(hashes) == 1, height


@pytest.mark.parametrize("kind", LIES)
async def test_a_liar_is_charged_and_the_node_catches_up_all_the_same(
    homes: Path, autojump_clock: object, kind: str
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        behind = await fall_behind(world, 40)
        liar = world.nodes[0]
        asked = distort(world, liar, LIES[kind])
        await world.start(behind)
        await world.wait_height(60)
        assert set(behind.count_charges()) == {liar.id.hex()}
        assert len(asked) <= 2
        assert_same_chain(world)


async def test_silent_and_empty_peers_and_claims_of_great_height_only_cost_their_turn(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        behind = await fall_behind(world)
        lie(world, world.nodes[0], be_silent)
        distort(world, world.nodes[1], lambda _: encode(BlockRange((), (), None)))
        await world.start(behind)
        boast = encode_frame(Status(2**62, b"h" * 32, 1, 2**62, 2**62, ()))
        for _ in range(3):
            behind.push(DirectMessage(world.nodes[1].id, boast))
        started = trio.current_time()
        await behind.wait_height(BEHIND)
        assert trio.current_time() - started < 20
        assert behind.count_charges() == {}
        asked = {other.name: world.hub.requests[behind.id, other.id] for other in world.nodes[:-1]}
        assert max(asked["v0"], asked["v1"]) <= 16, asked  # neither the silent one nor the empty one
        assert asked["v2"] <= 24, asked  # who has the blocks gives them
        assert behind.service.get_snapshot().sync_target is None or behind.service.get_snapshot().sync_target < 2**20
        await world.wait_height(BEHIND + 20)
        assert_same_chain(world)


async def test_a_node_that_caught_up_votes_again_and_has_every_certificate(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        behind = await fall_behind(world, 10)
        asker = world.nodes[0]
        job, _ = await asker.service.submit_job(make_request(commit_ms=2_000), None)
        await asker.wait_settled(job)
        await world.wait_height(BEHIND, world.nodes[:-1])
        await world.start(behind)
        await behind.wait_height(BEHIND)
        assert await behind.service.build_certificate(job)
        world.hub.sent.clear()
        await world.wait_height(BEHIND + 20)
        assert any(source == behind.id and data[0] == FrameKind.VOTE for source, data in world.hub.sent)
        assert all(node.count_charges() == {} for node in world.nodes)


async def test_blocks_without_certificates_of_their_own_are_tied_to_a_later_one_by_headers(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        behind = await fall_behind(world, 10)
        asker = world.nodes[0]
        job, _ = await asker.service.submit_job(make_request(commit_ms=2_000), None)
        await asker.wait_settled(job)
        await world.wait_height(BEHIND + 50, world.nodes[:-1])
        for node in world.nodes[:-1]:
            forget_certificates(node, 3, BEHIND + 30)
        await world.start(behind)
        await world.wait_height(BEHIND + 60)
        assert behind.count_charges() == {}
        assert behind.parts.postbox._storage.get_block(70).certificate is None
        assert await behind.service.build_certificate(job)
        assert_same_chain(world)


def forget_certificates(node: LiveNode, first: int, last: int) -> None:
    """As if these blocks had become final only through a later one; an epoch's last block never does."""
    connection = node.parts.postbox._storage._connection
    within = "height BETWEEN ? AND ? AND height % ? > 0"
    connection.execute(f"UPDATE blocks SET certificate = NULL WHERE {within}", (first, last, QUICK.epoch_heights))
    connection.commit()


async def test_a_missing_body_is_fetched_although_the_first_asked_lies_and_the_second_is_silent(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 5, make_genesis((*NAMES, "v4"), params=QUICK)) as world:
        await world.wait_height(3)
        poor, liar, silent = world.nodes[4], world.nodes[0], world.nodes[1]
        # No proposal reaches it any more: it knows every block by its votes only.
        world.hub.loses = lambda _source, target, data: target == poor.id and data[0] == FrameKind.PROPOSAL
        honest = world.hub.ports[liar.id].handler

        async def answer(asker: bytes, request: bytes) -> bytes:
            truth = await honest(asker, request)
            if not isinstance(FETCH_REQUEST_CODEC.decode(request), FetchBody):
                return truth
            block = BODY_CODEC.decode(truth).block
            return truth if block is None else encode(Body(replace(block, body=(*block.body, b"more"))))

        lie(world, liar, answer)
        lie(world, silent, be_silent)
        await world.wait_height(20)
        assert set(poor.count_charges()) == {liar.id.hex()}
        assert set(poor.count_charges()[liar.id.hex()]) == {"bad_body"}
        assert_same_chain(world)
