"""What was started here is stopped, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from devnet.processes import ProcessMark, is_running, mark_child, mark_process, stop_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITS = "import sys; print('up', flush=True); sys.stdin.read()"
IGNORES_TERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for child in started:
        child.kill()
        child.communicate()


def start(children: list[subprocess.Popen[bytes]], code: str) -> ProcessMark:
    """A process that has come as far as it gets by itself."""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    children.append(child)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    return mark_child(child.pid)


def test_a_process_is_known_by_its_number_and_its_start(children: list[subprocess.Popen[bytes]]) -> None:
    mark = start(children, WAITS)
    assert mark == mark_process(mark.pid)
    assert is_running(mark)
    assert not is_running(ProcessMark(mark.pid, mark.started + 1))


def test_a_process_that_ends_by_itself_need_not_be_killed(children: list[subprocess.Popen[bytes]]) -> None:
    mark = start(children, WAITS)
    assert stop_processes([mark]) == ()
    assert not is_running(mark)


def test_a_process_that_does_not_listen_is_killed_after_the_grace(children: list[subprocess.Popen[bytes]]) -> None:
    deaf, other = start(children, IGNORES_TERM), start(children, WAITS)
    assert stop_processes([deaf, other], grace_s=0.3) == (deaf,)
    assert not is_running(deaf)
    assert not is_running(other)


def test_a_stranger_with_the_same_number_is_left_alone(children: list[subprocess.Popen[bytes]]) -> None:
    mark = start(children, WAITS)
    assert stop_processes([ProcessMark(mark.pid, mark.started - 1)]) == ()
    assert is_running(mark)


def test_who_has_ended_and_waits_to_be_fetched_does_not_run(children: list[subprocess.Popen[bytes]]) -> None:
    mark = start(children, WAITS)
    stop_processes([mark])
    assert mark_child(mark.pid) == mark, "a zombie still has its start time"
    assert mark_process(mark.pid) is None
    children[0].communicate()
    assert mark_process(mark.pid) is None
    assert stop_processes([mark]) == ()


def test_this_process_is_found_whatever_its_name_looks_like() -> None:
    assert mark_process(os.getpid()) is not None
