"""The process that runs a node's models: `python -P -m verifier.worker --model DIR [--model DIR …] [--device cpu]`.

It reads requests on stdin and answers on stdout (verifier/messages.py); everything else goes to stderr. It ends when its stdin does,
in the middle of a generation too, so it never outlives its node. (Linux's parent-death signal would not do: it fires when the
*thread* that started the process ends, and trio starts processes from short-lived threads.)
"""

import argparse
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import torch

from protocol.codec import encode
from protocol.digest import Digest
from protocol.errors import InvalidMessage
from protocol.models import Output
from verifier.card import ModelRefused, describe_card
from verifier.digests.text import compute_text_digest
from verifier.draw import draw_picture
from verifier.generate import GenerationFailed, generate
from verifier.image_model import ImageModel
from verifier.load import LoadedModel, load_any_model
from verifier.messages import (
    HEADER,
    MAX_REASON_CHARACTERS,
    MAX_REQUEST_BYTES,
    REQUEST_CODEC,
    Failed,
    Generate,
    Generated,
    Hello,
    Refused,
    Response,
)
from verifier.model import use_deterministic_settings
from verifier.tokens import PromptRefused

EXIT_BAD_MODEL: Final = 3
EXIT_BAD_FRAME: Final = 4


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request and when it came. Units: seconds of the monotonic clock"""

    request: Generate
    at: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Loads the models named on the command line and serves them until stdin ends."""
    parser = argparse.ArgumentParser(
        prog="verifier.worker", description="Runs models for one node, over stdin and stdout."
    )
    parser.add_argument("--model", action="append", required=True, type=Path, metavar="DIR", help="a model directory")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options = parser.parse_args(arguments)
    run_worker(lambda: [load_any_model(directory, options.device) for directory in options.model])


def run_worker(load: Callable[[], Iterable[LoadedModel]]) -> None:
    """Serves what `load` returns; a program that serves other models than it claims differs in nothing but this argument."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole terminal group; the node decides when to end
    requests, responses = take_over_stdio()
    use_deterministic_settings()
    try:
        models = {model.id: model for model in load()}
    except ModelRefused as error:
        write_response(responses, Refused(str(error)[:MAX_REASON_CHARACTERS]))
        sys.exit(EXIT_BAD_MODEL)
    arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
    threading.Thread(target=read_requests, args=(requests, arrivals), daemon=True).start()
    write_response(responses, Hello(tuple(model.card for model in models.values())))
    while True:
        write_response(responses, answer(models, arrivals.get()))


def take_over_stdio() -> tuple[BinaryIO, BinaryIO]:
    """The two ends of the conversation, moved to where no stray print of a library can reach them."""
    requests, responses = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return requests, responses


def read_requests(requests: BinaryIO, arrivals: "queue.SimpleQueue[Arrival]") -> None:
    """Hands on every request; at the end of stdin, or of its sense, it ends the process at once."""
    while True:
        header = requests.read(HEADER.size)
        if len(header) < HEADER.size:
            os._exit(0)
        (length,) = HEADER.unpack(header)
        if length > MAX_REQUEST_BYTES:
            end_with(f"expected a frame of at most {MAX_REQUEST_BYTES} bytes, got {length}; start the worker anew")
        body = requests.read(length)
        if len(body) < length:
            os._exit(0)
        try:
            arrivals.put(Arrival(REQUEST_CODEC.decode(body), time.monotonic()))
        except InvalidMessage as error:
            end_with(f"{error}; start the worker anew")


def end_with(reason: str) -> NoReturn:
    """Ends the process from whatever thread, with a last line on stderr."""
    print(f"worker: {reason}", file=sys.stderr, flush=True)
    os._exit(EXIT_BAD_FRAME)


def answer(models: dict[bytes, LoadedModel], arrival: Arrival) -> Generated | Failed:
    """The output of a request, or why there is none."""
    request, started = arrival.request, time.monotonic()
    model = models.get(request.model)
    if model is None:
        known = ", ".join(describe_card(loaded.card) for loaded in models.values())
        return Failed(
            request.request_id,
            f"model {request.model.hex()[:12]} is not loaded here; loaded are: {known}"[:MAX_REASON_CHARACTERS],
        )
    due = arrival.at + request.deadline_ms / 1000
    try:
        output, digest = produce(model, request, lambda: time.monotonic() > due)
    except (PromptRefused, GenerationFailed, torch.cuda.OutOfMemoryError) as error:
        return Failed(request.request_id, str(error)[:MAX_REASON_CHARACTERS])
    return Generated(request.request_id, output, digest, int((time.monotonic() - started) * 1000))


def produce(model: LoadedModel, request: Generate, is_late: Callable[[], bool]) -> tuple[Output, Digest]:
    """What the model answers, and its digest. Raises: PromptRefused · GenerationFailed"""
    if isinstance(model, ImageModel):
        drawing = draw_picture(model, request.prompt, request.seed, is_late)
        return drawing.output, drawing.digest
    output = generate(model, request.prompt, request.settings, request.seed, is_late)
    return output, compute_text_digest(model.card.family, output.tokens)


def write_response(responses: BinaryIO, response: Response) -> None:
    """Sends one frame."""
    body = encode(response)
    responses.write(HEADER.pack(len(body)) + body)
    responses.flush()


if __name__ == "__main__":
    main()
