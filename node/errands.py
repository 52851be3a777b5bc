"""What the node does for its engine in tasks of their own: fetches over the network, whose results come back as events.

Each errand has a deadline and a bounded answer; what is wrong with an answer is charged to the peer that gave it.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import trio

from node.events import BlockFetched, CertsFetched, FetchFailed, NodeEvent, RangeFetched
from node.network import FetchError, Network
from node.telemetry import Level, Telemetry
from node.wire import (
    BLOCK_RANGE_CODEC,
    BODY_CODEC,
    CERTS_CODEC,
    OUTPUT_CHUNK_CODEC,
    FetchBlocks,
    FetchBody,
    FetchCert,
    FetchOutput,
    FetchRequest,
)
from protocol.block import compute_header_hash
from protocol.codec import encode
from protocol.errors import InvalidMessage, Rejection
from protocol.models import MAX_OUTPUT_BYTES, OUTPUT_CODEC, Output, compute_output_hash
from protocol.units import Hash, Height, NodeId, View

FETCH_TIMEOUT_S: Final = 5.0
MAX_ERRANDS: Final = 64  # more at once would only wait for each other


class Errands:
    """The running fetches of one node."""

    def __init__(
        self, network: Network, nursery: trio.Nursery, events: trio.MemorySendChannel[NodeEvent], telemetry: Telemetry
    ) -> None:
        self._network: Final = network
        self._nursery: Final = nursery
        self._events: Final = events
        self._telemetry: Final = telemetry
        self._running = 0

    def charge(self, peer: NodeId, reason: str, text: str) -> None:
        """Note that this peer sent what no honest node sends."""
        self._telemetry.emit(Level.WARNING, "peer_charged", peer=peer, reason=reason, text=text)

    def fetch_block(self, block_hash: Hash, peers: tuple[NodeId, ...]) -> None:
        """Get a body from one of these peers; a BlockFetched follows if one has it."""
        self._start(partial(self._fetch_block, block_hash, peers))

    def fetch_certs(self, views: tuple[View, ...], peers: tuple[NodeId, ...]) -> None:
        """Get certificates of these views; each answer becomes a CertsFetched."""
        self._start(partial(self._fetch_certs, views, peers))

    def fetch_range(self, start: Height, peer: NodeId) -> None:
        """Get finalized blocks; a RangeFetched or a FetchFailed follows."""
        self._nursery.start_soon(self._fetch_range, start, peer)

    async def fetch_output(self, output_hash: Hash, holders: Sequence[NodeId]) -> Output | None:
        """An output from the first holder that serves one of this hash, or None."""
        for holder in holders:
            try:
                encoded = await self._fetch_chunks(output_hash, holder)
                output = OUTPUT_CODEC.decode(encoded)
            except FetchError:
                continue  # the next holder may answer
            except InvalidMessage as error:
                self.charge(holder, error.reason.value, str(error))
                continue
            if compute_output_hash(output) == output_hash:
                return output
            self.charge(
                holder, Rejection.BAD_OUTPUT.value, f"output: expected hash {output_hash.hex()[:12]}, got another"
            )
        return None

    def _start(self, errand: Callable[[], Awaitable[None]]) -> None:
        if self._running < MAX_ERRANDS:
            self._nursery.start_soon(self._run, errand)

    async def _run(self, errand: Callable[[], Awaitable[None]]) -> None:
        self._running += 1
        try:
            await errand()
        finally:
            self._running -= 1

    async def _ask(self, peer: NodeId, request: FetchRequest) -> bytes:
        return await self._network.request(peer, encode(request), FETCH_TIMEOUT_S)

    async def _fetch_block(self, block_hash: Hash, peers: tuple[NodeId, ...]) -> None:
        for peer in peers:
            try:
                block = BODY_CODEC.decode(await self._ask(peer, FetchBody(block_hash))).block
            except FetchError:
                continue  # the next peer may have it
            except InvalidMessage as error:
                self.charge(peer, error.reason.value, str(error))
                continue
            if block is not None and compute_header_hash(block.header) == block_hash:
                await self._events.send(BlockFetched(peer, block))
                return

    async def _fetch_certs(self, views: tuple[View, ...], peers: tuple[NodeId, ...]) -> None:
        for view in views:
            for peer in peers:
                try:
                    certs = CERTS_CODEC.decode(await self._ask(peer, FetchCert(view))).certs
                except FetchError:
                    continue
                except InvalidMessage as error:
                    self.charge(peer, error.reason.value, str(error))
                    continue
                if certs:
                    await self._events.send(CertsFetched(peer, certs))
                    break

    async def _fetch_range(self, start: Height, peer: NodeId) -> None:
        try:
            answer = BLOCK_RANGE_CODEC.decode(await self._ask(peer, FetchBlocks(start)))
        except FetchError as error:
            await self._events.send(FetchFailed(peer, str(error)))
        except InvalidMessage as error:
            self.charge(peer, error.reason.value, str(error))
            await self._events.send(FetchFailed(peer, str(error)))
        else:
            await self._events.send(RangeFetched(peer, answer))

    async def _fetch_chunks(self, output_hash: Hash, holder: NodeId) -> bytes:
        gathered = b""
        while True:
            answer = OUTPUT_CHUNK_CODEC.decode(await self._ask(holder, FetchOutput(output_hash, len(gathered))))
            gathered += answer.chunk
            if answer.total > 2 * MAX_OUTPUT_BYTES or len(gathered) > answer.total:
                raise InvalidMessage(
                    Rejection.TOO_LARGE, f"output: expected at most {2 * MAX_OUTPUT_BYTES} bytes, got {answer.total}"
                )
            if len(gathered) == answer.total or not answer.chunk:
                return gathered
