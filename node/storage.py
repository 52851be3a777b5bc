"""chain.db: the final chain and the ledger's state after it, in SQLite; one transaction for each final block.

How the one connection is opened, and why there is only one, is database.py's. Checkpoints happen only here, after a commit. What is read
back was checked when it was written; opening checks the newest blocks' hashes and links again.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from node.block_scan import SELECT_BLOCK, check_newest_blocks, read_base_height
from node.database import database_fault, open_database, read_meta, read_number, transaction, write_meta
from node.disk import DamagedStorage, StorageFailure
from node.log_binding import LogBinding
from node.snapshot_store import SnapshotStore, complete_snapshot, forget_joining
from node.stored import (
    BlockCommit,
    FinalPoint,
    InstalledSnapshot,
    JobPlace,
    StoredAnswer,
    StoredBlock,
    StoredRequest,
    TransactionPlace,
    encode_stored_block,
)
from protocol.units import ChainId, Epoch, Hash, Height, JobId

__all__ = [
    "BlockCommit",
    "FinalPoint",
    "JobPlace",
    "Storage",
    "StoredAnswer",
    "StoredBlock",
    "StoredRequest",
    "TransactionPlace",
    "encode_stored_block",
    "open_storage",
]

# A checkpoint of this much takes tens of milliseconds, and comes once in hundreds of blocks.
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024


class Storage:
    """The open database. Belongs to the thread that opened it; every method may raise StorageFailure, after which the node stops."""

    __slots__ = ("_connection", "_failed", "_path", "base_height", "log", "snapshots", "sqlite_version")

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._failed = False
        self.sqlite_version: Final = sqlite3.sqlite_version
        self.snapshots: Final = SnapshotStore(self._access, self._transaction)
        self.log: Final = LogBinding(self._access, self._transaction)
        self.base_height = read_base_height(connection)  # the lowest block that is here, or will be

    # Chain

    def get_final(self) -> FinalPoint | None:
        """The newest final block, or None in a home where `store_genesis` has not run."""
        with self._access():
            hash_ = read_meta(self._connection, "final_hash")
            return None if hash_ is None else FinalPoint(read_number(self._connection, "final_height"), hash_)

    def store_genesis(self, genesis_hash: Hash, state: Mapping[bytes, bytes]) -> None:
        """Put the first state in an empty database, as height 0."""
        with self._transaction() as connection:
            assert read_meta(connection, "final_hash") is None, "the genesis is already there"
            connection.executemany("INSERT INTO state VALUES (?, ?)", state.items())
            _write_final(connection, 0, genesis_hash, 0)

    def commit_block(self, commit: BlockCommit) -> None:
        """Make one final block and all that it changes durable, or none of it."""
        self.commit_blocks((commit,))

    def commit_blocks(self, commits: Sequence[BlockCommit], certificates: Iterable[tuple[JobId, bytes]] = ()) -> None:
        """Make consecutive final blocks durable in one transaction, with the certificates of the jobs they settled."""
        with self._transaction() as connection:
            for commit in commits:
                _insert_block(connection, commit)
            # For good: the state that they are proved from is not kept.
            connection.executemany("INSERT INTO certificates VALUES (?, ?) ON CONFLICT DO NOTHING", certificates)
        self._checkpoint_when_large()

    def install_snapshot(self, snapshot: InstalledSnapshot) -> None:
        """Begin the chain anew with this block and the state after it, whose chunks are here; what was below it goes."""
        block = snapshot.block
        with self._transaction() as connection:
            for table in ("blocks", "transactions", "state", "jobs"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
            _insert_block_row(connection, block, snapshot.transactions)
            connection.executemany("INSERT INTO state VALUES (?, ?)", snapshot.state.items())
            connection.executemany(
                "INSERT INTO jobs VALUES (?, ?, ?)", [(job.job, job.submitted, job.settled) for job in snapshot.jobs]
            )
            _insert_step(connection, block.epoch, snapshot.step)
            write_meta(connection, "base_height", str(block.height).encode())
            _write_final(connection, block.height, block.hash, snapshot.wal_position)
            complete_snapshot(connection, block.height)
            forget_joining(connection)
        self.base_height = block.height
        self._checkpoint_when_large()

    def get_block(self, height: Height) -> StoredBlock | None:
        """The final block at a height, if it is here."""
        return self._get_block(SELECT_BLOCK + "WHERE height = ?", height)

    def get_block_by_hash(self, hash_: Hash) -> StoredBlock | None:
        """The final block with a hash, if it is here."""
        return self._get_block(SELECT_BLOCK + "WHERE hash = ?", hash_)

    def get_range(self, first: Height, last: Height, max_bytes: int) -> tuple[StoredBlock, ...]:
        """The final blocks from first to last, as many as fit, and at least one where there is one. Units: max_bytes of header and body."""
        found: list[StoredBlock] = []
        taken = 0
        with self._access() as connection:
            rows = connection.execute(SELECT_BLOCK + "WHERE height BETWEEN ? AND ? ORDER BY height", (first, last))
            for row in rows:
                block = StoredBlock(*row)
                taken += len(block.header) + len(block.body)
                if found and taken > max_bytes:
                    break
                found.append(block)
            rows.close()
        return tuple(found)

    def get_headers(self, first: Height, last: Height) -> tuple[bytes, ...]:
        """The encoded headers of the final blocks from first to last."""
        with self._access() as connection:
            rows = connection.execute(
                "SELECT header FROM blocks WHERE height BETWEEN ? AND ? ORDER BY height", (first, last)
            )
            return tuple(row[0] for row in rows)

    def get_certified_block(self, at_or_above: Height) -> StoredBlock | None:
        """The lowest block at or above a height that has its own FinalCert: it makes all below it final too."""
        return self._get_block(
            SELECT_BLOCK + "WHERE certificate IS NOT NULL AND height >= ? ORDER BY height LIMIT 1",
            at_or_above,
        )

    def get_last_certified_block(self) -> StoredBlock | None:
        """The highest block that has its own FinalCert."""
        return self._get_block(
            SELECT_BLOCK + "WHERE certificate IS NOT NULL AND height <= ? ORDER BY height DESC LIMIT 1",
            2**63 - 1,
        )

    def get_steps(self, from_epoch: Epoch, max_bytes: int) -> tuple[bytes, ...]:
        """The changes of the validator set at the end of this epoch and later ones, ascending, as many as fit."""
        found: list[bytes] = []
        with self._access() as connection:
            rows = connection.execute("SELECT step FROM chain_steps WHERE epoch >= ? ORDER BY epoch", (from_epoch,))
            for (step,) in rows:
                max_bytes -= len(step)
                if max_bytes < 0:
                    break
                found.append(step)
            rows.close()
        return tuple(found)

    def get_step_before(self, epoch: Epoch) -> bytes | None:
        """The change that led to the validator set of an epoch; None where it is the genesis'."""
        return self._get_bytes("SELECT step FROM chain_steps WHERE epoch < ? ORDER BY epoch DESC LIMIT 1", epoch)

    def add_step(self, epoch: Epoch, step: bytes) -> None:
        """Keep a change of the validator set that was proven, though the chain here has not come so far."""
        with self._transaction() as connection:
            _insert_step(connection, epoch, step)

    def get_newest_certificates(self, limit: int) -> tuple[bytes, ...]:
        """The FinalCerts of the newest blocks that have one, newest first."""
        with self._access() as connection:
            rows = connection.execute(
                "SELECT certificate FROM blocks WHERE certificate IS NOT NULL ORDER BY height DESC LIMIT ?", (limit,)
            )
            return tuple(row[0] for row in rows)

    def get_transaction(self, transaction: Hash) -> TransactionPlace | None:
        """Where a transaction became final, if it did."""
        with self._access() as connection:
            row = connection.execute(
                "SELECT height, position FROM transactions WHERE id = ?", (transaction,)
            ).fetchone()
            return None if row is None else TransactionPlace(*row)

    def load_state(self) -> dict[bytes, bytes]:
        """Every entry of the ledger's state after the newest final block; the caller compares its root with the header's."""
        with self._access() as connection:
            return dict(connection.execute("SELECT key, value FROM state"))

    # Jobs

    def get_job(self, job: JobId) -> JobPlace | None:
        """When a job was submitted and settled, if it was."""
        with self._access() as connection:
            row = connection.execute("SELECT job, submitted, settled FROM jobs WHERE job = ?", (job,)).fetchone()
            return None if row is None else JobPlace(*row)

    def get_newest_jobs(self, below: Height, limit: int) -> tuple[JobPlace, ...]:
        """Jobs submitted below a height, newest first."""
        with self._access() as connection:
            rows = connection.execute(
                "SELECT job, submitted, settled FROM jobs WHERE submitted < ? ORDER BY submitted DESC, job LIMIT ?",
                (below, limit),
            )
            return tuple(JobPlace(*row) for row in rows)

    def get_certificate(self, job: JobId) -> bytes | None:
        """A settled job's certificate, if it is here."""
        return self._get_bytes("SELECT encoded FROM certificates WHERE job = ?", job)

    def store_request(self, request: str, job: JobId, transaction: bytes) -> StoredRequest:
        """What this request id stands for from now on: what is given, unless it already stands for something."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO requests VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (request, job, transaction)
            )
            row = connection.execute("SELECT job, tx FROM requests WHERE request = ?", (request,)).fetchone()
            return StoredRequest(*row)

    def get_request(self, request: str) -> StoredRequest | None:
        """What a request id stands for, if it was seen."""
        with self._access() as connection:
            row = connection.execute("SELECT job, tx FROM requests WHERE request = ?", (request,)).fetchone()
            return None if row is None else StoredRequest(*row)

    def replace_request(self, request: str, job: JobId, transaction: bytes) -> None:
        """Let a request id stand for another job: the one it stood for can never be in a block."""
        with self._transaction() as connection:
            connection.execute("UPDATE requests SET job = ?, tx = ? WHERE request = ?", (job, transaction, request))

    def list_open_requests(self) -> tuple[bytes, ...]:
        """The encoded transactions of all requests that are in no final block, in the order they came."""
        with self._access() as connection:
            rows = connection.execute(
                "SELECT tx FROM requests WHERE job NOT IN (SELECT id FROM transactions) ORDER BY requests.rowid"
            )
            return tuple(row[0] for row in rows)

    # Answers

    def store_answer(self, answer: StoredAnswer, output_hash: Hash, height: Height) -> StoredAnswer:
        """This node's answer to a job from now on, durable: the one given, unless one is there already.

        Two different answers would be two commitments, of which only one can be opened.
        """
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (answer.job, height, answer.payload, answer.salt, answer.output),
            )
            row = connection.execute(
                "SELECT job, payload, salt, output FROM answers WHERE job = ?", (answer.job,)
            ).fetchone()
            kept = StoredAnswer(*row)
            if kept == answer and answer.output:
                _insert_output(connection, output_hash, answer.output, height)
            return kept

    def get_answer(self, job: JobId) -> StoredAnswer | None:
        """This node's own answer to a job, if it made one."""
        with self._access() as connection:
            row = connection.execute("SELECT job, payload, salt, output FROM answers WHERE job = ?", (job,)).fetchone()
            return None if row is None else StoredAnswer(*row)

    def store_output(self, output_hash: Hash, encoded: bytes, height: Height) -> None:
        """Keep an output to serve it; it was checked against its hash. `height`: now, for `drop_old`."""
        with self._transaction() as connection:
            _insert_output(connection, output_hash, encoded, height)

    def get_output(self, output_hash: Hash) -> bytes | None:
        """An output by its hash, if it is still here."""
        return self._get_bytes("SELECT encoded FROM outputs WHERE hash = ?", output_hash)

    def drop_old(self, below: Height) -> int:
        """How many outputs and own answers from below a height were dropped; members serve them for two snapshot periods."""
        with self._transaction() as connection:
            dropped = connection.execute("DELETE FROM outputs WHERE height < ?", (below,)).rowcount
            return dropped + connection.execute("DELETE FROM answers WHERE height < ?", (below,)).rowcount

    # The file

    def checkpoint(self) -> None:
        """Move what was committed from SQLite's log into the database file."""
        with self._access() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Checkpoint and give the file back; after a failure only the latter."""
        if not self._failed:
            self.checkpoint()
            self._failed = True
        self._connection.close()

    def _checkpoint_when_large(self) -> None:
        log = self._path.with_name(self._path.name + "-wal")
        if log.stat().st_size > CHECKPOINT_BYTES:
            self.checkpoint()

    def _get_block(self, query: str, argument: int | bytes) -> StoredBlock | None:
        with self._access() as connection:
            row = connection.execute(query, (argument,)).fetchone()
            return None if row is None else StoredBlock(*row)

    def _get_bytes(self, query: str, argument: bytes | int) -> bytes | None:
        with self._access() as connection:
            row = connection.execute(query, (argument,)).fetchone()
            return None if row is None else row[0]

    @contextmanager
    def _access(self) -> Iterator[sqlite3.Connection]:
        if self._failed:
            raise StorageFailure(f"{self._path} was closed after a failure, so that nothing unrecorded can be sent")
        try:
            yield self._connection
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # our own fault, not the disk's
        except sqlite3.DatabaseError as error:
            self._failed = True
            raise database_fault(self._path, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._access() as connection, transaction(connection):
            yield connection


def open_storage(path: Path, chain: ChainId, max_pages: int = 0) -> Storage:
    """The final chain at this path, made if there is none, its newest blocks checked.

    Units: pages of 4 KiB; 0 is SQLite's own limit.
    Raises: StorageFailure; DamagedStorage; WrongChain.
    """
    connection = open_database(path, chain, max_pages)
    try:
        check_newest_blocks(path, connection, chain)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise database_fault(path, error) from error
    except DamagedStorage:
        connection.close()
        raise
    return Storage(path, connection)


def _insert_block(connection: sqlite3.Connection, commit: BlockCommit) -> None:
    block = commit.block
    final = read_number(connection, "final_height")
    assert block.height == final + 1, (block.height, final)
    assert read_meta(connection, "final_hash") is not None, "store_genesis comes first"
    _insert_block_row(connection, block, commit.transactions)
    for key, value in commit.changed.items():
        if value is None:
            connection.execute("DELETE FROM state WHERE key = ?", (key,))
        else:
            connection.execute(
                "INSERT INTO state VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", (key, value)
            )
    _insert_step(connection, block.epoch, commit.step)
    connection.executemany("INSERT INTO jobs VALUES (?, ?, NULL)", [(job, block.height) for job in commit.submitted])
    connection.executemany("UPDATE jobs SET settled = ? WHERE job = ?", [(block.height, job) for job in commit.settled])
    _write_final(connection, block.height, block.hash, commit.wal_position)


def _insert_block_row(connection: sqlite3.Connection, block: StoredBlock, transactions: Sequence[Hash]) -> None:
    connection.execute(
        "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)",
        (block.height, block.hash, block.epoch, block.view, block.header, block.body, block.certificate),
    )
    connection.executemany(
        "INSERT INTO transactions VALUES (?, ?, ?)",
        [(transaction, block.height, position) for position, transaction in enumerate(transactions)],
    )


def _insert_step(connection: sqlite3.Connection, epoch: Epoch, step: bytes | None) -> None:
    if step is not None:  # two of an epoch differ in their signatures only
        connection.execute("INSERT INTO chain_steps VALUES (?, ?) ON CONFLICT DO NOTHING", (epoch, step))


def _insert_output(connection: sqlite3.Connection, output_hash: Hash, encoded: bytes, height: Height) -> None:
    # Asked for again, it is kept from now on again.
    connection.execute(
        "INSERT INTO outputs VALUES (?, ?, ?) ON CONFLICT(hash) DO UPDATE SET height = max(height, excluded.height)",
        (output_hash, height, encoded),
    )


def _write_final(connection: sqlite3.Connection, height: Height, hash_: Hash, wal_position: int) -> None:
    write_meta(connection, "final_height", str(height).encode())
    write_meta(connection, "final_hash", hash_)
    # Never back: a node that lost its log follows with an empty one, and must not take that for its own at the next start.
    position = max(wal_position, read_number(connection, "wal_position"))
    write_meta(connection, "wal_position", str(position).encode())
