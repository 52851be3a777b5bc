"""libp2p's streams and callbacks as the node sees them: one kind of failure, and nothing that raises into libp2p.

Decides how foreign exceptions are turned into a StreamBroken or a report. These two are the only places that catch
everything: libp2p's errors have no common base, some are plain KeyError or DecodeError, and one that escapes from a
handler ends the whole host. trio.Cancelled is a BaseException and passes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from multiaddr import Multiaddr

from node.network import node_id_of
from node.streams import BadFrame, StreamBroken

_READ_BYTES = 1 << 16


@contextmanager
def broken_on_failure() -> Generator[None, None, None]:
    """Inside, whatever libp2p raises becomes a StreamBroken."""
    try:
        yield
    except StreamBroken:
        raise
    except Exception as error:
        text = str(error).partition("\n")[0][:200]
        raise StreamBroken(f"{type(error).__name__}: {text}" if text else type(error).__name__) from error


@contextmanager
def reported(report: Callable[[str], None]) -> Generator[None, None, None]:
    """Inside, whatever is raised is reported and goes no further."""
    try:
        yield
    except Exception as error:
        report(repr(error)[:300])


def log_only(detail: str) -> None:
    """Leaves a trace of a failure that changes nothing, such as closing what is closed already."""
    logging.getLogger(__name__).debug("libp2p: %s", detail)


@contextmanager
def unwrapped() -> Generator[None, None, None]:
    """Inside, a lone exception in nested groups leaves as it was raised; libp2p's nurseries alone make five layers."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _find_lone(group) from None


def _find_lone(error: BaseException) -> BaseException:
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _find_lone(inner[0]) if len(inner) == 1 else error


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
        with broken_on_failure():
            await self._stream.write(data)

    async def aclose(self) -> None:
        """Both directions are closed, without an error if they were before."""
        with reported(log_only):
            await self._stream.reset()

    async def finish(self) -> None:
        """The other side sees the end after all that was written.

        Raises: StreamBroken.
        """
        with broken_on_failure():
            await self._stream.close()

    async def _read_more(self) -> None:
        with broken_on_failure():
            data = await self._stream.read(_READ_BYTES)
        if not data:
            raise StreamBroken("the peer closed the stream")
        self._buffer += data


def guard_handler(
    handle: Callable[[PeerStream], Awaitable[None]], on_fault: Callable[[str, str], None]
) -> Callable[[INetStream], Awaitable[None]]:
    """A stream handler for libp2p out of which nothing raises; what would have is reported as our own fault."""

    async def guarded(stream: INetStream) -> None:
        with reported(log_only):
            peer_stream = PeerStream(stream)
            with reported(lambda detail: on_fault(handle.__name__, detail)):
                try:
                    await handle(peer_stream)
                    await peer_stream.finish()
                    return
                except StreamBroken as error:
                    log_only(str(error))
            await peer_stream.aclose()

    return guarded


class ConnectionListener(INotifee):
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
        with reported(log_only):
            listener(node_id_of(conn.muxed_conn.peer_id.to_bytes()))

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Of no interest."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Of no interest."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Of no interest."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Of no interest."""
