"""A frame that has begun is written whole, whoever gives up meanwhile; a header is judged when it is whole, and only headers are."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, cast

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID

from node.libp2p_frames import WRITE_S, BadHeader, BoundedYamux, HeaderGate

if TYPE_CHECKING:
    from libp2p.abc import ISecureConn

FRAME = struct.pack(">BBHII", 0, 2, 1, 0, 7)


class SlowConnection:
    """A connection that takes a second for each write, under trio's autojump_clock, and gives out what it was given to read."""

    def __init__(self, *pieces: bytes, seconds: float = 1.0) -> None:
        self.begun: list[bytes] = []
        self.written: list[bytes] = []
        self.is_closed = False
        self.is_initiator = True
        self._pieces = list(pieces)
        self._seconds = seconds
        self._closing = trio.Event()

    async def write(self, data: bytes) -> None:
        self.begun.append(data)
        with trio.move_on_after(self._seconds):
            await self._closing.wait()
            return
        self.written.append(data)

    async def read(self, _n: int | None = None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def close(self) -> None:
        self.is_closed = True
        self._closing.set()


def make_muxer(connection: SlowConnection) -> BoundedYamux:
    return BoundedYamux(cast("ISecureConn", connection), ID(b"peer"), is_initiator=True)


async def test_a_write_that_is_given_up_is_written_to_its_end_and_the_next_follows_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    connection = SlowConnection()
    muxer = make_muxer(connection)
    with trio.move_on_after(0.5) as patience:
        await muxer._write_frame(FRAME)
    assert patience.cancelled_caught
    await muxer._write_frame(FRAME * 2)
    assert connection.written == connection.begun == [FRAME, FRAME * 2]


async def test_who_gives_up_before_it_is_its_turn_has_written_nothing(autojump_clock: trio.testing.MockClock) -> None:
    connection = SlowConnection()
    muxer = make_muxer(connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer._write_frame, FRAME)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await muxer._write_frame(FRAME * 2)
    assert connection.begun == [FRAME]


async def test_a_peer_that_takes_nothing_loses_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    connection = SlowConnection(seconds=WRITE_S + 1)
    with pytest.raises(ConnectionClosedError, match="took nothing"):
        await make_muxer(connection)._write_frame(FRAME)
    assert connection.is_closed
    assert connection.written == []


async def test_closing_waits_for_no_write_that_hangs(autojump_clock: trio.testing.MockClock) -> None:
    connection = SlowConnection(seconds=1_000)
    muxer = make_muxer(connection)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer._write_frame, FRAME)
        await trio.testing.wait_all_tasks_blocked()
        await muxer.close()
    assert connection.is_closed
    assert trio.current_time() - began < 1


async def test_a_header_is_judged_when_its_last_byte_has_come_and_bodies_never() -> None:
    judged: list[bytes] = []
    connection = SlowConnection(FRAME[:5], FRAME[5:], b"x" * 12, FRAME)
    gate = HeaderGate(cast("ISecureConn", connection), judged.append)
    await gate.read(12)
    assert judged == []
    await gate.read(7)
    assert judged == [FRAME]
    with gate.passing_bodies():
        await gate.read(12)
    assert judged == [FRAME]
    await gate.read(12)
    assert judged == [FRAME, FRAME]


@pytest.mark.parametrize(
    "header",
    [struct.pack(">BBHII", 1, 0, 0, 1, 0), struct.pack(">BBHII", 0, 4, 0, 1, 0), b"x" * 12],
    ids=["another version", "an unknown type", "text"],
)
async def test_what_is_no_header_is_refused(header: bytes) -> None:
    muxer = make_muxer(SlowConnection(header))
    with pytest.raises(BadHeader):
        await muxer.secured_conn.read(12)


async def test_everything_else_of_the_connection_is_as_it_was() -> None:
    connection = SlowConnection()
    assert make_muxer(connection).secured_conn.is_initiator is True
