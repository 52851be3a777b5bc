"""Durable files, and what is said when a disk fails. Knows nothing of what the files mean."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final


class StorageFailure(Exception):
    """The disk refused a write or a read. The node stops: after a failed sync nobody knows what is on the disk, so it is never retried."""


class DamagedStorage(StorageFailure):
    """What is on the disk is not what was written there."""


class WrongChain(Exception):
    """A home directory that belongs to another chain."""


@dataclass(frozen=True, slots=True)
class DiskCalls:
    """The operating system's calls that make bytes durable; tests give others, to fail at a chosen one."""

    write: Callable[[int, bytes], int]
    fdatasync: Callable[[int], None]
    fsync: Callable[[int], None]
    replace: Callable[[Path, Path], None]


SYSTEM_DISK: Final = DiskCalls(os.write, os.fdatasync, os.fsync, os.replace)


def describe_disk_error(path: Path, error: OSError) -> str:
    """What failed on which file, and what the reader can do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"{path}: the disk is full ({error.strerror}); nothing that was acknowledged is lost: free some space and start the node again"
    return f"{path}: the disk failed ({error.strerror or error}); the node stops instead of retrying: check the disk, then start the node again"


def describe_wrong_chain(path: Path, expected: bytes, got: bytes) -> str:
    """Whose chain a file belongs to, and what to do about it."""
    return (
        f"{path} belongs to chain {got.hex()[:16]}, but this genesis is chain {expected.hex()[:16]}: "
        "give the genesis that this home was made with, or another --home"
    )


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
        raise StorageFailure(describe_disk_error(path, error)) from error
