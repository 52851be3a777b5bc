"""Durable files, and what is said when a disk fails. Knows nothing of what the files mean."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.faults import Fault, Reason, Trouble


class StorageFailure(Fault):
    """The disk refused a write or a read. The node stops: after a failed sync nobody knows what is on the disk, so it is never retried."""

    def __init__(self, message: str, reason: Reason = Trouble.DISK, *, cure: str = "") -> None:
        super().__init__(reason, message, cure=cure)


class DamagedStorage(StorageFailure):
    """What is on the disk is not what was written there."""


class WrongChain(Fault):
    """A file that belongs to another chain."""

    def __init__(self, path: Path, expected: bytes, got: bytes) -> None:
        super().__init__(
            Trouble.WRONG_HOME,
            f"{path} belongs to chain {got.hex()[:16]}, but the genesis is chain {expected.hex()[:16]}",
        )


@dataclass(frozen=True, slots=True)
class DiskCalls:
    """The operating system's calls that make bytes durable; tests give others, to fail at a chosen one."""

    write: Callable[[int, bytes], int]
    fdatasync: Callable[[int], None]
    fsync: Callable[[int], None]
    replace: Callable[[Path, Path], None]


SYSTEM_DISK: Final = DiskCalls(os.write, os.fdatasync, os.fsync, os.replace)


def disk_fault(path: Path, error: OSError) -> StorageFailure:
    """The failure that an error of the operating system is."""
    said = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFailure(f"{path}: the disk is full ({said})", Trouble.DISK_FULL)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StorageFailure(f"{path}: this user may not read and write it ({said})", Trouble.PERMISSION)
    return StorageFailure(f"{path}: the disk failed ({said})")


def write_all(calls: DiskCalls, descriptor: int, content: bytes) -> None:
    """Write every byte; one system call may take only some of them."""
    rest = memoryview(content)
    while rest:
        rest = rest[calls.write(descriptor, bytes(rest)) :]


def sync_directory(path: Path, calls: DiskCalls = SYSTEM_DISK) -> None:
    """Make the names in a directory durable: a new or renamed file is lost in a power failure without it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        calls.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, mode: int = 0o644, calls: DiskCalls = SYSTEM_DISK) -> None:
    """Put a file in place whole and durable: after a crash there is the old one or the new one.

    Raises: StorageFailure.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            write_all(calls, descriptor, content)
            calls.fsync(descriptor)
        finally:
            os.close(descriptor)
        calls.replace(fresh, path)
        sync_directory(path.parent, calls)
    except OSError as error:
        raise disk_fault(path, error) from error


def create_file(path: Path, content: bytes, *, mode: int, calls: DiskCalls = SYSTEM_DISK) -> None:
    """Put a file where there is none, whole and durable. What is there already stays as it is.

    Raises: Fault(FILE_EXISTS); StorageFailure.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            write_all(calls, descriptor, content)
            calls.fsync(descriptor)
            os.link(fresh, path)  # unlike a rename, it refuses to replace
        finally:
            os.close(descriptor)
            fresh.unlink()
        sync_directory(path.parent, calls)
    except FileExistsError as error:
        raise Fault(
            Trouble.FILE_EXISTS, f"expected no file at {path}, but there is one; it was left as it is"
        ) from error
    except OSError as error:
        raise disk_fault(path, error) from error
