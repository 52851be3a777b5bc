"""The direct stream without sockets: a memory pipe, and trio's clock that jumps."""

from __future__ import annotations

import struct

import pytest
import trio
from trio.testing import MockClock

from node.network import Limits, Timing
from node.streams import (
    DATA,
    FRAME_OVERHEAD,
    PING,
    PONG,
    BadFrame,
    Hello,
    Mismatch,
    Outbox,
    Session,
    StreamBroken,
    Traffic,
    check_hello,
    decode_hello,
    decode_messages,
    encode_frame,
    encode_hello,
    read_frame,
    shake_hands,
)

HELLO = Hello(b"c" * 32, 1, "quorate 0.1")
LIMITS = Limits(frame_bytes=1_000, outbox_bytes=3_000)


class PipeEnd:
    """A ByteStream over a memory pipe."""

    def __init__(self, pipe: trio.StapledStream) -> None:
        self.pipe = pipe
        self.buffer = b""

    async def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = await self.pipe.receive_some()
            if not data:
                raise StreamBroken("closed")
            self.buffer += data
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    async def write(self, data: bytes) -> None:
        try:
            await self.pipe.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamBroken("closed") from error

    async def finish(self) -> None:
        await self.pipe.send_eof()

    async def aclose(self) -> None:
        await self.pipe.aclose()


def make_pipe() -> tuple[PipeEnd, PipeEnd]:
    left, right = trio.testing.lockstep_stream_pair()
    return PipeEnd(left), PipeEnd(right)


async def admit_all(messages: int, size: int) -> bool:
    return True


async def deliver_nowhere(data: bytes) -> None:
    return


def make_session(stream: PipeEnd, outbox: Outbox, **changes: object) -> Session:
    parts = {"limits": LIMITS, "timing": Timing(), "admit": admit_all, "deliver": deliver_nowhere} | changes
    return Session(stream, outbox, Traffic(), **parts)  # pyright: ignore[reportArgumentType]


def data_frame(*messages: bytes) -> bytes:
    return encode_frame(bytes((DATA,)) + b"".join(struct.pack(">I", len(m)) + m for m in messages))


def test_a_hello_survives_the_wire() -> None:
    assert decode_hello(encode_hello(HELLO)) == HELLO


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", encode_hello(HELLO)[:30], b"\x01" + encode_hello(HELLO)[1:], encode_hello(HELLO) + b"x" * 90],
)
def test_a_malformed_hello_is_a_bad_frame(content: bytes) -> None:
    with pytest.raises(BadFrame):
        decode_hello(content)


def test_control_characters_in_a_software_version_are_not_passed_on() -> None:
    assert decode_hello(encode_hello(Hello(b"c" * 32, 1, "a\x1b[2Jb"))).software == "a?[2Jb"


def test_another_chain_is_named_before_another_version() -> None:
    with pytest.raises(Mismatch, match="wrong chain"):
        check_hello(HELLO, Hello(b"d" * 32, 2, ""))
    with pytest.raises(Mismatch, match="wrong protocol version: expected 1, got 2"):
        check_hello(HELLO, Hello(b"c" * 32, 2, ""))


def test_messages_of_a_frame_come_out_in_order() -> None:
    assert decode_messages(data_frame(b"a", b"", b"ccc")[4:]) == [b"a", b"", b"ccc"]


@pytest.mark.parametrize("content", [b"\x01\x00\x00", b"\x01\x00\x00\x00\x05abc", b"\x01\xff\xff\xff\xff"])
def test_a_data_frame_whose_lengths_do_not_add_up_is_bad(content: bytes) -> None:
    with pytest.raises(BadFrame):
        decode_messages(content)


@pytest.mark.parametrize("length", [0, 1_001, 0xFFFFFFFF])
async def test_a_frame_is_refused_by_its_length_before_its_body_is_read(length: int) -> None:
    near, far = make_pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.write, struct.pack(">I", length))
        with pytest.raises(BadFrame):
            await read_frame(far, 1_000)


async def test_all_that_waits_for_a_peer_goes_out_in_one_write() -> None:
    outbox = Outbox(1_000)
    for message in (b"a", b"b", b"c"):
        outbox.push(message)
    assert await outbox.take(1_000) == (data_frame(b"a", b"b", b"c"), 3)


async def test_a_write_never_exceeds_the_frame() -> None:
    outbox = Outbox(10_000)
    for _ in range(3):
        outbox.push(b"x" * 400)
    first, count = await outbox.take(1_000)
    assert (count, len(first)) == (2, 4 + 1 + 2 * 404)
    assert (await outbox.take(1_000))[1] == 1


async def test_a_message_that_just_fits_a_frame_is_sent() -> None:
    outbox = Outbox(10_000)
    outbox.push(b"x" * (1_000 - FRAME_OVERHEAD))
    data, count = await outbox.take(1_000)
    assert (count, len(data)) == (1, 4 + 1_000)


async def test_a_full_outbox_drops_the_oldest_and_counts_them() -> None:
    outbox = Outbox(10)
    for message in (b"aaaa", b"bbbb", b"cccc", b"dddd"):
        outbox.push(message)
    assert outbox.dropped == 2
    assert await outbox.take(1_000) == (data_frame(b"cccc", b"dddd"), 2)


async def test_pings_go_before_messages() -> None:
    outbox = Outbox(1_000)
    outbox.push(b"a")
    outbox.push_control(struct.pack(">BQ", PING, 7))
    assert await outbox.take(1_000) == (encode_frame(struct.pack(">BQ", PING, 7)) + data_frame(b"a"), 1)


async def test_handshakes_cross(autojump_clock: MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    results: list[Hello] = []

    async def shake(stream: PipeEnd, hello: Hello) -> None:
        results.append(await shake_hands(stream, hello, 5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake, PipeEnd(near), HELLO)
        nursery.start_soon(shake, PipeEnd(far), Hello(b"c" * 32, 1, "other"))
    assert {hello.software for hello in results} == {"quorate 0.1", "other"}


async def test_a_peer_that_says_nothing_is_given_up(autojump_clock: MockClock) -> None:
    near, _far = trio.testing.memory_stream_pair()
    with pytest.raises(StreamBroken, match="no handshake within 5 s"):
        await shake_hands(PipeEnd(near), HELLO, 5)


async def test_a_silent_peer_is_dropped_as_frozen(autojump_clock: MockClock) -> None:
    near, _far = trio.testing.memory_stream_pair()
    began = trio.current_time()
    reason = await make_session(PipeEnd(near), Outbox(1_000)).run()
    assert reason.startswith("frozen: silent")
    assert 10 < trio.current_time() - began <= 13


async def test_a_peer_that_takes_nothing_is_dropped_as_frozen(autojump_clock: MockClock) -> None:
    near, _far = make_pipe()
    reason = await make_session(near, Outbox(1_000), timing=Timing(silence_limit_s=1_000)).run()
    assert reason == "frozen: took nothing for 10 s"


async def test_a_peer_that_answers_pings_is_kept_and_measured(autojump_clock: MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    session = make_session(PipeEnd(near), Outbox(1_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        for _ in range(20):
            kind, number = struct.unpack(">BQ", await read_frame(PipeEnd(far), 100))
            assert kind == PING
            await far.send_all(encode_frame(struct.pack(">BQ", PONG, number)))
        assert trio.current_time() > 50
        session.end("enough")


async def test_a_slow_engine_does_not_make_the_peer_look_frozen(autojump_clock: MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    taken: list[bytes] = []

    async def take_slowly(data: bytes) -> None:
        await trio.sleep(60)
        taken.append(data)

    await far.send_all(data_frame(b"slow"))
    reason = await make_session(PipeEnd(near), Outbox(1_000), deliver=take_slowly).run()
    assert taken == [b"slow"]
    assert reason.startswith("frozen: silent")


async def test_frames_that_are_not_admitted_are_not_delivered(autojump_clock: MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    taken: list[bytes] = []
    asked: list[tuple[int, int]] = []

    async def admit_second(messages: int, size: int) -> bool:
        asked.append((messages, size))
        return len(asked) > 1

    async def take(data: bytes) -> None:
        taken.append(data)

    await far.send_all(data_frame(b"a", b"b") + data_frame(b"c"))
    await make_session(PipeEnd(near), Outbox(1_000), admit=admit_second, deliver=take).run()
    assert (asked, taken) == ([(2, 11), (1, 6)], [b"c"])


@pytest.mark.parametrize(
    "frame", [encode_frame(b"\x00again"), encode_frame(b"\x09"), encode_frame(b"\x02short"), b"\xff\xff\xff\xff"]
)
async def test_an_unknown_frame_ends_the_session(frame: bytes, autojump_clock: MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    await far.send_all(frame)
    with pytest.raises(BadFrame):
        await make_session(PipeEnd(near), Outbox(1_000)).run()


async def test_a_pong_that_nobody_asked_for_is_ignored(autojump_clock: MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    await far.send_all(encode_frame(struct.pack(">BQ", PONG, 99)))
    await far.aclose()
    assert await make_session(PipeEnd(near), Outbox(1_000)).run() == "closed"


async def test_what_waited_for_a_peer_that_went_is_forgotten_and_counted() -> None:
    outbox = Outbox(1_000)
    outbox.push(b"stale")
    outbox.clear()
    outbox.push(b"fresh")
    assert outbox.dropped == 1
    assert await outbox.take(1_000) == (data_frame(b"fresh"), 1)


async def test_a_session_ended_before_it_began_ends_at_once(autojump_clock: MockClock) -> None:
    near, _far = trio.testing.memory_stream_pair()
    session = make_session(PipeEnd(near), Outbox(1_000))
    session.end("gone")
    assert await session.run() == "gone"
