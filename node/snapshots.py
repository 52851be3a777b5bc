"""Snapshots of the ledger's state (rule S2): made at every height that the protocol names, a chunk at a time between the engine's turns.

A state is an immutable value, so the blocks that follow change nothing under the writer's hands. A crash leaves a part that nobody is
served; the next snapshot replaces it.
"""

from collections.abc import Iterator
from typing import Final

import trio

from node.chain import Executed
from node.snapshot_store import SnapshotStore
from node.telemetry import Level, Telemetry
from node.wire import SNAPSHOT_CHUNK_BYTES, SnapshotChunk
from protocol.codec import encode
from protocol.ledger.draft import Ledger
from protocol.merkle_range import prove_range
from protocol.units import Height


class SnapshotWriter:
    """Writes the newest state that was offered; owned by the engine, at work in a task of its own."""

    def __init__(self, store: SnapshotStore, telemetry: Telemetry) -> None:
        self._store: Final = store
        self._telemetry: Final = telemetry
        self._offered: tuple[Height, Ledger] | None = None
        self._wake = trio.Event()

    def offer(self, height: Height, ledger: Ledger) -> None:
        """Have the state after this height kept if it is one that the protocol names; an older one that waits goes."""
        if height > 0 and height % ledger.constants.params.epoch_heights == 0:
            self._offered = height, ledger
            self._wake.set()

    def offer_tip(self, tip: Executed) -> None:
        """As `offer`, at a start: a crash may have come between the block and its snapshot."""
        self.offer(tip.header.height, tip.ledger)

    async def run(self) -> None:
        """Write until cancelled.

        Raises: StorageFailure.
        """
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            offered, self._offered = self._offered, None
            if offered is not None:
                await self._write(*offered)

    async def _write(self, height: Height, ledger: Ledger) -> None:
        if height in self._store.list_heights():
            return  # it was made before a restart, or joined from
        chunks = 0
        for first, stop, encoded in cut_chunks(ledger):
            self._store.put_chunk(height, first, stop, encoded)
            chunks += 1
            await trio.lowlevel.checkpoint()  # the engine's turns come between
        self._store.complete(height)
        self._telemetry.emit(
            Level.DEBUG, "snapshot_made", height=height, entries=len(ledger.entries), chunks=chunks, root=ledger.state_root
        )  # fmt: skip


def cut_chunks(ledger: Ledger) -> Iterator[tuple[int, int, bytes]]:
    """A state's chunks in order: index of the first entry, index behind the last, encoded with its proof."""
    keys, first, size = ledger.tree.keys, 0, 0
    for index, key in enumerate(keys):
        size += len(key) + len(ledger.entries[key])
        if size >= SNAPSHOT_CHUNK_BYTES or index == len(keys) - 1:
            entries = tuple((key, ledger.entries[key]) for key in keys[first : index + 1])
            yield first, index + 1, encode(SnapshotChunk(entries, prove_range(ledger.tree, first, index + 1)))
            first, size = index + 1, 0
