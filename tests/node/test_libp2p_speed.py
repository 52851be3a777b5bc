"""The mends that save work change nothing that a peer can see: the same bytes, and windows that never run dry."""

from __future__ import annotations

import struct

import pytest
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux.yamux import TYPE_WINDOW_UPDATE, Yamux
from trio.testing import memory_stream_pair

from node.libp2p_speed import QuietStream, ReadAheadStream, read_body
from node.network import peer_id_of
from tests.node.loopback import node_id, pair


@pytest.mark.parametrize("sizes", [[1] * 7, [2, 3, 1, 1], [100], [None], [3, None]])
async def test_reading_ahead_gives_the_bytes_in_their_order_whatever_is_asked_for(sizes: list[int | None]) -> None:
    ours, theirs = memory_stream_pair()
    stream = ReadAheadStream(ours)  # pyright: ignore[reportArgumentType] - a stream in memory reads and writes alike
    await theirs.send_all(b"abc")
    await theirs.send_all(b"defg")
    read = [await stream.read(size) for size in sizes]
    assert b"".join(read) == b"abcdefg"[: len(b"".join(read))]
    assert all(len(piece) == size for piece, size in zip(read, sizes, strict=True) if size and size < 4)
    assert all(read)


async def test_reading_ahead_ends_when_the_other_side_does_and_not_before_what_came() -> None:
    ours, theirs = memory_stream_pair()
    stream = ReadAheadStream(ours)  # pyright: ignore[reportArgumentType]
    await theirs.send_all(b"last")
    await theirs.aclose()
    assert await stream.read(0) == b""
    assert await stream.read(3) == b"las"
    assert await stream.read(3) == b"t"
    assert await stream.read(3) == b""


def test_a_body_is_only_taken_from_what_is_decrypted() -> None:
    assert read_body(object(), 3) is None


class Frames:
    """The frames that one side writes, by type."""

    def __init__(self, conn: Yamux, monkeypatch: pytest.MonkeyPatch) -> None:
        self.types: list[int] = []
        write = conn._write_frame

        async def counted(data: bytes) -> None:
            self.types.append(struct.unpack(">BBHII", data[:12])[1])
            await write(data)

        monkeypatch.setattr(conn, "_write_frame", counted)


async def test_small_messages_cost_no_window_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as (_, high):
        low_id = ID.from_base58(peer_id_of(node_id(0)))
        stream = (await high.network._host._host.new_stream(low_id, [TProtocol("/ipfs/ping/1.0.0")])).muxed_stream
        assert isinstance(stream, QuietStream)
        conn = stream.conn
        assert isinstance(conn, Yamux)
        frames = Frames(conn, monkeypatch)
        for _ in range(32):  # each comes back
            await stream.write(b"p" * 32)
            assert await stream.read(32) == b"p" * 32
        assert TYPE_WINDOW_UPDATE not in frames.types
        await stream.reset()


async def test_a_message_of_more_than_a_window_comes_whole() -> None:
    async with pair() as (_, high):
        assert await high.network.request(node_id(0), b"0000500000", 10) == b"x" * 500_000
