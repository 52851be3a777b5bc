"""A node's RPC as the command line calls it: synchronous, checked, with every failure as a Fault.

Bytes from a node are judged like any others: size first, then structure, then whether the answer belongs to the question.
"""

import weakref
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import httpx
import msgspec

from node.faults import CONSEQUENCES, Exit, Fault, Reason, RpcCode, Trouble
from node.rpc_types import FaultDetail
from protocol.errors import Rejection

MAX_REPLY_BYTES: Final = 16 * 1024 * 1024  # the largest is an output of 1 MiB, escaped, with its tokens
CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0  # a node ends every request within 45 s

R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")

_REASONS: Final[Mapping[str, Reason]] = {str(reason.value): reason for reason in (*Rejection, *Trouble)}
_EXITS: Final = {
    RpcCode.NOT_READY: Exit.NOT_READY,
    RpcCode.TIMED_OUT: Exit.NO_ANSWER,
    RpcCode.UNAVAILABLE: Exit.TEMPORARY,
}


class _Error(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: FaultDetail | None = None


class _Reply(msgspec.Struct, frozen=True):
    jsonrpc: str
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Error | None = None


class NodeClient:
    """One node's RPC."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url: Final = url.rstrip("/")
        headers = {"content-type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        # No proxy from the environment: a node is asked where it is, most often on this machine.
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        self._http: Final = httpx.Client(headers=headers, timeout=timeout, trust_env=False)
        # A command makes one client and lets it go when it is done; its connections end with it.
        weakref.finalize(self, self._http.close)
        self._last_id = 0

    def call(self, method: str, params: msgspec.Struct, result: type[R]) -> R:
        """The method's result. Raises: Fault."""
        self._last_id += 1
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        reply = self._decode(self._post(body), _Reply)
        if reply.error is not None:
            raise _fault_of(reply.error)
        if reply.id != self._last_id:
            raise self._not_a_node(f"its answer has the id {reply.id!r} instead of {self._last_id}")
        return self._decode(bytes(reply.result), result)

    def call_all(self, method: str, params: Sequence[msgspec.Struct], result: type[R]) -> list[R | Fault]:
        """The results of one batch in the order of its calls, each with its own fault; at most jsonrpc.MAX_BATCH. Raises: Fault."""
        first = self._last_id + 1
        self._last_id += len(params)
        calls = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": each}
            for number, each in enumerate(params, first)
        ]
        body = self._post(msgspec.json.encode(calls))
        if not body.startswith(b"["):
            reply = self._decode(body, _Reply)
            raise self._not_a_node("its answer is no batch") if reply.error is None else _fault_of(reply.error)
        replies = {reply.id: reply for reply in self._decode(body, list[_Reply])}
        if replies.keys() != set(range(first, first + len(params))):
            raise self._not_a_node(f"it answers {len(replies)} of {len(params)} calls")
        ordered = [replies[number] for number in range(first, first + len(params))]
        return [
            self._decode(bytes(reply.result), result) if reply.error is None else _fault_of(reply.error)
            for reply in ordered
        ]

    def is_alive(self) -> bool:
        """Whether a node's loop turns there."""
        try:
            return self._http.get(f"{self.url}/livez", timeout=CONNECT_S).status_code == 200
        except httpx.TransportError:
            return False

    def _post(self, body: bytes) -> bytes:
        gathered = bytearray()
        try:
            with self._http.stream("POST", f"{self.url}/rpc", content=body) as response:
                for part in response.iter_bytes():
                    gathered += part
                    if len(gathered) > MAX_REPLY_BYTES:
                        raise self._not_a_node(f"it sends more than {MAX_REPLY_BYTES} bytes")
        except httpx.TimeoutException as error:
            raise Fault(Trouble.UNREACHABLE, f"the node at {self.url} did not answer in time") from error
        except httpx.TransportError as error:
            raise Fault(Trouble.UNREACHABLE, f"no node answers at {self.url} ({error})") from error
        return bytes(gathered)

    def _decode(self, encoded: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(encoded, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._not_a_node(f"its answer is no {kind.__name__.lstrip('_')}: {error}") from error

    def _not_a_node(self, why: str) -> Fault:
        return Fault(Trouble.NOT_A_NODE, f"what answers at {self.url} is no node of this version: {why}")


def _fault_of(error: _Error) -> Fault:
    """A node's error as a fault of ours; a reason that this version does not know keeps the node's own words."""
    detail = error.data or FaultDetail("", False, "")
    known = _REASONS.get(detail.reason)
    if known is not None:
        return Fault(known, error.message, cure=detail.cure)
    codes = {int(code): code for code in RpcCode}
    exit_code = _EXITS.get(codes.get(error.code, RpcCode.INTERNAL), CONSEQUENCES[Trouble.INTERNAL].exit)
    return Fault(Trouble.INTERNAL, error.message, cure=detail.cure, exit_code=exit_code)
