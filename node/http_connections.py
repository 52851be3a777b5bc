"""Connections of the HTTP server: how many, how long they may idle or stall, and that nothing a client sends ends the node.

Hypercorn speaks HTTP; this file stands between its connections and the node. Mended here: an exception out of one connection ends
hypercorn's nursery, a client that does not read holds up the shutdown (its sends are shielded), a reader that is stuck behind a
finished request is never woken, and a client that has gone is not noticed before its answer is due.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState

_REFUSAL_BODY = (
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"the node serves as many connections as it may",'
    b'"data":{"reason":"too_many_requests","retryable":true,"cure":"wait a second, then try again"}}}'
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after: 1\r\n"
    b"content-length: " + str(len(_REFUSAL_BODY)).encode() + b"\r\n\r\n" + _REFUSAL_BODY
)

_HTTP2_PREFACE = b"PRI "


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What connections may cost. Units: seconds."""

    connections: int = 64
    idle_s: float = 5.0  # between two requests, and for all headers of one
    silence_s: float = 60.0  # above the longest request, in which a client waits silently
    write_s: float = 5.0  # a client that takes nothing for so long is gone
    linger_s: float = 1.0  # a connection's tasks end so long after it was closed


class BoundedStream:
    """A client's socket with a limit on every write; once closed, its connection's tasks end."""

    def __init__(self, stream: trio.SocketStream, scope: trio.CancelScope, limits: ConnectionLimits) -> None:
        self._stream = stream
        self._scope = scope
        self._limits = limits
        self._is_first = True
        self.socket = stream.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, as of a SocketStream; HTTP/2 is taken for the end, since hypercorn lets it idle for ever."""
        received = bytes(await self._stream.receive_some(max_bytes))
        is_first, self._is_first = self._is_first, False
        if not received or (is_first and received.startswith(_HTTP2_PREFACE)):
            self._end_soon()
            return b""
        return received

    async def send_all(self, data: bytes) -> None:
        """All of it sent. Raises: trio.BrokenResourceError where the client takes too long."""
        with trio.move_on_after(self._limits.write_s) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError(f"the client took nothing for {self._limits.write_s} s")

    async def send_eof(self) -> None:
        """The end of our side."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """The socket closed, and what still runs for it ended soon."""
        self._end_soon()
        await self._stream.aclose()

    def _end_soon(self) -> None:
        """A client that has said its last gets a moment for a last answer: nobody may wait for what a request was to bring."""
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + self._limits.linger_s)


async def serve_connections(
    app: ASGIFramework,
    config: HypercornConfig,
    listeners: Sequence[trio.SocketListener],
    limits: ConnectionLimits,
    report: Callable[[str, str], None],
) -> None:
    """Serves until cancelled; what one connection does wrong ends that connection, and `report` is told."""
    wrapped = ASGIWrapper(app)
    context = WorkerContext(None)
    places = trio.CapacityLimiter(limits.connections)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            places.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await _refuse(stream)
            return
        try:
            with trio.move_on_after(inf) as scope:
                bounded = cast("trio.SSLStream", BoundedStream(stream, scope, limits))
                await TCPServer(wrapped, config, context, ConnectionState({}), bounded)
        except* Exception as faults:
            report("http_connection_failed", "; ".join(repr(fault) for fault in faults.exceptions))
        finally:
            places.release_on_behalf_of(stream)

    await trio.serve_listeners(serve, listeners)


async def _refuse(stream: trio.SocketStream) -> None:
    with trio.move_on_after(1):
        try:
            await stream.send_all(_REFUSAL)
            await stream.send_eof()
        except trio.BrokenResourceError:
            return  # the client has gone: it needs no answer
