"""Processes that were started here, told from strangers who got the same number later: by process id *and* start time."""

import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STOP_GRACE_S: Final = 10.0  # a node closes its database and its worker in well under a second
KILL_S: Final = 10.0  # SIGKILL waits for nobody but a disk in trouble
_STATE_FIELD: Final = 0  # of /proc/PID/stat, counted after the name; proc(5) calls it field 3
_START_FIELD: Final = 19  # field 22
_ENDED: Final = frozenset("ZX")  # a zombie, and one about to go


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """One process for good. Units: started in the system's clock ticks since it was booted."""

    pid: int
    started: int


def mark_child(pid: int) -> ProcessMark:
    """The mark of a process started here and not yet waited for, whether it still runs or not."""
    found = _read_stat(pid)
    assert found is not None, pid
    return found[1]


def mark_process(pid: int) -> ProcessMark | None:
    """The mark of the process that has this id now; None where there is none, or it has ended and waits to be fetched."""
    found = _read_stat(pid)
    return None if found is None or found[0] in _ENDED else found[1]


def is_running(mark: ProcessMark) -> bool:
    """Whether this very process still runs."""
    return mark_process(mark.pid) == mark


def stop_processes(marks: Sequence[ProcessMark], grace_s: float = STOP_GRACE_S) -> tuple[ProcessMark, ...]:
    """Those that had to be killed, after all have ended: SIGTERM, and SIGKILL to who is there after the grace."""
    held = {descriptor: mark for mark in marks if (descriptor := _hold(mark)) is not None}
    try:
        _signal_all(held, signal.SIGTERM)
        slow = _wait_all(held, grace_s)
        _signal_all(slow, signal.SIGKILL)
        stuck = _wait_all(slow, KILL_S)
        assert not stuck, f"the system did not end {stuck}"
        return tuple(slow.values())
    finally:
        for descriptor in held:
            os.close(descriptor)


def _read_stat(pid: int) -> tuple[str, ProcessMark] | None:
    """A process' state letter and mark. Source: proc(5), /proc/PID/stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return fields[_STATE_FIELD], ProcessMark(pid, int(fields[_START_FIELD]))


def _hold(mark: ProcessMark) -> int | None:
    """A descriptor of exactly this process, or None where it is gone.

    The descriptor comes before the look at the start time: what it stands for can't become another process between look and signal.
    """
    try:
        descriptor = os.pidfd_open(mark.pid)
    except ProcessLookupError:
        return None
    if is_running(mark):
        return descriptor
    os.close(descriptor)
    return None


def _signal_all(held: dict[int, ProcessMark], number: signal.Signals) -> None:
    for descriptor, mark in held.items():
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            assert not is_running(mark), mark  # it ended by itself a moment ago


def _wait_all(held: dict[int, ProcessMark], seconds: float) -> dict[int, ProcessMark]:
    """Those that still run when the time is over. A process that has ended makes its descriptor readable."""
    waiting = dict(held)
    deadline = time.monotonic() + seconds
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            del waiting[descriptor]
    return waiting
