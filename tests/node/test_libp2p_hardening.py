"""What hostile peers cannot do: libp2p's host is used directly, below the protocol."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

import nacl.bindings
import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError as Libp2pError
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.pubsub.pb import rpc_pb2
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.utils import encode_varint_prefixed

from node.libp2p_open import open_network
from node.network import (
    GossipMessage,
    Limits,
    Misbehaviour,
    NetworkEvent,
    Offence,
    PeerDown,
    PeerUp,
    peer_id_of,
)
from node.streams import Hello, encode_frame, encode_hello
from tests.node.loopback import (
    CHAIN,
    SEEDS,
    Running,
    check_alive,
    drain,
    make_config,
    node_id,
    pair,
    running,
    wait_until,
)


async def open_raw(attacker: Running, victim: Running, protocol: str) -> Callable[[bytes], Awaitable[None]]:
    stream = await attacker.network._host._host.new_stream(
        ID.from_base58(peer_id_of(victim.network.node_id)), [TProtocol(protocol)]
    )
    return stream.write


async def hostile_direct(frames: bytes) -> Misbehaviour:
    """What a node reports of a peer that sends these bytes after a good handshake; an honest peer is served after it."""
    victim_id = node_id(1)
    async with running(make_config(1)) as victim, running(make_config(0)) as attacker:
        # The attacker's own sessions are barred, so that only the raw stream speaks.
        attacker.network.notice_connected(victim_id)
        attacker.network._peers[victim_id].not_before = trio.current_time() + 1_000
        await attacker.network._host.connect(victim_id, victim.address.multiaddr)
        write = await open_raw(attacker, victim, "/quorate/1/direct")
        await write(encode_frame(encode_hello(Hello(CHAIN, 1, "evil"))) + frames)
        report = await victim.expect(Misbehaviour)
        async with running(make_config(2, victim.address)) as honest:
            await honest.expect(PeerUp)
        return report


@pytest.mark.parametrize(
    "frames",
    [
        struct.pack(">I", (1 << 20) + 1),
        struct.pack(">I", 0),
        encode_frame(b"\x63junk"),
        encode_frame(b"\x01\xff\xff\xff\xff"),
        encode_frame(b"\x00"),
    ],
    ids=["oversized", "empty", "unknown kind", "lengths that lie", "a second handshake"],
)
async def test_a_bad_frame_ends_the_peer_and_not_the_node(frames: bytes) -> None:
    report = await hostile_direct(frames)
    assert (report.node_id, report.offence) == (node_id(0), Offence.BAD_FRAME)


def sign_gossip(index: int, topic: str, data: bytes, **changes: bytes) -> rpc_pb2.Message:
    fields = {"from_id": bytes.fromhex("002408011220") + node_id(index), "seqno": b"\x00" * 8, "data": data} | changes
    message = rpc_pb2.Message(topicIDs=[topic], **fields)
    secret = nacl.bindings.crypto_sign_seed_keypair(SEEDS[index])[1]
    message.signature = nacl.bindings.crypto_sign(b"libp2p-pubsub:" + message.SerializeToString(), secret)[:64]
    return message


async def send_gossip(attacker: Running, victim: Running, content: bytes) -> None:
    write = await open_raw(attacker, victim, str(PROTOCOL_ID_V11))
    await write(content)


async def test_garbage_on_the_gossip_stream_is_reported_and_ends_nothing() -> None:
    async with pair() as (low, high):
        topic = low.network.wire_topic("tx")
        pubkey = bytes.fromhex("002408011220") + node_id(1)
        bad_messages = [
            rpc_pb2.Message(from_id=b"", seqno=b"1", data=b"x", topicIDs=[topic], key=b"junk", signature=b"junk"),
            rpc_pb2.Message(
                from_id=pubkey, seqno=b"\x00" * 8, data=b"x", topicIDs=[topic], key=b"junk", signature=b"j" * 64
            ),
            sign_gossip(1, "other", b"x"),
            sign_gossip(1, topic, b"x" * (Limits().gossip_bytes + 1)),
            sign_gossip(1, topic, b"x", seqno=b"short"),
            sign_gossip(1, topic, b"x", from_id=bytes.fromhex("002408011220") + node_id(0)),
        ]
        contents = [encode_varint_prefixed(rpc_pb2.RPC(publish=[m]).SerializeToString()) for m in bad_messages]
        contents += [b"\x05\xff\xff\xff\xff\xff", b"\xff" * 12, encode_varint_prefixed(b"")]
        for count, content in enumerate(contents[:-1], start=1):
            await send_gossip(high, low, content)
            await wait_until(lambda n=count: low.network.statistics().peers[0].offences >= n)
        await send_gossip(high, low, contents[-1])
        assert (await low.expect(Misbehaviour)).offence is Offence.BAD_GOSSIP
        await send_gossip(
            high, low, encode_varint_prefixed(rpc_pb2.RPC(publish=[sign_gossip(1, topic, b"good")]).SerializeToString())
        )
        assert (await low.expect(GossipMessage)).data == b"good"
        await check_alive(low, high)


async def test_a_forged_message_does_not_hide_the_true_one() -> None:
    async with pair() as (low, high):
        topic = low.network.wire_topic("tx")
        true = sign_gossip(1, topic, b"true")
        forged = rpc_pb2.Message()
        forged.CopyFrom(true)
        forged.data = b"forged"
        await send_gossip(
            high, low, encode_varint_prefixed(rpc_pb2.RPC(publish=[forged, true, true]).SerializeToString())
        )
        assert (await low.expect(GossipMessage)).data == b"true"
        await check_alive(low, high)
        assert not any(isinstance(event, GossipMessage) for event in drain(low))


async def test_who_hands_back_what_we_sent_before_a_restart_is_not_blamed() -> None:
    async with pair() as (low, high):
        topic = low.network.wire_topic("tx")
        messages = [sign_gossip(0, topic, b"ours"), sign_gossip(1, topic, b"theirs")]
        await send_gossip(high, low, encode_varint_prefixed(rpc_pb2.RPC(publish=messages).SerializeToString()))
        assert (await low.expect(GossipMessage)).data == b"theirs"
        assert low.network.statistics().peers[0].offences == 0
        await check_alive(low, high)


async def test_hostile_gossip_controls_end_nothing() -> None:
    control = rpc_pb2.ControlMessage(
        ihave=[rpc_pb2.ControlIHave(topicID="nowhere", messageIDs=[b"zz", b""])],
        iwant=[rpc_pb2.ControlIWant(messageIDs=[b"zz", b""])],
        graft=[rpc_pb2.ControlGraft(topicID="nowhere")],
        prune=[
            rpc_pb2.ControlPrune(topicID="nowhere", peers=[rpc_pb2.PeerInfo(peerID=b"junk", signedPeerRecord=b"junk")])
        ],
    )
    subscriptions = [rpc_pb2.RPC.SubOpts(subscribe=True, topicid=str(i)) for i in range(100)]
    async with pair() as (low, high):
        for rpc in (
            rpc_pb2.RPC(control=control),
            rpc_pb2.RPC(subscriptions=subscriptions),
            rpc_pb2.RPC(senderRecord=b"junk"),
        ):
            await send_gossip(high, low, encode_varint_prefixed(rpc.SerializeToString()))
        await wait_until(lambda: low.network.statistics().peers[0].offences >= 1)
        await check_alive(low, high)


@pytest.mark.parametrize("protocol", ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/quorate/1/fetch"])
async def test_garbage_on_any_protocol_ends_nothing(protocol: str) -> None:
    async with pair() as (low, high):
        write = await open_raw(high, low, protocol)
        await write(b"\x05\xff\xff\xff\xff\xff" + b"\xff" * 200)
        await check_alive(low, high)


async def test_garbage_instead_of_a_protocol_name_ends_nothing() -> None:
    async with pair() as (low, high):
        for garbage in (b"\xff" * 50, b"\x03\xff\xfe\n", b"\x00" * 50):
            stream = await high.host().new_stream(ID.from_base58(peer_id_of(node_id(0))))
            await stream.write(garbage)
        await check_alive(low, high)


def make_frame(stream_id: int, size: int = 1 << 20, kind: int = 0) -> bytes:
    return struct.pack(">BBHII", 0, kind, 0, stream_id, size) + b"x" * size


@pytest.mark.parametrize("is_gone", [False, True], ids=["a stream nobody reads", "a stream that is gone"])
async def test_a_peer_that_ignores_the_receive_window_is_cut_off_before_it_fills_the_memory(is_gone: bool) -> None:
    async with pair() as (low, high):
        conn = get_muxer(high)
        # A stream whose handler has done with it: nobody reads what still comes.
        stream = await high.network._host._host.new_stream(
            ID.from_base58(peer_id_of(node_id(0))), [TProtocol("/quorate/1/fetch")]
        )
        if is_gone:
            await stream.reset()
        # What is allowed, and what two sockets' buffers take before the cut is felt.
        await write_until_cut(conn, make_frame(stream.muxed_stream.stream_id), 64)
        await check_returned(low, high)


async def test_a_peer_that_sends_what_is_no_frame_is_cut_off_at_once() -> None:
    async with pair() as (low, high):
        conn = get_muxer(high)
        await conn._write_frame(b"x" * 12)
        await conn.event_closed.wait()
        await check_returned(low, high)


async def test_frames_to_nobody_cut_a_peer_off_above_a_rate_and_not_below() -> None:
    async with pair() as (low, high):
        conn = get_muxer(high)
        late_update = struct.pack(">BBHII", 0, 1, 0, 999, 1)
        for _ in range(100):
            await conn._write_frame(late_update)
        await check_alive(low, high)
        assert not conn.is_closed
        await write_until_cut(conn, late_update * 100, 10_000)
        await check_returned(low, high)


def get_muxer(of: Running) -> Yamux:
    conn = of.host().get_connections(ID.from_base58(peer_id_of(node_id(0))))[0].muxed_conn
    assert isinstance(conn, Yamux)
    return conn


async def write_until_cut(conn: Yamux, frame: bytes, most: int) -> None:
    """Goes on once the other side has cut the connection, before so many frames are written.

    Under the muxer's own lock, since its pings between the halves of a frame would make nonsense of all that follows. It is the
    muxer that knows of the cut: where its reader has felt it first, libp2p takes what is still written without a word.
    """
    with trio.fail_after(60):
        for _ in range(most):
            try:
                await conn._write_frame(frame)
            except (OSError, Libp2pError):
                return
            if conn.is_closed:
                return
    raise AssertionError(f"{most} frames of {len(frame)} bytes were taken")


async def check_returned(low: Running, high: Running) -> None:
    """The two were parted, and met again."""
    await low.expect(PeerDown)
    await low.expect(PeerUp)
    await high.expect(PeerUp)
    await check_alive(low, high)


async def test_noise_on_the_port_ends_nothing() -> None:
    async with pair() as (low, high):
        port = int(low.address.multiaddr.rpartition("/")[2])
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff" * 1_000,
            b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff" + b"\x00" * 500,
        ):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(garbage)
            await stream.aclose()
        await check_alive(low, high)


async def test_a_receiver_that_has_gone_closes_the_network_quietly() -> None:
    with trio.fail_after(10):
        async with running(make_config(0)) as low:
            send, receive = trio.open_memory_channel[NetworkEvent](10)
            async with open_network(make_config(1, low.address), send):
                await receive.aclose()
                await trio.sleep_forever()
