"""The tables of chain.db that hold snapshots: chunks by the index of their first entry, and which heights are whole.

A snapshot that this node makes and one that it fetches lie in the same form, so that what was fetched is served on at once.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from node.database import read_meta, write_meta
from protocol.units import Height

KEPT_SNAPSHOTS: Final = 2  # so that whoever began with the newest can still end when the next one is made
_JOINING: Final = "joining_manifest"

Access = Callable[[], AbstractContextManager[sqlite3.Connection]]


class SnapshotStore:
    """Snapshots on the disk; every method may raise StorageFailure, after which the node stops."""

    __slots__ = ("_access", "_transaction")

    def __init__(self, access: Access, transaction: Access) -> None:
        self._access: Final = access
        self._transaction: Final = transaction

    def list_heights(self) -> tuple[Height, ...]:
        """The heights of whole snapshots, newest first."""
        with self._access() as connection:
            return tuple(row[0] for row in connection.execute("SELECT height FROM snapshots ORDER BY height DESC"))

    def put_chunk(self, height: Height, first: int, stop: int, chunk: bytes) -> None:
        """Keep a chunk with the entries from index `first` up to `stop`."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO chunks VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (height, first, stop, chunk)
            )

    def get_chunk(self, height: Height, first: int) -> bytes | None:
        """The chunk of a whole snapshot that begins with this entry."""
        with self._access() as connection:
            row = connection.execute(
                "SELECT chunk FROM chunks JOIN snapshots USING (height) WHERE height = ? AND first = ?", (height, first)
            ).fetchone()
            return None if row is None else row[0]

    def load_chunks(self, height: Height) -> Iterator[bytes]:
        """The chunks of a height that are here, whole or not, in the order of their entries."""
        first = 0
        while True:
            with self._access() as connection:
                row = connection.execute(
                    "SELECT stop, chunk FROM chunks WHERE height = ? AND first = ?", (height, first)
                ).fetchone()
            if row is None:
                return
            yield row[1]
            first = row[0]

    def get_stop(self, height: Height) -> int:
        """Up to which entry the chunks of a height are here: they are kept in their order."""
        with self._access() as connection:
            row = connection.execute("SELECT max(stop) FROM chunks WHERE height = ?", (height,)).fetchone()
            return row[0] or 0

    def complete(self, height: Height) -> None:
        """This snapshot is whole: it is served from now on, and all but the newest ones go."""
        with self._transaction() as connection:
            complete_snapshot(connection, height)

    def begin_joining(self, manifest: bytes) -> None:
        """Keep which snapshot this node fetches, so that a restart goes on with it; what was fetched of another goes."""
        with self._transaction() as connection:
            if read_meta(connection, _JOINING) != manifest:
                write_meta(connection, _JOINING, manifest)
                connection.execute("DELETE FROM chunks WHERE height NOT IN (SELECT height FROM snapshots)")

    def get_joining(self) -> bytes | None:
        """The manifest of the snapshot that this node fetches, if it does."""
        with self._access() as connection:
            return read_meta(connection, _JOINING)

    def end_joining(self) -> None:
        """Forget the snapshot that could not be fetched."""
        with self._transaction() as connection:
            forget_joining(connection)
            connection.execute("DELETE FROM chunks WHERE height NOT IN (SELECT height FROM snapshots)")


def complete_snapshot(connection: sqlite3.Connection, height: Height) -> None:
    """As SnapshotStore.complete, inside a transaction."""
    connection.execute("INSERT INTO snapshots VALUES (?) ON CONFLICT DO NOTHING", (height,))
    connection.execute(
        "DELETE FROM snapshots WHERE height NOT IN (SELECT height FROM snapshots ORDER BY height DESC LIMIT ?)",
        (KEPT_SNAPSHOTS,),
    )
    connection.execute("DELETE FROM chunks WHERE height NOT IN (SELECT height FROM snapshots)")


def forget_joining(connection: sqlite3.Connection) -> None:
    """As the end of SnapshotStore.end_joining, inside a transaction."""
    connection.execute("DELETE FROM meta WHERE key = ?", (_JOINING,))
