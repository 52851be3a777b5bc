"""The parent's side of the worker process that runs the models: a bounded queue, deadlines, restarts; results are events.

The worker is trusted with nothing: what it answers is bounded, decoded and compared with what was asked, and whatever it does wrong
ends it. A request whose worker died is asked once more of the next one; after that it fails, which the network sees as an abstention.
"""

import math
import os
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

import trio

from node.timers import Clock
from node.worker_pipe import WorkerFault, cancel_at_end, describe_end, end, receive, send
from protocol.digest import DIGEST_BYTES, IMAGE_FAMILIES, Digest
from protocol.models import GenerationSettings, ImageOutput, ModelCard, Output, TextOutput, compute_model_id
from protocol.units import Hash, JobId, Milliseconds, ModelId
from verifier.messages import Failed, Generate, Generated, Hello, Refused, Response

MAX_ATTEMPTS: Final = 2
MAX_LOG_LINE_BYTES: Final = 4096
NICENESS: Final = 10  # the node's own loop must stay prompt on shared cores
SETTLED_SECONDS: Final = 60  # a worker that lived this long was well started; the next pause is short again


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """How the worker is started (a cheat is simply another command) and how patient the node is with it."""

    command: tuple[str, ...]
    max_queued: int = 64
    start_timeout_ms: Milliseconds = 300_000  # large weights are hashed and read from disk
    grace_ms: Milliseconds = 2_000  # beyond a deadline, for a worker that notices it itself
    first_pause_ms: Milliseconds = 200
    longest_pause_ms: Milliseconds = 30_000


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One generation for a job. Units: until_ms on the node's clock; later the answer is of no use"""

    request_id: JobId
    model: ModelId
    prompt: str
    settings: GenerationSettings
    seed: Hash
    until_ms: Milliseconds


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The worker has loaded these models."""

    models: tuple[ModelId, ...]
    cards: tuple[ModelCard, ...]


@dataclass(frozen=True, slots=True)
class WorkerDown:
    """There is no worker for now; queued requests wait for the next one."""

    reason: str


@dataclass(frozen=True, slots=True)
class InferenceDone:
    """A request's output."""

    request_id: JobId
    output: Output
    digest: Digest
    duration_ms: Milliseconds


@dataclass(frozen=True, slots=True)
class InferenceFailed:
    """A request without an output, and why."""

    request_id: JobId
    reason: str


InferenceEvent: TypeAlias = WorkerReady | WorkerDown | InferenceDone | InferenceFailed


@dataclass(frozen=True, slots=True)
class _Pending:
    request: InferenceRequest
    attempt: int


class Inference:
    """The queue in front of one worker process, kept alive by `run`."""

    def __init__(
        self,
        config: InferenceConfig,
        clock: Clock,
        emit: Callable[[InferenceEvent], Awaitable[None]],
        log: Callable[[str], None],
    ) -> None:
        self._config: Final = config
        self._clock: Final = clock
        self._emit: Final = emit
        self._log: Final = log
        self._waiting: deque[_Pending] = deque()
        self._rejected: deque[InferenceFailed] = deque()
        self._changed = trio.Event()
        self._has_served = False

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many more requests would not be refused."""
        return self._config.max_queued - len(self._waiting)

    def submit(self, request: InferenceRequest) -> None:
        """Queue a request; every one is answered by exactly one InferenceDone or InferenceFailed event."""
        if len(self._waiting) >= self._config.max_queued:
            reason = f"{len(self._waiting)} requests wait for the worker already; ask a node that is less busy"
            self._rejected.append(InferenceFailed(request.request_id, reason))
        else:
            self._waiting.append(_Pending(request, 1))
        self._announce_change()

    async def run(self) -> NoReturn:
        """Keep a worker running until cancelled; the worker ends with this task."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fail_late)
            pause_ms = self._config.first_pause_ms
            while True:
                started = trio.current_time()
                self._has_served = False
                reason = await self._run_worker()
                await self._emit(WorkerDown(reason))
                if self._has_served or trio.current_time() - started > SETTLED_SECONDS:
                    pause_ms = self._config.first_pause_ms
                await trio.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, self._config.longest_pause_ms)
        raise AssertionError("the worker's loop ended without being cancelled")

    async def _run_worker(self) -> str:
        """Why the worker that was started here has ended."""
        try:
            process = await trio.lowlevel.open_process(
                list(self._config.command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Threads that fight over the node's cores make every one of them slower.
                env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
        except OSError as error:
            return (
                f"the worker {self._config.command[0]!r} cannot be started: {error.strerror}; mend the worker command"
            )
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        said: deque[str] = deque(maxlen=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._forward_log, process, said)
            try:
                reason = await self._serve(process)
            except WorkerFault as fault:
                reason = str(fault)
            finally:
                await end(process)
            # Its last words explain its end, but a grandchild that holds the pipe must not keep us.
            nursery.cancel_scope.deadline = trio.current_time() + 1
        return f"{reason}; it last said: {said[0]}" if said else reason

    async def _serve(self, process: trio.Process) -> str:
        cards = await self._wait_hello(process)
        await self._emit(WorkerReady(tuple(cards), tuple(cards.values())))
        while True:
            pending = await self._take_next(process)
            if pending is None:
                raise WorkerFault(f"the worker ended while idle, {describe_end(process)}")
            late = await self._ask(process, cards, pending)
            if late:
                return late

    async def _wait_hello(self, process: trio.Process) -> dict[ModelId, ModelCard]:
        """The models that the worker has loaded. Raises: WorkerFault."""
        with trio.move_on_after(self._config.start_timeout_ms / 1000):
            match await receive(process):
                case Hello(models=models):
                    return {compute_model_id(card): card for card in models}
                case Refused(reason=reason):
                    raise WorkerFault(f"the worker could not load its models: {reason}")
                case other:
                    raise WorkerFault(f"the worker began with {type(other).__name__}; expected Hello")
        raise WorkerFault(f"the worker was not ready after {self._config.start_timeout_ms} ms; see its log")

    async def _take_next(self, process: trio.Process) -> _Pending | None:
        """The oldest request once there is one, or None where the worker ended before."""
        while process.returncode is None:
            if self._waiting:
                return self._waiting.popleft()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_at_end, process, nursery.cancel_scope)
                await self._changed.wait()
                nursery.cancel_scope.cancel()
        return None

    async def _ask(self, process: trio.Process, cards: dict[ModelId, ModelCard], pending: _Pending) -> str:
        """Put one request to the worker and emit its result; why the worker must go, or nothing.

        Raises: WorkerFault, after the request has been queued again or has failed
        """
        request = pending.request
        left_ms = max(0, request.until_ms - self._clock.now_ms())
        with trio.move_on_after((left_ms + self._config.grace_ms) / 1000):
            try:
                await send(process, _make_question(request, left_ms))
                response = await receive(process)
                event = _check_response(request, cards, response)
            except WorkerFault as fault:
                await self._retry(pending, str(fault))
                raise
            self._has_served = True
            await self._emit(event)
            return ""
        reason = (
            f"the worker did not answer within {left_ms} ms and {self._config.grace_ms} ms of grace, and was killed"
        )
        await self._emit(InferenceFailed(request.request_id, reason))
        return reason

    async def _retry(self, pending: _Pending, reason: str) -> None:
        if pending.attempt < MAX_ATTEMPTS:
            self._waiting.appendleft(_Pending(pending.request, pending.attempt + 1))
            self._announce_change()
        else:
            await self._emit(InferenceFailed(pending.request.request_id, f"{reason}, {pending.attempt} times"))

    async def _fail_late(self) -> None:
        """Answer what the queue had no room for, and what waited in it until its time was over."""
        while True:
            now_ms = self._clock.now_ms()
            for pending in [p for p in self._waiting if p.request.until_ms <= now_ms]:
                self._waiting.remove(pending)
                reason = "its time was over before the worker was free"
                self._rejected.append(InferenceFailed(pending.request.request_id, reason))
            if self._rejected:
                await self._emit(self._rejected.popleft())
                continue
            due_ms = min((pending.request.until_ms for pending in self._waiting), default=None)
            with trio.move_on_after(math.inf if due_ms is None else (due_ms - now_ms) / 1000):
                await self._changed.wait()

    def _announce_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _forward_log(self, process: trio.Process, said: deque[str]) -> None:
        """Hand on the worker's stderr line by line, and keep the last."""
        assert process.stderr is not None
        rest = b""
        async with process.stderr as stream:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > MAX_LOG_LINE_BYTES:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    text = line[:MAX_LOG_LINE_BYTES].decode(errors="replace").rstrip()
                    if text:
                        said.append(text[:400])
                        self._log(text)


def build_worker_command(directories: Sequence[Path], device: str) -> tuple[str, ...]:
    """The command of an honest worker that serves these model directories."""
    models = [part for directory in directories for part in ("--model", str(directory))]
    return (sys.executable, "-P", "-m", "verifier.worker", *models, "--device", device)


def _make_question(request: InferenceRequest, left_ms: Milliseconds) -> Generate:
    return Generate(request.request_id, request.model, request.prompt, request.settings, request.seed, left_ms)


def _check_response(
    request: InferenceRequest, cards: dict[ModelId, ModelCard], response: Response
) -> InferenceDone | InferenceFailed:
    """The request's result. Raises: WorkerFault if the response answers something else than what was asked."""
    if not isinstance(response, Generated | Failed):
        raise WorkerFault(f"the worker answered with {type(response).__name__}; expected Generated or Failed")
    if response.request_id != request.request_id:
        raise WorkerFault(
            f"the worker answered {response.request_id.hex()[:12]}, asked was {request.request_id.hex()[:12]}"
        )
    if isinstance(response, Failed):
        return InferenceFailed(response.request_id, response.reason)
    card, output, digest = cards.get(request.model), response.output, response.digest
    if card is None or output.model != request.model:
        raise WorkerFault(
            f"the worker answered with model {output.model.hex()[:12]}, asked was {request.model.hex()[:12]}"
        )
    if isinstance(output, ImageOutput) != (card.family in IMAGE_FAMILIES):
        raise WorkerFault(f"the worker answered with {type(output).__name__}, the model's family is {card.family.name}")
    if isinstance(output, TextOutput):
        _check_tokens(output, request.settings.max_tokens, card.vocabulary)
    if digest.family != card.family or len(digest.bits) != DIGEST_BYTES[card.family]:
        raise WorkerFault(f"the worker's digest is {digest.family.name}, the model's family is {card.family.name}")
    return InferenceDone(response.request_id, output, digest, response.duration_ms)


def _check_tokens(output: TextOutput, most: int, vocabulary: int) -> None:
    if not 1 <= len(output.tokens) <= most:
        raise WorkerFault(f"the worker answered {len(output.tokens)} tokens, asked were 1 to {most}")
    if max(output.tokens) >= vocabulary:
        raise WorkerFault(f"the worker answered token {max(output.tokens)}; the vocabulary has {vocabulary}")
