"""A TCP proxy on each way from one node to another, which carries nothing while either of the two is cut off.

One proxy in front of a node could hold back what comes to it, not what it dials itself. What is held back is not lost, as
TCP loses nothing to a cable that is put back; connections that are made meanwhile hang, as their first packets would.
"""

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio

from devnet.devnet_file import DevnetNode
from devnet.homes import list_ports
from devnet.perturbation.links import PEERS_VARIABLE, Links
from devnet.ports import LOOPBACK

CHUNK_BYTES: Final = 64 * 1024
DIAL_S: Final = 5.0
Pair: TypeAlias = tuple[int, int]  # who dials, whom


@dataclass(frozen=True, slots=True)
class Gates:
    """Which nodes are cut off. For trio's thread alone."""

    shut: dict[int, trio.Event] = field(default_factory=dict[int, trio.Event])

    def close(self, index: int) -> None:
        """Holds back everything from and to this node."""
        self.shut.setdefault(index, trio.Event())

    def open(self, index: int) -> None:
        """Lets go of it."""
        if index in self.shut:
            self.shut.pop(index).set()

    async def wait_open(self, pair: Pair) -> None:
        """Goes on while neither node is cut off."""
        while waiting := [self.shut[index] for index in pair if index in self.shut]:
            await waiting[0].wait()


@dataclass(frozen=True, slots=True)
class Proxies:
    """The open links."""

    nodes: tuple[DevnetNode, ...]
    ports: Mapping[Pair, int]
    gates: Gates
    token: trio.lowlevel.TrioToken

    @staticmethod
    def get_prefix(_index: int) -> tuple[str, ...]:
        """Nodes share the machine's network."""
        return ()

    def get_environment(self, index: int) -> Mapping[str, str]:
        """Each peer at the port of this node's own proxy to it."""
        peers = [
            f"{peer.node}@{LOOPBACK}:{self.ports[index, peer.index]}" for peer in self.nodes if peer.index != index
        ]
        return {PEERS_VARIABLE: ",".join(peers)}

    @staticmethod
    def enter(_index: int) -> None:
        """Every thread is there already."""

    def cut(self, index: int) -> None:
        """All proxies from and to this node stop."""
        trio.from_thread.run_sync(self.gates.close, index, trio_token=self.token)

    def heal(self, index: int) -> None:
        """They go on."""
        trio.from_thread.run_sync(self.gates.open, index, trio_token=self.token)


@contextmanager
def open_proxies(nodes: Sequence[DevnetNode]) -> Iterator[Links]:
    """Links through proxies that a thread of this process runs."""
    with ExitStack() as stack:
        listeners: dict[Pair, socket.socket] = {}
        for pair in ((here.index, there.index) for here in nodes for there in nodes if here.index != there.index):
            listeners[pair] = stack.enter_context(socket.create_server((LOOPBACK, 0)))
        ports = {pair: listener.getsockname()[1] for pair, listener in listeners.items()}
        targets = {node.index: list_ports(node)[1] for node in nodes}
        hall = _Hall(listeners, targets, Gates())
        thread = threading.Thread(target=lambda: trio.run(hall.serve), name="proxies", daemon=True)
        thread.start()
        hall.opened.wait()
        stack.callback(thread.join)
        stack.callback(lambda: trio.from_thread.run_sync(hall.scope.cancel, trio_token=hall.token))
        yield Proxies(tuple(nodes), ports, hall.gates, hall.token)


class _Hall:
    """Where the proxies stand."""

    def __init__(self, listeners: Mapping[Pair, socket.socket], targets: Mapping[int, int], gates: Gates) -> None:
        self._listeners: Final = listeners
        self._targets: Final = targets
        self.gates: Final = gates
        self.opened: Final = threading.Event()
        self.scope: trio.CancelScope
        self.token: trio.lowlevel.TrioToken

    async def serve(self) -> None:
        """Until the scope is cancelled."""
        self.token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self.scope = nursery.cancel_scope
            for pair, listener in self._listeners.items():
                nursery.start_soon(self._accept, pair, listener, nursery)
            self.opened.set()

    async def _accept(self, pair: Pair, listener: socket.socket, nursery: trio.Nursery) -> None:
        listening = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))
        async with listening:
            while True:
                nursery.start_soon(self._carry, pair, await listening.accept())

    async def _carry(self, pair: Pair, near: trio.SocketStream) -> None:
        """Both ways, until either side ends."""
        async with near:
            await self.gates.wait_open(pair)
            try:
                with trio.fail_after(DIAL_S):
                    far = await trio.open_tcp_stream(LOOPBACK, self._targets[pair[1]])
            except (OSError, trio.TooSlowError):
                return  # nobody listens there: the dialler sees the end of its connection
            async with far, trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, pair, near, far, nursery.cancel_scope)
                nursery.start_soon(self._pump, pair, far, near, nursery.cancel_scope)

    async def _pump(
        self, pair: Pair, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            while chunk := await source.receive_some(CHUNK_BYTES):
                await self.gates.wait_open(pair)
                await sink.send_all(chunk)
        except trio.BrokenResourceError:
            scope.cancel()
        await self.gates.wait_open(pair)
        scope.cancel()
