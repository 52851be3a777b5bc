"""Real processes for tests: the installed command, waited for with deadlines, and never left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devnet.devnet_file import has_devnet
from devnet.launch import stop_devnet
from devnet.processes import ProcessMark, mark_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = [sys.executable, "-P", "-m", "node.cli"]
DEVNET_COMMAND = [sys.executable, "-P", "-m", "devnet.cli"]
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> dict:
        return json.loads(self.output)


def quorate(*arguments: str, cwd: Path, timeout_s: float = 60) -> Done:
    """One verb, run to its end; `devnet` ones as quorate hands them over."""
    command = [*DEVNET_COMMAND, *arguments[1:]] if arguments[0] == "devnet" else [*COMMAND, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def background(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One verb, running; ended with the block if it has not ended before. What it says is in `said` under cwd."""
    command = [*DEVNET_COMMAND, *arguments[1:]] if arguments[0] == "devnet" else [*COMMAND, *arguments]
    with (cwd / "said").open("wb") as said:
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)


@contextmanager
def stopped_at_end(directory: Path) -> Iterator[None]:
    """Whatever `up` starts in this directory ends with the block."""
    try:
        yield
    finally:
        if has_devnet(directory):
            stop_devnet(directory)


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = 30) -> None:
    """Goes on once the condition holds, looked at again and again, because it is another process that makes it so."""
    pace = threading.Event()
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        pace.wait(LOOK_S)


def list_family(marks: tuple[ProcessMark, ...]) -> tuple[ProcessMark, ...]:
    """These processes and those that they have started."""
    parents = {mark.pid for mark in marks}
    found = [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _read_parent(stat) in parents]
    return (*marks, *(mark for pid in sorted(found) if (mark := mark_process(pid)) is not None))


def _read_parent(stat: Path) -> int | None:
    try:
        return int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
