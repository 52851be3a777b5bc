"""The Network over libp2p: TCP, Noise and Yamux only, one persistent direct stream to each peer.

Decides who opens a stream, when to redial, and which events leave; leaves bytes to node/streams.py and node/fetch.py,
and libp2p's faults to node/libp2p_hardening.py.

Either side dials. On whatever connection results, the node with the smaller id opens the direct stream, so that two
nodes that dial each other at once need no tie-break. A later stream replaces an earlier one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from node import fetch
from node.libp2p_hardening import (
    DIRECT_PROTOCOL,
    FETCH_PROTOCOL,
    ConnectionListener,
    GossipPort,
    Libp2pHost,
    PeerStream,
    guard_handler,
    open_host,
)
from node.network import (
    CHAIN_ID_BYTES,
    CallbackFault,
    DirectMessage,
    FetchError,
    FetchFault,
    GossipMessage,
    Limits,
    Misbehaviour,
    NetworkConfig,
    NetworkError,
    NetworkEvent,
    NetworkStatistics,
    Offence,
    PeerDown,
    PeerRefused,
    PeerStatistics,
    PeerUp,
    Rate,
    Verdict,
)
from node.rates import TokenBucket
from node.streams import FRAME_OVERHEAD, BadFrame, Hello, Mismatch, Outbox, Session, StreamBroken, Traffic, shake_hands


@dataclass(slots=True, eq=False)
class _Peer:
    """All that is open towards one peer; changed by this file only."""

    node_id: bytes
    address: str | None
    outbox: Outbox
    direct_bucket: TokenBucket
    gossip_bucket: TokenBucket
    fetch_bucket: TokenBucket
    requests_out: trio.CapacityLimiter
    traffic: Traffic = field(default_factory=Traffic)
    session: Session | None = None
    session_lock: trio.Lock = field(default_factory=trio.Lock)
    up: bool = False
    software: str = ""
    wake: trio.Event = field(default_factory=trio.Event)
    not_before: float = float("-inf")
    requests_in: int = 0
    dropped_out: int = 0
    dropped_in: int = 0
    gossip_in: int = 0
    fetches_served: int = 0
    offences: int = 0
    reported: dict[Offence, float] = field(default_factory=dict)


@asynccontextmanager
async def open_network(
    config: NetworkConfig, inbound: trio.MemorySendChannel[NetworkEvent]
) -> AsyncGenerator[Libp2pNetwork, None]:
    """An open network whose events go to inbound; all of it is closed on leaving.

    Raises: NetworkError if it cannot listen as configured.
    """
    if len(config.chain_id) != CHAIN_ID_BYTES:
        raise NetworkError(f"expected a chain id of {CHAIN_ID_BYTES} bytes, got {len(config.chain_id)}")
    network = Libp2pNetwork(config, inbound)
    listener = ConnectionListener(network.notice_connected, network.notice_disconnected)
    handlers = {
        DIRECT_PROTOCOL: guard_handler(network.accept_direct, network.report_fault),
        FETCH_PROTOCOL: guard_handler(network.accept_fetch, network.report_fault),
    }
    topics = tuple(network.wire_topic(topic.name) for topic in config.topics)
    listen = (config.listen_host, config.listen_port)
    async with (
        trio.open_nursery() as nursery,
        open_host(config.seed, listen, topics, network, listener, handlers, config.limits, config.timing) as host,
    ):
        network.start(host, nursery)
        try:
            yield network
        finally:
            nursery.cancel_scope.cancel()


class Libp2pNetwork(GossipPort):
    """The open network; see node.network.Network for what callers use."""

    def __init__(self, config: NetworkConfig, inbound: trio.MemorySendChannel[NetworkEvent]) -> None:
        self._config = config
        self._limits = config.limits
        self._timing = config.timing
        self._inbound = inbound
        self._hello = Hello(config.chain_id, config.protocol_version, config.software)
        self._topic_prefix = f"/quorate/1/{config.chain_id.hex()[:16]}/"
        self._validators = {self.wire_topic(topic.name): topic for topic in config.topics}
        self._peers = {p.node_id: self._make_peer(p.node_id, p.multiaddr) for p in config.peers}
        self._gossip_queue: deque[tuple[str, bytes]] = deque()
        self._gossip_queued_bytes = 0
        self._gossip_wake = trio.Event()
        self._gossip_published = self._gossip_dropped_out = self._gossip_dropped_in = 0
        self._host: Libp2pHost
        self._nursery: trio.Nursery
        self._node_id = b""
        self._addresses: tuple[str, ...] = ()

    def start(self, host: Libp2pHost, nursery: trio.Nursery) -> None:
        """Begins to dial and to publish; called once by open_network."""
        self._host = host
        self._nursery = nursery
        self._node_id = host.node_id
        self._addresses = host.addresses()
        self._peers.pop(self._node_id, None)
        nursery.start_soon(self._publish_loop)
        for peer in self._peers.values():
            nursery.start_soon(self._keep_peer, peer)

    # What callers use

    @property
    def node_id(self) -> bytes:
        """This node's public key."""
        return self._node_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """The bound multiaddrs with the peer id."""
        return self._addresses

    def connected(self) -> frozenset[bytes]:
        """The peers whose handshake is done."""
        return frozenset(peer.node_id for peer in self._peers.values() if peer.up)

    def send(self, node_id: bytes, data: bytes) -> bool:
        """Whether the message was queued."""
        if len(data) > self._limits.frame_bytes - FRAME_OVERHEAD:
            raise ValueError(f"a message has at most {self._limits.frame_bytes - FRAME_OVERHEAD} bytes, got {len(data)}")
        peer = self._peers.get(node_id)
        if peer is None:
            return False
        if not peer.up:
            peer.dropped_out += 1
            return False
        peer.outbox.push(data)
        return True

    def publish(self, topic: str, data: bytes) -> None:
        """Queues data for gossip."""
        wire_topic = self.wire_topic(topic)
        if wire_topic not in self._validators:
            raise ValueError(f"topic {topic!r} is not configured; add it to NetworkConfig.topics")
        if len(data) > self._limits.gossip_bytes:
            raise ValueError(f"gossip has at most {self._limits.gossip_bytes} bytes, got {len(data)}")
        self._gossip_queue.append((wire_topic, data))
        self._gossip_queued_bytes += len(data)
        while self._gossip_queued_bytes > self._limits.gossip_outbox_bytes:
            self._gossip_queued_bytes -= len(self._gossip_queue.popleft()[1])
            self._gossip_dropped_out += 1
        self._gossip_wake.set()

    async def request(self, node_id: bytes, data: bytes, timeout_s: float) -> bytes:
        """The peer's answer."""
        peer = self._peers.get(node_id)
        if peer is None or not peer.up:
            raise FetchError(FetchFault.NOT_CONNECTED, "the peer is not connected; ask another")
        deadline = trio.current_time() + timeout_s
        with trio.move_on_at(deadline):
            async with peer.requests_out:
                left_s = max(0.0, deadline - trio.current_time())
                return await fetch.ask(lambda: self._host.open_stream(node_id, FETCH_PROTOCOL), data, left_s, self._limits)
        raise FetchError(FetchFault.TIMEOUT, f"no answer within {timeout_s:g} s")

    def statistics(self) -> NetworkStatistics:
        """A snapshot of all counters."""
        return NetworkStatistics(
            tuple(_snapshot(peer) for peer in self._peers.values()),
            self._gossip_published,
            self._gossip_dropped_out,
            self._gossip_dropped_in,
        )

    # What libp2p calls

    def notice_connected(self, node_id: bytes) -> None:
        """Wakes the peer's task, or makes one for a peer that nobody configured."""
        peer = self._peers.get(node_id)
        if peer is not None:
            peer.wake.set()
            return
        if node_id == self._node_id or len(self._peers) >= self._limits.peers:
            self._nursery.start_soon(self._host.disconnect, node_id)
            return
        peer = self._peers[node_id] = self._make_peer(node_id, None)
        self._nursery.start_soon(self._keep_guest, peer)

    def notice_disconnected(self, node_id: bytes) -> None:
        """Wakes the peer's task, which looks for itself."""
        peer = self._peers.get(node_id)
        if peer is not None:
            peer.wake.set()

    async def accept_direct(self, stream: PeerStream) -> None:
        """Runs a direct stream that a peer has opened."""
        peer = self._peers.get(stream.node_id)
        if peer is None:
            return
        if self._opens_to(peer):
            await self._blame(peer, Offence.BAD_FRAME, "opened the direct stream that is ours to open")
            return
        if trio.current_time() < peer.not_before:
            return
        # The session's events must go out even when libp2p cancels this handler with the connection.
        done = trio.Event()
        self._nursery.start_soon(self._run_accepted, peer, stream, done)
        await done.wait()

    async def accept_fetch(self, stream: PeerStream) -> None:
        """Answers one request of a peer."""
        peer = self._peers.get(stream.node_id)
        handler = self._config.fetch_handler
        if peer is None or not peer.up or handler is None:
            await fetch.refuse(stream, "no requests before the handshake" if handler else "this node serves nothing")
            return
        if peer.requests_in >= self._limits.requests_in_per_peer:
            await fetch.refuse(stream, "busy: too many requests at once")
            return
        peer.requests_in += 1
        try:
            with trio.move_on_after(self._timing.serve_timeout_s):
                request = await fetch.read_request(stream, self._limits)
                if not await self._admit(peer, peer.fetch_bucket, 1, len(request)):
                    await fetch.refuse(stream, "busy: too many requests")
                    return
                sent = await fetch.serve(stream, peer.node_id, request, handler, self._limits)
                peer.fetch_bucket.take(0, sent, trio.current_time())
                peer.fetches_served += 1
        except BadFrame as error:
            await self._blame(peer, Offence.BAD_FETCH, str(error))
        finally:
            peer.requests_in -= 1

    async def admit(self, node_id: bytes, messages: int, size: int) -> bool:
        """Whether gossip of this size may pass."""
        peer = self._peers.get(node_id)
        return peer is not None and await self._admit(peer, peer.gossip_bucket, messages, size)

    def judge(self, topic: str, origin: bytes, data: bytes) -> Verdict:
        """The verdict of the topic's validator; what is accepted goes to the node, if it has room."""
        verdict = self._validators[topic].validator(origin, data)
        if verdict is Verdict.ACCEPT:
            self._offer(GossipMessage(self._validators[topic].name, origin, data))
        return verdict

    def blame(self, node_id: bytes, detail: str, *, rejected: bool) -> None:
        """Counts and reports a gossip offence."""
        peer = self._peers.get(node_id)
        if peer is not None and self._counts_as_new(peer, offence := _gossip_offence(rejected)):
            self._offer(Misbehaviour(node_id, offence, detail))

    def report_fault(self, where: str, detail: str) -> None:
        """Reports an exception of our own callbacks."""
        self._offer(CallbackFault(where, detail))

    def wire_topic(self, name: str) -> str:
        """The topic's name among peers: two chains never share one."""
        return self._topic_prefix + name

    # Peers

    def _make_peer(self, node_id: bytes, address: str | None) -> _Peer:
        now, limits = trio.current_time(), self._limits
        buckets = [TokenBucket(rate, now) for rate in (limits.direct, limits.gossip, limits.fetch)]
        return _Peer(
            node_id, address, Outbox(limits.outbox_bytes), *buckets, trio.CapacityLimiter(limits.requests_out_per_peer)
        )

    def _opens_to(self, peer: _Peer) -> bool:
        return self._node_id < peer.node_id

    async def _keep_peer(self, peer: _Peer) -> None:
        """Dials a configured peer for ever; runs its session where it is ours to open."""
        delay_s = self._timing.redial_min_s
        while True:
            if await self._attempt(peer):
                delay_s = self._timing.redial_min_s
            else:
                delay_s = min(delay_s * 2, self._timing.redial_max_s)
            wait_s = max(delay_s * (0.5 + self._config.jitter()), peer.not_before - trio.current_time())
            await self._sleep_or_wake(peer, wait_s)

    async def _keep_guest(self, peer: _Peer) -> None:
        """Runs the session of a peer that came by itself, while it stays connected."""
        while self._host.is_connected(peer.node_id):
            await self._attempt(peer)
            wait_s = max(self._timing.redial_min_s, peer.not_before - trio.current_time())
            await self._sleep_or_wake(peer, wait_s)
        async with peer.session_lock:
            self._peers.pop(peer.node_id, None)

    async def _sleep_or_wake(self, peer: _Peer, wait_s: float) -> None:
        """Waits; a connection that comes or goes ends the wait, but no mismatch is tried again early."""
        if trio.current_time() >= peer.not_before:
            peer.wake = trio.Event()
            with trio.move_on_after(wait_s):
                await peer.wake.wait()
        await trio.sleep(max(0.0, peer.not_before - trio.current_time()))

    async def _attempt(self, peer: _Peer) -> bool:
        """Whether there was a connection with a working session, now ended or left to its own task."""
        if peer.up:
            return await self._wait_while_up(peer)
        try:
            with trio.fail_after(self._timing.dial_timeout_s):
                if not self._host.is_connected(peer.node_id):
                    if peer.address is None:
                        return False
                    await self._host.connect(peer.node_id, peer.address)
                if not self._opens_to(peer):
                    return await self._wait_for_session(peer)
                stream = await self._host.open_stream(peer.node_id, DIRECT_PROTOCOL)
        except (StreamBroken, trio.TooSlowError):
            return False
        return await self._run_session(peer, stream)

    async def _wait_for_session(self, peer: _Peer) -> bool:
        while not peer.up and self._host.is_connected(peer.node_id):
            peer.wake = trio.Event()
            await peer.wake.wait()
        return peer.up

    async def _wait_while_up(self, peer: _Peer) -> bool:
        while peer.up:
            peer.wake = trio.Event()
            await peer.wake.wait()
        return True

    async def _run_accepted(self, peer: _Peer, stream: PeerStream, done: trio.Event) -> None:
        if peer.session is not None:
            peer.session.end("replaced by a newer stream of the same peer")
        try:
            await self._run_session(peer, stream)
        finally:
            done.set()

    async def _run_session(self, peer: _Peer, stream: PeerStream) -> bool:
        """Whether the handshake succeeded; returns when the session has ended."""
        async with peer.session_lock:
            try:
                return await self._shake_and_run(peer, stream)
            except Mismatch as error:
                await self._bar(peer)
                await self._deliver(PeerRefused(peer.node_id, str(error)))
            except BadFrame as error:
                await self._bar(peer)
                await self._blame(peer, Offence.BAD_FRAME, str(error))
            except StreamBroken:
                return False
            finally:
                with trio.move_on_after(1, shield=True):
                    await stream.aclose()
        return False

    async def _bar(self, peer: _Peer) -> None:
        """No more streams with the peer for a while."""
        peer.not_before = trio.current_time() + self._timing.mismatch_retry_s
        with trio.move_on_after(self._timing.dial_timeout_s):
            await self._host.disconnect(peer.node_id)

    async def _shake_and_run(self, peer: _Peer, stream: PeerStream) -> bool:
        hello = await shake_hands(stream, self._hello, self._timing.handshake_timeout_s)
        session = Session(
            stream, peer.outbox, peer.traffic, self._limits, self._timing,
            lambda messages, size: self._admit(peer, peer.direct_bucket, messages, size),
            lambda data: self._deliver(DirectMessage(peer.node_id, data)),
        )  # fmt: skip
        peer.session, peer.software, peer.up = session, hello.software, True
        await self._deliver(PeerUp(peer.node_id, hello.software))
        peer.wake.set()
        reason = "broke the framing"
        try:
            reason = await session.run()
        finally:
            peer.session, peer.up = None, False
            peer.wake.set()
            await self._deliver(PeerDown(peer.node_id, reason))
        if reason.startswith("frozen"):
            with trio.move_on_after(self._timing.dial_timeout_s):
                await self._host.disconnect(peer.node_id)
        return True

    # Traffic

    async def _admit(self, peer: _Peer, bucket: TokenBucket, messages: int, size: int) -> bool:
        delay_s = bucket.take(messages, size, trio.current_time())
        if delay_s is None:
            peer.dropped_in += messages
            await self._blame(peer, Offence.FLOOD, f"{messages} messages with {size} bytes over its rate")
            return False
        if delay_s > 0:
            await trio.sleep(delay_s)
        return True

    async def _blame(self, peer: _Peer, offence: Offence, detail: str) -> None:
        if self._counts_as_new(peer, offence):
            await self._deliver(Misbehaviour(peer.node_id, offence, detail))

    def _counts_as_new(self, peer: _Peer, offence: Offence) -> bool:
        peer.offences += 1
        now = trio.current_time()
        if now - peer.reported.get(offence, float("-inf")) < self._timing.report_interval_s:
            return False
        peer.reported[offence] = now
        return True

    async def _deliver(self, event: NetworkEvent) -> None:
        """Hands over an event, waiting for room. A receiver that has gone means the node is closing: so do we."""
        try:
            await self._inbound.send(event)
        except trio.BrokenResourceError:
            self._nursery.cancel_scope.cancel()

    def _offer(self, event: NetworkEvent) -> None:
        """Hands over an event if there is room; gossip is allowed to be lost, and the loss is counted."""
        try:
            self._inbound.send_nowait(event)
        except trio.WouldBlock:
            self._gossip_dropped_in += 1
            return
        except trio.BrokenResourceError:
            self._nursery.cancel_scope.cancel()
            return
        if isinstance(event, GossipMessage) and (peer := self._peers.get(event.node_id)) is not None:
            peer.gossip_in += 1

    async def _publish_loop(self) -> None:
        while True:
            if not self._gossip_queue:
                self._gossip_wake = trio.Event()
                await self._gossip_wake.wait()
            topic, data = self._gossip_queue.popleft()
            self._gossip_queued_bytes -= len(data)
            await self._host.publish(topic, data)
            self._gossip_published += 1


def _gossip_offence(rejected: bool) -> Offence:
    return Offence.REJECTED_GOSSIP if rejected else Offence.BAD_GOSSIP


def _snapshot(peer: _Peer) -> PeerStatistics:
    traffic = peer.traffic
    return PeerStatistics(
        peer.node_id, peer.address is not None, peer.up, peer.software, traffic.last_seen, traffic.rtt_ms,
        traffic.messages_in, traffic.messages_out, traffic.bytes_in, traffic.bytes_out,
        peer.dropped_out + peer.outbox.dropped, peer.dropped_in, peer.gossip_in, peer.fetches_served, peer.offences,
    )  # fmt: skip
