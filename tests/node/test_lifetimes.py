"""A node's end and its next start: nothing signed twice, nothing lost, whatever ended it."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from dataclasses import replace as replace_fields
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from node.disk import SYSTEM_DISK, StorageFailure
from node.faults import Trouble
from node.wire import FrameKind, decode_frame
from protocol.certificate import check_certificate
from protocol.ordering.messages import Proposal, Vote, VoteKind
from protocol.params import MINIMAL
from tests.node.harness import open_world
from tests.protocol.builders import make_genesis, make_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from node.storage import BlockCommit, Storage
    from tests.node.harness import LiveNode, World

QUICK = replace(MINIMAL, idle_interval_ms=100)
NAMES = ("v0", "v1", "v2", "v3")


def list_votes(world: World, node: LiveNode) -> Iterator[Vote]:
    for source, frame in world.hub.sent:
        if source == node.id and frame[0] == FrameKind.VOTE:
            vote = decode_frame(frame)
            assert isinstance(vote, Vote)
            yield vote


def assert_one_voice(world: World, node: LiveNode) -> None:
    """No two blocks in one view, no Final beside a Null, no two proposals."""
    said: dict[tuple[VoteKind, int], set[bytes]] = defaultdict(set)
    for vote in list_votes(world, node):
        said[vote.kind, vote.view].add(vote.block_hash)
    assert all(len(hashes) == 1 for hashes in said.values())
    assert not {view for kind, view in said if kind is VoteKind.FINAL} & {
        view for kind, view in said if kind is VoteKind.NULL
    }
    proposed: dict[int, set[bytes]] = defaultdict(set)
    for source, frame in world.hub.sent:
        if source == node.id and frame[0] == FrameKind.PROPOSAL:
            proposal = decode_frame(frame)
            assert isinstance(proposal, Proposal)
            proposed[proposal.block.header.view].add(proposal.signature)
    assert all(len(signatures) == 1 for signatures in proposed.values())


async def test_a_restarted_node_says_again_what_it_said_and_nothing_else(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        node = world.nodes[1]
        for index in range(12):
            await world.wait_height(node.height + 1)
            await trio.sleep(0.013 * index)
            await world.restart(node)
        await world.wait_height(node.height + 5)
        assert_one_voice(world, node)
        assert all(other.count_charges() == {} for other in world.nodes)


async def test_all_nodes_stopped_at_once_go_on_from_where_they_were(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        job, _ = await world.nodes[0].service.submit_job(make_request(), "one")
        for _ in range(4):
            await world.wait_height(world.nodes[0].height + 2)
            for node in world.nodes:
                await node.stop()
            await world.start(*world.nodes)
        for node in world.nodes:
            await node.wait_settled(job)
            assert_one_voice(world, node)


async def test_a_disk_that_is_full_for_votes_ends_the_node_which_goes_on_with_room(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        node = world.nodes[2]
        await world.wait_height(3)
        await node.stop()
        left = 20_000

        def write(descriptor: int, content: bytes) -> int:
            nonlocal left
            left -= len(content)
            if left < 0:
                os.write(descriptor, content[:7])  # a part of it gets there
                raise OSError(errno.ENOSPC, "No space left on device")
            return os.write(descriptor, content)

        node.disk = replace_fields(SYSTEM_DISK, write=write)
        await world.start(node)
        await node.wait_end()
        assert isinstance(node.error, StorageFailure) and node.error.reason is Trouble.DISK_FULL
        await world.wait_height(world.nodes[0].height + 20, world.nodes[:2])
        node.disk = SYSTEM_DISK
        await world.start(node)
        await world.wait_height(world.nodes[0].height + 5)
        assert_one_voice(world, node)


async def test_a_disk_that_is_full_for_blocks_ends_the_node_and_loses_nothing(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        node, asker = world.nodes[2], world.nodes[0]
        await world.wait_height(2)
        await node.stop()
        node.max_pages = (node.home / "chain.db").stat().st_size // 4096 + 4
        await world.start(node)
        job, _ = await asker.service.submit_job(make_request(), None)
        await node.wait_end()
        assert isinstance(node.error, StorageFailure) and node.error.reason is Trouble.DISK_FULL
        node.max_pages = 0
        await world.start(node)
        for each in (node, asker):
            assert check_certificate(await each.wait_certificate(job), node.genesis).text == "23+58="
        assert_one_voice(world, node)


@pytest.mark.parametrize("moment_ms", range(0, 200, 23), ids=str)
async def test_a_node_stopped_at_any_moment_closes_cleanly_and_its_peers_go_on(
    homes: Path, autojump_clock: object, moment_ms: int
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        job, _ = await world.nodes[0].service.submit_job(make_request(), None)
        await trio.sleep(moment_ms / 1000)
        await world.nodes[3].stop()
        assert world.nodes[3].error is None
        await world.nodes[0].wait_settled(job)
        await world.start(world.nodes[3])
        await world.nodes[3].wait_settled(job)
        assert_one_voice(world, world.nodes[3])


async def test_a_settlement_is_never_on_the_disk_without_its_certificate(
    homes: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(homes, 4, make_genesis(NAMES, params=QUICK)) as world:
        node = world.nodes[3]
        storage = node.parts.postbox._storage
        commit, seen = type(storage).commit_blocks, []

        def commit_and_look(
            self: Storage, commits: Sequence[BlockCommit], certificates: Sequence[tuple[bytes, bytes]]
        ) -> None:
            commit(self, commits, certificates)
            if self is not storage:
                return
            settled = {job for each in commits for job in each.settled}
            seen.extend(settled)
            assert all(storage.get_certificate(job) is not None for job in settled)

        monkeypatch.setattr(type(storage), "commit_blocks", commit_and_look)
        job, _ = await node.service.submit_job(make_request(), None)
        await node.wait_certificate(job)
        assert seen == [job]
