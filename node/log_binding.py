"""What chain.db knows of the vote log beside it (rule R10): which one it is, how far it had come, and whether it was ever in doubt."""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from node.database import read_meta, read_number, write_meta
from node.stored import LogState

Access = Callable[[], AbstractContextManager[sqlite3.Connection]]


class LogBinding:
    """The known log; every method may raise StorageFailure, after which the node stops."""

    __slots__ = ("_access", "_transaction")

    def __init__(self, access: Access, transaction: Access) -> None:
        self._access: Final = access
        self._transaction: Final = transaction

    def get_position(self) -> int:
        """The highest position of the vote log at any commit; 0 before the first."""
        with self._access() as connection:
            return read_number(connection, "wal_position")

    def bind(self, lineage: bytes, position: int) -> LogState:
        """What is known of this log.

        The first log seen before any block is final becomes the known one; it stays in doubt until `trust`.
        """
        with self._transaction() as connection:
            known = read_meta(connection, "wal_lineage")
            if known is None and read_number(connection, "final_height") == 0:
                write_meta(connection, "wal_lineage", lineage)
                write_meta(connection, "wal_doubted", b"1")
                return LogState.UNKNOWN
            if known != lineage or position < read_number(connection, "wal_position"):
                return LogState.BEHIND
            return LogState.UNKNOWN if read_number(connection, "wal_doubted") else LogState.COMPLETE

    def rebind(self, lineage: bytes, position: int) -> None:
        """This log is the known one from now on: it says itself that votes before it were lost."""
        with self._transaction() as connection:
            write_meta(connection, "wal_lineage", lineage)
            write_meta(connection, "wal_position", str(position).encode())

    def trust(self) -> None:
        """Whatever the known log may lack, it says itself from when on it is to be followed."""
        with self._transaction() as connection:
            write_meta(connection, "wal_doubted", b"0")
