"""Two or more nodes over real loopback sockets in one process, for the tests of the network."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import nacl.bindings
import trio
from libp2p.network.swarm import Swarm

from node.libp2p_network import Libp2pNetwork
from node.libp2p_open import open_network
from node.network import (
    DirectMessage,
    FetchRefused,
    NetworkConfig,
    NetworkEvent,
    PeerAddress,
    PeerUp,
    Timing,
    Topic,
    Verdict,
    parse_peer,
)

Event = TypeVar("Event", bound=NetworkEvent)
CHAIN = b"c" * 32
QUICK = Timing(
    redial_min_s=0.05,
    redial_max_s=0.2,
    dial_timeout_s=2,
    handshake_timeout_s=2,
    mismatch_retry_s=0.5,
    gossip_heartbeat_s=0.1,
)
# Node ids in ascending order, so that a test can say which side opens the direct stream.
SEEDS = sorted((bytes([i]) * 32 for i in range(1, 9)), key=lambda seed: nacl.bindings.crypto_sign_seed_keypair(seed)[0])


def node_id(index: int) -> bytes:
    return nacl.bindings.crypto_sign_seed_keypair(SEEDS[index])[0]


def accept(origin: bytes, data: bytes) -> Verdict:
    return {b"ignore": Verdict.IGNORE, b"reject": Verdict.REJECT}.get(data, Verdict.ACCEPT)


async def echo(peer: bytes, request: bytes) -> bytes:
    if request == b"refuse":
        raise FetchRefused("no such thing here")
    if request == b"crash":
        raise KeyError("a bug")
    if request == b"hang":
        await trio.sleep_forever()
    return request * 2 if len(request) < 10 else b"x" * int(request)


def make_config(index: int, *peers: PeerAddress, **changes: object) -> NetworkConfig:
    config = NetworkConfig(
        seed=SEEDS[index],
        chain_id=CHAIN,
        protocol_version=1,
        software=f"node {index}",
        peers=peers,
        topics=(Topic("tx", accept),),
        fetch_handler=echo,
        timing=QUICK,
    )
    return replace(config, **changes)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True)
class Running:
    network: Libp2pNetwork
    events: trio.MemoryReceiveChannel[NetworkEvent]

    @property
    def address(self) -> PeerAddress:
        return parse_peer(self.network.addresses[0])

    async def expect(self, kind: type[Event]) -> Event:
        """The next event of a kind, after whatever others."""
        with trio.fail_after(10):
            while True:
                event = await self.events.receive()
                if isinstance(event, kind):
                    return event

    def host(self) -> Swarm:
        return self.network._host._swarm


@asynccontextmanager
async def running(config: NetworkConfig) -> AsyncGenerator[Running, None]:
    send, receive = trio.open_memory_channel[NetworkEvent](1_000)
    async with open_network(config, send) as network:
        yield Running(network, receive)


@asynccontextmanager
async def pair(
    first: Callable[[NetworkConfig], NetworkConfig] = lambda c: c,
    second: Callable[[NetworkConfig], NetworkConfig] = lambda c: c,
) -> AsyncGenerator[tuple[Running, Running], None]:
    """Two nodes that have shaken hands; the first has the smaller id and so opens the stream, the second dials."""
    async with running(first(make_config(0))) as low, running(second(make_config(1, low.address))) as high:
        await low.expect(PeerUp)
        await high.expect(PeerUp)
        yield low, high


async def wait_until(condition: Callable[[], bool]) -> None:
    """Returns when what another task brings about has come about."""
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


def drain(node: Running) -> list[NetworkEvent]:
    events: list[NetworkEvent] = []
    while node.events.statistics().current_buffer_used:
        events.append(node.events.receive_nowait())
    return events


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def wait_for_mesh(node: Running, size: int) -> None:
    pubsub = node.network._host._pubsub
    topic = node.network.wire_topic("tx")
    await wait_until(
        lambda: len(pubsub.router.mesh.get(topic, ())) == size and len(pubsub.peer_topics.get(topic, ())) == size
    )


async def check_alive(low: Running, high: Running) -> None:
    """Both directions still work, and so does a new stream."""
    assert high.network.send(node_id(0), b"still there?")
    assert (await low.expect(DirectMessage)).data == b"still there?"
    assert await high.network.request(node_id(0), b"ping", 5) == b"pingping"
