"""libp2p made safe: everything that is patched or configured against its defaults; the gossip part is libp2p_gossip.py.

Nothing that a peer sends may leave these files as anything but a value, a StreamBroken or a reported offence. Checked
against libp2p 0.8.1. Each mend names the fault and how to see that upstream has mended it:

 1 One undecodable protobuf on the gossip stream ends the victim's host.     `HardenedPubsub.continuously_read_stream`
   Upstream is well when Pubsub.stream_handler catches google.protobuf.message.DecodeError.
 2 A gossip message with an empty origin or a junk key ends the service.     `HardenedPubsub.push_msg`
   Well when signature_validator returns False where it now raises on deserialize_public_key.
 3 A validator or stream handler that raises ends the node.                  `_limit_streams`, `HardenedPubsub._judge`
   Well when SwarmConn._handle_muxed_stream catches what common_stream_handler raises.
 4 Sequence numbers restart at int(time()), so that a node restarted within the second is taken for a repeat.
   Well when Pubsub.counter starts from nanoseconds.                          `HardenedPubsub.__init__`
 5 The built-in spam limit (10 messages/s a peer and topic) also drops our own messages.  `make_gossip`
 6 Outbound queues of 32 messages, dropped silently.                          `make_gossip`
   Well when Pubsub takes the queue's size as an argument.
 7 Validation is cached for 300 s with a linear search, and a message is marked seen only after it.
   `HardenedPubsub.push_msg` judges once, synchronously, and marks seen once the signature holds.
 8 No redial, no keepalive: see node/libp2p_network.py and node/streams.py.
 9 Heartbeat 120 s, eclipse protection that wants three addresses.           `make_gossip`
10 A signed address record on every gossip message, verified each time, whose addresses then steer our dials.
   `_patch_gossip`; well when the record is sent once a connection.
11 recent_message_deliveries grows for ever; equivocation_detection keeps 1,000 whole messages.
   `HardenedGossip.heartbeat` clears the one, `_check_equivocation` needs not the other: we mark origin + number as seen.
12 A validator's False blames the forwarder for 300 s: see 7.
14 Leaving host.run() leaves listeners (system tasks that go on accepting) and connections behind, since Swarm.run
   cleans up inside its own cancelled scope.                         `_close_sockets`
   Well when the port is closed once host.run() is left.
15 A failed dial bars the peer for 60 s (negative cache), three inner retries; addresses that a peer claims for itself
   (identify) displace the configured loopback one; an auto-connector dials whatever identify brought.  `connect`,
   `open_host`. Well when dial_peer takes addresses as arguments.
18 The receive window is announced but not enforced (a warning, then window 0): a peer that ignores it fills the memory.
   `BoundedYamux` (node/libp2p_frames.py); well when handle_incoming closes the connection where recv_window falls below 0.
19 A frame with an unknown header is passed over, and one to a stream that is gone is read and forgotten, at any rate.
   `BoundedYamux` (node/libp2p_frames.py); well when handle_incoming answers an unknown type with a go-away.
20 A write that is cancelled leaves half a frame, or a gap in Noise's counter, and with it a broken connection.
   `BoundedYamux` (node/libp2p_frames.py); well when _write_frame shields what it has begun.
17 The resource manager's circuit breaker bars *all* peers for 60 s after five refusals, which any stranger can cause.
   `open_host`; well when the breaker counts by peer.
16 Listeners set SO_REUSEPORT: two nodes of one user share a port without an error.  `_listen_alone`, `check_port_free`
   Well when a second listen on the same port fails.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import libp2p.stream_muxer.muxer_multistream as muxer_module
import libp2p.stream_muxer.yamux.yamux as yamux_module
import libp2p.transport.tcp.tcp as tcp_module
import trio
from libp2p import new_host
from libp2p.abc import IHost, IListener, INetConn, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.pubsub import Pubsub
from libp2p.rcmgr import ResourceManager
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from node.libp2p_frames import BoundedYamux
from node.libp2p_gossip import GossipPort, make_gossip
from node.libp2p_speed import speed_up
from node.libp2p_streams import ConnectionListener, PeerStream, broken_on_failure, log_only, reported
from node.network import PEER_ID_PREFIX, Limits, NetworkError, Timing, node_id_of, peer_id_of
from node.streams import StreamBroken

# libp2p reports every failed dial to stderr as it has no handler of its own; what matters leaves here as an event.
logging.getLogger("libp2p").addHandler(logging.NullHandler())

DIRECT_PROTOCOL = TProtocol("/quorate/1/direct")
FETCH_PROTOCOL = TProtocol("/quorate/1/fetch")
# A peer has a direct stream, two of gossip and a dozen of fetch at the most.
_MAX_STREAMS = 64
# Peers are told that we go, in no more than this.
_CLOSE_S = 2.0
_WINDOW_BYTES = 2 << 20


class NoAutoConnector(AutoConnector):
    """Dials nobody."""  # fault 15

    async def maybe_connect(self) -> None:
        """Returns at once; libp2p would dial up to the middle of the watermarks."""


def _limit_streams(swarm: Swarm) -> None:  # fault 3, for the handlers of libp2p's own protocols too
    handle = swarm.common_stream_handler

    async def guarded(stream: INetStream) -> None:
        with reported(log_only):
            if len(swarm_conn.streams if (swarm_conn := getattr(stream, "swarm_conn", None)) else ()) > _MAX_STREAMS:
                await stream.reset()
                return
            await handle(stream)

    swarm.set_stream_handler(guarded)


async def _listen_alone(host: str | None, port: int) -> list[trio.SocketListener]:
    return list(await trio.open_tcp_listeners(port, host=host))  # fault 16


def check_port_free(host: str, port: int) -> None:
    """Nothing, if the port can be bound by us alone.

    Raises: NetworkError if it is taken or the host is no address of this machine.
    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError as error:
        raise NetworkError(f"expected an IP address to listen on, got {host!r}; 0.0.0.0 means all") from error
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise NetworkError(
                f"cannot listen on {host}:{port}: {error.strerror}; stop the program that uses it or choose another port"
            ) from error


def check_address(address: str) -> None:
    """Nothing, if the address can be dialled over TCP.

    Raises: NetworkError if not.
    """
    try:
        protocols = [protocol.name for protocol in Multiaddr(address).protocols()]
    except (ValueError, MultiaddrError) as error:
        raise NetworkError(f"expected an address such as /ip4/10.0.0.1/tcp/4001, got {address!r}: {error}") from error
    if len(protocols) != 2 or protocols[0] not in ("ip4", "ip6", "dns4", "dns6", "dns") or protocols[1] != "tcp":
        raise NetworkError(f"expected an address such as /ip4/10.0.0.1/tcp/4001, got {address!r}")


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

    def connected(self) -> tuple[bytes, ...]:
        """The peers with any libp2p connection, as far as their keys are Ed25519."""
        raw = [peer_id.to_bytes() for peer_id in self._swarm.connections]
        return tuple(node_id_of(peer_id) for peer_id in raw if peer_id.startswith(PEER_ID_PREFIX))

    def protect(self, node_id: bytes) -> None:
        """The peer's connections are not the ones given up when there are too many."""
        self._swarm.protect(_id(node_id), "configured")

    def is_connected(self, node_id: bytes) -> bool:
        """Whether there is any libp2p connection to the peer."""
        return any(not conn.is_closed for conn in self._swarm.get_connections(_id(node_id)))

    def find_remote_host(self, node_id: bytes) -> str | None:
        """The IP address at the other end of a connection with the peer."""
        for conn in self._swarm.get_connections(_id(node_id)):
            muxed = conn.muxed_conn
            remote = muxed.get_remote_address() if isinstance(muxed, BoundedYamux) else None
            if remote is not None:
                return remote[0]
        return None

    async def connect(self, node_id: bytes, address: str) -> None:
        """Returns with a connection, dialled at the given address only.

        Raises: StreamBroken if none can be made.
        """
        peer_id = _id(node_id)
        self._swarm.unblock_peer(peer_id)  # fault 15
        with broken_on_failure():
            store = self._swarm.peerstore
            if peer_id in store.peer_ids():
                store.clear_addrs(peer_id)
            await self._host.connect(PeerInfo(peer_id, [Multiaddr(address)]))

    async def disconnect(self, node_id: bytes) -> None:
        """Returns when all connections to the peer are closed."""
        with reported(log_only):
            await self._host.disconnect(_id(node_id))

    async def open_stream(self, node_id: bytes, protocol: TProtocol) -> PeerStream:
        """A new stream on an existing connection.

        Raises: StreamBroken.
        """
        if not self.is_connected(node_id):
            raise StreamBroken("not connected")
        with broken_on_failure():
            return PeerStream(await self._host.new_stream(_id(node_id), [protocol]))

    async def publish(self, topic: str, data: bytes) -> None:
        """Signs and forwards one gossip message.

        Raises: StreamBroken.
        """
        with broken_on_failure():
            await self._pubsub.publish(topic, data)


def _id(node_id: bytes) -> ID:
    return ID.from_base58(peer_id_of(node_id))


def _make_host(seed: bytes, limits: Limits, timing: Timing) -> IHost:
    yamux_module.MAX_WINDOW_SIZE = _WINDOW_BYTES
    # The muxer's class is not taken from muxer_opt but named in the module.
    muxer_module.__dict__["Yamux"] = BoundedYamux
    tcp_module.__dict__["_open_reuseport_listeners"] = _listen_alone
    speed_up()
    keys = create_new_key_pair(seed)
    connections = 4 * limits.peers
    noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
    return new_host(
        key_pair=keys,
        sec_opt={TProtocol(NOISE_PROTOCOL): noise},
        muxer_opt={TProtocol(YAMUX_PROTOCOL): BoundedYamux},
        transports=[TCP()],
        connection_config=ConnectionConfig(
            max_connections=connections, high_watermark=connections, min_connections=0, low_watermark=0,
            auto_connect_interval=3_600, inbound_upgrade_timeout=timing.dial_timeout_s,
        ),
        resource_manager=ResourceManager(enable_circuit_breaker=False, enable_graceful_degradation=False),
        disable_identify_address_discovery=True,
    )  # fmt: skip


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
    swarm.auto_connector = NoAutoConnector(swarm)
    swarm.retry_config = RetryConfig(max_retries=0)  # fault 15: our own backoff decides
    _limit_streams(swarm)
    pubsub, router = make_gossip(host, port, limits, timing)
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
        try:
            yield Libp2pHost(host, pubsub, swarm)
        finally:
            await _close_sockets(swarm)


async def _close_sockets(swarm: Swarm) -> None:  # fault 14
    with trio.move_on_after(_CLOSE_S) as scope:
        scope.shield = True
        async with trio.open_nursery() as nursery:
            for resource in (*swarm.listeners.values(), *swarm.get_connections()):
                nursery.start_soon(_close_one, resource)


async def _close_one(resource: IListener | INetConn) -> None:
    with reported(log_only):
        await resource.close()
