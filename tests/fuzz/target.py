"""What a fuzz target is: the samples of one kind of input, what the product does with it, and which refusals may come out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.fuzz.shapes import Shape


@dataclass(frozen=True)
class Target:
    """One kind of input from outside. `run` does with it what the product does and names what came of it."""

    name: str
    decodes: tuple[str, ...]  # the places in the product, as sites.py names them
    shape: Shape
    samples: Callable[[], Sequence[bytes]]
    run: Callable[[bytes], str]
    refusals: tuple[type[Exception], ...] = (Refusal,)
    max_bytes: int = 64 * 1024  # of a mutated input; a stream of many messages costs what its messages cost
    allowance: int = 64 * 1024  # of memory besides four times the input's: machines' own states, sentences, tracebacks


@dataclass(frozen=True)
class Verdict:
    """What came of an input: a word, and a sentence without its particulars, which tells two ways of refusing apart."""

    word: str
    sentence: str = ""


def judge(target: Target, content: bytes) -> Verdict:
    """What came of an input. Raises: whatever is no refusal that the target names: a fault of the product."""
    try:
        return Verdict(target.run(content))
    except target.refusals as refusal:
        return Verdict(name_refusal(refusal), _strip(str(refusal)))


def name_refusal(refusal: Exception) -> str:
    """The refusal's reason, or where it has none its kind."""
    reason = getattr(refusal, "reason", None)
    return type(refusal).__name__ if reason is None else str(getattr(reason, "value", reason))


def _strip(sentence: str) -> str:
    """A sentence without numbers, hashes, quotations and lists: what differs from input to input."""
    short = re.sub(r"[0-9a-f]{6,}|'[^']*'|\"[^\"]*\"|[0-9]+|\$[\w.\[\]…]*", "#", sentence[:200])
    return re.sub(r"\s+", " ", short)[:80]
