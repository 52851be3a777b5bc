"""The Network over libp2p: TCP, Noise and Yamux only, one persistent direct stream to each peer.

Decides who opens a stream, when to redial, and which events leave; leaves bytes to node/streams.py and node/fetch.py,
and libp2p's faults to node/libp2p_hardening.py.

Either side dials. On whatever connection results, the node with the smaller id opens the direct stream, so that two
nodes that dial each other at once need no tie-break. A later stream replaces an earlier one.
"""

from __future__ import annotations

import nacl.bindings
import trio

from node import fetch
from node.libp2p_gossip import GossipPort, PublishQueue
from node.libp2p_hardening import DIRECT_PROTOCOL, FETCH_PROTOCOL, Libp2pHost, check_address
from node.libp2p_streams import PeerStream
from node.network import (
    CallbackFault,
    DirectMessage,
    FetchError,
    FetchFault,
    GossipMessage,
    Misbehaviour,
    NetworkConfig,
    NetworkEvent,
    NetworkStatistics,
    Offence,
    PeerAddress,
    PeerDown,
    PeerRefused,
    PeerUp,
    Verdict,
)
from node.outlet import Outlet
from node.peers import Peer, make_peer, snapshot
from node.rates import TokenBucket
from node.streams import FRAME_OVERHEAD, BadFrame, Hello, Mismatch, Session, StreamBroken, part, shake_hands


class Libp2pNetwork(GossipPort):
    """The open network; see node.network.Network for what callers use."""

    def __init__(self, config: NetworkConfig, inbound: trio.MemorySendChannel[NetworkEvent]) -> None:
        self._config = config
        self._limits = config.limits
        self._timing = config.timing
        self._outlet = Outlet(inbound, self._stop)
        self._hello = Hello(config.chain_id, config.protocol_version, config.software)
        self._topic_prefix = f"/quorate/1/{config.chain_id.hex()[:16]}/"
        self._validators = {self.wire_topic(topic.name): topic for topic in config.topics}
        self._peers = {p.node_id: make_peer(p.node_id, p.multiaddr, config.limits) for p in config.peers}
        self._expected: frozenset[bytes] = frozenset()
        self._publish_queue = PublishQueue(config.limits.gossip_outbox_bytes)
        self._gossip_published = 0
        self._node_id = nacl.bindings.crypto_sign_seed_keypair(config.seed)[0]
        self._host: Libp2pHost
        self._nursery: trio.Nursery
        self._addresses: tuple[str, ...] = ()
        self._started = trio.Event()

    def start(self, host: Libp2pHost, nursery: trio.Nursery) -> None:
        """Begins to dial and to publish; called once by open_network."""
        self._host = host
        self._nursery = nursery
        self._addresses = host.addresses()
        self._peers.pop(self._node_id, None)
        nursery.start_soon(self._publish_loop)
        for peer in self._peers.values():
            host.protect(peer.node_id)
            nursery.start_soon(self._keep_peer, peer)
        self._started.set()
        for node_id in host.connected():
            self.notice_connected(node_id)

    def _stop(self) -> None:
        self._nursery.cancel_scope.cancel()

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
            raise ValueError(
                f"a message has at most {self._limits.frame_bytes - FRAME_OVERHEAD} bytes, got {len(data)}"
            )
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
        self._publish_queue.push(wire_topic, data)

    async def request(self, node_id: bytes, data: bytes, timeout_s: float) -> bytes:
        """The peer's answer."""
        peer = self._peers.get(node_id)
        if peer is None or not peer.up:
            raise FetchError(FetchFault.NOT_CONNECTED, "the peer is not connected; ask another")
        deadline = trio.current_time() + timeout_s
        with trio.move_on_at(deadline):
            async with peer.requests_out:
                left_s = max(0.0, deadline - trio.current_time())
                return await fetch.ask(
                    lambda: self._host.open_stream(node_id, FETCH_PROTOCOL), data, left_s, self._limits
                )
        raise FetchError(FetchFault.TIMEOUT, f"no answer within {timeout_s:g} s")

    def find_host(self, node_id: bytes) -> str | None:
        """The IP address at the other end."""
        return self._host.find_remote_host(node_id)

    def expect(self, nodes: frozenset[bytes]) -> None:
        """Let these peers in whatever the number of guests."""
        self._expected = nodes

    def keep(self, peer: PeerAddress) -> None:
        """Dial this peer as if it were configured."""
        check_address(peer.multiaddr)
        self._host.protect(peer.node_id)
        known = self._peers.get(peer.node_id)
        if peer.node_id == self._node_id or (known is not None and known.address is not None):
            return
        if known is not None:  # a guest: the task that it has ends when it goes, and the next one dials
            known.address, known.is_learned = peer.multiaddr, True
            return
        made = self._peers[peer.node_id] = make_peer(peer.node_id, peer.multiaddr, self._limits)
        made.is_learned = True
        self._nursery.start_soon(self._keep_peer, made)

    def let_go(self, node_id: bytes) -> None:
        """No longer dial a peer whose address was learned."""
        peer = self._peers.get(node_id)
        if peer is not None and peer.is_learned:
            peer.address, peer.is_learned = None, False
            peer.wake.set()

    def statistics(self) -> NetworkStatistics:
        """A snapshot of all counters."""
        return NetworkStatistics(
            tuple(snapshot(peer) for peer in self._peers.values()),
            self._gossip_published,
            self._publish_queue.dropped,
            self._outlet.dropped,
        )

    # What libp2p calls

    def notice_connected(self, node_id: bytes) -> None:
        """Wakes the peer's task, or makes one for a peer that nobody configured."""
        if not self._started.is_set():
            return
        peer = self._peers.get(node_id)
        if peer is not None:
            peer.wake.set()
            return
        is_full = len(self._peers) >= self._limits.peers and node_id not in self._expected
        if node_id == self._node_id or is_full:
            self._nursery.start_soon(self._host.disconnect, node_id)
            return
        peer = self._peers[node_id] = make_peer(node_id, None, self._limits)
        self._nursery.start_soon(self._keep_guest, peer)

    def notice_disconnected(self, node_id: bytes) -> None:
        """Wakes the peer's task, which looks for itself."""
        peer = self._peers.get(node_id)
        if peer is not None:
            peer.wake.set()

    async def accept_direct(self, stream: PeerStream) -> None:
        """Runs a direct stream that a peer has opened."""
        await self._started.wait()
        peer = self._peers.get(stream.node_id)
        if peer is None:
            return
        if self._opens_to(peer):
            await self._blame(peer, Offence.BAD_FRAME, "opened the direct stream that is ours to open")
            return
        if trio.current_time() < peer.not_before or peer.session_lock.statistics().tasks_waiting > 1:
            return
        # The session's events must go out even when libp2p cancels this handler with the connection.
        done = trio.Event()
        self._nursery.start_soon(self._run_accepted, peer, stream, done)
        await done.wait()

    async def accept_fetch(self, stream: PeerStream) -> None:
        """Answers one request of a peer."""
        await self._started.wait()
        peer = self._peers.get(stream.node_id)
        handler = self._config.fetch_handler
        if peer is None or not peer.up or handler is None:
            await fetch.refuse(stream, "no requests before the handshake" if handler else "this node serves nothing")
            return
        try:
            with trio.move_on_after(self._timing.serve_timeout_s):
                await fetch.serve(
                    stream, peer, handler, self._limits, lambda size: self._admit(peer, peer.fetch_bucket, 1, size)
                )
        except BadFrame as error:
            await self._blame(peer, Offence.BAD_FETCH, str(error))

    async def admit(self, node_id: bytes, messages: int, size: int) -> bool:
        """Whether gossip of this size may pass; none does of a peer that was cut off."""
        peer = self._peers.get(node_id)
        if peer is None or trio.current_time() < peer.not_before:
            return False
        return await self._admit(peer, peer.gossip_bucket, messages, size)

    def judge(self, topic: str, origin: bytes, data: bytes) -> Verdict:
        """The verdict of the topic's validator; what is accepted goes to the node, if it has room."""
        verdict = self._validators[topic].validator(origin, data)
        if verdict is Verdict.ACCEPT and self._outlet.offer(GossipMessage(self._validators[topic].name, origin, data)):
            peer = self._peers.get(origin)
            if peer is not None:
                peer.gossip_in += 1
        return verdict

    def blame(self, node_id: bytes, detail: str, *, rejected: bool) -> None:
        """Counts and reports a gossip offence."""
        peer = self._peers.get(node_id)
        offence = Offence.REJECTED_GOSSIP if rejected else Offence.BAD_GOSSIP
        if peer is not None and peer.is_news(offence, self._timing.report_interval_s):
            self._outlet.offer(Misbehaviour(node_id, offence, detail))

    def report_fault(self, where: str, detail: str) -> None:
        """Reports an exception of our own callbacks."""
        self._outlet.offer(CallbackFault(where, detail))

    def wire_topic(self, name: str) -> str:
        """The topic's name among peers: two chains never share one."""
        return self._topic_prefix + name

    # Peers

    def _opens_to(self, peer: Peer) -> bool:
        return self._node_id < peer.node_id

    async def _keep_peer(self, peer: Peer) -> None:
        """Dials a configured peer for ever; runs its session where it is ours to open."""
        delay_s = self._timing.redial_min_s
        while peer.address is not None:
            if await self._attempt(peer):
                delay_s = self._timing.redial_min_s
            else:
                delay_s = min(delay_s * 2, self._timing.redial_max_s)
            await self._sleep_or_wake(peer, delay_s * (0.5 + self._config.jitter()))
        await self._keep_guest(peer)  # nobody asks for it any more

    async def _keep_guest(self, peer: Peer) -> None:
        """Runs the session of a peer that came by itself, while it stays connected."""
        while True:
            async with peer.session_lock:
                if not self._host.is_connected(peer.node_id) and trio.current_time() >= peer.not_before:
                    if peer.address is not None:  # meanwhile somebody told where it listens
                        self._nursery.start_soon(self._keep_peer, peer)
                    else:
                        self._peers.pop(peer.node_id, None)
                    return
            await self._attempt(peer)
            await self._sleep_or_wake(peer, self._timing.redial_min_s)

    async def _sleep_or_wake(self, peer: Peer, wait_s: float) -> None:
        """Waits; a connection that comes or goes shortens the wait to the least one, but no mismatch is tried early."""
        peer.wake = trio.Event()
        least_s = min(wait_s, self._timing.redial_min_s * (0.5 + self._config.jitter()))
        await trio.sleep(max(least_s, peer.not_before - trio.current_time()))
        with trio.move_on_after(wait_s - least_s):
            await peer.wake.wait()

    async def _attempt(self, peer: Peer) -> bool:
        """Whether there was a connection with a working session, now ended or left to its own task."""
        while peer.up:
            peer.wake = trio.Event()
            await peer.wake.wait()
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

    async def _wait_for_session(self, peer: Peer) -> bool:
        while not peer.up and self._host.is_connected(peer.node_id):
            peer.wake = trio.Event()
            await peer.wake.wait()
        return peer.up

    async def _run_accepted(self, peer: Peer, stream: PeerStream, done: trio.Event) -> None:
        if peer.session is not None:
            peer.session.end("replaced by a newer stream of the same peer")
        try:
            await self._run_session(peer, stream)
        finally:
            done.set()

    async def _run_session(self, peer: Peer, stream: PeerStream) -> bool:
        """Whether the handshake succeeded; returns when the session has ended."""
        async with peer.session_lock:
            try:
                return await self._shake_and_run(peer, stream)
            except Mismatch as error:
                await part(stream)
                await self._bar(peer)
                await self._outlet.deliver(PeerRefused(peer.node_id, str(error)))
            except BadFrame as error:
                await self._bar(peer)
                await self._blame(peer, Offence.BAD_FRAME, str(error))
            except StreamBroken:
                return False
            finally:
                with trio.move_on_after(1) as scope:
                    scope.shield = True
                    await stream.aclose()
        return False

    async def _bar(self, peer: Peer) -> None:
        """No more streams with the peer for a while."""
        peer.not_before = trio.current_time() + self._timing.mismatch_retry_s
        with trio.move_on_after(self._timing.dial_timeout_s):
            await self._host.disconnect(peer.node_id)

    async def _shake_and_run(self, peer: Peer, stream: PeerStream) -> bool:
        hello = await shake_hands(stream, self._hello, self._timing.handshake_timeout_s)
        session = Session(
            stream, peer.outbox, peer.traffic, self._limits, self._timing,
            lambda messages, size: self._admit(peer, peer.direct_bucket, messages, size),
            lambda data: self._outlet.deliver(DirectMessage(peer.node_id, data)),
        )  # fmt: skip
        peer.session, peer.software, peer.up = session, hello.software, True
        await self._outlet.deliver(PeerUp(peer.node_id, hello.software))
        peer.wake.set()
        reason = "broke the framing"
        try:
            reason = await session.run()
        finally:
            peer.session, peer.up = None, False
            peer.wake.set()
            await self._outlet.deliver(PeerDown(peer.node_id, reason))
        if reason.startswith("frozen"):
            with trio.move_on_after(self._timing.dial_timeout_s):
                await self._host.disconnect(peer.node_id)
        return True

    # Traffic

    async def _admit(self, peer: Peer, bucket: TokenBucket, messages: int, size: int) -> bool:
        delay_s = peer.spend(bucket, messages, size)
        if delay_s is None:
            await self._blame(peer, Offence.FLOOD, f"{messages} messages with {size} bytes over its rate")
            if peer.is_flooding(self._timing.flood_limit_s) and trio.current_time() >= peer.not_before:
                self._nursery.start_soon(self._bar, peer)
            return False
        if delay_s > 0:
            await trio.sleep(delay_s)
        return True

    async def _blame(self, peer: Peer, offence: Offence, detail: str) -> None:
        if peer.is_news(offence, self._timing.report_interval_s):
            await self._outlet.deliver(Misbehaviour(peer.node_id, offence, detail))

    async def _publish_loop(self) -> None:
        while True:
            topic, data = await self._publish_queue.take()
            try:
                await self._host.publish(topic, data)
                self._gossip_published += 1
            except StreamBroken as error:
                self.report_fault("gossip publish", str(error))
