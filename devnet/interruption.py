"""Ctrl-C and SIGTERM as something to look at, so that they never strike between starting a process and writing down which one it is."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

WATCHED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """Whoever started this wants it to end."""


class Interruption:
    """Whether a signal asked for the end."""

    def __init__(self) -> None:
        self._asked: Final = threading.Event()

    def request(self) -> None:
        """Ask for the end."""
        self._asked.set()

    def check(self) -> None:
        """Goes on where nobody asked. Raises: Interrupted."""
        if self._asked.is_set():
            raise Interrupted

    def wait(self, seconds: float) -> None:
        """Goes on after that time. Raises: Interrupted, at once where somebody asks."""
        if self._asked.wait(seconds):
            raise Interrupted


@contextmanager
def watch_signals() -> Iterator[Interruption]:
    """An interruption that Ctrl-C, SIGTERM and a closed terminal request, in place of what they did before."""
    interruption = Interruption()

    def request(_number: int, _frame: FrameType | None) -> None:
        interruption.request()

    before = {number: signal.signal(number, request) for number in WATCHED}
    try:
        yield interruption
    finally:
        for number, action in before.items():
            signal.signal(number, action)
