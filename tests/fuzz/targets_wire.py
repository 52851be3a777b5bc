"""What peers say unasked: frames on the direct streams, gossip, handshakes, and the framing around them."""

from __future__ import annotations

import io
from functools import cache, partial
from typing import TYPE_CHECKING

import trio
from trio.testing import MockClock

from node.mempool import Mempool
from node.network import Limits, Timing
from node.streams import (
    DATA,
    MAX_HELLO_BYTES,
    PING,
    PONG,
    BadFrame,
    Hello,
    Mismatch,
    Outbox,
    Session,
    StreamBroken,
    Traffic,
    check_hello,
    decode_hello,
    encode_hello,
    read_frame,
)
from node.streams import (
    encode_frame as encode_stream_frame,
)
from node.wire import FrameKind, Status, TransactionBatch, decode_batch, decode_frame, encode_frame
from protocol.codec import encode
from protocol.errors import InvalidMessage, InvalidTransaction
from protocol.ordering.messages import QUORUM_CERT_CODEC, Proposal, QuorumCert, Vote
from tests.fuzz.machines import feed_pair, list_stages, tell_apart
from tests.fuzz.shapes import Framed, Opaque, Packed
from tests.fuzz.target import Target, name_refusal
from tests.protocol.ordering.rig import (
    FINAL,
    NOTAR,
    NULL,
    hash_of,
    make_block,
    make_cert,
    make_proposal,
    make_vote,
    tip_of,
)
from tests.vectors import samples as pinned

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAIN = b"c" * 32
OURS = Hello(CHAIN, 1, "quorate 0.1")


# --- frames of the direct streams, by kind


def _list_votes() -> list[Vote]:
    first = hash_of(make_block(1))
    second = hash_of(make_block(2, tip_of(make_block(1))))
    return [
        *(make_vote(kind, 1, first, signer) for kind in (NOTAR, FINAL) for signer in (1, 3)),
        make_vote(NULL, 1, bytes(32), 2),
        make_vote(NOTAR, 2, second, 2),
        make_vote(NULL, 9, bytes(32), 1),
    ]


def _list_certs() -> list[QuorumCert]:
    first = hash_of(make_block(1))
    return [
        *(make_cert(kind, 1, first) for kind in (NOTAR, FINAL)),
        make_cert(NULL, 1),
        make_cert(NOTAR, 2, hash_of(make_block(2, tip_of(make_block(1))))),
        make_cert(FINAL, 40, b"\x33" * 32, (0, 1, 2, 3)),
        pinned.CERT,
    ]


def _list_proposals() -> list[Proposal]:
    first = make_block(1)
    return [
        make_proposal(first),
        make_proposal(make_block(2, tip_of(first), salt=b"body")),
        make_proposal(make_block(4)),
        make_proposal(make_block(7, tip_of(first))),
    ]


@cache
def list_transactions() -> tuple[bytes, ...]:
    """Every kind of transaction, and those of a chain on which they are valid."""
    real = [encoded for stage in list_stages() for encoded in stage.block.body]
    return (*real, *(encode(signed) for signed in pinned.SIGNED))


def _list_batches() -> list[TransactionBatch]:
    transactions = list_transactions()
    return [TransactionBatch(transactions[:3]), TransactionBatch(transactions), TransactionBatch(())]


def _list_statuses() -> list[Status]:
    return [
        Status(7, b"h" * 32, 1, 0, 9, ()),
        Status(2**62, b"h" * 32, 0, 2**62, 2**62, (b"n" * 32, b"m" * 32), "/ip4/10.0.0.1/tcp/4001"),
    ]


def _take_frame(kind: FrameKind, content: bytes) -> str:
    """A frame on its way into the engine; one of another kind than the samples' is looked at all the same."""
    message = decode_frame(content)
    match message:
        case TransactionBatch(transactions=transactions):
            return admit_all(transactions, content)
        case Status():
            return "noted"
        case _:
            return ("" if content[0] == kind else "other kind: ") + feed_pair([message], content)


def admit_all(transactions: Sequence[bytes], content: bytes) -> str:
    """What a mempool makes of a batch: the word for the first that it refuses, as node/postbox.py goes on or stops."""
    stage = list_stages()[tell_apart(content, len(list_stages()))]
    pool = Mempool(stage.ledger.constants.chain_id, stage.ledger.constants.params)
    for encoded in transactions:
        try:
            pool.admit(stage.ledger, encoded, stage.header.time_ms)
        except InvalidMessage:
            raise
        except InvalidTransaction as refusal:
            return f"refused {name_refusal(refusal)}"
    assert len(pool) <= len(transactions)
    return "admitted"


def _take_gossiped_batch(content: bytes) -> str:
    return admit_all(decode_batch(content).transactions, content)


def _take_gossiped_cert(content: bytes) -> str:
    return feed_pair([QUORUM_CERT_CODEC.decode(content)], content)


# --- what carries them


class Received:
    """A ByteStream of these bytes, then its end; what is written goes nowhere."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.is_closed = trio.Event()

    async def read_exactly(self, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        part = self._content.read(count)
        if len(part) < count:
            raise StreamBroken("the peer closed the stream")
        return part

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def _run_session(content: bytes) -> str:
    """A whole session: the handshake, then frames into a machine."""
    stream, heard = Received(content), list[bytes]()

    async def admit(_messages: int, _size: int) -> bool:
        return True

    async def deliver(message: bytes) -> None:
        heard.append(message)

    theirs = decode_hello(await read_frame(stream, MAX_HELLO_BYTES))
    check_hello(OURS, theirs)
    session = Session(stream, Outbox(4096), Traffic(), Limits(), Timing(), admit, deliver)
    reason = await session.run()
    assert reason == "the peer closed the stream", reason
    votes = [_decode_vote(message) for message in heard]
    return f"{feed_pair([vote for vote in votes if vote is not None], content)}, {votes.count(None)} not read"


def _decode_vote(message: bytes) -> Vote | QuorumCert | Proposal | None:
    try:
        decoded = decode_frame(message)
    except InvalidMessage:
        return None
    return decoded if isinstance(decoded, Vote | QuorumCert | Proposal) else None


def _take_session(content: bytes) -> str:
    async def run() -> str:
        try:
            return await _run_session(content)
        except StreamBroken:
            return "ended"

    return trio.run(run, clock=MockClock(autojump_threshold=0))


def _list_sessions() -> list[bytes]:
    hello = encode_stream_frame(encode_hello(OURS))
    votes = [encode_frame(vote) for vote in _list_votes()]
    data = bytes((DATA,)) + b"".join(len(vote).to_bytes(4, "big") + vote for vote in votes)
    ping, pong = (encode_stream_frame(bytes((kind,)) + bytes(8)) for kind in (PING, PONG))
    return [hello, hello + encode_stream_frame(data), hello + ping + encode_stream_frame(data) + pong]


def _list_hellos() -> list[bytes]:
    return [encode_hello(OURS), encode_hello(Hello(CHAIN, 2, "q" * 64)), encode_hello(Hello(bytes(32), 1, "\x1b[31m"))]


def _take_hello(content: bytes) -> str:
    check_hello(OURS, decode_hello(content))
    return "agreed"


FRAMES = {
    FrameKind.VOTE: _list_votes,
    FrameKind.CERT: _list_certs,
    FrameKind.PROPOSAL: _list_proposals,
    FrameKind.TRANSACTIONS: _list_batches,
    FrameKind.STATUS: _list_statuses,
}
CODECS = {
    FrameKind.VOTE: "protocol/ordering/messages.py::VOTE_CODEC",
    FrameKind.CERT: "protocol/ordering/messages.py::QUORUM_CERT_CODEC",
    FrameKind.PROPOSAL: "protocol/ordering/messages.py::PROPOSAL_CODEC",
    FrameKind.TRANSACTIONS: "node/wire.py::BATCH_CODEC",
    FrameKind.STATUS: "node/wire.py::STATUS_CODEC",
}


FAR_VIEW = (
    256 * 1024
)  # a certificate of a far view makes the machine ask for as many views as a justification could carry


def _make_frame_target(kind: FrameKind) -> Target:
    name = f"frame-{kind.name.lower()}"
    return Target(
        name,
        (CODECS[kind],),
        Packed(1),
        lambda: [encode_frame(each) for each in FRAMES[kind]()],
        partial(_take_frame, kind),
        allowance=FAR_VIEW if kind in {FrameKind.CERT, FrameKind.PROPOSAL, FrameKind.VOTE} else 64 * 1024,
    )


TARGETS = (
    *map(_make_frame_target, FRAMES),
    Target(
        "gossip-transactions", (), Packed(), lambda: [encode(each) for each in _list_batches()], _take_gossiped_batch
    ),
    Target(
        "gossip-certificate",
        (),
        Packed(),
        lambda: [encode(each) for each in _list_certs()],
        _take_gossiped_cert,
        allowance=FAR_VIEW,
    ),
    Target("hello", ("node/streams.py::decode_hello",), Opaque(), _list_hellos, _take_hello, (BadFrame, Mismatch)),
    Target(
        "direct-stream",
        ("node/streams.py::read_frame", "node/streams.py::decode_messages", "node/streams.py::Session._read_one"),
        Framed(),
        _list_sessions,
        _take_session,
        (BadFrame, Mismatch),
        max_bytes=2 * 1024,
        allowance=512 * 1024,
    ),
)
