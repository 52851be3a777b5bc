"""The node outlives its worker: every request gets exactly one result, whatever the worker does, and the next worker takes over.

The fake workers are real processes that speak the real frames; only what they answer is made up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from devnet.models.training import MODELS
from node.inference import (
    Inference,
    InferenceConfig,
    InferenceDone,
    InferenceEvent,
    InferenceFailed,
    InferenceRequest,
    WorkerDown,
    WorkerReady,
    build_worker_command,
)
from node.timers import Clock, read_clock
from protocol.models import compute_model_id, greedy
from verifier.card import load_card

ROOT = MODELS.parent.parent
CARD = load_card(MODELS / "arith-s")
ARITH = compute_model_id(CARD)

# What every fake shares: frames, a Hello with arith-s's card, and an answer that is all right unless it is changed.
FAKE = """
import os, sys, time, signal
from pathlib import Path
from protocol.codec import encode
from protocol.digest import Digest, DigestFamily
from protocol.models import ImageOutput, TextOutput, StopReason, compute_model_id
from verifier.card import load_card
from verifier.messages import HEADER, REQUEST_CODEC, Failed, Generated, Hello, Refused
CARD = load_card(Path('devnet/models/arith-s'))
def write(body):
    os.write(1, HEADER.pack(len(body)) + body)
def say(message):
    write(encode(message))
def hear():
    header = sys.stdin.buffer.read(4)
    if not header:
        sys.exit(0)
    return REQUEST_CODEC.decode(sys.stdin.buffer.read(HEADER.unpack(header)[0]))
def make(request, model=None, tokens=(10, 3, 1), bits=32, number=None):
    output = TextOutput(model or request.model, tokens, '81', StopReason.END)
    return Generated(number or request.request_id, output, Digest(DigestFamily.TEXT_MINHASH256, bytes(bits)), 5)
"""
GREETING = "say(Hello((CARD,)))\n"
HONEST = GREETING + "while True: say(make(hear()))"


@dataclass(slots=True)
class Bench:
    """An Inference under test, its events and what its worker logged."""

    inference: Inference
    events: trio.MemoryReceiveChannel[InferenceEvent]
    clock: Clock
    logged: list[str] = field(default_factory=list)

    def submit(self, number: int = 1, within_ms: int = 30_000, prompt: str = "23+58=") -> None:
        until_ms = self.clock.now_ms() + within_ms
        self.inference.submit(InferenceRequest(bytes([number]) * 32, ARITH, prompt, greedy(8), bytes(32), until_ms))

    async def wait_result(self) -> InferenceDone | InferenceFailed:
        while True:
            event = await self.events.receive()
            if isinstance(event, InferenceDone | InferenceFailed):
                return event

    async def wait_ready(self) -> WorkerReady:
        while True:
            event = await self.events.receive()
            if isinstance(event, WorkerReady):
                return event

    async def wait_down(self) -> str:
        while True:
            event = await self.events.receive()
            if isinstance(event, WorkerDown):
                return event.reason


@asynccontextmanager
async def open_bench(command: tuple[str, ...], **changes: int) -> AsyncIterator[Bench]:
    sender, events = trio.open_memory_channel[InferenceEvent](100)
    emit: Callable[[InferenceEvent], Awaitable[None]] = sender.send
    logged: list[str] = []
    config = InferenceConfig(command, **{"first_pause_ms": 10, **changes})
    clock = read_clock()
    bench = Bench(Inference(config, clock, emit, logged.append), events, clock, logged)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.inference.run)
            yield bench
            nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def fake(code: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-P", "-c", FAKE + code, *map(str, arguments))


async def test_a_sum_is_answered_by_the_real_worker() -> None:
    async with open_bench(build_worker_command([MODELS / "arith-s"], "cpu")) as bench:
        bench.submit()
        ready = await bench.wait_ready()
        assert (ready.models, ready.cards) == ((ARITH,), (CARD,))
        result = await bench.wait_result()
        assert isinstance(result, InferenceDone)
        assert (result.request_id, result.output.text) == (bytes([1]) * 32, "81")
        bench.submit(2, prompt="two")
        failed = await bench.wait_result()
        assert failed == InferenceFailed(bytes([2]) * 32, "the model's vocabulary has no token for 't' at character 0")


async def test_requests_are_answered_in_order_also_those_from_before_the_worker_was_ready() -> None:
    async with open_bench(fake(HONEST)) as bench:
        for number in range(1, 6):
            bench.submit(number)
        assert [(await bench.wait_result()).request_id[0] for _ in range(5)] == [1, 2, 3, 4, 5]
        assert bench.inference.queued == 0


async def test_an_idle_worker_that_is_killed_is_replaced() -> None:
    async with open_bench(fake("print(os.getpid(), file=sys.stderr, flush=True)\n" + HONEST)) as bench:
        bench.submit(1)
        await bench.wait_result()
        os.kill(int(bench.logged[0]), signal.SIGKILL)
        assert "the worker ended while idle, killed by signal 9" in await bench.wait_down()
        bench.submit(2)
        assert isinstance(await bench.wait_result(), InferenceDone)
        assert len(set(bench.logged)) == 2


async def test_a_request_whose_worker_was_killed_is_asked_once_more(tmp_path: Path) -> None:
    once = "mark = Path(sys.argv[1])\nrequest = hear()\nif not mark.exists(): mark.touch(); os.kill(os.getpid(), 9)\nsay(make(request))"
    async with open_bench(fake(GREETING + once, tmp_path / "mark")) as bench:
        bench.submit()
        assert isinstance(await bench.wait_result(), InferenceDone)


async def test_a_request_that_kills_two_workers_fails() -> None:
    async with open_bench(fake(GREETING + "hear(); os.kill(os.getpid(), 9)")) as bench:
        bench.submit()
        failed = await bench.wait_result()
        assert isinstance(failed, InferenceFailed)
        assert failed.reason == "the worker ended, killed by signal 9, 2 times"


async def test_a_worker_that_hangs_is_killed_at_the_deadline_and_replaced(tmp_path: Path) -> None:
    once = "mark = Path(sys.argv[1])\nif not mark.exists(): hear(); mark.touch(); signal.pause()\nwhile True: say(make(hear()))"
    async with open_bench(fake(GREETING + once, tmp_path / "mark"), grace_ms=50) as bench:
        await bench.wait_ready()
        bench.submit(1, within_ms=100)
        failed = await bench.wait_result()
        assert isinstance(failed, InferenceFailed)
        assert "did not answer within" in failed.reason
        bench.submit(2)
        assert isinstance(await bench.wait_result(), InferenceDone)


@pytest.mark.parametrize(
    "answer, reason",
    [
        ("os.write(1, b'hello, world')", "announced 1751477356 bytes"),
        ("write(b'\\xc1\\xc1')", "sent what is no message"),
        ("write(b'')", "sent what is no message"),
        ("os.write(1, b'\\x00')", "the worker ended, exit status 0"),
        ("say(Hello((CARD,)))", "answered with Hello"),
        ("say(make(request, number=bytes(32)))", "answered 000000000000, asked was 010101010101"),
        ("say(make(request, model=bytes(32)))", "answered with model 000000000000"),
        ("say(make(request, tokens=(1,) * 9))", "answered 9 tokens, asked were 1 to 8"),
        ("say(make(request, tokens=()))", "answered 0 tokens"),
        ("say(make(request, tokens=(16,)))", "answered token 16; the vocabulary has 16"),
        ("say(make(request, bits=8))", "the worker's digest is"),
        (
            "say(Generated(request.request_id, ImageOutput(request.model, 1, 1, 1, b'x'), make(request).digest, 5))",
            "answered with ImageOutput, the model's family is TEXT_MINHASH256",
        ),
    ],
)
async def test_a_worker_that_answers_nonsense_is_replaced_and_nothing_is_believed(answer: str, reason: str) -> None:
    async with open_bench(fake(GREETING + "request = hear()\n" + answer)) as bench:
        bench.submit()
        assert reason in await bench.wait_down()
        failed = await bench.wait_result()
        assert isinstance(failed, InferenceFailed)
        assert reason in failed.reason


async def test_a_worker_that_refuses_its_models_is_down_with_its_reason() -> None:
    async with open_bench(fake("say(Refused('config.json: expected SHA-256 aa, got bb'))")) as bench:
        assert "could not load its models: config.json: expected SHA-256 aa, got bb" in await bench.wait_down()


async def test_a_worker_that_is_not_ready_in_time_is_down() -> None:
    async with open_bench(fake("signal.pause()"), start_timeout_ms=200) as bench:
        assert await bench.wait_down() == "the worker was not ready after 200 ms; see its log"


async def test_a_worker_that_ends_is_down_with_its_last_words() -> None:
    async with open_bench(fake("sys.exit('no such device')")) as bench:
        assert await bench.wait_down() == "the worker ended, exit status 1; it last said: no such device"


async def test_a_command_that_does_not_exist_is_down_with_its_name() -> None:
    async with open_bench(("/nonexistent/worker",)) as bench:
        assert "'/nonexistent/worker' cannot be started: No such file or directory" in await bench.wait_down()
        bench.submit(1, within_ms=0)
        assert isinstance(await bench.wait_result(), InferenceFailed)


async def test_pauses_between_workers_grow() -> None:
    async with open_bench(("/nonexistent/worker",), first_pause_ms=20, longest_pause_ms=80) as bench:
        times: list[float] = []
        for _ in range(5):
            await bench.wait_down()
            times.append(trio.current_time())
        assert [
            after - before >= least
            for before, after, least in zip(times, times[1:], (0.02, 0.04, 0.08, 0.08), strict=False)
        ]
        assert times[-1] - times[0] >= 0.22


async def test_a_full_queue_answers_at_once() -> None:
    async with open_bench(fake(GREETING + "signal.pause()"), max_queued=2) as bench:
        for number in range(1, 4):
            bench.submit(number)
        failed = await bench.wait_result()
        assert failed == InferenceFailed(
            bytes([3]) * 32, "2 requests wait for the worker already; ask a node that is less busy"
        )


async def test_a_request_that_waits_past_its_time_fails_without_a_worker() -> None:
    async with open_bench(fake("signal.pause()")) as bench:
        bench.submit(1, within_ms=50)
        bench.submit(2, within_ms=20)
        failed = [await bench.wait_result(), await bench.wait_result()]
        assert failed == [
            InferenceFailed(bytes([n]) * 32, "its time was over before the worker was free") for n in (2, 1)
        ]


async def test_a_worker_that_shouts_is_read_and_bounded() -> None:
    async with open_bench(fake("sys.stderr.write('x' * 1_000_000); sys.stderr.flush()\n" + HONEST)) as bench:
        bench.submit()
        assert isinstance(await bench.wait_result(), InferenceDone)
        assert max(map(len, bench.logged)) <= 4096


async def test_the_worker_ends_with_the_task() -> None:
    async with open_bench(fake("print(os.getpid(), file=sys.stderr, flush=True)\n" + HONEST)) as bench:
        bench.submit()
        await bench.wait_result()
    with pytest.raises(ProcessLookupError):
        os.kill(int(bench.logged[0]), 0)


async def test_the_worker_yields_to_the_node() -> None:
    code = GREETING + "hear(); print(os.getpriority(os.PRIO_PROCESS, 0), file=sys.stderr, flush=True); sys.exit(0)"
    async with open_bench(fake(code)) as bench:
        bench.submit()
        assert (await bench.wait_down()).endswith("it last said: 10")


def test_the_nodes_side_loads_neither_torch_nor_what_digests_need() -> None:
    code = "import sys, node.inference; print([m for m in ('torch', 'transformers', 'scipy', 'datasketch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
