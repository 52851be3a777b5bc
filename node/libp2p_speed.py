"""libp2p made faster: what it does once a message and need do only once in many. Checked against libp2p 0.8.1.

A vote is a message of 150 bytes to everybody, so what counts is what a message costs, not what a byte costs. Measured by
`quorate bench votes`; each mend names how to see that upstream has it:

 1 Every read of a stream sends a window update: one frame back for each frame, encrypted, written and read.  `QuietStream`
   Well when YamuxStream sends none below half a window (its "partial slack" branch is gone), as go-yamux does.
 2 Two system calls to read a message, two bytes of length and the rest.       `ReadAheadStream`
   Well when TrioTCPStream reads ahead.
 3 A deadline is set up for a body that lies decrypted in memory already.      `read_body`
   Well when Yamux._read_data_body sets none where nothing is waited for.
"""

from __future__ import annotations

from typing import Final

import libp2p.stream_muxer.yamux.yamux as yamux_module
import libp2p.transport.tcp.tcp as tcp_module
from libp2p.io.trio import TrioTCPStream
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.yamux.yamux import YamuxStream
from trio import SocketStream

_READ_AHEAD_BYTES: Final = 1 << 16  # a Noise message at its largest


class QuietStream(YamuxStream):
    """A stream that gives window back by the half, as go-yamux does."""  # mend 1

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
        if 2 * (self.target_recv_window - self.recv_window - buffered) >= self.target_recv_window:
            await super()._auto_tune_and_send_window_update(bytes_read=0)


class ReadAheadStream(TrioTCPStream):
    """A TCP stream that takes what has come in one system call, and gives it out by the piece."""  # mend 2

    def __init__(self, stream: SocketStream) -> None:
        super().__init__(stream)
        self._ahead = b""
        self._taken = 0

    async def read(self, n: int | None = None) -> bytes:
        """At most n bytes, at least one; none at the end. Raises: ConnectionClosedError."""
        if n == 0:
            return b""
        if self._taken == len(self._ahead):
            # The lock is super's: two readers would not be two halves of one message anyway.
            self._ahead, self._taken = await super().read(_READ_AHEAD_BYTES), 0
        end = len(self._ahead) if n is None else min(self._taken + n, len(self._ahead))
        piece = self._ahead[self._taken : end]
        self._taken = end
        return piece


def read_body(secured: object, length: int) -> bytes | None:
    """A frame's body where all of it is decrypted already; None where it has to be waited for."""  # mend 3
    if not isinstance(secured, SecureSession) or secured.high_watermark - secured.low_watermark < length:
        return None
    return secured._drain(length)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - read() does this, behind a loop and a copy


def speed_up() -> None:
    """From now on new connections have the mends; saying it twice changes nothing."""
    yamux_module.__dict__["YamuxStream"] = QuietStream
    tcp_module.__dict__["TrioTCPStream"] = ReadAheadStream
