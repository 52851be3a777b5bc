"""What clients say over HTTP: calls, raw HTTP, a node's answers to the command line."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import TypeAlias

import msgspec
import trio
from trio.testing import MockClock, memory_stream_pair

from node.api import NodeSnapshot
from node.faults import Fault
from node.http_server import HttpConfig, OpenHttp, serve_http
from node.jsonrpc import answer
from node.rpc import REGISTRY
from node.rpc_client import NodeClient
from node.rpc_types import JobState, NodeStatus
from protocol.codec import encode
from tests.fuzz.shapes import Json, Lines
from tests.fuzz.target import Target
from tests.node.fake_node import FakeNode, make_context
from tests.protocol.builders import make_key, make_request

Reports: TypeAlias = "list[tuple[str, str]]"


class Unanswerable(Exception):
    """The node said that it is at fault itself."""


# --- JSON-RPC


class _PacedNode(FakeNode):
    """Its blocks take time, so that whoever waits for them can lose patience."""

    async def wait_block(self, above: int) -> NodeSnapshot:
        await trio.sleep(0.05)
        return await super().wait_block(above)


@cache
def _get_lived() -> FakeNode:
    """A node on whose chain one job has settled and another is open."""
    node = FakeNode()

    async def live() -> None:
        job, _ = await node.submit_job(make_request(), None)
        while node.chain.view(job).settlement is None:
            node.advance()
        await node.submit_job(make_request(), "r")

    trio.run(live, clock=MockClock(autojump_threshold=0))
    return node


def _make_node() -> FakeNode:
    """That node again, to be changed at will."""
    lived = _get_lived()
    return _PacedNode(
        chain=lived.chain.fork(),
        certificates=dict(lived.certificates),
        job_answers=dict(lived.job_answers),
        request_ids=dict(lived.request_ids),
    )


def _take_call(content: bytes) -> str:
    """The answer, which must be JSON-RPC and never the node's own fault."""

    context = make_context(_make_node())

    async def run() -> bytes:
        return await answer(REGISTRY, context, content)

    reply = trio.run(run, clock=MockClock(autojump_threshold=0))
    if not reply:
        return "notified"
    said = json.loads(reply)
    words = [_name_answer(each) for each in (said if isinstance(said, list) else [said])]
    return words[0] if len(set(words)) == 1 else "several"


def _name_answer(said: dict) -> str:
    assert said["jsonrpc"] == "2.0" and ("result" in said) != ("error" in said), said
    if "result" in said:
        return "result"
    assert said["error"]["data"]["cure"] and said["error"]["code"] != -32603, said
    return said["error"]["data"]["reason"]


@cache
def list_calls() -> tuple[bytes, ...]:
    """A call of every method, with parameters by name, by position, in a batch, and without an id."""
    lived = _get_lived()
    transaction = lived.chain.transfer("other", "asker", 3)
    known = {
        "job": next(iter(lived.certificates)).hex(),
        "account": make_key("asker").public.hex(),
        "node": make_key("v0").public.hex(),
        "height": 1,
        "model": "adder",
        "prompt": "23+58=",
        "transaction": base64.b64encode(encode(transaction)).decode(),
        "timeout_ms": 1,
        "seats": 3,
        "settings": {"kind": "greedy", "max_tokens": 8},
        "request_id": "s",
    }
    calls = [_make_call(name, known) for name in REGISTRY]
    listed = [{**call, "params": list(call["params"].values())} for call in calls]
    notified = [{key: value for key, value in call.items() if key != "id"} for call in calls[:2]]
    return tuple(json.dumps(each).encode() for each in (*calls, *listed, *notified, calls[:4], []))


def _make_call(name: str, known: dict[str, object]) -> dict:
    fields = REGISTRY[name].parameters.__struct_fields__
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": name,
        "params": {field: known[field] for field in fields if field in known},
    }


# --- HTTP


class _Address:
    """What hypercorn asks a socket for."""

    family = 2

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 7551)

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 40_000)


class _Listener(trio.abc.Listener):
    """One connection, then none for ever."""

    def __init__(self, stream: trio.StapledStream) -> None:
        self._streams = [stream]

    async def accept(self) -> trio.StapledStream:
        while not self._streams:
            await trio.sleep_forever()
        stream = self._streams.pop()
        stream.socket = _Address()
        return stream

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _take_http(content: bytes) -> str:
    """What a connection leads to that says these bytes and then reads: HTTP, or nothing; and no fault of the node's own."""
    reports: Reports = []
    context = make_context(_make_node())

    async def run() -> bytes:
        ours, theirs = memory_stream_pair()
        opened = OpenHttp("http://127.0.0.1:7551", [_Listener(theirs)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                serve_http,
                opened,
                REGISTRY,
                context,
                HttpConfig(),
                lambda *told: reports.append(told),
            )
            said = await _converse(ours, content)
            nursery.cancel_scope.cancel()
        return said

    said = trio.run(run, clock=MockClock(autojump_threshold=0))
    faults = [event for event, _ in reports]
    if "internal" in faults:
        raise Unanswerable(reports[0][1])
    status = said[9:12].decode("ascii", "replace") if said.startswith(b"HTTP/1.") else "nothing"
    return f"{status}{' reported' if faults else ''}"


async def _converse(stream: trio.StapledStream, content: bytes) -> bytes:
    try:
        await stream.send_all(content)
        await stream.send_eof()
    except trio.BrokenResourceError:
        return b""
    parts = []
    with trio.move_on_after(600):
        try:
            async for part in stream:
                parts.append(bytes(part))
        except trio.BrokenResourceError:
            return b"".join(parts)
    return b"".join(parts)


def _list_requests() -> list[bytes]:
    body = b'{"jsonrpc":"2.0","id":1,"method":"node_status"}'
    head = (b"host: 127.0.0.1:7551", b"content-type: application/json")
    sized = b"content-length: %d" % len(body)
    return [
        b"\r\n".join((b"POST /rpc HTTP/1.1", *head, sized, b"", body)),
        b"\r\n".join((b"POST /rpc HTTP/1.1", *head, b"transfer-encoding: chunked", b"", b"%x" % len(body), body, b"0", b"", b"")),
        b"\r\n".join((b"GET /livez HTTP/1.1", *head, b"", b"")),
        b"\r\n".join((b"GET /readyz HTTP/1.0", *head, b"connection: keep-alive", b"", b"")) * 2,
        b"\r\n".join((b"GET /rpc HTTP/1.1", *head, b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-key: eA==", b"sec-websocket-version: 13", b"", b"")),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    ]  # fmt: skip


# --- what the command line is answered


class _Answered(NodeClient):
    """A client whose node answers with these bytes."""

    content = b""

    def _post(self, body: bytes) -> bytes:
        return self.content


@cache
def _get_client() -> _Answered:
    """One for all inputs: making one is the most expensive part."""
    return _Answered("http://127.0.0.1:1")


def _ask(content: bytes) -> _Answered:
    client = _get_client()
    client.content, client._last_id = content, 0
    return client


def _take_reply(content: bytes) -> str:
    """As the answer to one call of each of two methods, and to a batch."""
    words: list[str] = []
    for result in (NodeStatus, JobState):
        try:
            words.append(type(_ask(content).call("x", NOTHING, result)).__name__)
        except Fault as fault:
            words.append(str(fault.reason.value))
    answers = _ask(content).call_all("x", [NOTHING, NOTHING], NodeStatus)
    return " ".join([*words, *(type(each).__name__ for each in answers)])


class _Nothing(msgspec.Struct, frozen=True):
    """No parameters."""


NOTHING = _Nothing()


@cache
def _list_replies() -> tuple[bytes, ...]:
    context = make_context(_make_node())

    async def run() -> list[bytes]:
        return [await answer(REGISTRY, context, call) for call in list_calls()]

    replies = trio.run(run, clock=MockClock(autojump_threshold=0))
    status = next(reply for call, reply in zip(list_calls(), replies, strict=True) if b"node_status" in call)
    return (
        *dict.fromkeys(reply for reply in replies if reply),
        b"[" + status + b"," + status.replace(b'"id":1', b'"id":2') + b"]",
    )


TARGETS = (
    Target(
        "rpc-call",
        ("node/jsonrpc.py::answer", "node/jsonrpc.py::_answer_call", "node/jsonrpc.py::_convert_parameters"),
        Json(),
        list_calls,
        _take_call,
        (),
        allowance=2 * 1024 * 1024,
    ),
    Target("http", (), Lines(b"\r\n"), _list_requests, _take_http, (), max_bytes=4 * 1024, allowance=2 * 1024 * 1024),
    Target(
        "rpc-reply",
        ("node/rpc_client.py::NodeClient._decode",),
        Json(),
        _list_replies,
        _take_reply,
        (Fault,),
        allowance=1024 * 1024,
    ),
)
