"""One request and one answer on a stream of their own, `/quorate/1/fetch`.

Decides framing, limits and what the requester is told; what the bytes mean is the caller's. Large things are asked for
in pieces by the caller, by offset.

Request: a frame. Answer: a frame whose first byte is ANSWER or REFUSAL; a refusal holds up to 256 bytes of text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from node.network import FetchError, FetchFault, FetchHandler, FetchRefused, Limits
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
        with trio.move_on_after(1, shield=True):
            await stream.aclose()
    if answer[0] == REFUSAL:
        text = answer[1 : 1 + _MAX_REFUSAL_BYTES].decode("utf-8", "replace")
        raise FetchError(FetchFault.REFUSED, "".join(c if c.isprintable() else "?" for c in text))
    if answer[0] != ANSWER:
        raise BadFrame(f"expected an answer or a refusal, got kind {answer[0]}")
    return answer[1:]


async def read_request(stream: ByteStream, limits: Limits) -> bytes:
    """The request on a stream that a peer has opened.

    Raises: BadFrame, StreamBroken.
    """
    return await read_frame(stream, limits.request_bytes)


async def serve(stream: ByteStream, node_id: bytes, request: bytes, handler: FetchHandler, limits: Limits) -> int:
    """The size of the answer sent; a FetchRefused of the handler is sent as such.

    Raises: StreamBroken; and what else the handler raises.
    """
    try:
        answer = await handler(node_id, request)
    except FetchRefused as refusal:
        await refuse(stream, str(refusal))
        return 0
    assert len(answer) <= limits.response_bytes, f"answer of {len(answer)} bytes, limit {limits.response_bytes}"
    await stream.write(encode_frame(bytes((ANSWER,)) + answer))
    return len(answer)


async def refuse(stream: ByteStream, reason: str) -> None:
    """Tells the requester why there is no answer.

    Raises: StreamBroken.
    """
    await stream.write(encode_frame(bytes((REFUSAL,)) + reason.encode()[:_MAX_REFUSAL_BYTES]))
