"""The node's HTTP side: POST /rpc, /livez and /readyz, on trio, with a limit on everything a client can make grow.

Loopback needs no token, but refuses what a browser could be made to send (an Origin, another Host, another content type): the
node's account pays for jobs. Any other address needs a bearer token. No exception's text ever leaves the node.
"""

import errno
import hmac
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias, cast

import msgspec
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from node.faults import Fault, RpcCode, Trouble
from node.http_connections import ConnectionLimits, serve_connections
from node.jsonrpc import Context, Registry, answer, failure_of
from node.rpc_access import is_loopback, load_token
from node.rpc_views import STALE_TICK_MS, check_readiness

_JSON: Final = "application/json"
_HTTP_STATUS: Final = {
    RpcCode.TOO_LARGE: 413,
    RpcCode.UNAUTHORIZED: 401,
    RpcCode.OVERLOADED: 503,
    RpcCode.TIMED_OUT: 408,
    RpcCode.INTERNAL: 500,
    RpcCode.INVALID_REQUEST: 400,
}


FaultHandler: TypeAlias = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What clients may cost the node. Units: bytes, seconds."""

    body_bytes: int = (
        256 * 1024
    )  # a job with its 8 KiB prompt, escaped, or a transaction of 16 KiB in base64, in a small batch
    drained_bytes: int = 4 * 1024 * 1024  # read and dropped, so that a client that sends too much can read the answer
    requests: int = 32  # at once; long polls count
    body_s: float = 10.0
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Where to listen. Port 0 takes a free one; `token` is None only on loopback."""

    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = field(default=None, repr=False)
    limits: HttpLimits = field(default_factory=HttpLimits)


def load_http_config(host: str, port: int, token_file: Path | None, limits: HttpLimits | None = None) -> HttpConfig:
    """The configuration with its token read from the file.

    Raises: Fault(BAD_CONFIGURATION) where an address other than loopback has no token, or the token is none.
    """
    if token_file is None and not is_loopback(host):
        raise Fault(
            Trouble.BAD_CONFIGURATION,
            f"rpc.host {host} can be reached from other machines, and no rpc.token_file is configured",
            cure="set rpc.token_file to a file with a random token, or rpc.host to 127.0.0.1",
        )
    return HttpConfig(host, port, None if token_file is None else load_token(token_file), limits or HttpLimits())


@dataclass(frozen=True, slots=True)
class OpenHttp:
    """A bound address on which nobody is served yet; `url` is such as http://127.0.0.1:40123."""

    url: str
    listeners: Sequence[trio.SocketListener]


async def open_http(config: HttpConfig) -> OpenHttp:
    """The address bound, with the port really taken.

    Raises: Fault(PORT_IN_USE | BAD_CONFIGURATION).
    """
    where = f"{config.host} port {config.port}"
    try:
        listeners = await trio.open_tcp_listeners(config.port, host=config.host, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Fault(
                Trouble.PORT_IN_USE, f"the RPC should listen on {where}, which another process holds"
            ) from error
        raise Fault(
            Trouble.BAD_CONFIGURATION, f"the RPC cannot listen on {where}: {error.strerror or error}"
        ) from error
    host = f"[{config.host}]" if ":" in config.host else config.host
    port = cast("tuple[str, int]", listeners[0].socket.getsockname())[1]
    return OpenHttp(f"http://{host}:{port}", listeners)


async def serve_http(
    opened: OpenHttp, registry: Registry, context: Context, config: HttpConfig, report: Callable[[str, str], None]
) -> None:
    """Serves until cancelled. `report(event, detail)` is told of faults of ours, for the node's log."""
    app = make_app(registry, context, config, report)
    # Starlette's and hypercorn's types of an ASGI application differ in words only.
    await serve_connections(
        cast("ASGIFramework", app),
        _configure_hypercorn(config.limits),
        opened.listeners,
        config.limits.connections,
        report,
    )


def _configure_hypercorn(limits: HttpLimits) -> HypercornConfig:
    config = HypercornConfig()
    config.accesslog = None
    config.errorlog = None  # make_app reports what fails
    config.include_server_header = False
    config.h11_max_incomplete_size = 16 * 1024
    config.read_timeout = cast("int", limits.connections.silence_s)  # trio takes any number
    config.keep_alive_timeout = limits.connections.idle_s
    config.websocket_max_message_size = 1024  # nothing here speaks WebSocket
    config.h2_max_concurrent_streams = 8
    return config


def make_app(registry: Registry, context: Context, config: HttpConfig, report: Callable[[str, str], None]) -> Starlette:
    """The ASGI application: three paths; everything else, and every fault, is answered with an error object."""
    places = trio.CapacityLimiter(config.limits.requests)

    async def rpc(request: Request) -> Response:
        _check_caller(request, config)
        _check_content_type(request)
        try:
            places.acquire_on_behalf_of_nowait(request)
        except trio.WouldBlock:
            limit = config.limits.requests
            raise Fault(Trouble.TOO_MANY_REQUESTS, f"the node answers at most {limit} requests at once") from None
        try:
            reply = await answer(registry, context, await _read_body(request, config.limits))
        finally:
            places.release_on_behalf_of(request)
        return Response(reply, media_type=_JSON) if reply else Response(status_code=204)

    async def livez(_request: Request) -> Response:
        age_ms = context.now_ms() - context.api.get_snapshot().tick_ms
        alive = age_ms < STALE_TICK_MS
        return _respond({"status": "live" if alive else "stalled", "tick_age_ms": age_ms}, 200 if alive else 503)

    async def readyz(request: Request) -> Response:
        readiness = check_readiness(context.api.get_snapshot(), context.now_ms())
        status = {"ready": 200, "syncing": 206, "not_ready": 503}[readiness.status]
        trusted = config.token is None or _has_token(request, config.token)
        return _respond(readiness if trusted else {"status": readiness.status}, status)

    return Starlette(
        routes=[
            Route("/rpc", rpc, methods=["POST"]),
            Route("/livez", livez, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
        ],
        exception_handlers=_make_fault_handlers(report),
    )


def _make_fault_handlers(report: Callable[[str, str], None]) -> dict[object, FaultHandler]:
    """What answers each kind of exception that a request may end with."""

    async def refuse(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Fault), error
        return _respond_fault(error)

    async def refuse_http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), error
        if error.status_code == 405:
            return _respond_fault(
                Fault(Trouble.WRONG_HTTP_METHOD, "expected POST at /rpc, GET at /livez and /readyz"), 405
            )
        return _respond_fault(Fault(Trouble.UNKNOWN_PATH, "there is nothing at this path"), 404)

    async def fail(_request: Request, error: Exception) -> Response:
        report("internal", "".join(traceback.format_exception(error)))
        return _respond_fault(Fault(Trouble.INTERNAL, "the node could not answer this call"))

    return {Fault: refuse, HTTPException: refuse_http, Exception: fail}


def _check_caller(request: Request, config: HttpConfig) -> None:
    if config.token is not None:
        if not _has_token(request, config.token):
            raise Fault(Trouble.UNAUTHORIZED, "expected this node's bearer token, got none or another")
        return
    # Without a token the address is the only guard: a web page must not reach it through the user's browser.
    host = request.headers.get("host", "")
    name = host.rsplit(":", 1)[0].strip("[]") if not host.endswith("]") else host.strip("[]")
    if "origin" in request.headers or not is_loopback(name):
        raise Fault(
            Trouble.FOREIGN_ORIGIN,
            f"expected a program on this machine, got a call for host {host[:64]!r} or from a web page",
        )


def _has_token(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _check_content_type(request: Request) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != _JSON:
        raise Fault(Trouble.WRONG_CONTENT_TYPE, f"expected content-type {_JSON}, got {given[:64] or 'none'}")


async def _read_body(request: Request, limits: HttpLimits) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        with trio.fail_after(limits.body_s):
            async with aclosing(request.stream()) as stream:
                async for part in stream:
                    size += len(part)
                    if size <= limits.body_bytes:
                        parts.append(part)
                    elif size > limits.drained_bytes:
                        break
    except trio.TooSlowError as error:
        raise Fault(
            Trouble.TIMED_OUT, f"the body should come within {limits.body_s:.0f} s", cure="send it again"
        ) from error
    except ClientDisconnect as error:
        raise Fault(Trouble.INVALID_REQUEST, "the client went away before its body ended") from error
    if size > limits.body_bytes:
        raise Fault(Trouble.BODY_TOO_LARGE, f"a body may hold {limits.body_bytes} bytes, got more")
    return b"".join(parts)


def _respond(content: object, status: int) -> Response:
    return Response(msgspec.json.encode(content), status_code=status, media_type=_JSON)


def _respond_fault(fault: Fault, status: int = 0) -> Response:
    response = _respond(failure_of(fault, None), status or _HTTP_STATUS[fault.rpc_code])
    if fault.rpc_code in {RpcCode.TOO_LARGE, RpcCode.TIMED_OUT}:
        response.headers["connection"] = "close"  # the rest of that body is not read
    return response
