"""votes.wal: what a crash, a flipped bit, a full disk and a rotation leave of it."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.disk import SYSTEM_DISK, DamagedStorage, DiskCalls, StorageFailure, WrongChain
from node.faults import Trouble
from node.wal import VoteWal, open_wal

CHAIN = b"c" * 32
TURNS = ([b"one", b""], [b"two" * 40], [b"three", b"four"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "votes.wal"


def write_turns(path: Path) -> list[int]:
    """A log with TURNS in it, and its size before each turn and at the end."""
    wal = open_wal(path, CHAIN).wal
    sizes = [wal.size_bytes]
    for turn in TURNS:
        wal.append(turn)
        wal.sync()
        sizes.append(wal.size_bytes)
    wal.close()
    return sizes


def read_records(path: Path) -> tuple[bytes, ...]:
    opened = open_wal(path, CHAIN)
    opened.wal.close()
    return opened.records


def fail_after(calls: int, error: int) -> DiskCalls:
    """A disk whose fdatasync works that many times, then never again."""
    left = [calls]

    def fdatasync(descriptor: int) -> None:
        if left[0] == 0:
            raise OSError(error, os.strerror(error))
        left[0] -= 1
        os.fdatasync(descriptor)

    return replace(SYSTEM_DISK, fdatasync=fdatasync)


def test_records_come_back_in_order(path: Path) -> None:
    write_turns(path)
    assert read_records(path) == (b"one", b"", b"two" * 40, b"three", b"four")


def test_a_first_log_says_that_it_is_new(path: Path) -> None:
    first = open_wal(path, CHAIN)
    first.wal.close()
    second = open_wal(path, CHAIN)
    second.wal.close()
    assert (first.is_new, second.is_new) == (True, False)


def test_what_was_appended_but_not_synced_is_not_there(path: Path) -> None:
    wal = open_wal(path, CHAIN).wal
    wal.append([b"unsynced"])
    wal.close()
    assert read_records(path) == ()


def test_one_turn_is_one_write_and_one_sync(path: Path) -> None:
    seen: list[str] = []

    def write(descriptor: int, content: bytes) -> int:
        seen.append("write")
        return os.write(descriptor, content)

    def fdatasync(descriptor: int) -> None:
        seen.append("sync")
        os.fdatasync(descriptor)

    open_wal(path, CHAIN).wal.close()
    wal = open_wal(path, CHAIN, replace(SYSTEM_DISK, write=write, fdatasync=fdatasync)).wal
    wal.append([b"a", b"b"])
    wal.append([b"c"])
    wal.sync()
    wal.sync()  # nothing appended since: nothing to do
    wal.close()
    assert seen == ["write", "sync"]


def test_a_tail_torn_at_any_byte_is_cut_off_and_nothing_else(path: Path) -> None:
    sizes = write_turns(path)
    content = path.read_bytes()
    for size in range(sizes[2], sizes[3]):
        path.write_bytes(content[:size])
        opened = open_wal(path, CHAIN)
        assert opened.records == (b"one", b"", b"two" * 40)
        assert opened.cut_bytes == size - sizes[2]
        assert path.stat().st_size == sizes[2]
        opened.wal.append([b"after"])
        opened.wal.sync()
        opened.wal.close()
        assert read_records(path) == (b"one", b"", b"two" * 40, b"after")


def test_a_sector_that_was_never_written_is_a_torn_tail(path: Path) -> None:
    sizes = write_turns(path)
    wal = open_wal(path, CHAIN).wal
    wal.append([b"x" * 3000])
    wal.sync()
    wal.close()
    content = bytearray(path.read_bytes())
    content[1024:1536] = bytes(512)
    path.write_bytes(content)
    assert len(read_records(path)) == 5
    assert path.stat().st_size == sizes[3]


def test_zeros_behind_the_last_frame_are_a_torn_tail(path: Path) -> None:
    write_turns(path)
    with path.open("ab") as file:
        file.write(bytes(700))
    assert len(read_records(path)) == 5


def test_any_flipped_bit_is_named_and_never_drops_a_vote(path: Path) -> None:
    write_turns(path)
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(StorageFailure) as raised:
            open_wal(path, CHAIN)
        assert isinstance(raised.value, DamagedStorage), position
        assert path.read_bytes() == damaged  # left as evidence


def test_a_synced_frame_that_reads_as_zeros_is_named_because_a_later_one_follows(path: Path) -> None:
    wal = open_wal(path, CHAIN).wal
    for _ in range(3):
        wal.append([b"x" * 2000])
        wal.sync()
    wal.close()
    content = bytearray(path.read_bytes())
    content[512:1024] = bytes(512)
    path.write_bytes(content)
    with pytest.raises(DamagedStorage, match="a sound frame follows"):
        open_wal(path, CHAIN)


def test_a_removed_frame_is_named(path: Path) -> None:
    sizes = write_turns(path)
    content = path.read_bytes()
    path.write_bytes(content[: sizes[1]] + content[sizes[2] :])
    with pytest.raises(DamagedStorage, match="expected frame 2, got frame 3"):
        open_wal(path, CHAIN)


@pytest.mark.parametrize("body", [b"\x00", b"\x00\x00\x00\x09short", b"\x00\x00\x00\x01x\xff\xff\xff\xff"])
def test_a_sound_frame_whose_records_do_not_add_up_is_named(
    path: Path, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.wal._encode_records", lambda _records: body)
    write_turns(path)
    with pytest.raises(DamagedStorage, match="longer than its frame"):
        open_wal(path, CHAIN)


def test_a_record_can_not_pose_as_a_frame(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wal"
    sizes = write_turns(other)
    frame = other.read_bytes()[
        sizes[1] : sizes[2]
    ]  # what a peer could put into a proposal, had it the salt of another log
    wal = open_wal(path, CHAIN).wal
    before = wal.size_bytes
    wal.append([frame, b"rest"])
    wal.sync()
    wal.close()
    path.write_bytes(path.read_bytes()[:-2])
    assert read_records(path) == ()
    assert path.stat().st_size == before


@given(turns=st.lists(st.lists(st.binary(max_size=50), min_size=1, max_size=3), max_size=5))
def test_every_list_of_records_comes_back(tmp_path_factory: pytest.TempPathFactory, turns: list[list[bytes]]) -> None:
    path = tmp_path_factory.mktemp("wal") / "votes.wal"
    wal = open_wal(path, CHAIN).wal
    for turn in turns:
        wal.append(turn)
        wal.sync()
    position = wal.position
    wal.close()
    opened = open_wal(path, CHAIN)
    opened.wal.close()
    assert opened.records == tuple(record for turn in turns for record in turn)
    assert opened.wal.position == position == len(turns)


@pytest.mark.parametrize("keep", [[], [b"kept", b"too"]])
def test_a_rotation_keeps_only_what_is_still_needed(path: Path, keep: list[bytes]) -> None:
    write_turns(path)
    wal = open_wal(path, CHAIN).wal
    wal.append([b"pending"])
    before = wal.position
    wal.rotate(keep)
    wal.append([b"after"])
    wal.sync()
    assert wal.size_bytes == path.stat().st_size
    wal.close()
    opened = open_wal(path, CHAIN)
    opened.wal.close()
    assert opened.records == (*keep, b"after")
    assert opened.wal.position == wal.position > before  # so that an old copy can be told from this log


def test_a_log_keeps_its_lineage_until_it_is_forked(path: Path, tmp_path: Path) -> None:
    wal = open_wal(path, CHAIN).wal
    other = open_wal(tmp_path / "other.wal", CHAIN).wal
    first = wal.lineage
    wal.rotate([b"kept"])
    assert wal.lineage == first != other.lineage
    wal.close()
    other.close()
    opened = open_wal(path, CHAIN)
    assert opened.wal.lineage == first
    opened.wal.fork(opened.records)
    forked = opened.wal.lineage
    opened.wal.close()
    again = open_wal(path, CHAIN)
    again.wal.close()
    assert (again.records, again.wal.lineage) == ((b"kept",), forked)
    assert forked != first


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_rotation_that_fails_leaves_the_old_segment_whole(path: Path, broken: str) -> None:
    write_turns(path)

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    wal = open_wal(path, CHAIN, replace(SYSTEM_DISK, **{broken: fail})).wal
    with pytest.raises(StorageFailure) as raised:
        wal.rotate([b"kept"])
    assert raised.value.reason is Trouble.DISK_FULL
    with pytest.raises(StorageFailure):
        wal.sync()
    wal.close()
    assert len(read_records(path)) == 5


@pytest.mark.parametrize("error, reason", [(errno.ENOSPC, Trouble.DISK_FULL), (errno.EIO, Trouble.DISK)])
def test_a_failed_sync_is_never_retried(path: Path, error: int, reason: Trouble) -> None:
    wal = open_wal(path, CHAIN, fail_after(1, error)).wal
    wal.append([b"durable"])
    wal.sync()
    wal.append([b"lost"])
    with pytest.raises(StorageFailure) as raised:
        wal.sync()
    assert raised.value.reason is reason
    wal.append([b"more"])
    for call in (wal.sync, lambda: wal.rotate([])):
        with pytest.raises(StorageFailure, match="closed after a failure"):
            call()
    wal.close()
    assert read_records(path)[0] == b"durable"


def test_a_disk_that_fills_up_within_a_frame_loses_only_what_nobody_saw(path: Path) -> None:
    written = [0]

    def write(descriptor: int, content: bytes) -> int:
        room = 200 - written[0]
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = os.write(descriptor, content[: min(room, 7)])  # and a few bytes at a time, as the system may
        written[0] += taken
        return taken

    open_wal(path, CHAIN).wal.close()
    wal = open_wal(path, CHAIN, replace(SYSTEM_DISK, write=write)).wal
    synced = fill(wal)
    wal.close()
    assert synced
    assert read_records(path) == tuple(synced)


def fill(wal: VoteWal) -> list[bytes]:
    """The records that were durable before the disk was full."""
    synced: list[bytes] = []
    while True:
        record = b"record %d" % len(synced)
        wal.append([record])
        try:
            wal.sync()
        except StorageFailure:
            return synced
        synced.append(record)


def test_the_log_of_another_chain_is_refused(path: Path) -> None:
    write_turns(path)
    with pytest.raises(WrongChain) as raised:
        open_wal(path, b"d" * 32)
    assert (b"c" * 8).hex() in raised.value.message
    assert (b"d" * 8).hex() in raised.value.message


@pytest.mark.parametrize("content", [b"", b"QR", b"something else entirely" * 9])
def test_a_file_that_is_no_log_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedStorage, match="header"):
        open_wal(path, CHAIN)


def test_only_the_owner_may_read_the_log(path: Path) -> None:
    write_turns(path)
    assert path.stat().st_mode & 0o777 == 0o600
