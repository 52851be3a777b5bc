"""Inputs that are kept in the repository: for every target at most a few small ones, each refused in another way, and what ever broke something.

A file of a target holds one input a line, in hexadecimal, behind the word that it led to when it was kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.fuzz.target import Verdict

FOLDER = Path(__file__).parent / "corpus"
MAX_INPUTS = 24
MAX_KEPT_BYTES = 1_024
CRASH = "crash"


def load_inputs(name: str) -> list[bytes]:
    """A target's kept inputs."""
    path = FOLDER / f"{name}.txt"
    if not path.exists():
        return []
    return [bytes.fromhex(line.rpartition(" ")[2]) for line in path.read_text("utf-8").splitlines() if line]


def store_inputs(name: str, found: Mapping[Verdict, bytes], crashes: Iterable[bytes] = ()) -> None:
    """Keep the smallest input of each way of being refused, as far as it is small, and every crash."""
    kept = [(verdict, content) for verdict, content in found.items() if len(content) <= MAX_KEPT_BYTES]
    smallest = sorted(kept, key=lambda each: (len(each[1]), each[1]))[:MAX_INPUTS]
    lines = [f"{CRASH} {content.hex()}" for content in crashes]
    lines += [f"{_write_word(verdict)} {content.hex()}" for verdict, content in smallest]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def _write_word(verdict: Verdict) -> str:
    return "".join(letter if letter.isalnum() or letter in "_,/" else "-" for letter in verdict.word) or "-"
