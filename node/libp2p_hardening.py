"""libp2p made safe: everything that is patched, wrapped or configured against its defaults.

Nothing that a peer sends may leave this file as anything but a value, a StreamBroken or a reported offence. Checked
against libp2p 0.8.1. Each mend names the fault and how to see that upstream has mended it:

 1 One undecodable protobuf on the gossip stream ends the victim's host.     `HardenedPubsub.continuously_read_stream`
   Upstream is well when Pubsub.stream_handler catches google.protobuf.message.DecodeError.
 2 A gossip message with an empty origin or a junk key ends the service.     `HardenedPubsub.push_msg`
   Well when signature_validator returns False where it now raises on deserialize_public_key.
 3 A validator or stream handler that raises ends the node.                  `guard_handler`, `HardenedPubsub._judge`
   Well when SwarmConn._handle_muxed_stream catches what common_stream_handler raises.
 4 Sequence numbers restart at int(time()), so that a node restarted within the second is taken for a repeat.
   Well when Pubsub.counter starts from nanoseconds.                          `HardenedPubsub.__init__`
 5 The built-in spam limit (10 messages/s a peer and topic) also drops our own messages.  `open_gossip`
 6 Outbound queues of 32 messages, dropped silently.                          `open_gossip`
   Well when Pubsub takes the queue's size as an argument.
 7 Validation is cached for 300 s with a linear search, and a message is marked seen only after it.
   `HardenedPubsub.push_msg` judges once, synchronously, and marks seen once the signature holds.
 8 No redial, no keepalive: see node/libp2p_network.py and node/streams.py.
 9 Heartbeat 120 s, eclipse protection that wants three addresses.           `open_gossip`
10 A signed address record on every gossip message, verified each time, whose addresses then steer our dials.
   `_ignore_records`; well when the record is sent once a connection.
11 recent_message_deliveries grows for ever; equivocation_detection keeps 1,000 whole messages.
   `HardenedGossip.heartbeat` clears the one, `_check_equivocation` needs not the other: we mark origin + number as seen.
12 A validator's False blames the forwarder for 300 s: see 7.
15 A failed dial bars the peer for 60 s (negative cache), three inner retries; addresses that a peer claims for itself
   (identify) displace the configured loopback one; an auto-connector dials whatever identify brought.  `connect`,
   `open_host`. Well when dial_peer takes addresses as arguments.
17 The resource manager's circuit breaker bars *all* peers for 60 s after five refusals, which any stranger can cause.
   `open_host`; well when the breaker counts by peer.
16 Listeners set SO_REUSEPORT: two nodes of one user share a port without an error.  `check_port_free`
   Well when a second listen on the same port fails.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import libp2p.pubsub.gossipsub as gossipsub_module
import libp2p.pubsub.pubsub as pubsub_module
import nacl.bindings
import nacl.exceptions
import trio
from google.protobuf.message import DecodeError
from libp2p import new_host
from libp2p.abc import IHost, INetConn, INetStream, INetwork
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.rcmgr import ResourceManager
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from node.network import Limits, NetworkError, Timing, Verdict, node_id_of, peer_id_of
from node.streams import BadFrame, StreamBroken

# libp2p reports every failed dial to stderr as it has no handler of its own; what matters leaves here as an event.
logging.getLogger("libp2p").addHandler(logging.NullHandler())

DIRECT_PROTOCOL = TProtocol("/quorate/1/direct")
FETCH_PROTOCOL = TProtocol("/quorate/1/fetch")
_READ_BYTES = 1 << 16
_SIGNING_PREFIX = b"libp2p-pubsub:"
_SIGNATURE_BYTES = 64
_SEQUENCE_BYTES = 8
_MAX_SUBSCRIPTIONS = 64
# A repeat is known for this long; the application forgets none, since it dedupes by content.
_SEEN_S = 120
_GOSSIP_QUEUE = 512

# libp2p's errors have no common base and some are plain KeyError; what they all mean to us is that the stream is gone.
# trio.Cancelled is a BaseException and passes.
_ANY_FAILURE = Exception


class PeerStream:
    """A libp2p stream as a ByteStream: buffered reads, one kind of failure."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self.node_id = node_id_of(stream.muxed_conn.peer_id.to_bytes())

    async def read_exactly(self, count: int) -> bytes:
        """The next count bytes.

        Raises: StreamBroken.
        """
        while len(self._buffer) < count:
            await self._read_more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def read_varint(self, limit: int) -> int:
        """The next unsigned varint.

        Raises: BadFrame if it exceeds limit or is longer than limit needs; StreamBroken.
        """
        value = 0
        for shift in range(0, limit.bit_length() + 7, 7):
            byte = (await self.read_exactly(1))[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise BadFrame(f"expected a length of at most {limit}, got an endless one")
        if value > limit:
            raise BadFrame(f"expected a length of at most {limit}, got {value}")
        return value

    async def write(self, data: bytes) -> None:
        """Returns when the data is handed to the connection.

        Raises: StreamBroken.
        """
        try:
            await self._stream.write(data)
        except _ANY_FAILURE as error:
            raise StreamBroken(_describe(error)) from error

    async def aclose(self) -> None:
        """Both directions are closed, without an error if they were before."""
        try:
            await self._stream.reset()
        except _ANY_FAILURE as error:
            logging.getLogger(__name__).debug("reset of a stream failed: %r", error)

    async def finish(self) -> None:
        """The other side sees the end after all that was written.

        Raises: StreamBroken.
        """
        try:
            await self._stream.close()
        except _ANY_FAILURE as error:
            raise StreamBroken(_describe(error)) from error

    async def _read_more(self) -> None:
        try:
            data = await self._stream.read(_READ_BYTES)
        except _ANY_FAILURE as error:
            raise StreamBroken(_describe(error)) from error
        if not data:
            raise StreamBroken("the peer closed the stream")
        self._buffer += data


def _describe(error: Exception) -> str:
    text = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def guard_handler(
    handle: Callable[[PeerStream], Awaitable[None]], on_fault: Callable[[str, str], None]
) -> Callable[[INetStream], Awaitable[None]]:
    """A stream handler for libp2p out of which nothing raises; what would have is reported as our own fault."""

    async def guarded(stream: INetStream) -> None:
        try:
            peer_stream = PeerStream(stream)
        except ValueError:
            await stream.reset()
            return
        try:
            await handle(peer_stream)
            await peer_stream.finish()
        except StreamBroken:
            await peer_stream.aclose()
        except _ANY_FAILURE as error:
            on_fault(handle.__name__, repr(error))
            await peer_stream.aclose()

    return guarded


class ConnectionListener:
    """A libp2p notifee that passes on the node ids of peers that come and go."""

    def __init__(self, on_connected: Callable[[bytes], None], on_disconnected: Callable[[bytes], None]) -> None:
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        """Told by libp2p for each connection."""
        self._tell(conn, self._on_connected)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        """Told by libp2p for each connection."""
        self._tell(conn, self._on_disconnected)

    def _tell(self, conn: INetConn, listener: Callable[[bytes], None]) -> None:
        peer_id = conn.muxed_conn.peer_id.to_bytes()
        try:
            node_id = node_id_of(peer_id)
        except ValueError:
            return
        listener(node_id)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Of no interest."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Of no interest."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Of no interest."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Of no interest."""


class GossipPort:
    """What the gossip service needs of the node; implemented in node/libp2p_network.py."""

    async def admit(self, node_id: bytes, messages: int, size: int) -> bool:
        """Whether the peer may send these now; may wait a moment."""
        raise NotImplementedError

    def judge(self, topic: str, origin: bytes, data: bytes) -> Verdict:
        """The node's verdict; delivers what it accepts."""
        raise NotImplementedError

    def blame(self, node_id: bytes, detail: str, *, rejected: bool) -> None:
        """Holds a broken rule, or a rejected message, against the peer that sent it."""
        raise NotImplementedError

    def report_fault(self, where: str, detail: str) -> None:
        """Reports an exception of our own."""
        raise NotImplementedError


class HardenedPubsub(Pubsub):
    """Pubsub that no peer can end: reads, judges and delivers by itself, and leaves mesh and forwarding to the router."""

    def __init__(self, host: IHost, router: GossipSub, port: GossipPort, limits: Limits) -> None:
        super().__init__(
            host, router, strict_signing=True, seen_ttl=_SEEN_S, sweep_interval=30,
            max_inbound_rpc_size=limits.gossip_rpc_bytes,
        )  # fmt: skip
        self.counter = time.time_ns()  # fault 4
        self._port = port
        self._limits = limits
        self._own_id = node_id_of(host.get_id().to_bytes())

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Returns when the peer's gossip stream ends, for whatever reason."""  # faults 1 and 2
        peer_id = stream.muxed_conn.peer_id
        try:
            source = PeerStream(stream)
        except ValueError:
            await stream.reset()
            return
        try:
            while True:
                await self._read_rpc(source, peer_id)
        except StreamBroken:
            return
        except (BadFrame, DecodeError) as error:
            self._port.blame(source.node_id, f"gossip stream: {error}", rejected=False)
        except _ANY_FAILURE as error:
            self._port.report_fault("gossip", repr(error))
        await source.aclose()

    async def _read_rpc(self, source: PeerStream, peer_id: ID) -> None:
        length = await source.read_varint(self._limits.gossip_rpc_bytes)
        content = await source.read_exactly(length)
        rpc = rpc_pb2.RPC()
        rpc.ParseFromString(content)
        if not await self._port.admit(source.node_id, max(1, len(rpc.publish)), length):
            return
        for message in rpc.publish:
            await self.push_msg(peer_id, message)
        if len(rpc.subscriptions) > _MAX_SUBSCRIPTIONS:
            raise BadFrame(f"expected at most {_MAX_SUBSCRIPTIONS} subscriptions, got {len(rpc.subscriptions)}")
        for subscription in rpc.subscriptions:
            if subscription.topicid in self.topic_ids or not subscription.subscribe:
                self.handle_subscription(peer_id, subscription)
        if rpc.HasField("control"):
            self._check_control(rpc.control)
            await self.router.handle_rpc(rpc, peer_id)

    def _check_control(self, control: rpc_pb2.ControlMessage) -> None:
        ids = sum(len(part.messageIDs) for parts in (control.ihave, control.iwant) for part in parts)
        ids += len(control.ihave) + len(control.iwant) + len(control.graft) + len(control.prune)
        if ids > self._limits.gossip_control_ids:
            raise BadFrame(f"expected at most {self._limits.gossip_control_ids} gossip controls, got {ids}")

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Judges, delivers and forwards one message; our own are only forwarded."""  # faults 2, 3, 7, 12
        message_id = msg.from_id + msg.seqno
        if self.seen_messages.has(message_id):
            return
        if msg_forwarder != self.my_id:
            fault = self._find_fault(msg)
            if fault is not None:
                self._port.blame(node_id_of(msg_forwarder.to_bytes()), fault, rejected=False)
                return
            self.seen_messages.add(message_id)
            if self._judge(msg_forwarder, msg) is not Verdict.ACCEPT:
                return
        else:
            self.seen_messages.add(message_id)
        await self.router.publish(msg_forwarder, msg)

    def _find_fault(self, msg: rpc_pb2.Message) -> str | None:
        if len(msg.topicIDs) != 1 or msg.topicIDs[0] not in self.topic_ids:
            return "a gossip message for a topic nobody here asked for"
        if len(msg.data) > self._limits.gossip_bytes:
            return f"expected gossip of at most {self._limits.gossip_bytes} bytes, got {len(msg.data)}"
        if len(msg.seqno) != _SEQUENCE_BYTES or len(msg.signature) != _SIGNATURE_BYTES:
            return "a gossip message without sequence number or signature"
        try:
            origin = node_id_of(msg.from_id)
        except ValueError:
            return "a gossip message whose origin is no Ed25519 peer"
        if origin == self._own_id:
            return "a gossip message in our name that we did not send"
        return None if _is_signed(msg, origin) else "a gossip message with a wrong signature"

    def _judge(self, forwarder: ID, msg: rpc_pb2.Message) -> Verdict:
        try:
            verdict = self._port.judge(msg.topicIDs[0], node_id_of(msg.from_id), msg.data)
        except _ANY_FAILURE as error:  # fault 3
            self._port.report_fault(f"validator of {msg.topicIDs[0]}", repr(error))
            return Verdict.IGNORE
        if verdict is Verdict.REJECT:
            self._port.blame(node_id_of(forwarder.to_bytes()), f"rejected on {msg.topicIDs[0]}", rejected=True)
        return verdict


def _is_signed(msg: rpc_pb2.Message, origin: bytes) -> bool:
    bare = rpc_pb2.Message(data=msg.data, topicIDs=msg.topicIDs, from_id=msg.from_id, seqno=msg.seqno)
    try:
        nacl.bindings.crypto_sign_open(msg.signature + _SIGNING_PREFIX + bare.SerializeToString(), origin)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


class HardenedGossip(GossipSub):
    """GossipSub whose control handling and heartbeat survive anything, and that remembers no whole messages."""

    port: GossipPort

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        """Handles control messages; what raises is held against the sender."""
        try:
            await super().handle_rpc(rpc, sender_peer_id)
        except _ANY_FAILURE as error:
            self.port.blame(node_id_of(sender_peer_id.to_bytes()), f"gossip control: {error!r}", rejected=False)

    async def heartbeat(self) -> None:
        """Never returns; starts again after a fault."""
        while True:
            try:
                await super().heartbeat()
            except _ANY_FAILURE as error:
                self.port.report_fault("gossip heartbeat", repr(error))
                await trio.sleep(self.heartbeat_interval)

    def _prune_idontwant_entries(self) -> None:
        self.recent_message_deliveries.clear()  # fault 11; called once a heartbeat
        super()._prune_idontwant_entries()

    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:
        return True  # fault 11: push_msg has marked origin and number as seen, under the origin's signature


def _ignore_records() -> None:
    own: dict[int, tuple[float, bytes]] = {}
    make_record = pubsub_module.env_to_send_in_RPC
    if getattr(make_record, "is_cached", False):
        return

    def cached_record(host: IHost) -> tuple[bytes, bool]:
        made, record = own.get(id(host), (float("-inf"), b""))
        if time.monotonic() - made > 30:
            record = make_record(host)[0]
            own.clear()
            own[id(host)] = (time.monotonic(), record)
        return record, False

    def consume_nothing(msg: rpc_pb2.RPC, host: IHost, peer_id: ID) -> bool:
        return True

    cached_record.is_cached = True  # type: ignore[attr-defined]
    for module in (pubsub_module, gossipsub_module):
        module.env_to_send_in_RPC = cached_record
        module.maybe_consume_signed_record = consume_nothing


def check_port_free(host: str, port: int) -> None:
    """Nothing, if the port can be bound by us alone.

    Raises: NetworkError if it is taken or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise NetworkError(
                f"cannot listen on {host}:{port}: {error.strerror}; stop the program that uses it or choose another port"
            ) from error


class Libp2pHost:
    """A running libp2p host, reduced to what the node uses."""

    def __init__(self, host: IHost, pubsub: Pubsub, swarm: Swarm) -> None:
        self._host = host
        self._pubsub = pubsub
        self._swarm = swarm

    def addresses(self) -> tuple[str, ...]:
        """The bound multiaddrs with our peer id."""
        own = self._host.get_id().to_base58()
        return tuple(f"{str(a).partition('/p2p/')[0]}/p2p/{own}" for a in self._host.get_addrs())

    @property
    def node_id(self) -> bytes:
        """Our own public key."""
        return node_id_of(self._host.get_id().to_bytes())

    def is_connected(self, node_id: bytes) -> bool:
        """Whether there is any libp2p connection to the peer."""
        return any(not conn.is_closed for conn in self._swarm.get_connections(_id(node_id)))

    async def connect(self, node_id: bytes, address: str) -> None:
        """Returns with a connection, dialled at the given address only.

        Raises: StreamBroken if none can be made.
        """
        peer_id = _id(node_id)
        self._swarm.unblock_peer(peer_id)  # fault 15
        try:
            store = self._swarm.peerstore
            if peer_id in store.peer_ids():
                store.clear_addrs(peer_id)
            await self._host.connect(PeerInfo(peer_id, [Multiaddr(address)]))
        except _ANY_FAILURE as error:
            raise StreamBroken(_describe(error)) from error

    async def disconnect(self, node_id: bytes) -> None:
        """Returns when all connections to the peer are closed."""
        try:
            await self._host.disconnect(_id(node_id))
        except _ANY_FAILURE as error:
            logging.getLogger(__name__).debug("disconnect failed: %r", error)

    async def open_stream(self, node_id: bytes, protocol: TProtocol) -> PeerStream:
        """A new stream on an existing connection.

        Raises: StreamBroken.
        """
        if not self.is_connected(node_id):
            raise StreamBroken("not connected")
        try:
            return PeerStream(await self._host.new_stream(_id(node_id), [protocol]))
        except _ANY_FAILURE as error:
            raise StreamBroken(_describe(error)) from error

    def handle(self, protocol: TProtocol, handler: Callable[[INetStream], Awaitable[None]]) -> None:
        """Sets the guarded handler of a protocol."""
        self._host.set_stream_handler(protocol, handler)

    async def publish(self, topic: str, data: bytes) -> None:
        """Signs and forwards one gossip message."""
        await self._pubsub.publish(topic, data)


def _id(node_id: bytes) -> ID:
    return ID.from_base58(peer_id_of(node_id))


def _make_host(seed: bytes, limits: Limits, timing: Timing) -> IHost:
    keys = create_new_key_pair(seed)
    connections = 4 * limits.peers
    noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
    return new_host(
        key_pair=keys,
        sec_opt={TProtocol(NOISE_PROTOCOL): noise},
        muxer_opt={TProtocol(YAMUX_PROTOCOL): Yamux},
        transports=[TCP()],
        connection_config=ConnectionConfig(
            max_connections=connections, high_watermark=connections, min_connections=0, low_watermark=0,
            auto_connect_interval=3_600, inbound_upgrade_timeout=timing.dial_timeout_s,
        ),
        resource_manager=ResourceManager(enable_circuit_breaker=False, enable_graceful_degradation=False),
        disable_identify_address_discovery=True,
    )  # fmt: skip


def _make_gossip(host: IHost, port: GossipPort, limits: Limits, timing: Timing) -> tuple[HardenedPubsub, HardenedGossip]:
    _ignore_records()
    pubsub_module.RpcQueue = functools.partial(
        RpcQueue, max_size=_GOSSIP_QUEUE, max_message_size=limits.gossip_rpc_bytes
    )
    router = HardenedGossip(
        [PROTOCOL_ID_V11], degree=4, degree_low=3, degree_high=6, gossip_window=3, gossip_history=5,
        heartbeat_initial_delay=0.1, heartbeat_interval=timing.gossip_heartbeat_s,  # type: ignore[arg-type]
        prune_back_off=5, unsubscribe_back_off=2, do_px=False, adaptive_gossip_enabled=False,
        spam_protection_enabled=False, eclipse_protection_enabled=False,
    )  # fmt: skip
    router.port = port
    return HardenedPubsub(host, router, port, limits), router


@asynccontextmanager
async def open_host(
    seed: bytes,
    listen: tuple[str, int],
    topics: tuple[str, ...],
    port: GossipPort,
    listener: ConnectionListener,
    handlers: dict[TProtocol, Callable[[INetStream], Awaitable[None]]],
    limits: Limits,
    timing: Timing,
) -> AsyncGenerator[Libp2pHost, None]:
    """A listening host with gossip, closed on leaving.

    Raises: NetworkError if it cannot listen.
    """
    check_port_free(*listen)
    host = _make_host(seed, limits, timing)
    swarm = host.get_network()
    assert isinstance(swarm, Swarm)
    swarm.retry_config = RetryConfig(max_retries=0)  # fault 15: our own backoff decides
    pubsub, router = _make_gossip(host, port, limits, timing)
    for protocol, handler in handlers.items():
        host.set_stream_handler(protocol, handler)
    swarm.register_notifee(listener)
    family = "ip6" if ":" in listen[0] else "ip4"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(host.run([Multiaddr(f"/{family}/{listen[0]}/tcp/{listen[1]}")]))
        if not host.get_transport_addrs():
            raise NetworkError(f"cannot listen on {listen[0]}:{listen[1]}; choose another port")
        await stack.enter_async_context(background_trio_service(pubsub))
        await stack.enter_async_context(background_trio_service(router))
        await pubsub.wait_until_ready()
        for topic in topics:
            await pubsub.subscribe(topic)
        yield Libp2pHost(host, pubsub, swarm)
