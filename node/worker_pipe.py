"""The pipes between a node and its worker process: whole messages in, whole messages out, and how a worker ended."""

from typing import Final

import trio

from protocol.codec import encode
from protocol.errors import InvalidMessage
from verifier.messages import HEADER, MAX_RESPONSE_BYTES, RESPONSE_CODEC, Generate, Response

KILL_SECONDS: Final = 10  # a killed process that stays longer hangs in the kernel; the node does not wait for that


class WorkerFault(Exception):
    """The worker ended, or did what no sound worker does; it is killed and started anew."""


async def send(process: trio.Process, question: Generate) -> None:
    """Put a question to the worker. Raises: WorkerFault if it has ended."""
    assert process.stdin is not None
    body = encode(question)
    try:
        await process.stdin.send_all(HEADER.pack(len(body)) + body)
    except trio.BrokenResourceError as error:
        await process.wait()
        raise WorkerFault(f"the worker ended, {describe_end(process)}") from error


async def receive(process: trio.Process) -> Response:
    """The next message. Raises: WorkerFault if there is none, or bytes that are none."""
    (length,) = HEADER.unpack(await _receive_exactly(process, HEADER.size))
    if length > MAX_RESPONSE_BYTES:
        raise WorkerFault(f"the worker announced {length} bytes; expected at most {MAX_RESPONSE_BYTES}")
    try:
        return RESPONSE_CODEC.decode(await _receive_exactly(process, length))
    except InvalidMessage as error:
        raise WorkerFault(f"the worker sent what is no message: {error}") from error


async def _receive_exactly(process: trio.Process, count: int) -> bytes:
    assert process.stdout is not None
    received = bytearray()
    while len(received) < count:
        chunk = await process.stdout.receive_some(count - len(received))
        if not chunk:
            with trio.move_on_after(1):  # closing stdout and ending are two moments
                await process.wait()
            raise WorkerFault(f"the worker ended, {describe_end(process)}")
        received += chunk
    return bytes(received)


async def end(process: trio.Process) -> None:
    """Kill the worker, if it still runs, and close the node's ends of its pipes."""
    assert process.stdin is not None and process.stdout is not None
    process.kill()
    with trio.move_on_after(KILL_SECONDS) as scope:
        scope.shield = True
        await process.wait()
        await process.stdin.aclose()
        await process.stdout.aclose()


async def cancel_at_end(process: trio.Process, scope: trio.CancelScope) -> None:
    """Cancel the scope when the worker ends."""
    await process.wait()
    scope.cancel()


def describe_end(process: trio.Process) -> str:
    """How the worker ended, for messages."""
    code = process.returncode
    if code is None:
        return "its output closed"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
