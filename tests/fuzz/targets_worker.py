"""What a node and its worker process say to each other."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from node.worker_pipe import WorkerFault, receive
from protocol.codec import encode
from protocol.errors import InvalidMessage
from protocol.models import greedy
from tests.fuzz.shapes import Packed
from tests.fuzz.target import Target
from tests.vectors import samples as pinned
from verifier.messages import MAX_REQUEST_BYTES, REQUEST_CODEC, Failed, Generate, Generated, Hello, Refused


class _Pipe:
    """A worker's standard output."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.returncode = 1

    async def receive_some(self, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        part, self._content = self._content[:count], self._content[count:]
        return part

    async def wait(self) -> int:
        await trio.lowlevel.checkpoint()
        return self.returncode

    @property
    def stdout(self) -> _Pipe:
        return self


def _take_response(content: bytes) -> str:
    async def run() -> str:
        return type(await receive(_Pipe(content))).__name__

    return trio.run(run, clock=MockClock(autojump_threshold=0))


def _frame(message: object) -> bytes:
    body = encode(message)
    return len(body).to_bytes(4, "big") + body


def _list_responses() -> list[bytes]:
    messages = (
        Hello((pinned.CARD,)),
        Refused("no model"),
        Generated(pinned.JOB, pinned.OUTPUT, pinned.DIGEST, 20),
        Failed(pinned.JOB, "why"),
    )
    return [_frame(each) for each in messages]


def _take_request(content: bytes) -> str:
    assert MAX_REQUEST_BYTES > 8_192
    return f"{len(REQUEST_CODEC.decode(content).prompt) > 5}"


def _list_worker_requests() -> list[bytes]:
    return [encode(Generate(pinned.JOB, pinned.MODEL, "23+58=", greedy(8), pinned.SALT, 2_000))]


TARGETS = (
    Target(
        "worker-response",
        ("verifier/messages.py::RESPONSE_CODEC", "node/worker_pipe.py::receive"),
        Packed(4),
        _list_responses,
        _take_response,
        (WorkerFault,),
        allowance=256 * 1024,
    ),
    Target(
        "worker-request",
        ("verifier/messages.py::REQUEST_CODEC", "verifier/worker.py::read_requests"),
        Packed(),
        _list_worker_requests,
        _take_request,
        (InvalidMessage,),
    ),
)
