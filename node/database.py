"""How chain.db is opened: one connection, its pragmas, the schema, and what SQLite's errors mean. What lies in it is storage.py's.

Exactly one connection, in the thread that opened it, and nobody else's: every SQLite from 3.7.0 to 3.51.2 can corrupt a database in WAL
mode when two connections write or checkpoint at the same moment (the WAL-reset bug, fixed in 3.51.3). So: locking mode exclusive, no
automatic checkpoint, and no mmap. synchronous is FULL: a commit that returned survives a power failure.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from node.disk import DamagedStorage, StorageFailure, WrongChain
from node.faults import Trouble
from protocol.units import ChainId

SCHEMA_VERSION: Final = 3
# Not the whole folder: a validator without its votes.wal can't know what it signed.
REFETCH: Final = "move chain.db* away, keep votes.wal, and start again: the node then fetches the chain from its peers"

_SCHEMA: Final = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks(
    height INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, epoch INTEGER NOT NULL, view INTEGER NOT NULL,
    header BLOB NOT NULL, body BLOB NOT NULL, certificate BLOB);
CREATE INDEX certified ON blocks(height) WHERE certificate IS NOT NULL;
CREATE TABLE transactions(id BLOB PRIMARY KEY, height INTEGER NOT NULL, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE state(key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs(job BLOB PRIMARY KEY, submitted INTEGER NOT NULL, settled INTEGER) WITHOUT ROWID;
CREATE INDEX newest_jobs ON jobs(submitted);
CREATE TABLE certificates(job BLOB PRIMARY KEY, encoded BLOB NOT NULL);
CREATE TABLE requests(request TEXT PRIMARY KEY, job BLOB NOT NULL, tx BLOB NOT NULL);
CREATE TABLE answers(
    job BLOB PRIMARY KEY, height INTEGER NOT NULL, payload BLOB NOT NULL, salt BLOB NOT NULL, output BLOB NOT NULL);
CREATE INDEX oldest_answers ON answers(height);
CREATE TABLE outputs(hash BLOB PRIMARY KEY, height INTEGER NOT NULL, encoded BLOB NOT NULL);
CREATE INDEX oldest_outputs ON outputs(height);
"""
_SNAPSHOTS: Final = """
CREATE TABLE snapshots(height INTEGER PRIMARY KEY);
CREATE TABLE chunks(
    height INTEGER NOT NULL, first INTEGER NOT NULL, stop INTEGER NOT NULL, chunk BLOB NOT NULL,
    PRIMARY KEY (height, first));
"""
_STEPS: Final = """
CREATE TABLE chain_steps(epoch INTEGER PRIMARY KEY, step BLOB NOT NULL);
"""
_ADDED: Final = {1: _SNAPSHOTS + _STEPS, 2: _STEPS}  # to a database of this version


def open_database(path: Path, chain: ChainId, max_pages: int) -> sqlite3.Connection:
    """The one connection to this chain's database, made if there is none.

    Raises: StorageFailure; WrongChain.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    except sqlite3.DatabaseError as error:
        raise database_fault(path, error) from error
    try:
        _configure(connection, max_pages)
        _prepare_schema(path, connection, chain)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise database_fault(path, error) from error
    except (StorageFailure, WrongChain):
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything inside becomes durable together, or nothing does."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # something above raised: nothing of it may stay
            connection.execute("ROLLBACK")


def write_meta(connection: sqlite3.Connection, key: str, value: bytes) -> None:
    """Put a single value in the database."""
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", (key, value)
    )


def read_meta(connection: sqlite3.Connection, key: str) -> bytes | None:
    """A single value of the database, or None before it was written."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def read_number(connection: sqlite3.Connection, key: str) -> int:
    """A single number of the database; 0 before it was written."""
    return int(read_meta(connection, key) or b"0")


def database_fault(path: Path, error: sqlite3.DatabaseError) -> StorageFailure:
    """The failure that an error of SQLite is."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StorageFailure(f"{path}: the disk is full ({error})", Trouble.DISK_FULL)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StorageFailure(f"{path}: another process has this database open ({error})", Trouble.HOME_LOCKED)
        case sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_AUTH:
            return StorageFailure(f"{path}: this user may not write it ({error})", Trouble.PERMISSION)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DamagedStorage(f"{path}: the file is damaged ({error})", cure=REFETCH)
        case _:
            return StorageFailure(f"{path}: the disk failed ({error})")


def _configure(connection: sqlite3.Connection, max_pages: int) -> None:
    connection.execute(
        "PRAGMA locking_mode = EXCLUSIVE"
    )  # before the first access in WAL mode: then there is no shared memory either
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA trusted_schema = OFF")
    if max_pages:
        connection.execute(f"PRAGMA max_page_count = {max_pages:d}")


def _prepare_schema(path: Path, connection: sqlite3.Connection, chain: ChainId) -> None:
    with transaction(connection):
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            _run_script(connection, _SCHEMA + _SNAPSHOTS + _STEPS)
            write_meta(connection, "schema_version", str(SCHEMA_VERSION).encode())
            write_meta(connection, "chain_id", chain)
        elif (found := read_number(connection, "schema_version")) in _ADDED:
            _run_script(connection, _ADDED[found])
            write_meta(connection, "schema_version", str(SCHEMA_VERSION).encode())
        version = read_number(connection, "schema_version")
        if version != SCHEMA_VERSION:
            raise StorageFailure(
                f"{path}: expected schema {SCHEMA_VERSION}, got {version}",
                cure="run the version of quorate that made it",
            )
        known = read_meta(connection, "chain_id") or b""
        if known != chain:
            raise WrongChain(path, chain, known)
        write_meta(connection, "sqlite_version", sqlite3.sqlite_version.encode())


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        connection.execute(statement)
