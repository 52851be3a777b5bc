"""votes.wal: everything this node signed for consensus, on the disk before anybody hears of it (rule R10).

The file is a row of frames; a frame is one turn of the engine's loop, written by one write and made durable by one fdatasync:

    length u32 | kind u8 | position u64 | crc u32 of these | body: (length u32 | record)* | crc u32 of the body

The first frame is the header: format, chain id, lineage, salt. The lineage is drawn when a log is made, and positions count frames; both
go on across rotations, so that the ledger's file can tell another log, or an older copy, from the one it knows. The CRCs start from the segment's random salt, so no record can pose as a frame. CRC-32 of zlib and
not CRC-32C: both find every burst of up to 32 bits, and it needs no dependency.

A frame is written only after the one before it was synced. So what a crash can leave is one unfinished frame at the end: cut short, or
with sectors that read as zeros. That is cut off at opening: none of it was ever sent. Anything else is damage, and is named, never
dropped: a forgotten vote is a second vote.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from node.disk import (
    SYSTEM_DISK,
    DamagedStorage,
    DiskCalls,
    StorageFailure,
    WrongChain,
    disk_fault,
    replace_file,
    write_all,
)
from protocol.units import ChainId

WAL_FORMAT: Final = 1
MAX_FRAME_BYTES: Final = (
    64 * 1024 * 1024
)  # far above a loop turn's votes and one proposal; a bound on what a damaged length can ask for
_MAGIC: Final = b"QRWAL"
_SECTOR_BYTES: Final = 512  # what a disk writes whole or not at all
_TELLING_BYTES: Final = 8  # a frame ends in its CRC: that these are all zero by chance has a probability of 2^-32
_HEAD: Final = struct.Struct(">IBQ")
_CRC: Final = struct.Struct(">I")
_LENGTH: Final = struct.Struct(">I")
_HEADER_KIND: Final = 1
_RECORDS_KIND: Final = 2
_HEAD_BYTES: Final = _HEAD.size + _CRC.size
_FRAME_OVERHEAD: Final = _HEAD_BYTES + _CRC.size
_SALT_BYTES: Final = 4
_LINEAGE_BYTES: Final = 16
_HEADER_BODY_BYTES: Final = len(_MAGIC) + 1 + 32 + _LINEAGE_BYTES + _SALT_BYTES


@dataclass(frozen=True, slots=True)
class _Frame:
    kind: int
    position: int
    body: bytes
    end: int


@dataclass(frozen=True, slots=True)
class _Header:
    chain: ChainId
    lineage: bytes
    salt: int


@dataclass(frozen=True, slots=True)
class OpenedWal:
    """An open log and what was in it.

    `is_new` says that there was none: a node whose chain is older than that must not sign (rule R10).
    """

    wal: "VoteWal"
    records: tuple[bytes, ...]
    is_new: bool
    cut_bytes: int  # of an unfinished frame, which nobody had seen


class VoteWal:
    """The open log. After one failure every later call fails: what a failed sync left behind is unknown."""

    __slots__ = ("_calls", "_descriptor", "_failed", "_header", "_path", "_pending", "_position", "_size")

    def __init__(self, path: Path, calls: DiskCalls, header: _Header, position: int) -> None:
        self._path = path
        self._calls = calls
        self._header = header
        self._position = position
        self._pending: list[bytes] = []
        self._failed = False
        self._descriptor = _open_for_append(path)
        self._size = os.fstat(self._descriptor).st_size

    @property
    def position(self) -> int:
        """How many frames were ever made durable here; goes to the ledger's file with every block."""
        return self._position

    @property
    def lineage(self) -> bytes:
        """Which log this is: the same through all its segments, another for every log that was made anew."""
        return self._header.lineage

    @property
    def size_bytes(self) -> int:
        """How large the segment is, so that the engine knows when to rotate."""
        return self._size

    def append(self, records: Sequence[bytes]) -> None:
        """Take records into the current turn; nothing is durable before `sync`."""
        self._pending.extend(records)

    def sync(self) -> None:
        """Make everything appended durable: one write, one fdatasync. With nothing appended, nothing happens.

        Raises: StorageFailure, after which this log is closed to everything.
        """
        self._refuse_after_failure()
        if not self._pending:
            return
        frame = _encode_frame(self._header.salt, _RECORDS_KIND, self._position + 1, _encode_records(self._pending))
        try:
            write_all(self._calls, self._descriptor, frame)
            self._calls.fdatasync(self._descriptor)
        except OSError as error:
            self._failed = True
            raise disk_fault(self._path, error) from error
        self._position += 1
        self._size += len(frame)
        self._pending.clear()

    def rotate(self, keep: Sequence[bytes]) -> None:
        """Start a new segment with only these records; a crash leaves the old segment or the new one, whole.

        Raises: StorageFailure.
        """
        self.sync()
        self._start_segment(replace(self._header, salt=_new_salt()), keep)

    def fork(self, keep: Sequence[bytes]) -> None:
        """Go on as another log: this one was found to be behind, and must not pass for complete once it has grown.

        Raises: StorageFailure.
        """
        self.sync()
        self._start_segment(_Header(self._header.chain, os.urandom(_LINEAGE_BYTES), _new_salt()), keep)

    def _start_segment(self, header: _Header, keep: Sequence[bytes]) -> None:
        segment = _encode_segment(header, self._position + 1, keep)
        self._failed = True  # until the new segment is open
        replace_file(self._path, segment, mode=0o600, calls=self._calls)
        os.close(self._descriptor)
        self._descriptor = _open_for_append(self._path)
        self._header = header
        self._position += 2 if keep else 1
        self._size = len(segment)
        self._failed = False

    def close(self) -> None:
        """Give the file back; what was appended and not synced is forgotten, as nobody has seen it."""
        self._failed = True
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _refuse_after_failure(self) -> None:
        if self._failed:
            raise StorageFailure(f"{self._path} was closed after a failure, so that nothing unrecorded can be signed")


def open_wal(path: Path, chain: ChainId, calls: DiskCalls = SYSTEM_DISK) -> OpenedWal:
    """The log of this chain at this path, made if there is none, with an unfinished last frame cut off.

    Raises: StorageFailure; DamagedStorage where something that was synced can't be read; WrongChain.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _create_wal(path, chain, calls)
    except OSError as error:
        raise disk_fault(path, error) from error
    header = _check_header(path, chain, content)
    frames, good_bytes = _read_frames(path, content, header.salt)
    if good_bytes < len(content):
        _truncate(path, good_bytes, calls)
    records = tuple(
        record for frame in frames if frame.kind == _RECORDS_KIND for record in _decode_records(path, frame)
    )
    wal = VoteWal(path, calls, header, frames[-1].position)
    return OpenedWal(wal, records, is_new=False, cut_bytes=len(content) - good_bytes)


def _create_wal(path: Path, chain: ChainId, calls: DiskCalls) -> OpenedWal:
    header = _Header(chain, os.urandom(_LINEAGE_BYTES), _new_salt())
    replace_file(path, _encode_segment(header, 0, ()), mode=0o600, calls=calls)
    return OpenedWal(VoteWal(path, calls, header, 0), (), is_new=True, cut_bytes=0)


def _open_for_append(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise disk_fault(path, error) from error


def _truncate(path: Path, size: int, calls: DiskCalls) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(descriptor, size)
            calls.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise disk_fault(path, error) from error


def _check_header(path: Path, chain: ChainId, content: bytes) -> _Header:
    # The header frame was put in place by a rename after its sync, so it is never unfinished.
    start = _HEAD_BYTES
    body = content[start : start + _HEADER_BODY_BYTES]
    if len(body) < _HEADER_BODY_BYTES or not body.startswith(_MAGIC):
        raise _damage(path, 0, "expected the header of a vote log")
    salt = _CRC.unpack_from(body, _HEADER_BODY_BYTES - _SALT_BYTES)[0]
    if not isinstance(_read_frame(content, 0, salt), _Frame):
        raise _damage(path, 0, "the header's checksum is wrong")
    if body[len(_MAGIC)] != WAL_FORMAT:
        raise StorageFailure(
            f"{path}: expected vote log format {WAL_FORMAT}, got {body[len(_MAGIC)]}",
            cure="run the version of quorate that wrote it",
        )
    found = body[len(_MAGIC) + 1 : len(_MAGIC) + 33]
    if found != chain:
        raise WrongChain(path, chain, found)
    return _Header(chain, body[len(_MAGIC) + 33 : len(_MAGIC) + 33 + _LINEAGE_BYTES], salt)


def _read_frames(path: Path, content: bytes, salt: int) -> tuple[list[_Frame], int]:
    """The whole frames from the start, and how many bytes they are.

    Raises: DamagedStorage where what follows can't be an unfinished last frame.
    """
    frames: list[_Frame] = []
    offset = 0
    while offset < len(content):
        frame = _read_frame(content, offset, salt)
        if isinstance(frame, str):
            _check_unfinished(path, content, offset, salt, frame)
            break
        if frames and frame.position != frames[-1].position + 1:
            raise _damage(path, offset, f"expected frame {frames[-1].position + 1}, got frame {frame.position}")
        frames.append(frame)
        offset = frame.end
    return frames, offset


def _read_frame(content: bytes, offset: int, salt: int) -> _Frame | str:
    """The whole and sound frame at an offset, or what is wrong with it."""
    body_start = offset + _HEAD_BYTES
    if body_start > len(content):
        return "cut short"
    length, kind, position = _HEAD.unpack_from(content, offset)
    if _CRC.unpack_from(content, offset + _HEAD.size)[0] != zlib.crc32(content[offset : offset + _HEAD.size], salt):
        return "the frame head's checksum is wrong"
    body_end = body_start + length
    if body_end + _CRC.size > len(content):
        return "cut short"
    body = content[body_start:body_end]
    if _CRC.unpack_from(content, body_end)[0] != zlib.crc32(body, salt):
        return "the frame body's checksum is wrong"
    return _Frame(kind, position, body, body_end + _CRC.size)


def _check_unfinished(path: Path, content: bytes, offset: int, salt: int, fault: str) -> None:
    """Accept only what a crash within the last write can leave."""
    if fault != "cut short" and not _has_zero_sector(content, offset):
        raise _damage(path, offset, fault)
    # A sound frame behind it proves that this one had been synced.
    for later in range(offset + 1, len(content) - _FRAME_OVERHEAD + 1):
        if isinstance(_read_frame(content, later, salt), _Frame):
            raise _damage(path, offset, f"{fault}, and a sound frame follows at byte {later}")


def _has_zero_sector(content: bytes, offset: int) -> bool:
    """Whether a sector's part of the unfinished frame was never written. A part too small to tell does not count."""
    start = offset
    while start < len(content):
        end = min(len(content), (start // _SECTOR_BYTES + 1) * _SECTOR_BYTES)
        if end - start >= _TELLING_BYTES and not any(content[start:end]):
            return True
        start = end
    return False


def _damage(path: Path, offset: int, fault: str) -> DamagedStorage:
    return DamagedStorage(
        f"{path}: damaged at byte {offset} ({fault}), so votes that were sent may be forgotten, and this node must not sign",
        cure="restore the newest copy of the file; moved away, the node follows the chain without voting",
    )


def _encode_segment(header: _Header, position: int, records: Sequence[bytes]) -> bytes:
    body = _MAGIC + bytes((WAL_FORMAT,)) + header.chain + header.lineage + _CRC.pack(header.salt)
    first = _encode_frame(header.salt, _HEADER_KIND, position, body)
    if not records:
        return first
    # The kept records share the header's turn: one rename puts both in place.
    return first + _encode_frame(header.salt, _RECORDS_KIND, position + 1, _encode_records(records))


def _encode_frame(salt: int, kind: int, position: int, body: bytes) -> bytes:
    assert len(body) <= MAX_FRAME_BYTES, len(body)
    head = _HEAD.pack(len(body), kind, position)
    return head + _CRC.pack(zlib.crc32(head, salt)) + body + _CRC.pack(zlib.crc32(body, salt))


def _encode_records(records: Sequence[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(record)) + record for record in records)


def _decode_records(path: Path, frame: _Frame) -> list[bytes]:
    """A sound frame's records. Raises: DamagedStorage where their lengths do not add up to it: another program wrote this."""
    body, records, offset = frame.body, list[bytes](), 0
    while offset < len(body):
        start = offset + _LENGTH.size
        end = start + _LENGTH.unpack_from(body, offset)[0] if start <= len(body) else start
        if end > len(body):
            raise _damage(path, frame.end - _CRC.size - len(body) + offset, "a record is longer than its frame")
        records.append(body[start:end])
        offset = end
    return records


def _new_salt() -> int:
    return int.from_bytes(os.urandom(_SALT_BYTES), "big")
