"""The multiplexer's frames, judged by their headers before libp2p acts on them. Checked against libp2p 0.8.1.

As it is, Yamux goes on whatever comes: a header of no known version or type is passed over, so that after one byte too many it reads
all that follows as headers and forgets it, for ever; and what is sent to a stream that is gone is read and forgotten as fast as it
comes. Here the one ends the connection at once, and the other has a rate, above what an honest peer still has under way when
we reset its streams.

And a write that is given up, by a time-out or because its session has ended, leaves half a frame behind, or a Noise message that is
encrypted and never sent: all that follows on the connection fails to authenticate, and both sides lose every session on it. Here a frame
that has begun is written to its end.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, cast

import trio
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_SYN,
    GO_AWAY_NORMAL,
    HEADER_SIZE,
    TYPE_GO_AWAY,
    YAMUX_HEADER_FORMAT,
    Yamux,
)

from node.libp2p_speed import read_body
from node.network import Rate
from node.rates import TokenBucket

# Windows grow to 2 MiB a stream; an honest peer's streams together never hold this much unread.
CONNECTION_BYTES: Final = 16 << 20
# A reset stream's window, at most, is still under way; pings and late window updates are a few a minute.
STRAY: Final = Rate(100, CONNECTION_BYTES // 16, burst_s=8)


WRITE_S: Final = 10.0  # a peer that takes nothing for so long is frozen, as one that says nothing (network.Timing)


class BadHeader(Exception):
    """What no peer sends that keeps to the multiplexer's rules; it ends the connection."""


class BoundedYamux(Yamux):
    """Yamux that closes the connection of a peer that ignores the receive window, or talks to nobody."""  # faults 18, 19, 20

    def __init__(
        self,
        secured_conn: ISecureConn,
        peer_id: ID,
        is_initiator: bool | None = None,
        on_close: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        super().__init__(secured_conn, peer_id, is_initiator, on_close)
        self._stray = TokenBucket(STRAY, trio.current_time())
        self._whole = secured_conn
        self._gate = HeaderGate(secured_conn, self._judge_header)
        self.secured_conn = cast("ISecureConn", self._gate)

    async def _write_frame(self, data: bytes) -> None:  # fault 20
        async with self._write_lock:
            with trio.move_on_after(WRITE_S) as scope:
                scope.shield = True
                await self._whole.write(data)
            if scope.cancelled_caught:
                with trio.move_on_after(1) as closing:
                    closing.shield = True
                    await self._whole.close()
                raise ConnectionClosedError(f"took nothing for {WRITE_S:.0f} s", transport="tcp")
        await trio.lowlevel.checkpoint()  # so that who writes much lets others in

    async def close(self, error_code: int = GO_AWAY_NORMAL) -> None:
        """Closed; a farewell that would wait behind a write that hangs is left out, and the write ends."""
        if self._write_lock.locked():
            await self._cleanup_on_error()
        else:
            await super().close(error_code)

    async def _read_data_body(self, length: int) -> bytes:
        buffered = sum(map(len, self.stream_buffers.values()))
        if buffered + length > CONNECTION_BYTES:
            # The one error on which the caller closes the connection and nothing else.
            raise trio.TooSlowError(f"{buffered} bytes unread, {length} more announced")
        at_hand = read_body(self._whole, length)
        if at_hand is not None:
            return at_hand
        with self._gate.passing_bodies():
            return await super()._read_data_body(length)

    def _judge_header(self, header: bytes) -> None:
        """Nothing, where libp2p may go on. Raises: BadHeader, on which it closes the connection."""
        version, kind, flags, stream_id, length = struct.unpack(YAMUX_HEADER_FORMAT, header)
        if version != 0 or kind > TYPE_GO_AWAY:
            raise BadHeader(f"expected version 0 and a type of at most {TYPE_GO_AWAY}, got {version} and {kind}")
        if (flags & FLAG_SYN and stream_id) or stream_id in self.streams:
            return
        size = length if kind == 0 else 0
        if self._stray.take(1, size, trio.current_time()) is None:
            raise BadHeader(f"{size} more bytes for stream {stream_id}, which is none")


class HeaderGate:
    """A connection of which each header is judged when its last byte has been read; everything else passes through."""

    def __init__(self, connection: ISecureConn, judge: Callable[[bytes], None]) -> None:
        self._connection: Final = connection
        self._judge: Final = judge
        self._header = b""
        self._is_passing = False

    async def read(self, n: int | None = None) -> bytes:
        """The next bytes. Raises: BadHeader."""
        piece = await self._connection.read(n)
        if not self._is_passing:
            self._header += piece
            if len(self._header) >= HEADER_SIZE:
                header, self._header = self._header, b""
                self._judge(header)
        return piece

    @contextmanager
    def passing_bodies(self) -> Iterator[None]:
        """Inside, what is read is no header."""
        self._is_passing = True
        try:
            yield
        finally:
            self._is_passing = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)
