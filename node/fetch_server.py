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
    MAX_CHAIN_BYTES,
    MAX_CHAIN_STEPS,
    MAX_RANGE_BLOCKS,
    MAX_RANGE_LINKS,
    OUTPUT_CHUNK_BYTES,
    Addresses,
    Body,
    Certs,
    FetchAddresses,
    FetchBlocks,
    FetchBody,
    FetchCert,
    FetchChain,
    FetchOutput,
    FetchRecollection,
    FetchSnapshot,
    FetchSnapshotChunk,
    OutputChunk,
    Recollection,
    SnapshotChunk,
)
from protocol.block import MAX_BLOCK_BYTES, Block
from protocol.codec import Message, encode
from protocol.errors import InvalidMessage
from protocol.ordering.messages import QUORUM_CERT_CODEC, QuorumCert
from protocol.ordering.state import Context
from protocol.params import compute_boundary, compute_epoch
from protocol.units import Hash, NodeId, View

MAX_HEIGHT: Final = 2**62  # so that a height and a range fit the disk's integers


class RecentBlocks(Protocol):
    """What ordering holds above the finalized tip."""

    @property
    def context(self) -> Context:
        """The epoch it is in."""
        ...

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
    final_cert: Raw | None


class _StoredChain(Message, frozen=True):
    """A Chain, likewise."""

    steps: tuple[Raw, ...]


_NO_CHUNK: Final = encode(SnapshotChunk((), None))


@dataclass(slots=True)
class FetchServer:
    """Answers one request after the other; the network opens with it, before ordering does."""

    storage: Storage
    get_recent: Callable[[], RecentBlocks] | None = None
    recollect: Callable[[NodeId], Recollection] | None = None
    list_addresses: Callable[[], Addresses] | None = None

    async def answer(self, node: NodeId, encoded: bytes) -> bytes:
        """The canonical bytes of the answer.

        Raises: FetchRefused where the request is malformed.
        """
        try:
            request = FETCH_REQUEST_CODEC.decode(encoded)
        except InvalidMessage as error:
            raise FetchRefused(str(error)) from error
        if self.get_recent is None or self.recollect is None or self.list_addresses is None:
            raise FetchRefused("this node is starting; ask again in a moment")
        recent = self.get_recent()
        match request:
            case FetchBlocks(start=start):
                return encode(self._read_range(recent, start))
            case FetchBody(block_hash=block_hash):
                return encode(Body(self._find_block(recent, block_hash)))
            case FetchCert(epoch=epoch, view=view):
                return encode(Certs(self._find_certs(recent, epoch, view)))
            case FetchOutput(output_hash=output_hash, offset=offset):
                return encode(self._read_chunk(output_hash, offset))
            case FetchSnapshot():
                return encode(self._read_manifest())
            case FetchSnapshotChunk(height=height, first=first):
                return self.storage.snapshots.get_chunk(min(height, MAX_HEIGHT), first) or _NO_CHUNK
            case FetchChain(from_epoch=from_epoch):
                steps = self.storage.get_steps(from_epoch, MAX_CHAIN_BYTES)[:MAX_CHAIN_STEPS]
                return encode(_StoredChain(tuple(Raw(step) for step in steps)))
            case FetchRecollection():
                return encode(self.recollect(node))
            case FetchAddresses():
                return encode(self.list_addresses())

    def _find_certs(self, recent: RecentBlocks, epoch: int, view: View) -> tuple[QuorumCert, ...]:
        """What lets a view be left; an epoch that is over is left by its boundary's FinalCert."""
        context = recent.context
        if epoch >= context.epoch:
            return recent.get_certs(view) if epoch == context.epoch else ()
        boundary = self.storage.get_block(compute_boundary(context.params, epoch))
        if boundary is None or boundary.certificate is None:
            return ()
        return (QUORUM_CERT_CODEC.decode(boundary.certificate),)

    def _read_range(self, recent: RecentBlocks, start: int) -> _StoredRange:
        """Blocks from `start` up to one with a FinalCert, or tied to one by the headers between, as many as fit in one answer.

        All are of one epoch: one validator set proves them.
        """
        base = self.storage.base_height
        nothing = _StoredRange((), (), None, base)
        if start < 1 or start > MAX_HEIGHT:
            return nothing
        params = recent.context.params
        boundary = compute_boundary(params, compute_epoch(params, start))
        stored = self.storage.get_range(start, min(start + MAX_RANGE_BLOCKS - 1, boundary), MAX_BLOCK_BYTES)
        certified = [position for position, block in enumerate(stored) if block.certificate is not None]
        chosen = stored[: certified[-1] + 1] if certified else stored
        if not chosen:
            return nothing
        tie = self._tie_to_cert(chosen[-1].height)
        return nothing if tie is None else _StoredRange(tuple(Raw(block.encoded) for block in chosen), *tie, base)

    def _read_manifest(self) -> _StoredManifest:
        """The newest snapshot; its block is an epoch's last one, and has a FinalCert of its own."""
        for height in self.storage.snapshots.list_heights():
            block = self.storage.get_block(height)
            if block is not None and block.certificate is not None:
                return _StoredManifest(Raw(block.encoded), Raw(block.certificate))
        return _StoredManifest(None, None)

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
