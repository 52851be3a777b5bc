"""What a node tells about itself: events as lines (NDJSON, or readable ones on a terminal) and samples of what took how long."""

import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final, TextIO, TypeAlias

import msgspec

Field: TypeAlias = str | int | bool | bytes | None

KEPT_SAMPLES: Final = 1024


class Level(IntEnum):
    """How much a line matters."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(slots=True)
class Telemetry:
    """An open log and the recent samples. Units: samples in milliseconds; cpu_samples in looks every 50 ms of processor time."""

    stream: TextIO
    level: Level = Level.INFO
    is_readable: bool = False
    finality_ms: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT_SAMPLES))
    generation_ms: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT_SAMPLES))
    lost_lines: int = 0
    disk_wait_us: int = 0  # altogether: what the engine waited for the disk
    cpu_samples: Counter[str] = field(default_factory=Counter[str])

    def emit(self, level: Level, event: str, **fields: Field) -> None:
        """Write one line: time, level, event, fields; bytes appear as hex."""
        if level < self.level:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        shown = {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}
        if self.is_readable:
            rest = " ".join(f"{name}={_shorten(value)}" for name, value in shown.items())
            line = f"{now[11:23]} {level.name:7} {event:24} {rest}".rstrip()
        else:
            line = msgspec.json.encode({"time": now, "level": level.name.lower(), "event": event, **shown}).decode()
        try:
            print(line, file=self.stream, flush=True)
        except OSError:  # nobody reads on, or the disk under the log is full: that is no reason to stop ordering blocks
            self.lost_lines += 1


def open_telemetry(level: str) -> Telemetry:
    """Telemetry to standard error: readable on a terminal, NDJSON otherwise.

    Raises: KeyError if the level is none of debug, info, warning, error (the configuration checks it first).
    """
    return Telemetry(sys.stderr, Level[level.upper()], sys.stderr.isatty())


def _shorten(value: Field) -> str:
    text = str(value)
    return text if len(text) <= 64 else f"{text[:8]}…"
