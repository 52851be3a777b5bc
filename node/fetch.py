"""One request and one answer on a stream of their own, `/quorate/1/fetch`.

Decides framing, limits and what the requester is told; what the bytes mean is the caller's. Large things are asked for
in pieces by the caller, by offset.

Request: a frame. Answer: a frame whose first byte is ANSWER or REFUSAL; a refusal holds up to 256 bytes of text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from node.network import FetchError, FetchFault, FetchHandler, FetchRefused, Limits
from node.peers import Peer
from node.streams import BadFrame, ByteStream, StreamBroken, encode_frame, read_frame

ANSWER, REFUSAL = 0, 1
_MAX_REFUSAL_BYTES = 256


async def ask(
    open_stream: Callable[[], Awaitable[ByteStream]], request: bytes, timeout_s: float, limits: Limits
) -> bytes:
    """The peer's answer.

    Raises: FetchError if it refuses, breaks off or takes longer than timeout_s.
    """
    if not 1 <= len(request) <= limits.request_bytes:
        raise ValueError(f"a request has 1 to {limits.request_bytes} bytes, got {len(request)}")
    with trio.move_on_after(timeout_s):
        try:
            return await _exchange(await open_stream(), request, limits)
        except StreamBroken as error:
            raise FetchError(FetchFault.BROKEN, str(error)) from error
        except BadFrame as error:
            raise FetchError(FetchFault.BROKEN, f"bad answer: {error}") from error
    raise FetchError(FetchFault.TIMEOUT, f"no answer within {timeout_s:g} s")


async def _exchange(stream: ByteStream, request: bytes, limits: Limits) -> bytes:
    try:
        await stream.write(encode_frame(request))
        answer = await read_frame(stream, limits.response_bytes + 1)
    finally:
        with trio.move_on_after(1) as scope:
            scope.shield = True
            await stream.aclose()
    if answer[0] == REFUSAL:
        text = answer[1 : 1 + _MAX_REFUSAL_BYTES].decode("utf-8", "replace")
        raise FetchError(FetchFault.REFUSED, "".join(c if c.isprintable() else "?" for c in text))
    if answer[0] != ANSWER:
        raise BadFrame(f"expected an answer or a refusal, got kind {answer[0]}")
    return answer[1:]


async def serve(
    stream: ByteStream, peer: Peer, handler: FetchHandler, limits: Limits, admit: Callable[[int], Awaitable[bool]]
) -> None:
    """Answers the one request on a stream that the peer has opened; what the answer weighs is charged to the peer.

    Raises: BadFrame, StreamBroken; and what the handler raises but for FetchRefused.
    """
    if peer.requests_in >= limits.requests_in_per_peer:
        await refuse(stream, "busy: too many requests at once")
        return
    peer.requests_in += 1
    try:
        request = await read_frame(stream, limits.request_bytes)
        if not await admit(len(request)):
            await refuse(stream, "busy: too many requests")
            return
        answer = await handler(peer.node_id, request)
        assert len(answer) <= limits.response_bytes, f"answer of {len(answer)} bytes, limit {limits.response_bytes}"
        await stream.write(encode_frame(bytes((ANSWER,)) + answer))
        peer.fetch_bucket.charge(len(answer), trio.current_time())
        peer.fetches_served += 1
    except FetchRefused as refusal:
        await refuse(stream, str(refusal))
    finally:
        peer.requests_in -= 1


async def refuse(stream: ByteStream, reason: str) -> None:
    """Tells the requester why there is no answer.

    Raises: StreamBroken.
    """
    await stream.write(encode_frame(bytes((REFUSAL,)) + reason.encode()[:_MAX_REFUSAL_BYTES]))
