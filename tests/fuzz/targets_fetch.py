"""What is asked of this node, and what peers answer: blocks, certificates, snapshots, outputs."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace
from trio.testing import MockClock

from node import fetch
from node.errands import Errands
from node.events import NodeEvent
from node.fetch_server import FetchServer
from node.network import FetchError, FetchRefused, Limits
from node.offences import Offences
from node.proofs import check_chunk, check_manifest, check_range
from node.streams import encode_frame
from node.telemetry import Telemetry
from node.wire import (
    BLOCK_RANGE_CODEC,
    CHAIN_CODEC,
    MANIFEST_CODEC,
    SNAPSHOT_CHUNK_CODEC,
    Addresses,
    BlockRange,
    Body,
    Certs,
    Chain,
    FetchAddresses,
    FetchBlocks,
    FetchBody,
    FetchCert,
    FetchChain,
    FetchOutput,
    FetchRecollection,
    FetchSnapshot,
    FetchSnapshotChunk,
    Manifest,
    OutputChunk,
    Recollection,
)
from protocol.codec import encode
from protocol.ledger.foreign import ledger_from_snapshot
from protocol.ledger.state import check_block
from protocol.merkle import compute_root
from protocol.models import OUTPUT_CODEC, ImageOutput, compute_output_hash
from protocol.trust import trust_genesis, walk_steps
from tests.fuzz.machines import list_machines
from tests.fuzz.served import get_served, make_judge
from tests.fuzz.shapes import Framed, Packed
from tests.fuzz.target import Target
from tests.fuzz.targets_wire import Received
from tests.protocol.certificates import ANSWER
from tests.protocol.ordering.rig import NOTAR, START_MS, make_vote
from tests.protocol.trusts import make_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.protocol.trusts import Line


ANSWERER = b"p" * 32
OUTPUT_HASH = compute_output_hash(ANSWER)


# --- what others ask


@cache
def _open_server() -> FetchServer:
    state = list_machines()[0].state
    return FetchServer(get_served().storage, lambda: state)


def _list_requests() -> list[bytes]:
    served = get_served()
    requests = (
        *(FetchBlocks(height) for height in (1, served.snapshot_height, 2**62)),
        FetchBody(served.hash_at(3)),
        *(FetchCert(epoch, view) for epoch, view in ((0, 0), (0, 1), (2**62, 2**62))),
        *(FetchOutput(OUTPUT_HASH, offset) for offset in (0, 5, 2**31)),
        FetchSnapshot(),
        FetchRecollection(),
        FetchAddresses(),
        *(FetchChain(epoch) for epoch in (0, 1, 2**62)),
        *(FetchSnapshotChunk(served.snapshot_height, first) for first in (0, 1, 2**40)),
    )
    return [encode(each) for each in requests]


def _answer_request(content: bytes) -> str:
    """The server has nothing to wait for, so its answer is there at once."""
    answering = _open_server().answer(ANSWERER, content)
    try:
        answering.send(None)
    except StopIteration as answered:
        size = len(answered.value)
        assert size <= Limits().response_bytes + 512 * 1024, size
        return "answered" if size > 8 else "nothing"
    raise AssertionError("the server waits")


# --- what others answer


class OnePeer:
    """A network with one peer that gives one answer to everything."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def connected(self) -> frozenset[bytes]:
        return frozenset({ANSWERER})

    async def request(self, _node: bytes, _data: bytes, _timeout_s: float) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._content


class StoppedClock:
    """No time passes while one answer is judged."""

    def now_ms(self) -> int:
        return START_MS

    def now_us(self) -> int:
        return START_MS * 1000


def _fetch(content: bytes, act: Callable[[Errands], Awaitable[object] | None]) -> str:
    """What an errand makes of an answer: what the peer is charged with, or what the engine is told."""
    log = io.StringIO()

    async def run() -> str:
        events, heard = trio.open_memory_channel[NodeEvent](16)
        async with trio.open_nursery() as nursery:
            offences = Offences(StoppedClock(), Telemetry(log))
            acted = act(Errands(OnePeer(content), nursery, events, offences))
            given = None if acted is None else await acted
        told = heard.statistics().current_buffer_used
        charged = "charged" if "peer_charged" in log.getvalue() else "not charged"
        return f"{charged}, {'event' if told else 'no event'}, {'something' if given is not None else 'nothing'}"

    return trio.run(run, clock=MockClock(autojump_threshold=0))


def _take_body(content: bytes) -> str:
    return _fetch(content, lambda errands: errands.fetch_block(get_served().hash_at(3), (ANSWERER,)))


def _take_certs(content: bytes) -> str:
    return _fetch(content, lambda errands: errands.fetch_certs(0, (get_served().headers[3].view,), (ANSWERER,)))


def _take_output(content: bytes) -> str:
    return _fetch(content, lambda errands: errands.fetch_output(OUTPUT_HASH, (ANSWERER,)))


def _take_range(content: bytes) -> str:
    """As a node at height 2 that catches up: the proof first, then every block is executed. Its quorum signs anything."""
    served = get_served()
    answer = BLOCK_RANGE_CODEC.decode(content)
    header, ledger = served.headers[2], served.ledgers[2]
    linked, _ = check_range(answer, make_judge(served, believes=True), header, served.hash_at(2))
    for block, _ in linked:
        ledger, header = check_block(ledger, header, block), block.header
    return "executed"


def _take_manifest(content: bytes) -> str:
    served = get_served()
    manifest = MANIFEST_CODEC.decode(content)
    return "nothing" if check_manifest(manifest, trust_genesis(served.chain.genesis)) is None else "proven"


def _take_chain(content: bytes) -> str:
    """Steps of a peer, walked from the genesis on."""
    return f"{walk_steps(trust_genesis(_get_line().genesis), CHAIN_CODEC.decode(content).steps).step_count} steps"


@cache
def _get_line() -> Line:
    return make_line()


def _list_chains() -> list[bytes]:
    steps = _get_line().list_steps()
    return [encode(Chain(steps[:count])) for count in (0, 1, 4)]


def _take_recollection(content: bytes) -> str:
    return _fetch(content, lambda errands: errands.fetch_recollection(ANSWERER))


def _take_addresses(content: bytes) -> str:
    return _fetch(content, lambda errands: errands.fetch_addresses(ANSWERER))


def _list_recollections() -> list[bytes]:
    return [encode(Recollection(epoch, vote)) for epoch, vote in ((0, None), (3, make_vote(NOTAR, 5, b"h" * 32, 1)))]


def _list_addresses() -> list[bytes]:
    return [
        encode(Addresses(known)) for known in ((), ((ANSWERER, "/ip4/10.0.0.1/tcp/4001"), (b"q" * 32, "/dns4/x/tcp/1")))
    ]


def _take_chunk(content: bytes) -> str:
    served = get_served()
    chunk = check_chunk(content, served.headers[served.snapshot_height], 0)
    return "nothing" if chunk is None else "proven"


def _take_state(content: bytes) -> str:
    """A state that a quorum signed, whatever it holds: its root is made to fit."""
    served = get_served()
    header = served.headers[served.snapshot_height]
    entries = SNAPSHOT_CHUNK_CODEC.decode(content).entries
    ledger_from_snapshot(
        served.chain.genesis, entries, replace(header, state_root=compute_root(sorted(dict(entries).items())))
    )
    return "adopted"


# --- samples


def _list_ranges() -> list[bytes]:
    served = get_served()
    blocks, certs, headers = tuple(served.chain.blocks), served.certs, served.headers
    answers = (
        BlockRange(blocks[2:5], (), certs[4]),
        BlockRange(blocks[2:4], headers[5:8], certs[6]),
        BlockRange(blocks[2:], (), certs[-1]),
        BlockRange((), (), None, 40),
    )
    return [encode(each) for each in answers]


def _list_manifests() -> list[bytes]:
    served, height = get_served(), get_served().snapshot_height
    block = served.chain.blocks[height - 1]
    answers = (
        Manifest(block, served.certs[height - 1]),
        Manifest(served.chain.blocks[2], served.certs[2]),
        Manifest(None, None),
    )
    return [encode(each) for each in answers]


def _list_chunks() -> list[bytes]:
    served = get_served()
    kept = served.storage.snapshots.get_chunk(served.snapshot_height, 0)
    assert kept is not None
    return [kept]


def _list_outputs() -> list[bytes]:
    encoded = encode(ANSWER)
    return [
        encode(each) for each in (OutputChunk(len(encoded), encoded), OutputChunk(0, b""), OutputChunk(2**31, b"x" * 9))
    ]


def _list_whole_outputs() -> list[bytes]:
    return [encode(each) for each in (ANSWER, ImageOutput(ANSWER.model, 4, 2, 3, bytes(24)))]


def _take_output_bytes(content: bytes) -> str:
    return "right" if compute_output_hash(OUTPUT_CODEC.decode(content)) == OUTPUT_HASH else "another"


def _take_envelope(content: bytes) -> str:
    """The frame in which an answer or a refusal comes."""

    async def open_stream() -> Received:
        await trio.lowlevel.checkpoint()
        return Received(content)

    async def run() -> str:
        return f"answer of {bool(await fetch.ask(open_stream, b'x', 5, Limits()))}"

    return trio.run(run, clock=MockClock(autojump_threshold=0))


def _list_envelopes() -> list[bytes]:
    return [
        encode_frame(bytes((kind,)) + text)
        for kind in (fetch.ANSWER, fetch.REFUSAL)
        for text in (b"", b"some text", b"\xff\x1b[2J")
    ]


def _list_bodies() -> list[bytes]:
    return [encode(Body(block)) for block in (None, get_served().chain.blocks[2], get_served().chain.blocks[0])]


def _list_certs() -> list[bytes]:
    certs = get_served().certs
    return [encode(Certs(chosen)) for chosen in ((), certs[2:3], certs[2:5])]


WIRE = "node/wire.py::"
TARGETS = (
    Target(
        "fetch-request",
        (f"{WIRE}FETCH_REQUEST_CODEC",),
        Packed(),
        _list_requests,
        _answer_request,
        (FetchRefused,),
        allowance=512 * 1024,
    ),
    Target(
        "fetch-envelope",
        ("node/streams.py::read_frame",),
        Framed(),
        _list_envelopes,
        _take_envelope,
        (FetchError,),
        allowance=256 * 1024,
    ),
    Target("fetched-body", (f"{WIRE}BODY_CODEC",), Packed(), _list_bodies, _take_body, (), allowance=256 * 1024),
    Target(
        "fetched-certificates", (f"{WIRE}CERTS_CODEC",), Packed(), _list_certs, _take_certs, (), allowance=256 * 1024
    ),
    Target(
        "fetched-output",
        (f"{WIRE}OUTPUT_CHUNK_CODEC",),
        Packed(),
        _list_outputs,
        _take_output,
        (),
        allowance=256 * 1024,
    ),
    Target("output", ("protocol/models.py::OUTPUT_CODEC",), Packed(), _list_whole_outputs, _take_output_bytes),
    Target("block-range", (f"{WIRE}BLOCK_RANGE_CODEC",), Packed(), _list_ranges, _take_range),
    Target("fetched-chain", (f"{WIRE}CHAIN_CODEC",), Packed(), _list_chains, _take_chain),
    Target(
        "fetched-recollection",
        (f"{WIRE}RECOLLECTION_CODEC",),
        Packed(),
        _list_recollections,
        _take_recollection,
        (),
        allowance=256 * 1024,
    ),
    Target(
        "fetched-addresses",
        (f"{WIRE}ADDRESSES_CODEC",),
        Packed(),
        _list_addresses,
        _take_addresses,
        (),
        allowance=256 * 1024,
    ),
    Target("manifest", (f"{WIRE}MANIFEST_CODEC",), Packed(), _list_manifests, _take_manifest),
    Target("snapshot-chunk", (f"{WIRE}SNAPSHOT_CHUNK_CODEC",), Packed(), _list_chunks, _take_chunk),
    Target("snapshot-state", (), Packed(), _list_chunks, _take_state),
)
