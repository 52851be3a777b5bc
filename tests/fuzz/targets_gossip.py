"""What peers say in libp2p's own protocols: frames to the multiplexer, and gossip to the real service and its router."""

from __future__ import annotations

import io
import struct
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.pubsub.pb import rpc_pb2
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from libp2p.stream_muxer.yamux.yamux import YAMUX_HEADER_FORMAT
from libp2p.utils import encode_varint_prefixed
from trio.testing import MockClock

from node.libp2p_frames import BoundedYamux
from node.libp2p_gossip import make_gossip
from node.libp2p_hardening import _make_host
from node.network import Limits, Timing, Verdict
from tests.fuzz.shapes import Opaque
from tests.fuzz.target import Target
from tests.node.loopback import SEEDS, node_id
from tests.node.test_libp2p_hardening import sign_gossip

if TYPE_CHECKING:
    from libp2p.abc import IHost

TOPIC = "tx"
PEER = ID(bytes.fromhex("002408011220") + node_id(1))


class FaultOfOurs(Exception):
    """The service reported an exception of its own."""


class _Port:
    """The node that gossip reports to; it accepts every message of its topics."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def admit(self, _node: bytes, _messages: int, _size: int) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    def judge(self, _topic: str, _origin: bytes, _data: bytes) -> Verdict:
        self.told.append("accepted")
        return Verdict.ACCEPT

    def blame(self, _node: bytes, detail: str, *, rejected: bool) -> None:
        self.told.append("rejected" if rejected else f"blamed: {detail.partition(':')[0]}")

    def report_fault(self, where: str, detail: str) -> None:
        raise FaultOfOurs(f"{where}: {detail}")


class _Stream:
    """A peer's stream of these bytes, then its end."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.muxed_conn = SimpleNamespace(peer_id=PEER)

    async def read(self, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._content.read(count)

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()


@cache
def _get_host() -> IHost:
    return _make_host(SEEDS[0], Limits(), Timing())


def _take_stream(content: bytes) -> str:
    """What the service tells the node while it reads a peer's stream to its end."""
    port = _Port()

    async def run() -> None:
        pubsub, router = make_gossip(_get_host(), port, Limits(), Timing())
        pubsub._manager = router._manager = SimpleNamespace(is_running=False)
        pubsub.subscribed_topics_receive[TOPIC] = None
        router.mesh[TOPIC] = set()
        pubsub.peers[PEER] = None
        router.add_peer(PEER, PROTOCOL_ID_V11)
        try:
            await pubsub.continuously_read_stream(_Stream(content))
        finally:
            pubsub.seen_messages.stop()  # its thread would outlive it

    trio.run(run, clock=MockClock(autojump_threshold=0))
    return ", ".join(dict.fromkeys(port.told)) or "silent"


def _list_streams() -> list[bytes]:
    message = sign_gossip(1, TOPIC, b"data")
    control = rpc_pb2.ControlMessage(
        ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[b"zz", message.from_id + message.seqno])],
        iwant=[rpc_pb2.ControlIWant(messageIDs=[message.from_id + message.seqno])],
        graft=[rpc_pb2.ControlGraft(topicID=TOPIC)],
        prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=1, peers=[rpc_pb2.PeerInfo(peerID=b"junk")])],
    )
    subscriptions = [rpc_pb2.RPC.SubOpts(subscribe=subscribe, topicid=TOPIC) for subscribe in (True, False)]
    parts = (
        rpc_pb2.RPC(publish=[message, sign_gossip(2, TOPIC, b"more"), sign_gossip(1, "other", b"x")]),
        rpc_pb2.RPC(control=control),
        rpc_pb2.RPC(subscriptions=subscriptions, publish=[message], control=control),
    )
    return [encode_varint_prefixed(part.SerializeToString()) for part in parts]


class _Connection:
    """A secured connection of these bytes, then its end."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.written = 0

    async def read(self, count: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._content.read(count)

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.written += len(data)

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


async def _accept_all(muxer: BoundedYamux) -> None:
    """As libp2p's swarm does; what is opened is not read."""
    while True:
        try:
            await muxer.accept_stream()
        except MuxedConnUnavailable:
            return


def _take_frames(content: bytes) -> str:
    """What the multiplexer makes of a connection's bytes until these end; whatever it does, it ends by itself."""
    connection = _Connection(content)

    async def run() -> int:
        muxer = BoundedYamux(connection, PEER, is_initiator=False)
        with trio.fail_after(3_600):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_accept_all, muxer)
                await muxer.start()
                nursery.cancel_scope.cancel()
        return len(muxer.streams)

    streams = trio.run(run, clock=MockClock(autojump_threshold=0))
    return f"{min(3, streams)} streams, {'answered' if connection.written else 'silent'}"


def _list_frames() -> list[bytes]:
    def frame(kind: int, flags: int, stream: int, body: bytes = b"", length: int | None = None) -> bytes:
        return struct.pack(YAMUX_HEADER_FORMAT, 0, kind, flags, stream, len(body) if length is None else length) + body

    opened = frame(1, 1, 1, length=256 * 1024)
    return [
        opened + frame(0, 0, 1, b"data") + frame(0, 4, 1),
        opened + frame(0, 0, 1, b"x" * 100) + frame(0, 8, 1) + frame(0, 0, 1, b"late"),
        frame(2, 1, 0, length=7) + frame(2, 2, 0, length=7) + frame(3, 0, 0, length=1),
        opened + frame(1, 1, 3, length=1) + frame(1, 0, 1, length=2**31) + frame(0, 0, 9, b"stray"),
    ]


TARGETS = (
    Target(
        "multiplexer",
        ("node/libp2p_frames.py::BoundedYamux._judge_header",),
        Opaque(),
        _list_frames,
        _take_frames,
        (),
        max_bytes=1024,
        allowance=2 * 1024 * 1024,
    ),
    Target(
        "gossip-stream",
        ("node/libp2p_gossip.py::HardenedPubsub._read_rpc",),
        Opaque(),
        _list_streams,
        _take_stream,
        (),
        max_bytes=4 * 1024,
        allowance=2 * 1024 * 1024,
    ),
)
