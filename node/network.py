"""The node's view of the network: what it may ask of it, what comes out of it, how peers are named.

Decides the interface, its limits and its events; leaves sockets to node/libp2p_network.py. Imports no libp2p, so that
whoever needs only the types stays light.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import base58

PUBLIC_KEY_BYTES = 32
CHAIN_ID_BYTES = 32
# Multihash "identity" over 36 bytes, then libp2p's protobuf of a public key: type Ed25519, 32 bytes of key.
PEER_ID_PREFIX = bytes.fromhex("002408011220")
MAX_SOFTWARE_BYTES = 64


class Verdict(enum.Enum):
    """What a gossip validator says of a message: pass it on, drop it silently, or hold it against the peer."""

    ACCEPT = "accept"
    IGNORE = "ignore"
    REJECT = "reject"


GossipValidator: TypeAlias = Callable[[bytes, bytes], Verdict]
"""Judges (origin's node id, data); synchronous and quick, because the peer's stream waits for it."""
FetchHandler: TypeAlias = Callable[[bytes, bytes], Awaitable[bytes]]
"""Answers (node id, request) with at most Limits.response_bytes, or raises FetchRefused."""


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A peer has shown the same chain and protocol version: messages flow both ways."""

    node_id: bytes
    software: str


@dataclass(frozen=True, slots=True)
class PeerDown:
    """The direct stream to a peer has ended; `reason` is one sentence."""

    node_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """A peer answered the handshake for another chain or protocol version; tried again after the mismatch interval."""

    node_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class DirectMessage:
    """One message from a peer's authenticated direct stream."""

    node_id: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class GossipMessage:
    """One accepted gossip message; `node_id` signed it, whoever forwarded it."""

    topic: str
    node_id: bytes
    data: bytes


class Offence(enum.Enum):
    """What a peer did against the rules."""

    BAD_FRAME = "bad_frame"
    BAD_GOSSIP = "bad_gossip"
    REJECTED_GOSSIP = "rejected_gossip"
    BAD_FETCH = "bad_fetch"
    FLOOD = "flood"


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """A peer broke a rule of the transport; at most one event a peer, kind and `Timing.report_interval_s`."""

    node_id: bytes
    offence: Offence
    detail: str


@dataclass(frozen=True, slots=True)
class CallbackFault:
    """Our own validator or fetch handler raised on a peer's input: a bug here, which must not let the peer end us."""

    where: str
    detail: str


NetworkEvent: TypeAlias = PeerUp | PeerDown | PeerRefused | DirectMessage | GossipMessage | Misbehaviour | CallbackFault


class NetworkError(Exception):
    """The network cannot be opened as configured."""


class FetchFault(enum.Enum):
    """Why a request got no answer."""

    NOT_CONNECTED = "not_connected"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    BROKEN = "broken"


class FetchError(Exception):
    """A request got no answer; another peer may have it."""

    def __init__(self, fault: FetchFault, detail: str) -> None:
        super().__init__(f"{fault.value}: {detail}")
        self.fault = fault
        self.detail = detail


class FetchRefused(Exception):
    """Raised by a fetch handler: the requester is told the text, which must hold nothing secret."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a configured peer listens: its key and a multiaddr such as /ip4/10.0.0.1/tcp/4001."""

    node_id: bytes
    multiaddr: str


@dataclass(frozen=True, slots=True)
class Topic:
    """A gossip topic to take part in; the chain id is put before its name on the wire."""

    name: str
    validator: GossipValidator


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: sustained rates, and how many seconds of them may come at once."""

    messages_per_s: float
    bytes_per_s: float
    burst_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may cost this node."""

    frame_bytes: int = 1 << 20
    # Two full proposals may wait for a slow peer; votes that find no room push the oldest out, consensus re-sends.
    outbox_bytes: int = 4 << 20
    gossip_bytes: int = 64 << 10
    gossip_rpc_bytes: int = 512 << 10
    gossip_outbox_bytes: int = 8 << 20
    gossip_control_ids: int = 2_000
    request_bytes: int = 64 << 10
    response_bytes: int = 512 << 10
    requests_out_per_peer: int = 4
    requests_in_per_peer: int = 8
    peers: int = 64
    direct: Rate = field(default_factory=lambda: Rate(2_000, 8 << 20))
    gossip: Rate = field(default_factory=lambda: Rate(1_000, 4 << 20))
    # The other side pays a token for each request; its bytes are those we send back.
    fetch: Rate = field(default_factory=lambda: Rate(100, 32 << 20))


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the network waits for what. Units: seconds"""

    redial_min_s: float = 0.25
    # A partition may heal at any time, and finality is to be back in 10 s; a dial that fails costs a packet or three.
    redial_max_s: float = 3.0
    dial_timeout_s: float = 5.0
    handshake_timeout_s: float = 5.0
    ping_interval_s: float = 3.0
    # Three pings unanswered: a frozen peer is dropped within 11 s.
    silence_limit_s: float = 10.0
    write_timeout_s: float = 10.0
    mismatch_retry_s: float = 60.0
    report_interval_s: float = 10.0
    serve_timeout_s: float = 20.0
    gossip_heartbeat_s: float = 1.0
    # A peer is cut off that has been over its rates for as long: an honest burst is over by then.
    flood_limit_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Everything the network needs to open; read once."""

    seed: bytes = field(repr=False)
    chain_id: bytes
    protocol_version: int
    software: str
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    peers: tuple[PeerAddress, ...] = ()
    topics: tuple[Topic, ...] = ()
    fetch_handler: FetchHandler | None = None
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)
    jitter: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """What has passed between this node and one peer. Units: milliseconds, seconds on the caller's trio clock"""

    node_id: bytes
    configured: bool
    connected: bool
    software: str
    last_seen: float | None
    rtt_ms: float | None
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    dropped_out: int
    dropped_in: int
    gossip_in: int
    fetches_served: int
    offences: int
    slowed_in: int = 0


@dataclass(frozen=True, slots=True)
class NetworkStatistics:
    """A snapshot; `gossip_dropped_*` count what found no room in a bounded queue."""

    peers: tuple[PeerStatistics, ...]
    gossip_published: int
    gossip_dropped_out: int
    gossip_dropped_in: int


class Network(Protocol):
    """An open network. Nothing a peer sends raises out of it."""

    @property
    def node_id(self) -> bytes:
        """This node's Ed25519 public key."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs bound, with the ports really taken and the peer id at the end."""
        ...

    def connected(self) -> frozenset[bytes]:
        """The peers that have completed the handshake and not gone since."""
        ...

    def send(self, node_id: bytes, data: bytes) -> bool:
        """True if queued for the peer's direct stream; False, and counted, if there is none. Never waits.

        Raises: ValueError if data exceeds the frame.
        """
        ...

    def publish(self, topic: str, data: bytes) -> None:
        """Queues data for gossip; never waits, drops the oldest if the queue is full.

        Raises: ValueError if the topic is not configured or data exceeds Limits.gossip_bytes.
        """
        ...

    async def request(self, node_id: bytes, data: bytes, timeout_s: float) -> bytes:
        """The peer's answer.

        Raises: FetchError if there is none within timeout_s.
        """
        ...

    def find_host(self, node_id: bytes) -> str | None:
        """The IP address that a connected peer's connection comes from, or goes to."""
        ...

    def expect(self, nodes: frozenset[bytes]) -> None:
        """Let these peers in whatever the number of guests; those of earlier calls are guests again."""
        ...

    def keep(self, peer: PeerAddress) -> None:
        """Dial this peer until it is there, and whenever it goes, as if it were configured. One that is keeps its address.

        Raises: NetworkError if the address can't be dialled over TCP.
        """
        ...

    def let_go(self, node_id: bytes) -> None:
        """No longer dial a peer of `keep`; its connection stays as long as it lasts."""
        ...

    def statistics(self) -> NetworkStatistics:
        """A snapshot of all counters."""
        ...


def peer_id_of(node_id: bytes) -> str:
    """The libp2p peer id, in base58, of an Ed25519 public key."""
    if len(node_id) != PUBLIC_KEY_BYTES:
        raise ValueError(f"a node id has {PUBLIC_KEY_BYTES} bytes, got {len(node_id)}; give the Ed25519 public key")
    return base58.b58encode(PEER_ID_PREFIX + node_id).decode("ascii")


def node_id_of(peer_id: str | bytes) -> bytes:
    """The Ed25519 public key inside a libp2p peer id, given in base58 or raw.

    Raises: ValueError if the peer id holds no Ed25519 key.
    """
    raw = base58.b58decode(peer_id) if isinstance(peer_id, str) else peer_id
    if not raw.startswith(PEER_ID_PREFIX) or len(raw) != len(PEER_ID_PREFIX) + PUBLIC_KEY_BYTES:
        raise ValueError("expected a peer id made from an Ed25519 key (12D3Koo…), got another kind")
    return raw[len(PEER_ID_PREFIX) :]


def parse_peer(text: str) -> PeerAddress:
    """A peer from /ip4/HOST/tcp/PORT/p2p/PEER_ID, as addresses print it.

    Raises: ValueError if the peer id is missing or not Ed25519.
    """
    address, separator, peer_id = text.rpartition("/p2p/")
    if not separator or not address.startswith("/"):
        raise ValueError(f"expected an address such as /ip4/10.0.0.1/tcp/4001/p2p/12D3Koo…, got {text!r}")
    return PeerAddress(node_id_of(peer_id), address)
