"""Answers to what other nodes fetch: finalized blocks by height, bodies and certificates by name, outputs in chunks.

Everything here is read from storage or from the engine's frozen view; a request costs a bounded answer and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import Raw

from node.network import FetchRefused
from node.storage import Storage
from node.wire import (
    FETCH_REQUEST_CODEC,
    MAX_RANGE_BLOCKS,
    MAX_RANGE_LINKS,
    OUTPUT_CHUNK_BYTES,
    Body,
    Certs,
    FetchBlocks,
    FetchBody,
    FetchCert,
    FetchOutput,
    FetchSnapshot,
    FetchSnapshotChunk,
    OutputChunk,
    SnapshotChunk,
)
from protocol.block import MAX_BLOCK_BYTES, Block
from protocol.codec import Message, encode
from protocol.errors import InvalidMessage
from protocol.ordering.messages import QuorumCert
from protocol.units import Hash, NodeId, View

MAX_HEIGHT: Final = 2**62  # so that a height and a range fit the disk's integers


class RecentBlocks(Protocol):
    """What ordering holds above the finalized tip."""

    def get_block(self, block_hash: Hash) -> Block | None:
        """A block that is not final yet."""
        ...

    def get_certs(self, view: View) -> tuple[QuorumCert, ...]:
        """The certificates held for a view."""
        ...


class _StoredRange(Message, frozen=True):
    """A BlockRange made of the bytes as they lie on the disk: decoding them only to encode them again would cost the most."""

    blocks: tuple[Raw, ...]
    links: tuple[Raw, ...]
    final_cert: Raw | None
    base_height: int


class _StoredManifest(Message, frozen=True):
    """A Manifest, likewise."""

    block: Raw | None
    links: tuple[Raw, ...]
    final_cert: Raw | None


_NO_CHUNK: Final = encode(SnapshotChunk((), None))


@dataclass(slots=True)
class FetchServer:
    """Answers one request after the other; the network opens with it, before ordering does."""

    storage: Storage
    get_recent: Callable[[], RecentBlocks] | None = None

    async def answer(self, _node: NodeId, encoded: bytes) -> bytes:
        """The canonical bytes of the answer.

        Raises: FetchRefused where the request is malformed.
        """
        try:
            request = FETCH_REQUEST_CODEC.decode(encoded)
        except InvalidMessage as error:
            raise FetchRefused(str(error)) from error
        if self.get_recent is None:
            raise FetchRefused("this node is starting; ask again in a moment")
        recent = self.get_recent()
        match request:
            case FetchBlocks(start=start):
                return encode(self._read_range(start))
            case FetchBody(block_hash=block_hash):
                return encode(Body(self._find_block(recent, block_hash)))
            case FetchCert(view=view):
                return encode(Certs(recent.get_certs(view)))
            case FetchOutput(output_hash=output_hash, offset=offset):
                return encode(self._read_chunk(output_hash, offset))
            case FetchSnapshot():
                return encode(self._read_manifest())
            case FetchSnapshotChunk(height=height, first=first):
                return self.storage.snapshots.get_chunk(min(height, MAX_HEIGHT), first) or _NO_CHUNK

    def _read_range(self, start: int) -> _StoredRange:
        """Blocks from `start` up to one with a FinalCert, or tied to one by the headers between, as many as fit in one answer."""
        base = self.storage.base_height
        nothing = _StoredRange((), (), None, base)
        if start < 1 or start > MAX_HEIGHT:
            return nothing
        stored = self.storage.get_range(start, start + MAX_RANGE_BLOCKS - 1, MAX_BLOCK_BYTES)
        certified = [position for position, block in enumerate(stored) if block.certificate is not None]
        chosen = stored[: certified[-1] + 1] if certified else stored
        if not chosen:
            return nothing
        tie = self._tie_to_cert(chosen[-1].height)
        return nothing if tie is None else _StoredRange(tuple(Raw(block.encoded) for block in chosen), *tie, base)

    def _read_manifest(self) -> _StoredManifest:
        """The newest snapshot whose block a FinalCert proves already."""
        for height in self.storage.snapshots.list_heights():
            block, tie = self.storage.get_block(height), self._tie_to_cert(height)
            if block is not None and tie is not None:
                return _StoredManifest(Raw(block.encoded), *tie)
        return _StoredManifest(None, (), None)

    def _tie_to_cert(self, height: int) -> tuple[tuple[Raw, ...], Raw] | None:
        """The headers behind a block up to the first with a FinalCert, none where that is its own, and the FinalCert."""
        last = self.storage.get_certified_block(height)
        if last is None or last.certificate is None or last.height - height > MAX_RANGE_LINKS:
            return None
        links = self.storage.get_headers(height + 1, last.height)
        return tuple(Raw(link) for link in links), Raw(last.certificate)

    def _find_block(self, recent: RecentBlocks, block_hash: Hash) -> Block | None:
        block = recent.get_block(block_hash)
        if block is not None:
            return block
        stored = self.storage.get_block_by_hash(block_hash)
        return None if stored is None else stored.decode()

    def _read_chunk(self, output_hash: Hash, offset: int) -> OutputChunk:
        encoded = self.storage.get_output(output_hash)
        if encoded is None:
            return OutputChunk(0, b"")
        return OutputChunk(len(encoded), encoded[offset : offset + OUTPUT_CHUNK_BYTES])
