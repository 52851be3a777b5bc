"""What the node does for its engine in tasks of their own: fetches over the network, whose results come back as events.

Each errand has a deadline and a bounded answer; what is wrong with an answer is charged to the peer that gave it. A peer that is
silent holds nobody up: another one is asked beside it.
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Final, TypeVar

import trio

from node.events import (
    AddressesFetched,
    BlockFetched,
    CertsFetched,
    FetchFailed,
    NodeEvent,
    RangeFetched,
    RecollectionFetched,
)
from node.network import FetchError, Network
from node.offences import Offences
from node.wire import (
    ADDRESSES_CODEC,
    BLOCK_RANGE_CODEC,
    BODY_CODEC,
    CERTS_CODEC,
    OUTPUT_CHUNK_BYTES,
    OUTPUT_CHUNK_CODEC,
    RECOLLECTION_CODEC,
    BlockRange,
    FetchAddresses,
    FetchBlocks,
    FetchBody,
    FetchCert,
    FetchOutput,
    FetchRecollection,
    FetchRequest,
)
from protocol.block import Block, compute_header_hash, compute_transactions_root
from protocol.codec import encode
from protocol.errors import InvalidMessage, Rejection
from protocol.models import MAX_OUTPUT_BYTES, OUTPUT_CODEC, Output, compute_output_hash
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.units import Epoch, Hash, Height, NodeId, View

R = TypeVar("R")

FETCH_TIMEOUT_S: Final = 5.0
ERRAND_TIMEOUT_S: Final = 15.0  # rule R9 asks again: what takes longer only keeps the next one from starting
PATIENCE_S: Final = 0.5  # before another peer is asked beside one that has not answered
RANGE_PATIENCE_S: Final = (
    1.5  # likewise, for what is larger: three at once are as much as helps a node that is behind for being slow
)
MAX_ERRANDS: Final = 64  # more at once would only wait for each other
MAX_ENCODED_OUTPUT_BYTES: Final = 2 * MAX_OUTPUT_BYTES


class Errands:
    """The running fetches of one node."""

    def __init__(
        self, network: Network, nursery: trio.Nursery, events: trio.MemorySendChannel[NodeEvent], offences: Offences
    ) -> None:
        self._network: Final = network
        self._nursery: Final = nursery
        self._events: Final = events
        self._running: set[Hashable] = set()
        self._turn = 0
        self.offences: Final = offences

    def charge(self, peer: NodeId, reason: str, text: str) -> None:
        """Note that this peer sent what no honest node sends."""
        self.offences.charge(peer, reason, text)

    def fetch_block(self, block_hash: Hash, peers: tuple[NodeId, ...]) -> None:
        """Get a body from one of these peers; a BlockFetched follows if one has it."""
        self._start(block_hash, partial(self._fetch_block, block_hash, peers))

    def fetch_certs(self, epoch: Epoch, views: tuple[View, ...], peers: tuple[NodeId, ...]) -> None:
        """Get certificates of these views of an epoch; each answer becomes a CertsFetched."""
        self._turn += 1  # an answer may decode and still be worth nothing: another peer comes first the next time
        start = self._turn % len(peers) if peers else 0
        self._start((epoch, views), partial(self._fetch_certs, epoch, views, (*peers[start:], *peers[:start])))

    def fetch_recollection(self, peer: NodeId) -> None:
        """Ask what a peer remembers of this node's signatures; a RecollectionFetched follows if it says."""
        self._start(("recollection", peer), partial(self._fetch_recollection, peer))

    def fetch_addresses(self, peer: NodeId) -> None:
        """Ask a peer where validators listen; an AddressesFetched follows if it says."""
        self._start(("addresses", peer), partial(self._fetch_addresses, peer))

    def fetch_range(self, start: Height, peers: tuple[NodeId, ...]) -> None:
        """Get finalized blocks from the first of these peers, or from the next where it keeps silent; a RangeFetched or a FetchFailed follows."""
        self._nursery.start_soon(self._fetch_range, start, peers)

    async def fetch_output(self, output_hash: Hash, holders: Sequence[NodeId]) -> Output | None:
        """An output from the first holder that serves one of this hash, or None."""
        for holder in holders:
            try:
                encoded = await self._fetch_chunks(output_hash, holder)
                if not encoded:
                    continue  # it holds it no longer
                output = OUTPUT_CODEC.decode(encoded)
                if compute_output_hash(output) == output_hash:
                    return output
                text = f"output: expected hash {output_hash.hex()[:12]}, got another"
                self.charge(holder, Rejection.BAD_OUTPUT.value, text)
            except FetchError:
                continue  # the next holder may answer
            except InvalidMessage as error:
                self.charge(holder, error.reason.value, str(error))
        return None

    def _start(self, key: Hashable, errand: Callable[[], Awaitable[None]]) -> None:
        if key not in self._running and len(self._running) < MAX_ERRANDS:
            self._running.add(key)
            self._nursery.start_soon(self._run, key, errand)

    async def _run(self, key: Hashable, errand: Callable[[], Awaitable[None]]) -> None:
        try:
            with trio.move_on_after(ERRAND_TIMEOUT_S):
                await errand()
        finally:
            self._running.discard(key)

    async def ask(self, peer: NodeId, request: FetchRequest) -> bytes:
        """A peer's answer, unread.

        Raises: FetchError.
        """
        return await self._network.request(peer, encode(request), FETCH_TIMEOUT_S)

    async def ask_in_turn(
        self,
        peers: Sequence[NodeId],
        request: FetchRequest,
        judge: Callable[[bytes], R | None],
        patience_s: float = PATIENCE_S,
    ) -> tuple[NodeId, R] | None:
        """The first answer that `judge` takes, and whose it is."""
        found: list[tuple[NodeId, R]] = []
        async with trio.open_nursery() as nursery:

            async def ask_one(peer: NodeId, done: trio.Event) -> None:
                try:
                    answer = judge(await self.ask(peer, request))
                    if answer is not None:
                        found.append((peer, answer))
                        nursery.cancel_scope.cancel()
                except FetchError:
                    return  # the next peer may have it
                except InvalidMessage as error:
                    self.charge(peer, error.reason.value, str(error))
                finally:
                    done.set()

            for peer in peers:
                done = trio.Event()
                nursery.start_soon(ask_one, peer, done)
                with trio.move_on_after(patience_s):
                    await done.wait()
        return found[0] if found else None

    async def _fetch_block(self, block_hash: Hash, peers: tuple[NodeId, ...]) -> None:
        found = await self.ask_in_turn(peers, FetchBody(block_hash), partial(_judge_body, block_hash))
        if found is not None:
            await self._events.send(BlockFetched(*found))

    async def _fetch_recollection(self, peer: NodeId) -> None:
        found = await self.ask_in_turn((peer,), FetchRecollection(), RECOLLECTION_CODEC.decode)
        if found is not None:
            await self._events.send(RecollectionFetched(*found))

    async def _fetch_addresses(self, peer: NodeId) -> None:
        found = await self.ask_in_turn((peer,), FetchAddresses(), ADDRESSES_CODEC.decode)
        if found is not None:
            await self._events.send(AddressesFetched(*found))

    async def _fetch_certs(self, epoch: Epoch, views: tuple[View, ...], peers: tuple[NodeId, ...]) -> None:
        for view in views:
            found = await self.ask_in_turn(peers, FetchCert(epoch, view), partial(_judge_certs, epoch, view))
            if found is not None:
                await self._events.send(CertsFetched(*found))

    async def _fetch_range(self, start: Height, peers: tuple[NodeId, ...]) -> None:
        found = await self.ask_in_turn(peers, FetchBlocks(start), partial(_judge_range, start), RANGE_PATIENCE_S)
        await self._events.send(FetchFailed(peers) if found is None else RangeFetched(*found))

    async def _fetch_chunks(self, output_hash: Hash, holder: NodeId) -> bytes:
        """An output's bytes; none where the holder does not hold it. Every chunk but the last is whole, so few requests do."""
        gathered, total = b"", None
        while total is None or len(gathered) < total:
            answer = OUTPUT_CHUNK_CODEC.decode(await self.ask(holder, FetchOutput(output_hash, len(gathered))))
            total = answer.total if total is None else total
            expected = min(OUTPUT_CHUNK_BYTES, total - len(gathered))
            if total > MAX_ENCODED_OUTPUT_BYTES:
                raise InvalidMessage(
                    Rejection.TOO_LARGE, f"output: expected at most {MAX_ENCODED_OUTPUT_BYTES} bytes, got {total}"
                )
            if answer.total != total or len(answer.chunk) != expected:
                raise InvalidMessage(
                    Rejection.OUT_OF_RANGE,
                    f"output: expected {expected} of {total} bytes, got {len(answer.chunk)} of {answer.total}",
                )
            gathered += answer.chunk
        return gathered


def _judge_range(start: Height, encoded: bytes) -> BlockRange | None:
    """Blocks, or that the peer joined too late to have them; None where it has no more than this node. Raises: InvalidMessage."""
    answer = BLOCK_RANGE_CODEC.decode(encoded)
    is_nothing = not answer.blocks and answer.final_cert is None
    return None if is_nothing and answer.base_height <= start else answer


def _judge_body(block_hash: Hash, encoded: bytes) -> Block | None:
    """The block with this hash, None where the peer does not hold it. Raises: InvalidMessage."""
    block = BODY_CODEC.decode(encoded).block
    if block is None:
        return None
    if compute_header_hash(block.header) != block_hash or compute_transactions_root(block.body) != block.header.tx_root:
        raise InvalidMessage(
            Rejection.BAD_BODY, f"block: expected the one of hash {block_hash.hex()[:12]}, got another"
        )
    return block


def _judge_certs(epoch: Epoch, view: View, encoded: bytes) -> tuple[QuorumCert, ...] | None:
    """Certificates that let this view be left, None where the peer has none. Raises: InvalidMessage."""
    certs = CERTS_CODEC.decode(encoded).certs
    for cert in certs:
        if cert.epoch != epoch:
            raise InvalidMessage(
                Rejection.OUT_OF_RANGE, f"certificates: expected those of epoch {epoch}, got epoch {cert.epoch}"
            )
        if (
            cert.view != view and cert.kind is not VoteKind.FINAL
        ):  # a boundary's may lie below the views that followed it
            raise InvalidMessage(
                Rejection.OUT_OF_RANGE, f"certificates: expected those of view {view}, got view {cert.view}"
            )
    return certs or None
