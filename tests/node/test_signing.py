"""Rule R10 in whole nodes: whoever lost votes is silent for two epochs and then signs again by itself; whoever lost none is not held up."""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from node.signing import Signing
from node.stored import LogState
from node.telemetry import Telemetry
from node.vote_log import VoteLog
from node.wal import open_wal
from node.wire import FETCH_REQUEST_CODEC, FetchRecollection, FrameKind, Recollection, decode_frame
from protocol.codec import encode
from protocol.errors import InvalidMessage
from protocol.genesis import compute_chain_id, compute_validator_set
from protocol.ordering.messages import Vote, VoteKind
from protocol.params import MINIMAL
from tests.node.harness import PATIENCE_S, open_world
from tests.node.test_epochs import assert_one_voice_by_epoch, list_votes, wait_epoch
from tests.protocol.builders import make_genesis, make_hash, make_key
from tests.protocol.offences import sign_vote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from node.wal import OpenedWal
    from tests.node.harness import LiveNode, World

QUICK = replace(MINIMAL, idle_interval_ms=100)
PERIOD = MINIMAL.epoch_heights
NAMES = ("v0", "v1", "v2", "v3")
GENESIS = make_genesis(NAMES, params=QUICK)
TABLE = compute_validator_set(GENESIS)
CHAIN = compute_chain_id(GENESIS)


def has_signed(world: World, node: LiveNode) -> bool:
    own = {FrameKind.VOTE, FrameKind.PROPOSAL}
    return any(source == node.id and frame[0] in own for source, frame in world.hub.sent)


def list_first_epoch(world: World, node: LiveNode) -> int:
    """The first epoch in which the node signed anything since the hub's memory was cleared."""
    epochs = [
        message.epoch if isinstance(message, Vote) else message.block.header.epoch
        for source, frame in world.hub.sent
        if source == node.id and frame[0] in {FrameKind.VOTE, FrameKind.PROPOSAL}
        for message in (decode_frame(frame),)
    ]
    return min(epochs)


def restore_old_log(node: LiveNode, path: Path) -> None:
    shutil.copy(path, node.home / "votes.wal")


def lose_log(node: LiveNode, _path: Path) -> None:
    (node.home / "votes.wal").unlink()


def lose_everything(node: LiveNode, _path: Path) -> None:
    shutil.rmtree(node.home)


@pytest.mark.parametrize("lose", [restore_old_log, lose_log, lose_everything], ids=lambda lose: lose.__name__)
async def test_a_node_that_lost_votes_is_silent_for_two_epochs_and_then_signs_again_by_itself(
    homes: Path, autojump_clock: object, lose: Callable[[LiveNode, Path], None]
) -> None:
    async with open_world(homes, 4, GENESIS) as world:
        node = world.nodes[3]
        others = world.nodes[:3]
        await world.wait_height(3)
        await node.stop()
        shutil.copy(node.home / "votes.wal", homes / "old.wal")
        await world.start(node)
        await world.wait_height(PERIOD + 4)
        await node.stop()
        lose(node, homes / "old.wal")
        world.hub.sent.clear()
        lost_in = world.nodes[0].epoch
        await world.start(node)
        await wait_epoch([node], lost_in + 1)
        assert not has_signed(world, node)
        snapshot = node.service.get_snapshot()
        assert not snapshot.is_validator and snapshot.signs_from is not None
        assert snapshot.signs_from >= lost_in + 2
        await world.restart(node)  # it remembers
        assert node.service.get_snapshot().signs_from == snapshot.signs_from
        await wait_epoch(world.nodes, snapshot.signs_from + 1)
        assert node.service.get_snapshot().is_validator
        assert list_first_epoch(world, node) == snapshot.signs_from
        assert list(list_votes(world, node, snapshot.signs_from))
        await world.restart(node)  # and so it stays
        world.hub.sent.clear()
        await world.wait_height(node.height + 3)
        assert has_signed(world, node)
        assert all(other.count_charges() == {} for other in world.nodes)
        assert any(event.get("epoch") == snapshot.signs_from for event in node.list_events("signing_from"))
        assert len({each.storage.get_block(others[0].height - 2).hash for each in world.nodes}) == 1


async def test_a_node_that_lost_its_chain_but_not_its_votes_signs_on_as_soon_as_it_has_caught_up(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, GENESIS) as world:
        node = world.nodes[3]
        await world.wait_height(PERIOD + 3)
        await node.stop()
        for file in node.home.glob("chain.db*"):
            file.unlink()
        await world.start(node)
        await wait_epoch(world.nodes, node.epoch + 3)
        assert node.service.get_snapshot().is_validator
        assert not node.list_events("votes_forgotten")
        assert_one_voice_by_epoch(world, node)


async def test_a_validator_that_starts_late_for_the_first_time_signs_in_the_running_epoch(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, GENESIS, running=3) as world:
        late = world.nodes[3]
        await world.wait_height(2 * PERIOD + 2, world.nodes[:3])
        await world.start(late)
        started = trio.current_time()
        with trio.fail_after(PATIENCE_S):
            while not has_signed(world, late):
                await late.node.engine.wait_finalized()
        assert trio.current_time() - started < 3
        assert list_first_epoch(world, late) >= 2, "not while it was behind"


async def test_new_validators_sign_nothing_before_two_thirds_of_the_weight_are_there(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, GENESIS, running=2) as world:
        await trio.sleep(30)
        assert not any(has_signed(world, node) for node in world.nodes)
        started = trio.current_time()
        await world.start(world.nodes[2])
        await world.wait_height(1, world.nodes[:3])
        assert trio.current_time() - started < 5


async def test_a_new_network_is_not_held_up(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes, 4, GENESIS) as world:
        started = trio.current_time()
        await world.wait_height(1)
        assert trio.current_time() - started < 0.5


async def test_a_peer_that_shows_a_vote_of_nobody_is_charged_and_one_that_claims_a_far_epoch_is_passed_over(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, GENESIS, running=0) as world:
        await world.start(*world.nodes[:3])
        forger, boaster, late = world.nodes[0], world.nodes[1], world.nodes[3]
        forged = Vote(VoteKind.NOTAR, 0, 7, make_hash("block"), 3, bytes(64))
        lie(world, forger, late, Recollection(0, forged))
        lie(world, boaster, late, Recollection(2**40, None))
        await world.start(late)
        await world.wait_height(PERIOD)
        assert late.count_charges() == {forger.id.hex(): ["bad_signature"] * len(late.count_charges()[forger.id.hex()])}
        assert not has_signed(world, late), "two of four said what can be believed, itself included"


def lie(world: World, node: LiveNode, victim: LiveNode, recollection: Recollection) -> None:
    """Let a node tell this one something else than it remembers."""
    honest = world.hub.ports[node.id].handler

    async def answer(asker: bytes, encoded: bytes) -> bytes:
        if asker == victim.id and isinstance(FETCH_REQUEST_CODEC.decode(encoded), FetchRecollection):
            return encode(recollection)
        return await honest(asker, encoded)

    world.hub.ports[node.id].handler = answer


# --- Signing alone


@pytest.fixture
def wal(tmp_path: Path) -> OpenedWal:
    return open_wal(tmp_path / "votes.wal", CHAIN)


def open_signing(wal: OpenedWal, state: LogState) -> tuple[VoteLog, Signing]:
    log = VoteLog(wal.wal, wal.records)
    return log, Signing(make_key("v3").public, CHAIN, log, state, lambda: None, Telemetry(io.StringIO()))


def hear(signing: Signing, epochs: dict[str, int], vote: Vote | None = None) -> None:
    for name, epoch in epochs.items():
        signing.take(make_key(name).public, Recollection(epoch, vote), TABLE)


def make_vote(view: int) -> Vote:
    """A vote of v3, in epoch 0."""
    return sign_vote(make_key("v3"), CHAIN, VoteKind.NOTAR, view, make_hash("block"), 3)


def test_an_empty_log_lets_sign_from_the_highest_epoch_of_two_thirds(wal: OpenedWal) -> None:
    _, signing = open_signing(wal, LogState.UNKNOWN)
    hear(signing, {"v0": 4})
    assert not signing.decide(TABLE, 4) and signing.is_asking  # two of four
    hear(signing, {"v1": 5})
    assert signing.decide(TABLE, 4) and signing.from_epoch == 5
    assert not signing.decide(TABLE, 4)  # once


def test_a_claim_that_is_out_of_sight_does_not_count_until_the_node_is_there(wal: OpenedWal) -> None:
    _, signing = open_signing(wal, LogState.UNKNOWN)
    hear(signing, {"v0": 0, "v1": 9})
    assert not signing.decide(TABLE, 0)
    assert signing.decide(TABLE, 8) and signing.from_epoch == 9


def test_a_lost_log_lets_sign_two_epochs_above_the_highest(wal: OpenedWal) -> None:
    log, signing = open_signing(wal, LogState.BEHIND)
    log.fork()
    hear(signing, {"v0": 3, "v1": 4})
    assert signing.decide(TABLE, 3) and signing.from_epoch == 6
    assert [signing.may_sign(epoch) for epoch in (5, 6)] == [False, True]


def test_a_vote_that_the_log_lacks_makes_it_a_lost_one(wal: OpenedWal) -> None:
    log, signing = open_signing(wal, LogState.UNKNOWN)
    hear(signing, {"v0": 0}, make_vote(7))
    assert signing.is_lost and log.permission is not None and log.permission.epoch is None
    hear(signing, {"v1": 0})
    assert signing.decide(TABLE, 0) and signing.from_epoch == 2


def test_a_vote_that_the_log_has_or_that_a_watermark_covers_is_no_loss(wal: OpenedWal) -> None:
    log, signing = open_signing(wal, LogState.UNKNOWN)
    log.append(make_vote(7), durable=True)
    log.raise_watermark((0, 5))
    hear(signing, {"v0": 0}, make_vote(5))
    hear(signing, {"v1": 0}, make_vote(7))
    assert not signing.is_lost
    hear(signing, {"v2": 0}, make_vote(8))
    assert signing.is_lost


def test_a_vote_of_another_is_refused(wal: OpenedWal) -> None:
    _, signing = open_signing(wal, LogState.UNKNOWN)
    other = sign_vote(make_key("v0"), CHAIN, VoteKind.NOTAR, 3, make_hash("block"), 3)
    with pytest.raises(InvalidMessage, match="expected one that this node signed"):
        hear(signing, {"v1": 0}, other)
    assert signing.list_unheard(TABLE) == tuple(make_key(name).public for name in ("v0", "v1", "v2"))


def test_nothing_is_signed_up_to_a_watermark(wal: OpenedWal) -> None:
    log, _ = open_signing(wal, LogState.UNKNOWN)
    log.permit(0)
    log.raise_watermark((2, 40))
    signing = Signing(make_key("v3").public, CHAIN, log, LogState.COMPLETE, lambda: None, Telemetry(io.StringIO()))
    assert [signing.may_sign(epoch) for epoch in range(4)] == [False, False, True, True]
    assert [signing.compute_floor(epoch) for epoch in (2, 3)] == [40, 0]


def test_votes_that_are_not_given_back_to_ordering_bind_as_a_watermark_does(wal: OpenedWal) -> None:
    log, _ = open_signing(wal, LogState.UNKNOWN)
    log.append(make_vote(7), durable=True)
    log.permit(0)
    for state, floor in ((LogState.COMPLETE, 0), (LogState.UNKNOWN, 7)):
        signing = Signing(make_key("v3").public, CHAIN, log, state, lambda: None, Telemetry(io.StringIO()))
        assert signing.compute_floor(0) == floor
        assert signing.is_replayed(make_vote(7)) == (state is LogState.COMPLETE)


def test_the_log_remembers_how_far_it_has_signed_when_it_forgets_the_votes(wal: OpenedWal, tmp_path: Path) -> None:
    log, _ = open_signing(wal, LogState.COMPLETE)
    log.append(make_vote(7), durable=True)
    log.append(make_vote(9), durable=True)
    log.permit(3)
    log.forget((0, 8))
    assert (log.watermark, log.signed, log.horizon) == ((0, 7), (0, 9), (0, 9))
    log.fork()
    wal.wal.close()
    again = open_wal(tmp_path / "votes.wal", CHAIN)
    reopened = VoteLog(again.wal, again.records)
    assert (reopened.watermark, reopened.signed) == ((0, 7), (0, 9))
    assert reopened.permission is not None and reopened.permission.epoch is None  # forked: votes were lost
    again.wal.close()
