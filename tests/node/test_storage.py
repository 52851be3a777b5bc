"""chain.db: whole blocks or none, through faults, full disks, cut logs and second opens."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from node.disk import DamagedStorage, StorageFailure, WrongChain
from node.faults import Trouble
from node.storage import (
    CHECKPOINT_BYTES,
    BlockCommit,
    FinalPoint,
    JobPlace,
    Storage,
    StoredAnswer,
    StoredBlock,
    StoredRequest,
    TransactionPlace,
    encode_stored_block,
    open_storage,
)
from node.stored import LogState
from protocol.block import Block, Header, compute_header_hash, compute_transactions_root
from protocol.units import ZERO_HASH

CHAIN = b"c" * 32
GENESIS = FinalPoint(0, b"g" * 32)
GENESIS_STATE = {b"a": b"0", b"b": b"0"}


def make_block(height: int, parent: bytes, certificate: bytes | None = None) -> StoredBlock:
    body = (b"transaction %d" % height,)
    header = Header(
        CHAIN, 1, ZERO_HASH, height + 3, height, height + 2, parent, compute_transactions_root(body), *[ZERO_HASH] * 6, height * 50
    )  # fmt: skip
    return encode_stored_block(Block(header, body), compute_header_hash(header), certificate)


def make_commit(block: StoredBlock, changed: Mapping[bytes, bytes | None]) -> BlockCommit:
    return BlockCommit(block, (transaction_id(block.height),), changed, (), (), block.height * 10)


def transaction_id(height: int) -> bytes:
    return b"%032d" % height


def make_chain(length: int) -> list[BlockCommit]:
    """Blocks whose state says, under `a`, at which height it is; every third has its own certificate."""
    commits: list[BlockCommit] = []
    parent = GENESIS.hash
    for height in range(1, length + 1):
        block = make_block(height, parent, b"certificate %d" % height if height % 3 == 0 else None)
        commits.append(make_commit(block, {b"a": b"%d" % height, b"new %d" % height: b"x" * 100, b"b": None}))
        parent = block.hash
    return commits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.db"


@pytest.fixture
def storage(path: Path) -> Iterator[Storage]:
    opened = open_storage(path, CHAIN)
    opened.store_genesis(GENESIS.hash, GENESIS_STATE)
    yield opened
    opened.close()


def test_a_new_database_has_no_final_block_before_the_genesis(path: Path) -> None:
    opened = open_storage(path, CHAIN)
    assert opened.get_final() is None
    opened.store_genesis(GENESIS.hash, GENESIS_STATE)
    assert opened.get_final() == GENESIS
    assert opened.load_state() == GENESIS_STATE
    opened.close()


def test_a_commit_is_there_after_reopening(path: Path, storage: Storage) -> None:
    commits = make_chain(5)
    for commit in commits:
        storage.commit_block(commit)
    storage.close()
    reopened = open_storage(path, CHAIN)
    assert reopened.get_final() == FinalPoint(5, commits[4].block.hash)
    assert reopened.log.get_position() == 50
    assert reopened.load_state() == {b"a": b"5", **{b"new %d" % height: b"x" * 100 for height in range(1, 6)}}
    assert reopened.get_block(2) == reopened.get_block_by_hash(commits[1].block.hash) == commits[1].block
    assert reopened.get_transaction(transaction_id(4)) == TransactionPlace(4, 0)
    reopened.close()


def test_a_block_comes_back_as_it_was_encoded(storage: Storage) -> None:
    commit = make_chain(1)[0]
    storage.commit_block(commit)
    found = storage.get_block(1)
    assert found is not None
    assert found.decode().body == (b"transaction 1",)
    assert compute_header_hash(found.decode().header) == found.hash


def test_what_is_not_there_is_none(storage: Storage) -> None:
    missing = b"?" * 32
    assert storage.get_block(1) is None
    assert storage.get_block_by_hash(missing) is None
    assert storage.get_transaction(missing) is None
    assert storage.get_certified_block(0) is None
    assert storage.get_last_certified_block() is None
    assert storage.get_job(missing) is None
    assert storage.get_certificate(missing) is None
    assert storage.get_request("r") is None
    assert storage.get_answer(missing) is None
    assert storage.get_output(missing) is None
    assert storage.get_range(1, 9, 1000) == ()


def test_a_range_stops_at_its_size_but_never_before_one_block(storage: Storage) -> None:
    commits = make_chain(6)
    storage.commit_blocks(commits)
    blocks = tuple(commit.block for commit in commits)
    two = sum(len(block.header) + len(block.body) for block in blocks[1:3])
    assert storage.get_range(2, 5, 10**6) == blocks[1:5]
    assert storage.get_range(2, 5, two) == blocks[1:3]
    assert storage.get_range(2, 5, two - 1) == blocks[1:2]
    assert storage.get_range(2, 5, 0) == blocks[1:2]
    assert storage.get_range(5, 99, 10**6) == blocks[4:]


def test_the_certificate_at_or_above_a_height_is_the_lowest(storage: Storage) -> None:
    storage.commit_blocks(make_chain(7))
    found = [storage.get_certified_block(height) for height in (1, 3, 4, 6, 7)]
    assert [None if block is None else block.height for block in found] == [3, 3, 6, 6, None]
    last = storage.get_last_certified_block()
    assert last is not None
    assert (last.height, last.certificate) == (6, b"certificate 6")


class Interrupted(Exception):
    """What happens in the middle of a commit."""


class Interrupting(Mapping[bytes, bytes | None]):
    """State changes that end in a fault after the first of them was written."""

    def __getitem__(self, key: bytes) -> bytes:
        return b"half"

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        raise Interrupted

    def __len__(self) -> int:
        return 2


def test_a_fault_within_a_commit_leaves_nothing_of_it(path: Path, storage: Storage) -> None:
    first, second = make_chain(2)
    storage.commit_block(first)
    before = storage.load_state()
    with pytest.raises(Interrupted):
        storage.commit_block(make_commit(second.block, Interrupting()))
    assert storage.load_state() == before
    assert storage.get_block(2) is None
    assert storage.get_final() == FinalPoint(1, first.block.hash)
    storage.commit_block(second)
    storage.close()
    reopened = open_storage(path, CHAIN)
    assert reopened.get_final() == FinalPoint(2, second.block.hash)
    reopened.close()


def test_blocks_committed_together_are_there_together_or_not_at_all(storage: Storage) -> None:
    first, second = make_chain(2)
    with pytest.raises(Interrupted):
        storage.commit_blocks([first, make_commit(second.block, Interrupting())])
    assert storage.get_final() == GENESIS
    assert storage.load_state() == GENESIS_STATE


KILLED_IN_A_COMMIT = """
import os, sys
from pathlib import Path
from tests.node.test_storage import CHAIN, Interrupting, make_chain, make_commit, open_storage

class Killing(Interrupting):
    def __iter__(self):
        yield b"a"
        os._exit(9)

storage = open_storage(Path(sys.argv[1]), CHAIN)
first, second = make_chain(2)
storage.commit_block(first)
storage.commit_block(make_commit(second.block, Killing()))
"""


def test_a_process_killed_within_a_commit_leaves_the_block_before_it(path: Path, storage: Storage) -> None:
    storage.close()
    command = [sys.executable, "-c", KILLED_IN_A_COMMIT, str(path)]
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, timeout=60, check=False)
    assert ended.returncode == 9
    reopened = open_storage(path, CHAIN)
    final = reopened.get_final()
    assert final is not None
    assert final.height == 1
    assert reopened.load_state()[b"a"] == b"1"
    reopened.close()


def test_a_log_cut_anywhere_gives_some_whole_height(path: Path, storage: Storage, tmp_path: Path) -> None:
    for commit in make_chain(4):
        storage.commit_block(commit)
    log = path.with_name("chain.db-wal").read_bytes()
    seen: set[int] = set()
    for size in range(0, len(log) + 1, 2063):
        copy = tmp_path / f"{size}.db"
        shutil.copyfile(path, copy)
        copy.with_name(f"{copy.name}-wal").write_bytes(log[:size])
        reopened = open_storage(copy, CHAIN)
        final = reopened.get_final()
        if final is not None:
            assert reopened.load_state()[b"a"] == b"%d" % final.height
            assert (reopened.get_block(final.height) is None) == (final.height == 0)
            assert reopened.get_block(final.height + 1) is None
            seen.add(final.height)
        reopened.close()
    assert {1, 2, 3} <= seen


def test_a_full_disk_is_named_and_what_was_committed_stays(path: Path) -> None:
    storage = open_storage(path, CHAIN, max_pages=40)
    storage.store_genesis(GENESIS.hash, GENESIS_STATE)
    committed: list[int] = []
    with pytest.raises(StorageFailure) as raised:
        commit_until_full(storage, committed)
    assert raised.value.reason is Trouble.DISK_FULL
    height = committed[-1]
    with pytest.raises(StorageFailure, match="closed after a failure"):
        storage.load_state()
    storage.close()
    reopened = open_storage(path, CHAIN)
    final = reopened.get_final()
    assert final is not None
    assert final.height == height
    assert reopened.load_state()[b"a"] == b"%d" % height
    reopened.close()


def commit_until_full(storage: Storage, committed: list[int]) -> None:
    for commit in make_chain(500):
        height = commit.block.height
        storage.commit_block(make_commit(commit.block, {b"a": b"%d" % height, commit.block.hash: b"x" * 2000}))
        committed.append(height)


def test_a_second_open_is_refused(path: Path, storage: Storage) -> None:
    assert storage.get_final() == GENESIS
    with pytest.raises(StorageFailure) as raised:
        open_storage(path, CHAIN)
    assert raised.value.reason is Trouble.HOME_LOCKED
    storage.commit_block(make_chain(1)[0])


def test_another_chain_is_refused_with_both_names(path: Path, storage: Storage) -> None:
    storage.close()
    with pytest.raises(WrongChain) as raised:
        open_storage(path, b"d" * 32)
    assert (b"c" * 8).hex() in raised.value.message
    assert (b"d" * 8).hex() in raised.value.message


@pytest.mark.parametrize("content", [b"no database at all" * 99, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedStorage, match=r"chain\.db"):
        open_storage(path, CHAIN)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE blocks SET body = x'91c40178' WHERE height = 2",
        "UPDATE blocks SET body = x'ff' WHERE height = 2",
        "UPDATE blocks SET hash = zeroblob(32) WHERE height = 2",
        "UPDATE blocks SET header = (SELECT header FROM blocks WHERE height = 1) WHERE height = 2",
        "DELETE FROM blocks WHERE height = 2",
        "DELETE FROM blocks WHERE height = 1",
        "DELETE FROM blocks",
    ],
)
def test_a_damaged_block_is_found_at_opening(path: Path, storage: Storage, change: str) -> None:
    storage.commit_blocks(make_chain(3))
    storage.close()
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(
        DamagedStorage, match="block [12]" if "FROM blocks" not in change or "WHERE" in change else "block 3"
    ):
        open_storage(path, CHAIN)


@pytest.mark.parametrize("version, lacking", [(1, ("chunks", "snapshots", "chain_steps")), (2, ("chain_steps",))])
def test_an_older_database_gets_the_tables_that_came_later(
    path: Path, storage: Storage, version: int, lacking: tuple[str, ...]
) -> None:
    storage.commit_block(make_chain(1)[0])
    storage.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(version),))
        for table in lacking:
            connection.execute(f"DROP TABLE {table}")
    connection.close()
    for _ in range(2):
        reopened = open_storage(path, CHAIN)
        assert reopened.get_final() == FinalPoint(1, make_chain(1)[0].block.hash)
        assert (reopened.snapshots.list_heights(), reopened.base_height) == ((), 1)
        assert reopened.get_steps(0, 1_000) == ()
        reopened.close()


def test_a_newer_schema_is_refused(path: Path, storage: Storage) -> None:
    storage.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '4' WHERE key = 'schema_version'")
    connection.close()
    with pytest.raises(StorageFailure, match="expected schema 3, got 4"):
        open_storage(path, CHAIN)


def test_the_log_is_moved_into_the_database_when_it_is_large(path: Path, storage: Storage) -> None:
    log = path.with_name("chain.db-wal")
    largest = 0
    for commit in make_chain(12):
        storage.commit_block(make_commit(commit.block, {commit.block.hash: b"x" * 1_000_000}))
        largest = max(largest, log.stat().st_size)
    assert largest <= CHECKPOINT_BYTES
    assert path.stat().st_size > 2 * CHECKPOINT_BYTES


def test_the_connection_is_durable_alone_and_checkpoints_only_when_told(storage: Storage) -> None:
    with storage._access() as connection:
        pragmas = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "locking_mode", "mmap_size")
        ]
    assert pragmas == ["wal", 2, 0, "exclusive", 0]
    assert storage.sqlite_version == sqlite3.sqlite_version


def test_a_gap_or_a_repeat_of_heights_is_our_own_fault(storage: Storage) -> None:
    first, second, third = make_chain(3)
    storage.commit_block(first)
    for wrong in (first, third):
        with pytest.raises(AssertionError):
            storage.commit_block(wrong)
    storage.commit_block(second)


def test_the_position_of_the_vote_log_never_goes_back(storage: Storage) -> None:
    first, second = make_chain(2)
    storage.commit_block(first)
    storage.commit_block(BlockCommit(second.block, (), {}, (), (), 0))
    assert storage.log.get_position() == first.wal_position


def test_only_the_vote_log_that_was_always_there_is_complete(storage: Storage) -> None:
    assert (
        storage.log.bind(b"own", 0) is LogState.UNKNOWN
    )  # new, as the database is, or all that is left of an older home
    assert storage.log.bind(b"own", 7) is LogState.UNKNOWN
    storage.log.trust()
    assert storage.log.bind(b"own", 7) is LogState.COMPLETE
    assert storage.log.bind(b"made anew before any block", 7) is LogState.BEHIND
    storage.commit_block(make_chain(1)[0])  # with the log at position 10
    assert storage.log.bind(b"own", 10) is LogState.COMPLETE
    assert storage.log.bind(b"own", 9) is LogState.BEHIND  # an older copy
    assert storage.log.bind(b"made anew", 99) is LogState.BEHIND  # grown past the old one while it followed


def test_a_vote_log_that_says_what_it_lacks_takes_the_place_of_the_one_before_it(storage: Storage) -> None:
    storage.log.bind(b"own", 0)
    storage.commit_block(make_chain(1)[0])
    storage.log.trust()
    storage.log.rebind(b"forked", 2)
    assert storage.log.bind(b"forked", 2) is LogState.COMPLETE
    assert storage.log.bind(b"forked", 1) is storage.log.bind(b"own", 10) is LogState.BEHIND


def test_no_vote_log_is_complete_that_comes_after_the_chain(storage: Storage) -> None:
    storage.commit_block(make_chain(1)[0])
    assert storage.log.bind(b"made anew", 99) is LogState.BEHIND


def test_changes_of_the_validators_are_kept_in_order_once_each_and_given_as_many_as_fit(storage: Storage) -> None:
    first = make_chain(1)[0]
    storage.commit_block(replace(first, step=b"of epoch 1"))  # which block 1 is in
    for epoch in (7, 4, 4):
        storage.add_step(epoch, b"of epoch %d" % epoch)
    assert storage.get_steps(0, 1_000) == (b"of epoch 1", b"of epoch 4", b"of epoch 7")
    assert storage.get_steps(2, 19) == (b"of epoch 4",)
    assert storage.get_steps(8, 1_000) == ()


def test_a_job_is_found_by_its_heights(storage: Storage) -> None:
    first, second, third = make_chain(3)
    storage.commit_block(BlockCommit(first.block, (), {}, (b"j" * 32, b"k" * 32), (), 0))
    storage.commit_block(BlockCommit(second.block, (), {}, (b"l" * 32,), (b"k" * 32,), 0))
    storage.commit_block(third)
    assert storage.get_job(b"j" * 32) == JobPlace(b"j" * 32, 1, None)
    assert storage.get_job(b"k" * 32) == JobPlace(b"k" * 32, 1, 2)
    assert [place.job[:1] for place in storage.get_newest_jobs(100, 2)] == [b"l", b"j"]
    assert [place.job[:1] for place in storage.get_newest_jobs(2, 9)] == [b"j", b"k"]


def test_a_repeated_request_stands_for_the_first_job(path: Path, storage: Storage) -> None:
    first = storage.store_request("request", b"j" * 32, b"signed")
    again = storage.store_request("request", b"k" * 32, b"other")
    assert first == again == StoredRequest(b"j" * 32, b"signed")
    storage.close()
    reopened = open_storage(path, CHAIN)
    assert reopened.get_request("request") == first
    reopened.close()


def test_the_first_answer_to_a_job_stays(path: Path, storage: Storage) -> None:
    first = StoredAnswer(b"j" * 32, b"payload", b"s" * 32, b"output")
    second = StoredAnswer(b"j" * 32, b"another", b"t" * 32, b"other output")
    assert storage.store_answer(first, b"h" * 32, 5) == first
    assert storage.store_answer(second, b"i" * 32, 6) == first
    storage.close()
    reopened = open_storage(path, CHAIN)
    assert reopened.get_answer(b"j" * 32) == first
    assert reopened.get_output(b"h" * 32) == b"output"
    assert reopened.get_output(b"i" * 32) is None
    reopened.close()


def test_an_abstention_stores_no_output(storage: Storage) -> None:
    storage.store_answer(StoredAnswer(b"j" * 32, b"abstained", b"s" * 32, b""), ZERO_HASH, 5)
    assert storage.get_output(ZERO_HASH) is None


def test_old_outputs_and_answers_are_dropped_and_newer_ones_kept(storage: Storage) -> None:
    storage.store_output(b"1" * 32, b"old", 4)
    storage.store_output(b"2" * 32, b"new", 5)
    storage.store_output(b"3" * 32, b"asked for again", 4)
    storage.store_output(b"3" * 32, b"asked for again", 6)
    storage.store_answer(StoredAnswer(b"j" * 32, b"p", b"s" * 32, b""), ZERO_HASH, 4)
    assert storage.drop_old(5) == 2
    assert storage.get_output(b"1" * 32) is None
    assert storage.get_answer(b"j" * 32) is None
    assert (storage.get_output(b"2" * 32), storage.get_output(b"3" * 32)) == (b"new", b"asked for again")


def test_the_first_certificate_of_a_job_stays(storage: Storage) -> None:
    storage.commit_blocks((), [(b"j" * 32, b"certificate")])
    storage.commit_blocks((), [(b"j" * 32, b"another")])
    assert storage.get_certificate(b"j" * 32) == b"certificate"
