"""The HTTP side over real sockets: who is let in, what is refused, and that nothing a client does ends the server."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from node.faults import Fault, Trouble
from node.http_connections import ConnectionLimits
from node.http_server import HttpConfig, HttpLimits, load_http_config, open_http, serve_http
from node.rpc import REGISTRY
from tests.node.fake_node import FakeNode, make_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

STATUS = {"jsonrpc": "2.0", "id": 1, "method": "node_status"}
TOKEN = "a token of thirty-two characters"
QUICK = ConnectionLimits(idle_s=0.2, silence_s=0.2, linger_s=0.1)
SMALL = HttpLimits(body_bytes=2_000, drained_bytes=20_000, requests=2, body_s=0.2)


@asynccontextmanager
async def running(
    node: FakeNode | None = None, config: HttpConfig | None = None, reports: list[tuple[str, str]] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that runs for this long."""
    chosen = config or HttpConfig()
    heard = [] if reports is None else reports
    served = node or FakeNode()
    if served.chain.header.height == 0:
        served.chain.run(1)
    opened = await open_http(chosen)
    async with trio.open_nursery() as nursery:
        report = lambda *event: heard.append(event)  # noqa: E731
        nursery.start_soon(partial(serve_http, opened, REGISTRY, make_context(served), chosen, report))
        async with httpx.AsyncClient(base_url=opened.url, trust_env=False, timeout=20) as client:
            yield client
        nursery.cancel_scope.cancel()


async def send_raw(client: httpx.AsyncClient, content: bytes) -> bytes:
    """What the server says to these bytes until it closes."""
    assert client.base_url.port is not None
    with trio.fail_after(20):
        stream = await trio.open_tcp_stream("127.0.0.1", client.base_url.port)
        async with stream:
            await stream.send_all(content)
            return b"".join([part async for part in stream])


def reason_of(response: httpx.Response) -> str:
    return response.json()["error"]["data"]["reason"]


async def test_a_call_is_answered() -> None:
    async with running() as client:
        response = await client.post("/rpc", json=STATUS)
        assert response.status_code == 200
        assert response.json()["result"]["height"] == 1


async def test_a_notification_has_an_empty_answer() -> None:
    async with running() as client:
        response = await client.post("/rpc", json={"jsonrpc": "2.0", "method": "node_status"})
        assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize(
    "change, live, ready, word",
    [({}, 200, 200, "ready"), ({"sync_target": 9}, 200, 206, "syncing"), ({"tick_ms": 0}, 503, 503, "not_ready")],
)
async def test_health_is_told_by_status_codes(change: dict, live: int, ready: int, word: str) -> None:
    async with running(FakeNode(**change)) as client:
        assert (await client.get("/livez")).status_code == live
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (ready, word)


async def test_wrong_paths_methods_and_content_types_are_refused() -> None:
    async with running() as client:
        response = await client.get("/rpc")
        assert (response.status_code, reason_of(response)) == (405, "wrong_http_method")
        response = await client.post("/rpcs", json=STATUS)
        assert (response.status_code, reason_of(response)) == (404, "unknown_path")
        response = await client.post("/rpc", content=json.dumps(STATUS), headers={"content-type": "text/plain"})
        assert (response.status_code, reason_of(response)) == (400, "wrong_content_type")


async def test_a_web_page_cannot_reach_a_node_without_a_token() -> None:
    async with running() as client:
        for headers in (
            {"origin": "http://evil.example"},
            {"host": "evil.example"},
            {"host": "127.0.0.1.evil.example"},
        ):
            response = await client.post("/rpc", json=STATUS, headers=headers)
            assert (response.status_code, reason_of(response)) == (401, "foreign_origin")
        for host in ("localhost:80", "127.0.0.1", "[::1]:7551"):
            assert (await client.post("/rpc", json=STATUS, headers={"host": host})).status_code == 200


async def test_a_token_is_asked_for_where_there_is_one() -> None:
    async with running(config=HttpConfig(token=TOKEN)) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}, {"authorization": "Basic x"}):
            response = await client.post("/rpc", json=STATUS, headers=headers)
            assert (response.status_code, reason_of(response)) == (401, "unauthorized")
        headers = {"authorization": f"Bearer {TOKEN}", "host": "node.example"}
        assert (await client.post("/rpc", json=STATUS, headers=headers)).status_code == 200


async def test_readiness_tells_strangers_no_details() -> None:
    async with running(config=HttpConfig(token=TOKEN)) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        assert "checks" in (await client.get("/readyz", headers={"authorization": f"Bearer {TOKEN}"})).json()


def test_an_open_address_without_a_token_is_refused() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(Fault) as caught:
            load_http_config(host, 0, None)
        assert caught.value.reason is Trouble.BAD_CONFIGURATION
    assert load_http_config("::1", 0, None).token is None


def test_a_token_file_must_hold_a_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert load_http_config("0.0.0.0", 0, path).token == TOKEN
    for content in (b"", b"short", b"x" * 5000, "käse und noch mehr".encode()):
        path.write_bytes(content)
        with pytest.raises(Fault) as caught:
            load_http_config("0.0.0.0", 0, path)
        assert caught.value.reason is Trouble.BAD_CONFIGURATION


async def test_a_port_in_use_is_said_to_be_in_use() -> None:
    async with running() as client:
        with pytest.raises(Fault) as caught:
            await open_http(HttpConfig(port=client.base_url.port or 0))
        assert caught.value.reason is Trouble.PORT_IN_USE


@pytest.mark.parametrize("size", [2_001, 15_000, 200_000])
async def test_a_body_over_the_limit_is_refused_with_its_reason(size: int) -> None:
    async with running(config=HttpConfig(limits=SMALL)) as client:
        response = await client.post("/rpc", content=b"1" * size, headers={"content-type": "application/json"})
        assert (response.status_code, reason_of(response)) == (413, "body_too_large")
        assert (await client.post("/rpc", json=STATUS)).status_code == 200


async def test_a_body_at_the_limit_is_read() -> None:
    async with running(config=HttpConfig(limits=SMALL)) as client:
        body = json.dumps(STATUS).encode()
        padded = body + b" " * (2_000 - len(body))
        response = await client.post("/rpc", content=padded, headers={"content-type": "application/json"})
        assert "result" in response.json()


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async with running(config=HttpConfig(limits=SMALL)) as client:
        head = (
            b"POST /rpc HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        )
        answered = await send_raw(client, head)
        assert answered.startswith(b"HTTP/1.1 408")
        assert b'"timed_out"' in answered


async def test_headers_that_do_not_end_are_not_waited_for() -> None:
    limits = HttpLimits(connections=ConnectionLimits(idle_s=0.2))
    async with running(config=HttpConfig(limits=limits)) as client:
        assert await send_raw(client, b"POST /rpc HTTP/1.1\r\nhost: localhost\r\nx-a: ") == b""


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        b"GET /rpc HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + b"\xff" * 64,
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: !!\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"1\r\n1\r\n" * 20_000,
    ],
)
async def test_garbage_ends_its_connection_and_nothing_else(content: bytes) -> None:
    limits = HttpLimits(body_bytes=2_000, drained_bytes=4_000, body_s=0.3, connections=QUICK)
    async with running(config=HttpConfig(limits=limits)) as client:
        for _ in range(3):
            try:
                await send_raw(client, content)
            except trio.BrokenResourceError as error:
                assert error.__cause__ is not None  # closed while we were still sending: that is an answer too
        assert (await client.post("/rpc", json=STATUS)).status_code == 200


async def test_a_client_that_goes_away_frees_its_request() -> None:
    node = FakeNode(is_stalled=True)
    job = (await node.submit_job(_request(), None))[0].hex()
    wait = {"jsonrpc": "2.0", "id": 1, "method": "job_wait", "params": {"job": job}}
    limits = HttpLimits(requests=1, connections=ConnectionLimits(linger_s=0.05))
    async with running(node, HttpConfig(limits=limits)) as client:
        with trio.move_on_after(0.3):
            await client.post("/rpc", json=wait)
        with trio.fail_after(10):
            while (await client.post("/rpc", json=STATUS)).status_code != 200:
                await trio.lowlevel.checkpoint()


async def test_requests_over_the_limit_are_refused_at_once() -> None:
    node = FakeNode(is_stalled=True)
    job = (await node.submit_job(_request(), None))[0].hex()
    wait = {"jsonrpc": "2.0", "id": 1, "method": "job_wait", "params": {"job": job}}
    limits = HttpLimits(requests=1)

    async def occupy(client: httpx.AsyncClient) -> None:
        while (await client.post("/rpc", json=wait)).status_code == 503:
            await trio.lowlevel.checkpoint()

    async with running(node, HttpConfig(limits=limits)) as client, trio.open_nursery() as nursery:
        nursery.start_soon(occupy, client)
        response = await client.post("/rpc", json=STATUS)
        while response.status_code == 200:
            response = await client.post("/rpc", json=STATUS)
        assert (response.status_code, reason_of(response)) == (503, "too_many_requests")
        assert (await client.get("/livez")).status_code == 200
        nursery.cancel_scope.cancel()


async def test_connections_over_the_limit_are_told_so() -> None:
    limits = HttpLimits(connections=ConnectionLimits(connections=2))
    async with running(config=HttpConfig(limits=limits)) as client:
        assert client.base_url.port is not None
        first = await trio.open_tcp_stream("127.0.0.1", client.base_url.port)
        second = await trio.open_tcp_stream("127.0.0.1", client.base_url.port)
        async with first, second:
            with trio.fail_after(10):
                while (response := await client.get("/livez")).status_code == 200:
                    await client.aclose()
        assert (response.status_code, reason_of(response)) == (503, "too_many_requests")


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end() -> None:
    limits = HttpLimits(connections=ConnectionLimits(write_s=0.2, linger_s=0.1))
    with trio.fail_after(10):
        async with running(config=HttpConfig(limits=limits)) as client:
            assert client.base_url.port is not None
            stream = await trio.open_tcp_stream("127.0.0.1", client.base_url.port)
            batch = json.dumps([{**STATUS, "method": "rpc.discover"}] * 32).encode()
            head = f"POST /rpc HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(batch)}\r\n\r\n"
            for _ in range(20):
                await stream.send_all(head.encode() + batch)


async def test_a_fault_of_ours_is_reported_and_its_text_kept_inside() -> None:
    reports: list[tuple[str, str]] = []
    node = FakeNode()
    node.chain.run(1)
    node.fault = RuntimeError("the secret is 1234")
    async with running(node, reports=reports) as client:
        response = await client.post("/rpc", json=STATUS)
    assert (response.status_code, reason_of(response)) == (500, "internal")
    assert "1234" not in response.text
    assert reports[0][0] == "internal"
    assert "the secret is 1234" in reports[0][1]


def _request():
    from tests.protocol.builders import make_request

    return make_request()
