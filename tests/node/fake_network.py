"""A network in memory: one heap of deliveries in simulated time (the `autojump_clock`), with delays, cuts, losses and peers that lie."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from node.network import (
    DirectMessage,
    FetchError,
    FetchFault,
    FetchRefused,
    GossipMessage,
    NetworkStatistics,
    PeerAddress,
    PeerDown,
    PeerStatistics,
    PeerUp,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from node.events import NodeEvent
    from protocol.units import NodeId

    Handler = Callable[[NodeId, bytes], Awaitable[bytes]]
    Loss = Callable[[NodeId, NodeId, bytes], bool]

DELAY_S: Final = 0.002


@dataclass(slots=True)
class Port:
    """One node's place in the network."""

    events: trio.MemorySendChannel[NodeEvent]
    handler: Handler


@dataclass(slots=True)
class Hub:
    """Who is connected to whom, what is on its way, and what gets lost. Direct and gossip messages between two nodes stay in order."""

    ports: dict[NodeId, Port] = field(default_factory=dict)
    cut: set[frozenset[NodeId]] = field(default_factory=set)
    loses: Loss = lambda _source, _target, _data: False
    loses_gossip: Loss = lambda _source, _target, _data: False
    extra_delay_s: Callable[[NodeId, NodeId, NodeEvent], float] = lambda _source, _target, _event: 0.0
    requests: Counter[tuple[NodeId, NodeId]] = field(default_factory=Counter)  # (asker, asked)
    sent: list[tuple[NodeId, bytes]] = field(default_factory=list)  # direct frames, by sender
    expected: dict[NodeId, frozenset[NodeId]] = field(default_factory=dict)
    kept: dict[NodeId, dict[NodeId, str]] = field(default_factory=dict)  # what nodes dial, by the word of others
    _heap: list[tuple[float, int, NodeId, NodeEvent]] = field(default_factory=list)
    _count: int = 0
    _changed: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            self._changed = trio.Event()
            while self._heap and self._heap[0][0] <= trio.current_time():
                _, _, target, event = heapq.heappop(self._heap)
                if target in self.ports:
                    await self.ports[target].events.send(event)
            wait_s = self._heap[0][0] - trio.current_time() if self._heap else float("inf")
            with trio.move_on_after(wait_s):
                await self._changed.wait()

    def join(self, node: NodeId, port: Port) -> FakeNetwork:
        """Connect a node with everybody."""
        self.ports[node] = port
        for other in self.list_peers(node):
            self._announce(node, other, PeerUp(other, "fake"))
            self._announce(other, node, PeerUp(node, "fake"))
        return FakeNetwork(self, node)

    def leave(self, node: NodeId) -> None:
        """Take a node off, as its process ends."""
        peers = self.list_peers(node)
        del self.ports[node]
        for other in peers:
            self._announce(other, node, PeerDown(node, "it left"))

    def disconnect(self, one: NodeId, other: NodeId) -> None:
        """Cut a link; both sides see it."""
        self.cut.add(frozenset((one, other)))
        self._announce(one, other, PeerDown(other, "cut"))
        self._announce(other, one, PeerDown(one, "cut"))

    def connect(self, one: NodeId, other: NodeId) -> None:
        """Mend a link."""
        self.cut.discard(frozenset((one, other)))
        self._announce(one, other, PeerUp(other, "fake"))
        self._announce(other, one, PeerUp(one, "fake"))

    def is_linked(self, one: NodeId, other: NodeId) -> bool:
        """Whether messages flow between two nodes."""
        return one in self.ports and other in self.ports and frozenset((one, other)) not in self.cut

    def list_peers(self, node: NodeId) -> list[NodeId]:
        """Who a node is connected to."""
        return [other for other in self.ports if other != node and self.is_linked(node, other)]

    def carry(self, source: NodeId, target: NodeId, event: NodeEvent) -> None:
        """Put a node's message on its way."""
        self.deliver(target, event, DELAY_S + self.extra_delay_s(source, target, event))

    def deliver(self, target: NodeId, event: NodeEvent, delay_s: float = DELAY_S) -> None:
        """Put an event on its way to a node."""
        self._count += 1
        heapq.heappush(self._heap, (trio.current_time() + delay_s, self._count, target, event))
        self._changed.set()

    def _announce(self, target: NodeId, _about: NodeId, event: NodeEvent) -> None:
        if target in self.ports:
            self.deliver(target, event, 0)


class FakeNetwork:
    """One node's network: implements node.network.Network."""

    def __init__(self, hub: Hub, node: NodeId) -> None:
        self._hub: Final = hub
        self._node: Final = node

    @property
    def node_id(self) -> NodeId:
        return self._node

    @property
    def addresses(self) -> tuple[str, ...]:
        return ()

    def connected(self) -> frozenset[NodeId]:
        return frozenset(self._hub.list_peers(self._node))

    def send(self, node_id: NodeId, data: bytes) -> bool:
        self._hub.sent.append((self._node, data))
        if not self._hub.is_linked(self._node, node_id):
            return False
        if not self._hub.loses(self._node, node_id, data):
            self._hub.carry(self._node, node_id, DirectMessage(self._node, data))
        return True

    def publish(self, topic: str, data: bytes) -> None:
        for peer in self._hub.list_peers(self._node):
            if not self._hub.loses_gossip(self._node, peer, data):
                self._hub.carry(self._node, peer, GossipMessage(topic, self._node, data))

    async def request(self, node_id: NodeId, data: bytes, timeout_s: float) -> bytes:
        self._hub.requests[self._node, node_id] += 1
        if not self._hub.is_linked(self._node, node_id):
            raise FetchError(FetchFault.NOT_CONNECTED, "no link")
        with trio.move_on_after(timeout_s):
            await trio.sleep(DELAY_S)
            if not self._hub.is_linked(self._node, node_id):
                raise FetchError(FetchFault.BROKEN, "it left")
            try:
                answer = await self._hub.ports[node_id].handler(self._node, data)
            except FetchRefused as refusal:
                raise FetchError(FetchFault.REFUSED, str(refusal)) from refusal
            await trio.sleep(DELAY_S)
            return answer
        raise FetchError(FetchFault.TIMEOUT, f"no answer within {timeout_s:g} s")

    def find_host(self, node_id: bytes) -> str | None:
        return "10.0.0.1" if self._hub.is_linked(self._node, node_id) else None

    def expect(self, nodes: frozenset[bytes]) -> None:
        self._hub.expected[self._node] = nodes

    def keep(self, peer: PeerAddress) -> None:
        self._hub.kept.setdefault(self._node, {})[peer.node_id] = peer.multiaddr

    def let_go(self, node_id: bytes) -> None:
        self._hub.kept.get(self._node, {}).pop(node_id, None)

    def statistics(self) -> NetworkStatistics:
        peers = [
            PeerStatistics(peer, True, True, "fake", None, None, 0, 0, 0, 0, 0, 0, 0, 0, 0)
            for peer in self._hub.list_peers(self._node)
        ]
        return NetworkStatistics(tuple(peers), 0, 0, 0)
