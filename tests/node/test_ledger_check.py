"""`quorate ledger check` finds every kind of damage and names its height; `export` writes the state that the header commits to."""

from __future__ import annotations

import json
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from node.cli import run_command
from node.faults import Exit
from node.genesis_file import write_genesis
from node.home import Home, create_home
from node.join import JoinMode
from protocol.params import MINIMAL, UNIT
from protocol.transactions import Bond
from tests.node.harness import open_world
from tests.protocol.builders import make_genesis, make_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.harness import World

GENESIS = make_genesis(("v0", "v1", "v2", "v3"), params=replace(MINIMAL, idle_interval_ms=100))
SETTLED, JOINED = "v0", "v3"
PERIOD = MINIMAL.epoch_heights


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Homes of a chain with a job: one from the genesis on, one joined from a snapshot."""
    path = tmp_path_factory.mktemp("grown")

    async def grow() -> None:
        async with open_world(path, 4, GENESIS, running=3) as world:
            asker = world.nodes[0]
            job, _ = await asker.service.submit_job(make_request(commit_ms=2_000), None)
            await asker.wait_settled(job)
            await asker.send(Bond, 50 * UNIT)
            await asker.wait_height(asker.height + 3 * PERIOD)
            await join(world)
            await asker.send(Bond, 50 * UNIT)  # so that validators change both before and after it
            await world.wait_height(asker.height + 4 * PERIOD + 3)

    trio.run(grow, clock=trio.testing.MockClock(autojump_threshold=0))
    return path


async def join(world: World) -> None:
    newcomer = world.nodes[-1]
    newcomer.join = JoinMode.ALWAYS
    await world.start(newcomer)
    await newcomer.wait_height(world.nodes[0].height + 3)
    assert newcomer.parts.chain.base_height > 1


@pytest.fixture(params=[SETTLED, JOINED])
def home(grown: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Home:
    """A stopped node's home."""
    made = create_home(tmp_path / "home")
    write_genesis(made.genesis, GENESIS)
    made.config.write_text("version = 1\n")
    made.key.write_text("no node runs here\n")
    shutil.copy(grown / str(request.param) / "chain.db", made.database)
    return made


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = run_command([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def check(capsys: pytest.CaptureFixture[str], home: Home) -> tuple[int, dict[str, object]]:
    return run_json(capsys, "ledger", "check", "--home", str(home.root))


def flip(home: Home, table: str, column: str, where: str, offset: int = -1) -> None:
    """Change one bit of one value on the disk."""
    with sqlite3.connect(home.database) as connection:
        [(row, value)] = connection.execute(f"SELECT {column}, {column} FROM {table} WHERE {where}")
        wrong = bytearray(value)
        wrong[offset] ^= 1
        changed = connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (bytes(wrong),)).rowcount
        assert changed == 1 and row != bytes(wrong)
    connection.close()


def read(home: Home, query: str) -> int:
    with sqlite3.connect(home.database) as connection:
        [(value,)] = connection.execute(query)
    connection.close()
    return value


def test_a_whole_chain_is_whole(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, home)
    final, base = (read(home, f"SELECT {what}(height) FROM blocks") for what in ("max", "min"))
    assert code == Exit.OK
    assert (found["height"], found["base_height"], found["proven_height"]) == (final, base, final)
    assert found["state_from"] == (0 if base == 1 else read(home, "SELECT min(height) FROM snapshots"))
    assert run_command(["ledger", "check", "--home", str(home.root)]) == Exit.OK
    assert f"heights {base} to {final}" in capsys.readouterr().out


@pytest.mark.parametrize("column", ["header", "body", "hash", "certificate"])
def test_a_flipped_bit_in_a_block_is_found_at_its_height(
    home: Home, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT max(height) FROM blocks WHERE certificate IS NOT NULL AND height < (SELECT max(height) FROM blocks)"
    height = read(home, query)
    flip(home, "blocks", column, f"height = {height}")
    code, found = check(capsys, home)
    assert code == Exit.INVALID
    assert found["error"]["reason"] == "damaged_ledger"
    assert f"height {height}:" in found["error"]["message"]


def test_a_change_of_the_validators_that_is_missing_or_altered_is_found(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    epoch = read(home, "SELECT max(epoch) FROM chain_steps")
    assert read(home, "SELECT count(*) FROM chain_steps") == 2
    flip(home, "chain_steps", "step", f"epoch = {epoch}")
    code, found = check(capsys, home)
    assert code == Exit.INVALID and "changes of its validator set" in found["error"]["message"]
    with sqlite3.connect(home.database) as connection:
        connection.execute("DELETE FROM chain_steps WHERE epoch = ?", (epoch,))
    connection.close()
    code, found = check(capsys, home)
    assert code == Exit.INVALID
    assert f"height {(epoch + 1) * PERIOD}: the validator set that follows is not kept" in found["error"]["message"]


def test_a_boundary_without_its_certificate_is_found(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    height = read(home, f"SELECT max(height) FROM blocks WHERE height % {PERIOD} = 0")
    with sqlite3.connect(home.database) as connection:
        connection.execute("UPDATE blocks SET certificate = NULL WHERE height = ?", (height,))
    connection.close()
    code, found = check(capsys, home)
    assert code == Exit.INVALID
    assert f"height {height}: the last block of epoch {height // PERIOD - 1} has no" in found["error"]["message"]


def test_a_flipped_bit_in_the_state_is_found(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    flip(home, "state", "value", "key = (SELECT max(key) FROM state)")
    code, found = check(capsys, home)
    assert code == Exit.INVALID
    assert f"height {read(home, 'SELECT max(height) FROM blocks')}:" in found["error"]["message"]
    assert "1 entries of the state" in found["error"]["message"]
    assert run_command(["ledger", "export", "--home", str(home.root), "--out", "-"]) == Exit.INVALID


def test_a_flipped_bit_in_a_snapshot_and_a_missing_block_are_found(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    height = read(home, "SELECT max(height) FROM snapshots")
    flip(home, "chunks", "chunk", f"height = {height}", offset=500)
    code, found = check(capsys, home)
    assert code == Exit.INVALID and f"height {height}:" in found["error"]["message"]
    flip(home, "chunks", "chunk", f"height = {height}", offset=500)
    assert check(capsys, home)[0] == Exit.OK
    with sqlite3.connect(home.database) as connection:
        connection.execute("DELETE FROM blocks WHERE height = (SELECT max(height) - 1 FROM blocks)")
    connection.close()
    code, found = check(capsys, home)
    assert code == Exit.INVALID and "the block is missing" in found["error"]["message"]


def test_an_export_is_every_entry_under_the_root(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "state.jsonl"
    code, told = run_json(capsys, "ledger", "export", "--home", str(home.root), "--out", str(out))
    head, *lines = (json.loads(line) for line in out.read_text().splitlines())
    assert code == Exit.OK
    assert head["height"] == told["height"] == read(home, "SELECT max(height) FROM blocks")
    assert head["state_root"] == told["state_root"] and head["entries"] == len(lines) == told["entries"]
    assert [line["key"] for line in lines] == sorted(line["key"] for line in lines)
    [chain] = [line["value"] for line in lines if line["kind"] == "chain"]
    accounts = [line["value"] for line in lines if line["kind"] == "account"]
    held = sum(account["balance"] + account["bonded"] for account in accounts)
    assert held + chain["burned"] == chain["minted"]


def test_a_home_without_a_chain_says_so(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.database.unlink()
    code, found = check(capsys, home)
    assert code == Exit.USAGE and "there is no chain yet" in found["error"]["message"]
