"""How far a key has signed moves with it: a home that takes the bound in signs above it only, and never lowers it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from node.cli import run_command
from node.faults import Exit, Fault, Trouble
from node.genesis_file import write_genesis
from node.home import Home, create_home
from node.keys import create_key
from node.protection import export_protection, import_protection, read_protection
from node.vote_log import VoteLog
from node.wal import open_wal
from node.wire import FrameKind, decode_frame
from protocol.genesis import compute_chain_id
from protocol.ordering.messages import Vote
from protocol.params import MINIMAL
from tests.node.harness import open_world
from tests.node.test_epochs import assert_one_voice_by_epoch, wait_epoch
from tests.protocol.builders import make_genesis, make_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.node.harness import LiveNode, World

GENESIS = make_genesis(("v0", "v1", "v2", "v3"), params=replace(MINIMAL, idle_interval_ms=100))
CHAIN = compute_chain_id(GENESIS)
NODE = make_key("v3").public
PERIOD = MINIMAL.epoch_heights


def list_places(world: World, node: LiveNode) -> Iterator[tuple[int, int]]:
    """Where the node signed votes since the hub's memory was cleared."""
    for source, frame in world.hub.sent:
        if source == node.id and frame[0] == FrameKind.VOTE:
            vote = decode_frame(frame)
            assert isinstance(vote, Vote)
            yield vote.epoch, vote.view


def read_horizon(home: Path) -> tuple[int, int]:
    opened = open_wal(home / "votes.wal", CHAIN)
    horizon = VoteLog(opened.wal, opened.records).horizon
    opened.wal.close()
    return horizon


def take_in(home: Path, place: tuple[int, int]) -> bool:
    home.mkdir(exist_ok=True)
    opened = open_wal(home / "votes.wal", CHAIN)
    try:
        return import_protection(VoteLog(opened.wal, opened.records), place)
    finally:
        opened.wal.close()


async def test_a_key_that_moved_signs_on_at_once_and_only_above_its_watermark(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 4, GENESIS) as world:
        node = world.nodes[3]
        await world.wait_height(PERIOD + 3)
        await node.stop()
        file = homes / "protection.json"
        export_protection(file, NODE, CHAIN, read_horizon(node.home))
        shutil.rmtree(node.home)
        place = read_protection(file, NODE, CHAIN)
        signed = max(list_places(world, node))
        assert place >= signed
        assert take_in(node.home, place)
        before = list(world.hub.sent)
        world.hub.sent.clear()
        await world.start(node)
        moved_in = world.nodes[0].epoch
        await wait_epoch(world.nodes, moved_in + 2)
        places = list(list_places(world, node))
        assert min(places) > place
        assert min(places)[0] <= moved_in + 1, "without waiting for two epochs"
        world.hub.sent[:0] = before
        assert_one_voice_by_epoch(world, node)
        assert not node.list_events("votes_forgotten")


async def test_a_watermark_that_lies_far_ahead_is_waited_for(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes, 4, GENESIS, running=0) as world:
        node = world.nodes[3]
        take_in(node.home, (2, 10_000))
        await world.start(*world.nodes)
        await wait_epoch(world.nodes, 4)
        assert min(list_places(world, node))[0] == 3


def test_what_a_home_knows_is_never_lowered(tmp_path: Path) -> None:
    assert take_in(tmp_path / "home", (3, 70))
    assert not take_in(tmp_path / "home", (3, 70))
    for lower in ((3, 69), (2, 1_000)):
        with pytest.raises(Fault, match="this home has signed up to epoch 3, view 70") as refusal:
            take_in(tmp_path / "home", lower)
        assert refusal.value.reason is Trouble.BAD_PROTECTION
    assert take_in(tmp_path / "home", (4, 1))
    assert read_horizon(tmp_path / "home") == (4, 1)


METADATA = {"interchange_format": "quorate-protection", "interchange_format_version": "1", "chain_id": CHAIN.hex()}
ENTRY = {"node": NODE.hex(), "watermark": {"epoch": 3, "view": 70}}


@pytest.mark.parametrize(
    "content, told",
    [
        ("", "is no protection file"),
        ("[]", "is no protection file"),
        ({"metadata": METADATA, "data": []}, "is no protection file"),
        ({"metadata": METADATA, "data": [ENTRY], "more": 1}, "unknown field"),
        ({"metadata": METADATA, "data": [ENTRY | {"watermark": {"epoch": -1, "view": 0}}]}, "is no protection file"),
        ({"metadata": METADATA | {"interchange_format_version": "5"}, "data": [ENTRY]}, "expected the format"),
        ({"metadata": METADATA | {"chain_id": "00" * 32}, "data": [ENTRY]}, "is for the chain 0000"),
        ({"metadata": METADATA, "data": [ENTRY | {"node": "00" * 32}]}, "it is another key's"),
    ],
)
def test_a_file_that_is_not_this_key_s_on_this_chain_is_refused(tmp_path: Path, content: object, told: str) -> None:
    path = tmp_path / "protection.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    with pytest.raises(Fault, match=told) as refusal:
        read_protection(path, NODE, CHAIN)
    assert refusal.value.reason is Trouble.BAD_PROTECTION


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = create_home(tmp_path / "home")
    create_key(made.key, None)
    write_genesis(made.genesis, GENESIS)
    made.config.write_text("version = 1\n", "utf-8")
    return made


def test_the_commands_carry_a_bound_from_home_to_home(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, where = str(tmp_path / "protection.json"), ("--home", str(home.root), "--json")
    assert run_command(["ledger", "export-protection", "--out", file, *where]) == Exit.USAGE
    assert "there is no vote log" in json.loads(capsys.readouterr().out)["error"]["message"]
    opened = open_wal(home.votes, CHAIN)
    VoteLog(opened.wal, opened.records).raise_watermark((3, 70))
    opened.wal.close()
    assert run_command(["ledger", "export-protection", "--out", file, *where]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert (told["epoch"], told["view"]) == (3, 70)
    home.votes.unlink()
    assert run_command(["ledger", "import-protection", file, *where]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"node": told["node"], "epoch": 3, "view": 70, "raised": True}
    assert read_horizon(home.votes.parent) == (3, 70)


def test_a_home_that_lost_votes_exports_nothing(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_wal(home.votes, CHAIN)
    VoteLog(opened.wal, opened.records).permit(None)
    opened.wal.close()
    arguments = ["ledger", "export-protection", "--out", str(tmp_path / "x"), "--home", str(home.root), "--json"]
    assert run_command(arguments) == Exit.CONFIGURATION
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == Trouble.VOTES_LOST.value
    assert not (tmp_path / "x").exists()
