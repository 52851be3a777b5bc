"""A newcomer on an empty home reaches the tip from a snapshot, whoever lies to it, and a crash costs it no chunk that it had."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from node import snapshots as snapshots_module
from node.config import load_config
from node.join import JoinMode
from node.network import DirectMessage
from node.proofs import check_chunk
from node.wire import (
    FETCH_REQUEST_CODEC,
    MANIFEST_CODEC,
    SNAPSHOT_CHUNK_CODEC,
    FetchSnapshot,
    FetchSnapshotChunk,
    Manifest,
    SnapshotChunk,
    Status,
    encode_frame,
)
from protocol.codec import encode
from protocol.errors import InvalidMessage
from protocol.ledger.epochs import get_epoch_terms
from protocol.params import MINIMAL
from tests.node.harness import World, open_world
from tests.protocol.builders import make_genesis, make_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from node.snapshot_store import SnapshotStore
    from tests.node.harness import LiveNode

QUICK = replace(MINIMAL, idle_interval_ms=100)
PERIOD = MINIMAL.epoch_heights
NAMES = ("v0", "v1", "v2", "v3")
LONG = 210
CHUNK_BYTES = 512  # so that a small state has a dozen chunks


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.snapshots.SNAPSHOT_CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr("node.proofs.SNAPSHOT_CHUNK_BYTES", CHUNK_BYTES)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The homes of three validators with a long chain, made once."""
    path = tmp_path_factory.mktemp("grown")

    async def grow() -> None:
        async with open_world(path, 4, make_genesis(NAMES, params=QUICK), running=3) as world:
            await world.wait_height(LONG, world.nodes[:-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.snapshots.SNAPSHOT_CHUNK_BYTES", CHUNK_BYTES)
        trio.run(grow, clock=trio.testing.MockClock(autojump_threshold=0))
    return path


@pytest.fixture
def homes(grown: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    shutil.copytree(grown, tmp_path / "homes")
    return tmp_path / "homes"


def make_world(path: Path):
    return open_world(path, 4, make_genesis(NAMES, params=QUICK), running=3)


def make_newcomer(world: World) -> LiveNode:
    newcomer = world.nodes[-1]
    newcomer.join = JoinMode.ALWAYS
    return newcomer


def find_first_asked(world: World) -> LiveNode:
    """The running validator that comes first in the table."""
    order = [member.node for member in get_epoch_terms(world.nodes[0].ledger).validators.members]
    return min(world.nodes[:-1], key=lambda node: order.index(node.id))


def get_store(node: LiveNode) -> SnapshotStore:
    return node.parts.postbox._storage.snapshots


def flip_last(encoded: bytes) -> bytes:
    return encoded[:-1] + bytes((encoded[-1] ^ 1,))


def change_entry(encoded: bytes) -> bytes:
    chunk = SNAPSHOT_CHUNK_CODEC.decode(encoded)
    key, value = chunk.entries[0]
    return encode(replace(chunk, entries=((key, flip_last(value)), *chunk.entries[1:])))


def drip(encoded: bytes) -> bytes:
    """As if a state could be handed out entry by entry."""
    chunk = SNAPSHOT_CHUNK_CODEC.decode(encoded)
    return encode(replace(chunk, entries=chunk.entries[:1]))


def change_cert(encoded: bytes) -> bytes:
    manifest = MANIFEST_CODEC.decode(encoded)
    assert manifest.final_cert is not None
    signatures = manifest.final_cert.signatures
    return encode(
        replace(
            manifest, final_cert=replace(manifest.final_cert, signatures=(flip_last(signatures[0]), *signatures[1:]))
        )
    )


def change_root(encoded: bytes) -> bytes:
    manifest = MANIFEST_CODEC.decode(encoded)
    assert manifest.block is not None
    header = replace(manifest.block.header, state_root=b"r" * 32)
    return encode(replace(manifest, block=replace(manifest.block, header=header)))


CHUNK_LIES = {
    "a changed entry": change_entry,
    "single entries": drip,
    "no chunks": lambda _: encode(SnapshotChunk((), None)),
    "no message": lambda _: b"\xc1" * 100,
    "too many bytes": lambda _: bytes(2 * 1024 * 1024),
}
MANIFEST_LIES = {
    "a wrong signature": change_cert,
    "another state root": change_root,
    "no snapshot": lambda _: encode(Manifest(None, None)),
    "no message": lambda _: b"\xc1" * 100,
}
HARMLESS = {"no chunks", "no snapshot"}  # an honest peer may have none


def distort(world: World, node: LiveNode, kind: type, wrong: Callable[[bytes], bytes]) -> None:
    """Let a node answer requests of one kind wrongly."""
    honest = world.hub.ports[node.id].handler

    async def answer(asker: bytes, request: bytes) -> bytes:
        truth = await honest(asker, request)
        return wrong(truth) if isinstance(FETCH_REQUEST_CODEC.decode(request), kind) else truth

    world.hub.ports[node.id].handler = answer


async def be_silent(_asker: bytes, _request: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


def assert_joined(world: World, newcomer: LiveNode) -> None:
    """It began with a snapshot, and has the same chain and state since."""
    storage = newcomer.parts.postbox._storage
    base = storage.base_height
    assert base % PERIOD == 0 and base >= LONG - 2 * PERIOD, base
    assert storage.get_block(base - 1) is None
    other = world.nodes[0].parts.postbox._storage
    for height in range(base, min(newcomer.height, world.nodes[0].height) + 1):
        assert storage.get_block(height).hash == other.get_block(height).hash
    assert storage.load_state() == dict(newcomer.ledger.entries)


async def test_every_node_keeps_the_two_newest_snapshots_of_the_state(homes: Path, autojump_clock: object) -> None:
    async with make_world(homes) as world:
        node = world.nodes[0]
        await node.wait_height(4 * PERIOD)
        await trio.testing.wait_all_tasks_blocked()
        newest = node.height - node.height % PERIOD
        assert get_store(node).list_heights() == (newest, newest - PERIOD)
        connection = node.parts.postbox._storage._connection
        heights = {row[0] for row in connection.execute("SELECT DISTINCT height FROM chunks")}
        assert heights == {newest, newest - PERIOD}
        header = node.parts.postbox._storage.get_block(newest).decode().header
        first = 0
        for encoded in get_store(node).load_chunks(newest):
            chunk = check_chunk(encoded, header, first)
            assert chunk is not None
            first += len(chunk.entries)
        assert chunk.proof is not None and first == chunk.proof.count > 10
        await world.restart(node)
        assert get_store(node).list_heights()[-1] >= newest - PERIOD


async def test_a_newcomer_joins_a_long_chain_while_a_peer_lies_in_every_way(
    homes: Path, autojump_clock: object
) -> None:
    async with make_world(homes) as world:
        newcomer, liar = make_newcomer(world), find_first_asked(world)
        honest = world.hub.ports[liar.id].handler
        for kind, lies in ((FetchSnapshotChunk, CHUNK_LIES), (FetchSnapshot, MANIFEST_LIES)):
            for name, wrong in lies.items():
                world.hub.ports[liar.id].handler = honest
                distort(world, liar, kind, wrong)
                newcomer.home, newcomer.log = homes / f"{kind.__name__} {name}", type(newcomer.log)()
                started = trio.current_time()
                await world.start(newcomer)
                await newcomer.wait_height(LONG)
                assert trio.current_time() - started < 5, name
                assert_joined(world, newcomer)
                assert set(newcomer.count_charges()) == (set() if name in HARMLESS else {liar.id.hex()}), name
                await newcomer.stop()


async def test_a_silent_peer_and_one_that_claims_great_heights_cost_a_moment(
    homes: Path, autojump_clock: object
) -> None:
    async with make_world(homes) as world:
        newcomer, silent = make_newcomer(world), find_first_asked(world)
        world.hub.ports[silent.id].handler = be_silent
        boast = encode_frame(Status(2**62, b"h" * 32, 1, 2**62, 2**62, ()))
        started = trio.current_time()
        await world.start(newcomer)
        newcomer.push(DirectMessage(world.nodes[1].id, boast))
        await newcomer.wait_height(LONG)
        assert trio.current_time() - started < 10
        assert newcomer.count_charges() == {}
        assert_joined(world, newcomer)


async def test_a_crash_in_the_middle_of_the_chunks_costs_none_of_them(homes: Path, autojump_clock: object) -> None:
    async with make_world(homes) as world:
        newcomer = make_newcomer(world)
        asked: list[int] = []
        is_cut, is_stuck = True, trio.Event()
        for node in world.nodes[:-1]:
            honest = world.hub.ports[node.id].handler

            async def answer(asker: bytes, encoded: bytes, honest=honest) -> bytes:
                request = FETCH_REQUEST_CODEC.decode(encoded)
                if isinstance(request, FetchSnapshotChunk):
                    if is_cut and len(asked) >= 3:
                        is_stuck.set()
                        return await be_silent(asker, encoded)
                    asked.append(request.first)
                return await honest(asker, encoded)

            world.hub.ports[node.id].handler = answer
        await world.start(newcomer)
        with trio.fail_after(20):
            await is_stuck.wait()
        before = tuple(asked)
        await newcomer.stop()
        is_cut = False
        for node in world.nodes[:-1]:  # no newer snapshot comes between
            node.parts.snapshots.offer = lambda *_: None
        await world.start(newcomer)
        await newcomer.wait_height(LONG)
        assert asked[3] > before[-1] and not set(asked[3:]) & set(before)
        assert_joined(world, newcomer)


async def test_a_snapshot_with_open_and_settled_jobs_is_joined_and_both_go_on(
    homes: Path, autojump_clock: object
) -> None:
    async with make_world(homes) as world:
        asker = world.nodes[0]
        settled, _ = await asker.service.submit_job(make_request(commit_ms=2_000), None)
        await asker.wait_settled(settled)
        for node in world.nodes[:-1]:
            node.generations.is_mute = True
        opened, _ = await asker.service.submit_job(make_request(prompt=b"later", commit_ms=3_000), None)
        await asker.wait_height(asker.height + PERIOD + 1)
        newcomer = make_newcomer(world)
        await world.start(newcomer)
        await newcomer.wait_height(asker.height)
        assert_joined(world, newcomer)
        storage = newcomer.parts.postbox._storage
        assert storage.get_job(opened).settled is None
        assert storage.get_job(opened).submitted < storage.base_height
        view = await newcomer.wait_settled(opened)
        assert view.settlement == (await asker.wait_settled(opened)).settlement
        assert storage.get_job(opened).settled == view.settlement.settle_height
        assert newcomer.service.shelf.get(opened) is None
        assert "ask another node" in newcomer.service.shelf.explain_absence(opened, newcomer.ledger)


async def test_a_node_that_joined_serves_newcomers_its_snapshot_and_says_what_it_lacks(
    homes: Path, autojump_clock: object
) -> None:
    async with make_world(homes) as world:
        joined = make_newcomer(world)
        await world.start(joined)
        await world.wait_height(LONG)
        base = joined.parts.chain.base_height
        late = world.nodes[0]
        await late.stop()
        late.home = homes / "late"
        for other in world.nodes[1:-1]:
            world.hub.cut.add(frozenset((late.id, other.id)))
        late.join = JoinMode.AUTO  # it is not far behind, but nobody whom it sees has the first blocks
        await world.start(late)
        await late.wait_height(LONG + PERIOD)
        assert late.parts.chain.base_height >= base
        assert late.count_charges() == {}
        assert late.list_events("snapshot_joined")
        await world.restart(late)
        await late.wait_height(LONG + 2 * PERIOD)


async def test_a_chunk_is_as_long_as_it_must_be(homes: Path, autojump_clock: object) -> None:
    async with make_world(homes) as world:
        await world.wait_height(PERIOD, world.nodes[:1])
        ledger, header = world.nodes[0].ledger, world.nodes[0].parts.chain.final.header
        proof = snapshots_module.prove_range(ledger.tree, 0, 1)
        key = ledger.tree.keys[0]
        short = encode(SnapshotChunk(((key, ledger.entries[key]),), proof))
        with pytest.raises(InvalidMessage, match="expected a chunk of 512 bytes"):
            check_chunk(short, header, 0)


def test_the_setting_has_a_word_for_every_mode() -> None:
    for mode in JoinMode:
        assert JoinMode(load_config(None, {}, {"storage.join": mode.value}).config.storage.join) is mode
    assert JoinMode(load_config(None, {}, {}).config.storage.join) is JoinMode.AUTO
