"""JSON-RPC 2.0: from the bytes of a request to the bytes of its answer, for any registry of methods.

Decides the form of requests, batches and errors; leaves what a method does to node/rpc.py and sockets to node/http_server.py.
Parameters come by name or by position; every value is checked against the method's parameter struct before it runs.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar, cast

import msgspec
import trio
from msgspec import UNSET, Meta, UnsetType

from node.api import NodeApi
from node.faults import Fault, Reason, Trouble, fault_of
from node.prompt_check import NO_PROMPTS, PromptCheck
from node.rpc_discovery import (
    DiscoveredError,
    DiscoveredMethod,
    DiscoveredParam,
    DiscoveredResult,
    Discovery,
)
from node.rpc_types import FaultDetail
from protocol.errors import Refusal

MAX_BATCH: Final = 32
CALL_LIMIT_S: Final = 45.0  # one HTTP request, whole batch: job_wait takes at most 30
_MAX_SHOWN: Final = 64
_SCHEMA_REF: Final = "#/components/schemas/{name}"

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

CallId = Annotated[int, Meta(ge=-(2**53), le=2**53)] | Annotated[str, Meta(max_length=128)] | None


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request; without an id it is a notification and gets no answer."""

    jsonrpc: Literal["2.0"]
    method: Annotated[str, Meta(max_length=_MAX_SHOWN)]
    params: dict[str, object] | list[object] | UnsetType = UNSET
    id: CallId | UnsetType = UNSET


class ErrorObject(msgspec.Struct, frozen=True):
    """An error in the specification's form."""

    code: int
    message: str
    data: FaultDetail


class Failure(msgspec.Struct, frozen=True):
    """The answer to a call that did not succeed."""

    jsonrpc: str
    id: CallId
    error: ErrorObject


class Success(msgspec.Struct, frozen=True):
    """The answer to a call that succeeded."""

    jsonrpc: str
    id: CallId
    result: object


@dataclass(frozen=True, slots=True)
class Context:
    """What a method may use. Units: now_ms since the epoch."""

    api: NodeApi
    now_ms: Callable[[], int]
    prompts: PromptCheck = NO_PROMPTS


@dataclass(frozen=True, slots=True)
class Method:
    """One entry of the registry: everything that the dispatcher, rpc.discover and the reference page say about it."""

    name: str
    parameters: type[msgspec.Struct]
    result: type[msgspec.Struct]
    summary: str
    errors: tuple[Reason, ...]
    run: Callable[[Context, object], Awaitable[object]]


class _ObjectSchema(msgspec.Struct, frozen=True):
    """What is read of the JSON Schema that msgspec makes of a parameter struct."""

    properties: dict[str, dict[str, object]] = {}
    required: list[str] = []


Registry = dict[str, Method]


def make_method(
    name: str,
    parameters: type[P],
    result: type[R],
    summary: str,
    errors: tuple[Reason, ...],
    act: Callable[[Context, P], Awaitable[R]],
) -> Method:
    """The entry whose `run` checks raw parameters against their struct and then acts."""

    async def run(context: Context, raw: object) -> object:
        return await act(context, _convert_parameters(name, parameters, raw))

    return Method(name, parameters, result, summary, errors, run)


def make_registry(methods: Iterable[Method]) -> Registry:
    """The methods by name; a name twice is our own fault."""
    registry: Registry = {}
    for method in methods:
        assert method.name not in registry, method.name
        registry[method.name] = method
    return registry


async def answer(registry: Registry, context: Context, body: bytes) -> bytes:
    """The bytes of the answer to one request body; empty where it held only notifications."""
    try:
        request: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fault = Fault(Trouble.PARSE_ERROR, f"expected JSON, got {len(body)} bytes that are not: {_first_line(error)}")
        return msgspec.json.encode(failure_of(fault, None))
    if not isinstance(request, list):
        single = await _answer_call(registry, context, request, trio.current_time() + CALL_LIMIT_S)
        return b"" if single is None else msgspec.json.encode(single)
    return await _answer_batch(registry, context, cast("list[object]", request))


def failure_of(fault: Fault, call_id: CallId) -> Failure:
    """A fault in the form of an error answer."""
    detail = FaultDetail(str(fault.reason.value), fault.retryable, fault.cure)
    return Failure("2.0", call_id, ErrorObject(int(fault.rpc_code), fault.message, detail))


async def _answer_batch(registry: Registry, context: Context, calls: list[object]) -> bytes:
    if not calls:
        return msgspec.json.encode(failure_of(Fault(Trouble.INVALID_REQUEST, "an empty batch holds no call"), None))
    if len(calls) > MAX_BATCH:
        fault = Fault(Trouble.BATCH_TOO_LARGE, f"a batch holds at most {MAX_BATCH} calls, got {len(calls)}")
        return msgspec.json.encode(failure_of(fault, None))
    deadline = trio.current_time() + CALL_LIMIT_S
    answers = [await _answer_call(registry, context, call, deadline) for call in calls]
    kept = [each for each in answers if each is not None]
    return msgspec.json.encode(kept) if kept else b""


async def _answer_call(registry: Registry, context: Context, raw: object, deadline: float) -> Success | Failure | None:
    try:
        call = msgspec.convert(raw, Call)
    except msgspec.ValidationError as error:
        return failure_of(
            Fault(Trouble.INVALID_REQUEST, f"expected a JSON-RPC 2.0 request: {_first_line(error)}"), None
        )
    call_id = None if call.id is UNSET else call.id
    try:
        with trio.fail_at(deadline):
            result = await _find_method(registry, call.method).run(context, call.params)
    except Refusal as refusal:
        reply: Success | Failure = failure_of(fault_of(refusal), call_id)
    except Fault as fault:
        reply = failure_of(fault, call_id)
    except trio.TooSlowError:
        fault = Fault(
            Trouble.TIMED_OUT, f"{call.method} took longer than the {CALL_LIMIT_S:.0f} s that one request may"
        )
        reply = failure_of(fault, call_id)
    else:
        reply = Success("2.0", call_id, result)
    return None if call.id is UNSET else reply


def _find_method(registry: Registry, name: str) -> Method:
    method = registry.get(name)
    if method is None:
        raise Fault(Trouble.UNKNOWN_METHOD, f"there is no method {name!r}")
    return method


def _convert_parameters(name: str, parameters: type[P], raw: object) -> P:
    fields = parameters.__struct_fields__
    if isinstance(raw, list):
        values = cast("list[object]", raw)
        if len(values) > len(fields):
            raise Fault(Trouble.INVALID_PARAMS, f"{name} takes at most {len(fields)} parameters, got {len(values)}")
        raw = dict(zip(fields, values, strict=False))
    try:
        return msgspec.convert({} if raw is UNSET else raw, parameters)
    except msgspec.ValidationError as error:
        raise Fault(Trouble.INVALID_PARAMS, f"{name}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    return text[:200] or type(error).__name__


def describe_registry(registry: Registry, version: str) -> Discovery:
    """The registry as an OpenRPC document."""
    types = [kind for method in registry.values() for kind in (method.parameters, method.result)]
    _, components = msgspec.json.schema_components(types, schema_hook=_describe_any, ref_template=_SCHEMA_REF)
    return Discovery(
        openrpc="1.3.2",
        info={"title": "quorate", "version": version},
        methods=tuple(_describe_method(method) for method in registry.values()),
        components={"schemas": dict(components)},
    )


def _describe_any(kind: type) -> dict[str, object]:
    """The schema of what may be any JSON value: a schema itself, in rpc.discover's own result."""
    assert kind is object, kind
    return {"description": "any JSON value"}


def _describe_method(method: Method) -> DiscoveredMethod:
    components = msgspec.json.schema_components([method.parameters], ref_template=_SCHEMA_REF)[1]
    shape = msgspec.convert(components[method.parameters.__name__], _ObjectSchema)
    result = method.result.__name__
    return DiscoveredMethod(
        name=method.name,
        summary=method.summary,
        param_structure="either",
        params=tuple(
            DiscoveredParam(name, name in shape.required, schema) for name, schema in shape.properties.items()
        ),
        result=DiscoveredResult(result, {"$ref": _SCHEMA_REF.format(name=result)}),
        errors=tuple(_describe_error(Fault(reason, str(reason.value))) for reason in method.errors),
    )


def _describe_error(fault: Fault) -> DiscoveredError:
    detail = FaultDetail(fault.message, fault.retryable, fault.cure)
    return DiscoveredError(int(fault.rpc_code), fault.rpc_code.name.lower(), detail)
