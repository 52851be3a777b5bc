"""The persistent stream between two nodes: handshake, frames, pings, and a bounded queue in each direction.

Decides what bytes mean on `/quorate/1/direct` and when a peer counts as frozen; leaves opening, redialling and events to
node/libp2p_network.py. Works over any ByteStream, so tests need no sockets.

A frame is a big-endian u32 length and that many bytes; its first byte is the kind. HELLO comes first in both
directions: chain id (32), protocol version (u16), software version (UTF-8). DATA holds several messages, each with a
u32 length. PING and PONG hold a u64 number.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from node.network import CHAIN_ID_BYTES, MAX_SOFTWARE_BYTES, Limits, Timing

_LENGTH = struct.Struct(">I")
_HELLO = struct.Struct(f">B{CHAIN_ID_BYTES}sH")
_NUMBER = struct.Struct(">BQ")
HELLO, DATA, PING, PONG = 0, 1, 2, 3
_PART_S = 1.0
FRAME_OVERHEAD = 1 + _LENGTH.size
MAX_HELLO_BYTES = _HELLO.size + MAX_SOFTWARE_BYTES


class StreamBroken(Exception):
    """The stream has ended, for whatever reason of the other side or the wire."""


class BadFrame(Exception):
    """The peer sent bytes that no honest node sends."""


class Mismatch(Exception):
    """The peer is of another chain or protocol version."""


class ByteStream(Protocol):
    """A reliable, ordered, authenticated stream. Every failure is a StreamBroken."""

    async def read_exactly(self, count: int) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def finish(self) -> None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node says first on every direct stream."""

    chain_id: bytes
    protocol_version: int
    software: str


def encode_hello(hello: Hello) -> bytes:
    """The HELLO frame's content."""
    return _HELLO.pack(HELLO, hello.chain_id, hello.protocol_version) + hello.software.encode()[:MAX_SOFTWARE_BYTES]


def decode_hello(content: bytes) -> Hello:
    """The peer's Hello.

    Raises: BadFrame if content is no HELLO.
    """
    if not _HELLO.size <= len(content) <= MAX_HELLO_BYTES or content[0] != HELLO:
        raise BadFrame(f"expected a handshake of {_HELLO.size} to {MAX_HELLO_BYTES} bytes, got {len(content)} bytes")
    _, chain_id, version = _HELLO.unpack_from(content)
    software = content[_HELLO.size :].decode("utf-8", "replace")
    return Hello(chain_id, version, "".join(c if c.isprintable() else "?" for c in software))


def check_hello(ours: Hello, theirs: Hello) -> None:
    """Nothing, if the two nodes can talk.

    Raises: Mismatch with the reason, if not.
    """
    if theirs.chain_id != ours.chain_id:
        raise Mismatch(
            f"wrong chain: expected {ours.chain_id.hex()[:16]}, got {theirs.chain_id.hex()[:16]}; "
            "check that both nodes use the same genesis file"
        )
    if theirs.protocol_version != ours.protocol_version:
        raise Mismatch(
            f"wrong protocol version: expected {ours.protocol_version}, got {theirs.protocol_version} "
            f"({theirs.software}); upgrade the older node"
        )


async def read_frame(stream: ByteStream, limit: int) -> bytes:
    """The next frame's content.

    Raises: BadFrame if it is empty or longer than limit; StreamBroken if the stream ends.
    """
    (length,) = _LENGTH.unpack(await stream.read_exactly(_LENGTH.size))
    if not 1 <= length <= limit:
        raise BadFrame(f"expected a frame of 1 to {limit} bytes, got one of {length}")
    return await stream.read_exactly(length)


def encode_frame(content: bytes) -> bytes:
    """The content with its length before it."""
    return _LENGTH.pack(len(content)) + content


def decode_messages(content: bytes) -> list[bytes]:
    """The messages in a DATA frame.

    Raises: BadFrame if the lengths do not add up.
    """
    messages: list[bytes] = []
    at = 1
    while at < len(content):
        start = at + _LENGTH.size
        if start > len(content):
            raise BadFrame("a data frame ends inside a message's length")
        at = start + _LENGTH.unpack_from(content, at)[0]
        if at > len(content):
            raise BadFrame("a data frame ends inside a message")
        messages.append(content[start:at])
    return messages


class Outbox:
    """Messages waiting for one peer: bounded in bytes, the oldest give way."""

    __slots__ = ("_control", "_limit", "_messages", "_size", "_wake", "dropped")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._messages: deque[bytes] = deque()
        self._control: deque[bytes] = deque(maxlen=16)
        self._size = 0
        self._wake = trio.Event()
        self.dropped = 0

    def push(self, data: bytes) -> None:
        """Queues a message; those that no longer fit are dropped, oldest first, and counted."""
        self._messages.append(data)
        self._size += len(data)
        while self._size > self._limit and len(self._messages) > 1:
            self._size -= len(self._messages.popleft())
            self.dropped += 1
        self._wake.set()

    def push_control(self, content: bytes) -> None:
        """Queues a ping or pong before all messages."""
        self._control.append(content)
        self._wake.set()

    def clear(self) -> None:
        """Forgets what waits: what was meant for a peer that has gone is stale when it returns."""
        self.dropped += len(self._messages)
        self._messages.clear()
        self._control.clear()
        self._size = 0

    async def take(self, frame_limit: int) -> tuple[bytes, int]:
        """One write: all control frames, then one DATA frame with as many messages as fit; and their number."""
        while not self._messages and not self._control:
            self._wake = trio.Event()
            await self._wake.wait()
        parts = [encode_frame(content) for content in self._control]
        self._control.clear()
        body: list[bytes] = []
        size = 1
        while self._messages and size + _LENGTH.size + len(self._messages[0]) <= frame_limit:
            message = self._messages.popleft()
            self._size -= len(message)
            size += _LENGTH.size + len(message)
            body += (_LENGTH.pack(len(message)), message)
        if body:
            parts += (_LENGTH.pack(size), bytes((DATA,)), *body)
        return b"".join(parts), len(body) // 2


@dataclass(slots=True)
class Traffic:
    """Counters of one peer, written by its session only."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_seen: float | None = None
    rtt_ms: float | None = None


async def shake_hands(stream: ByteStream, ours: Hello, timeout_s: float) -> Hello:
    """The peer's Hello, after ours was sent.

    Raises: Mismatch, BadFrame, StreamBroken.
    """
    with trio.move_on_after(timeout_s):
        await stream.write(encode_frame(encode_hello(ours)))
        theirs = decode_hello(await read_frame(stream, MAX_HELLO_BYTES))
        check_hello(ours, theirs)
        return theirs
    raise StreamBroken(f"no handshake within {timeout_s:g} s")


async def part(stream: ByteStream) -> None:
    """Ends a stream so that the other side still reads our handshake and learns the reason for itself."""
    with contextlib.suppress(StreamBroken), trio.move_on_after(_PART_S):
        await stream.finish()
        await stream.read_exactly(1)


class Session:
    """One open direct stream after the handshake. `run` returns why it ended."""

    def __init__(
        self,
        stream: ByteStream,
        outbox: Outbox,
        traffic: Traffic,
        limits: Limits,
        timing: Timing,
        admit: Callable[[int, int], Awaitable[bool]],
        deliver: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """Admit (messages, bytes) says whether they may pass; deliver takes one message and may wait."""
        self._stream = stream
        self._outbox = outbox
        self._traffic = traffic
        self._limits = limits
        self._timing = timing
        self._admit = admit
        self._deliver = deliver
        self._busy = False
        self._ping_number = 0
        self._ping_sent: float | None = None
        self._reason = ""
        self._scope: trio.CancelScope | None = None

    def end(self, reason: str) -> None:
        """Ends the session from outside."""
        self._reason = self._reason or reason
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> str:
        """The reason why the session ended, in one sentence.

        Raises: BadFrame if the peer broke the framing.
        """
        self._traffic.last_seen = trio.current_time()
        fault: BadFrame | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._write_loop)
                nursery.start_soon(self._ping_loop)
                if not self._reason:
                    fault = await self._read_until_fault()
                nursery.cancel_scope.cancel()
        finally:
            self._outbox.clear()
        if fault is not None:
            raise fault
        return self._reason

    async def _read_until_fault(self) -> BadFrame | None:
        try:
            while True:
                await self._read_one()
        except StreamBroken as error:
            self._reason = self._reason or str(error)
        except BadFrame as error:
            return error
        return None

    async def _read_one(self) -> None:
        content = await read_frame(self._stream, self._limits.frame_bytes)
        self._traffic.last_seen = trio.current_time()
        self._traffic.bytes_in += len(content) + _LENGTH.size
        kind = content[0]
        if kind == DATA:
            await self._take_data(content)
        elif kind in (PING, PONG) and len(content) == _NUMBER.size:
            await self._take_control(kind, _NUMBER.unpack(content)[1])
        else:
            raise BadFrame(f"expected data, ping or pong, got a frame of kind {kind} with {len(content)} bytes")

    async def _take_data(self, content: bytes) -> None:
        messages = decode_messages(content)
        if not await self._admit(len(messages), len(content)):
            return
        self._busy = True
        for message in messages:
            self._traffic.messages_in += 1
            await self._deliver(message)
        self._busy = False

    async def _take_control(self, kind: int, number: int) -> None:
        if not await self._admit(1, _NUMBER.size):
            return
        if kind == PING:
            self._outbox.push_control(_NUMBER.pack(PONG, number))
            return
        if self._ping_sent is not None and number == self._ping_number:
            self._traffic.rtt_ms = (trio.current_time() - self._ping_sent) * 1_000
            self._ping_sent = None

    async def _write_loop(self) -> None:
        try:
            while True:
                data, count = await self._outbox.take(self._limits.frame_bytes)
                with trio.fail_after(self._timing.write_timeout_s):
                    await self._stream.write(data)
                self._traffic.messages_out += count
                self._traffic.bytes_out += len(data)
        except trio.TooSlowError:
            self.end(f"frozen: took nothing for {self._timing.write_timeout_s:g} s")
        except StreamBroken as error:
            self.end(str(error))

    async def _ping_loop(self) -> None:
        while True:
            if self._ping_sent is None:
                self._ping_number += 1
                self._ping_sent = trio.current_time()
                self._outbox.push_control(_NUMBER.pack(PING, self._ping_number))
            await trio.sleep(self._timing.ping_interval_s)
            now = trio.current_time()
            if self._busy:
                # Our own engine is slow: silence on a stream that we do not read proves nothing about the peer.
                self._traffic.last_seen = now
            silent_s = now - (now if self._traffic.last_seen is None else self._traffic.last_seen)
            if silent_s > self._timing.silence_limit_s:
                self.end(f"frozen: silent for {silent_s:.1f} s")
