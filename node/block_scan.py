"""Whether final blocks lie on the disk as they were written: their hashes, links and bodies."""

import sqlite3
from pathlib import Path
from typing import Final

from node.database import REFETCH, read_meta, read_number
from node.disk import DamagedStorage
from node.stored import StoredBlock
from protocol.block import compute_header_hash, compute_transactions_root
from protocol.errors import InvalidMessage
from protocol.units import ChainId, Hash, Height

SCANNED_BLOCKS: Final = 512  # two snapshot periods: what a restarted node builds on
SELECT_BLOCK: Final = "SELECT height, hash, epoch, view, header, body, certificate FROM blocks "


def read_base_height(connection: sqlite3.Connection) -> Height:
    """The lowest block of this chain: 1, or that of the snapshot from which it was joined."""
    return read_number(connection, "base_height") or 1


def check_newest_blocks(path: Path, connection: sqlite3.Connection, chain: ChainId) -> None:
    """Accept a database whose newest blocks lead to its final one.

    Raises: DamagedStorage naming the block.
    """
    final = read_number(connection, "final_height")
    rows = connection.execute(
        SELECT_BLOCK + "WHERE height > ? ORDER BY height DESC",
        (final - SCANNED_BLOCKS,),
    )
    expected_hash = read_meta(connection, "final_hash")
    expected_height = final
    for row in rows:
        block = StoredBlock(*row)
        fault = find_block_fault(block, chain, expected_height, expected_hash)
        if fault:
            raise DamagedStorage(f"{path}: block {block.height} is damaged ({fault})", cure=REFETCH)
        expected_hash = block.decode().header.parent_hash
        expected_height -= 1
    below = read_base_height(connection) - 1 if final else 0
    if expected_height != max(below, final - SCANNED_BLOCKS):
        raise DamagedStorage(f"{path}: block {expected_height} is missing", cure=REFETCH)


def find_block_fault(block: StoredBlock, chain: ChainId, height: Height, hash_: Hash | None) -> str:
    """What is wrong with a stored block that should have this height and hash; empty where nothing is."""
    if block.height != height:
        return f"expected block {height} here"
    if block.hash != hash_:
        return "it is not the one its child names"
    try:
        decoded = block.decode()
    except InvalidMessage as error:
        return str(error)
    header = decoded.header
    if (header.height, header.chain_id) != (height, chain) or compute_header_hash(header) != block.hash:
        return "its header has another hash"
    if compute_transactions_root(decoded.body) != header.tx_root:
        return "its body is not the one that its header names"
    return ""
