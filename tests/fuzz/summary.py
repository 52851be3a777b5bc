"""What a long run has done so far, for one target: counted, resumable, and quotable."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAX_CRASHES = 20
KEPT = 3  # of the slowest and of the heaviest inputs, to be measured again by themselves


@dataclass(slots=True)
class Summary:
    """Units: seconds of wall time, milliseconds of CPU time; memory as a multiple of the input, beside the target's allowance.

    `guided`: how many of the inputs were chosen by coverage; the others by what came of the ones before them.
    """

    target: str
    seed: int
    runs: int = 0
    guided: int = 0
    seconds: float = 0.0
    refusals: dict[str, int] = field(default_factory=dict)
    slowest: list[tuple[float, str]] = field(default_factory=list)  # milliseconds, input in hex
    heaviest: list[tuple[int, str]] = field(default_factory=list)  # bytes beyond four times the input, input in hex
    crashes: list[tuple[str, str]] = field(default_factory=list)  # error, input in hex
    chunks: int = 0

    def count(self, word: str) -> None:
        """One more input that led to this."""
        self.runs += 1
        known = word if word in self.refusals or len(self.refusals) < 64 else "others"
        self.refusals[known] = self.refusals.get(known, 0) + 1

    def add(self, other: Summary) -> None:
        """Another part of the same run."""
        self.runs += other.runs
        self.guided += other.guided
        self.seconds += other.seconds
        self.chunks += 1
        for word, number in other.refusals.items():
            self.refusals[word] = self.refusals.get(word, 0) + number
        self.slowest = keep_largest([*self.slowest, *other.slowest])
        self.heaviest = keep_largest([*self.heaviest, *other.heaviest])
        known = {error for error, _ in self.crashes}
        self.crashes += [crash for crash in other.crashes if crash[0] not in known][: MAX_CRASHES - len(self.crashes)]


def keep_largest(entries: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """The few largest, the largest first."""
    return sorted({(number, content) for number, content in entries}, reverse=True)[:KEPT]


def load_summary(path: Path, target: str, seed: int) -> Summary:
    """What was done before, or nothing. Raises: ValueError for another run's file."""
    if not path.exists():
        return Summary(target, seed)
    raw = json.loads(path.read_text("utf-8"))
    for name in ("slowest", "heaviest", "crashes"):
        raw[name] = [tuple(entry) for entry in raw[name]]
    kept = Summary(**raw)
    if (kept.target, kept.seed) != (target, seed):
        raise ValueError(f"{path} is of target {kept.target} and seed {kept.seed}: use these, or another --out")
    return kept


def store_summary(path: Path, summary: Summary) -> None:
    """Replace the file in one go, so that an interrupted run leaves a whole one."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(asdict(summary), indent=1) + "\n", "utf-8")
    beside.replace(path)


def describe(summary: Summary) -> str:
    """One line."""
    slowest = summary.slowest[0][0] if summary.slowest else 0.0
    speed = summary.runs / summary.seconds if summary.seconds else 0.0
    words = ", ".join(
        f"{word} {number}" for word, number in sorted(summary.refusals.items(), key=lambda each: -each[1])[:4]
    )
    return (
        f"{summary.target}: {summary.runs} inputs ({summary.guided} guided), {len(summary.crashes)} crashes, slowest {slowest:.1f} ms, "
        f"{speed:.0f}/s; {words}"
    )
