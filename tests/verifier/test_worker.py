"""The worker process: says what it has, answers frame by frame, ends when its node does, and never says what is no answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from devnet.models.training import MODELS
from protocol.codec import encode
from protocol.digest import DigestFamily
from protocol.models import (
    GenerationSettings,
    ImageOutput,
    SamplingKind,
    StopReason,
    TextOutput,
    compute_model_id,
    greedy,
)
from tests.verifier.image_samples import load_digits_model, never
from verifier.card import load_card
from verifier.digests.images import compute_image_digest, read_pixels
from verifier.draw import draw_picture
from verifier.messages import (
    HEADER,
    MAX_REQUEST_BYTES,
    RESPONSE_CODEC,
    Failed,
    Generate,
    Generated,
    Hello,
    Refused,
    Response,
)

ARITH = compute_model_id(load_card(MODELS / "arith-s"))
CODE = compute_model_id(load_card(MODELS / "code-2m"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*directories: Path) -> subprocess.Popen[bytes]:
    models = [part for directory in directories for part in ("--model", str(directory))]
    command = [sys.executable, "-P", "-m", "verifier.worker", *models]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT, cwd=MODELS.parent.parent)


def end(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    process.communicate()
    return process.returncode


def receive(stream: BinaryIO) -> Response:
    (length,) = HEADER.unpack(stream.read(HEADER.size))
    return RESPONSE_CODEC.decode(stream.read(length))


def make_frame(
    prompt: str,
    model: bytes = ARITH,
    settings: GenerationSettings | None = None,
    deadline_ms: int = 60_000,
    number: int = 1,
) -> bytes:
    request = Generate(bytes([number]) * 32, model, prompt, settings or greedy(8), bytes(32), deadline_ms)
    body = encode(request)
    return HEADER.pack(len(body)) + body


@pytest.fixture(scope="module")
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """One worker for all that leave it running."""
    process = start(MODELS / "arith-s", MODELS / "code-2m")
    assert process.stdout is not None
    hello = receive(process.stdout)
    assert isinstance(hello, Hello)
    assert [compute_model_id(card) for card in hello.models] == [ARITH, CODE]
    yield process
    end(process)


def ask(worker: subprocess.Popen[bytes], frames: bytes) -> Response:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(frames)
    worker.stdin.flush()
    return receive(worker.stdout)


def test_a_sum_is_answered_with_output_and_digest(worker: subprocess.Popen[bytes]) -> None:
    answer = ask(worker, make_frame("23+58="))
    assert isinstance(answer, Generated) and isinstance(answer.output, TextOutput)
    assert (answer.output.text, answer.output.stop, answer.output.model) == ("81", StopReason.END, ARITH)
    assert answer.request_id == bytes([1]) * 32
    assert answer.digest.family == load_card(MODELS / "arith-s").family


def test_a_digit_is_drawn_with_its_digest() -> None:
    process = start(MODELS / "arith-s", MODELS / "digits")
    assert process.stdout is not None
    hello = receive(process.stdout)
    assert isinstance(hello, Hello)
    digits = compute_model_id(hello.models[1])
    drawn = ask(process, make_frame("7", model=digits, settings=greedy(1)))
    refused = ask(process, make_frame("seven", model=digits, settings=greedy(1)))
    end(process)
    assert isinstance(drawn, Generated) and isinstance(drawn.output, ImageOutput)
    assert drawn.output == draw_picture(load_digits_model(), "7", bytes(32), never).output
    assert drawn.digest == compute_image_digest(DigestFamily.IMG_PDQ256, read_pixels(drawn.output))
    assert isinstance(refused, Failed) and "no token for 'seven'" in refused.reason


def test_requests_are_answered_in_their_order(worker: subprocess.Popen[bytes]) -> None:
    answers = [ask(worker, make_frame("1+1=", number=1) + make_frame("2+2=", number=2)), ask(worker, b"")]
    assert [answer.request_id[0] for answer in answers if isinstance(answer, Generated)] == [1, 2]


@pytest.mark.parametrize(
    "frame, reason",
    [
        (make_frame(""), "the prompt is empty"),
        (make_frame("two+two="), "no token for 't' at character 0"),
        (make_frame("1" * 64), "the prompt has 64 tokens, the model takes at most 63"),
        (make_frame("1+1=", model=bytes(32)), "model 000000000000 is not loaded here; loaded are: arith-s"),
        (
            make_frame("def f(", model=CODE, settings=greedy(200), deadline_ms=0),
            "the deadline passed after 1 of at most 200",
        ),
    ],
)
def test_what_cannot_be_answered_is_a_failure_with_its_reason(
    worker: subprocess.Popen[bytes], frame: bytes, reason: str
) -> None:
    answer = ask(worker, frame)
    assert isinstance(answer, Failed)
    assert reason in answer.reason


def test_two_workers_answer_with_the_same_bits(worker: subprocess.Popen[bytes]) -> None:
    frame = make_frame("import os\n", model=CODE, settings=greedy(40))
    other = start(MODELS / "code-2m")
    assert other.stdout is not None
    receive(other.stdout)
    here, there = ask(worker, frame), ask(other, frame)
    end(other)
    assert isinstance(here, Generated) and isinstance(there, Generated)
    assert (here.output, here.digest) == (there.output, there.digest)


def test_a_model_directory_that_does_not_match_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for file in (MODELS / "arith-s").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_bytes(b"{}")
    process = start(tmp_path)
    assert process.stdout is not None
    refusal = receive(process.stdout)
    assert isinstance(refusal, Refused)
    assert f"{tmp_path / 'config.json'}: expected SHA-256" in refusal.reason
    process.communicate()
    assert process.returncode == 3


@pytest.mark.parametrize(
    "garbage, said",
    [
        (HEADER.pack(2**32 - 1), f"at most {MAX_REQUEST_BYTES} bytes, got 4294967295"),
        (HEADER.pack(4) + b"\xc1\xc1\xc1\xc1", "Generate: "),
    ],
)
def test_garbage_ends_the_worker_with_a_sentence(garbage: bytes, said: str) -> None:
    process = start(MODELS / "arith-s")
    assert process.stdout is not None
    receive(process.stdout)
    out, err = process.communicate(garbage)
    assert (process.returncode, out) == (4, b"")
    assert said in err.decode()


def test_the_worker_ends_with_its_stdin_in_the_middle_of_a_generation() -> None:
    process = start(MODELS / "code-2m")
    assert process.stdout is not None and process.stdin is not None
    receive(process.stdout)
    long = make_frame("x" * 10, model=CODE, settings=GenerationSettings(SamplingKind.BEAM, 16, 0, 1_000_000, 240))
    process.stdin.write(long * 20)
    process.stdin.close()
    assert process.wait(timeout=30) == 0


def test_ctrl_c_on_the_terminal_leaves_the_worker_to_its_node() -> None:
    process = start(MODELS / "arith-s")
    assert process.stdout is not None
    receive(process.stdout)
    process.send_signal(signal.SIGINT)
    answer = ask(process, make_frame("23+58="))
    end(process)
    assert isinstance(answer, Generated)
