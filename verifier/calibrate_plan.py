"""What a calibration runs: which jobs, written by whom, read by whom, all of it decided by one seed.

Jobs come in units of several that share settings and the length of their prompts. The prompts are the model's own writing from a
random token on, so that any model has some. Half of the honest units, the even ones, set the limits; the others report.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from verifier.cheats import BY_LENGTH, NEEDS_SAMPLING, Job, write_honestly
from verifier.engine import Engine

HONEST: Final = "honest"
LENGTHS: Final = (8, 16, 32, 64, 128)
PROMPT_TOKENS: Final = (8, 16, 32)
SETTINGS: Final = ((0, 1_000_000), (1_000_000, 1_000_000), (700_000, 950_000))  # temperature and top-p, in ppm
SAMPLED: Final = SETTINGS[1:]
_PURPOSE: Final = b"quorate calibration 1"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run. Each cheat is run in the reference class, and so many units more in the coarsest one."""

    jobs: int
    honest_units: int
    cheat_units: int
    coarse_cheat_units: int
    wide_every: int  # honest units between two that are read in float64 as well


QUICK: Final = Size(16, 6, 3, 0, 3)
FULL: Final = Size(64, 24, 8, 3, 4)


@dataclass(frozen=True, slots=True)
class Unit:
    """Several jobs of one kind: honest, or a cheat's name. `executor` is the class that writes, by name."""

    kind: str
    executor: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.kind} {self.executor} {self.number}"

    @property
    def sets_limits(self) -> bool:
        return self.kind == HONEST and self.number % 2 == 0


def list_units(size: Size, executors: Sequence[str], cheats: Sequence[str], coarse: Sequence[str]) -> list[Unit]:
    """All units, those of one cheat together. The first executor is the reference."""
    honest = [Unit(HONEST, name, number) for number in range(size.honest_units) for name in executors]
    forged = [
        Unit(cheat, name, number)
        for cheat in cheats
        for name, count in ((executors[0], size.cheat_units), *((other, size.coarse_cheat_units) for other in coarse))
        for number in range(count)
    ]
    return honest + forged


def choose_tokens(context: int) -> int:
    """How many tokens a job asks for: 128, or what a short context has room for."""
    room = context - max(choose_prompt_lengths(context))
    return max(length for length in (1, *LENGTHS) if length <= room)


def choose_prompt_lengths(context: int) -> list[int]:
    """The lengths of prompts; a short context keeps three quarters for the answer."""
    return sorted({max(1, min(length, context // 4)) for length in PROMPT_TOKENS})


def list_lengths(tokens: int) -> list[int]:
    """The lengths at which results are reported."""
    return [length for length in LENGTHS if length <= tokens] or [tokens]


def choose_settings(unit: Unit) -> tuple[int, int]:
    """Temperature and top-p of a unit; both halves get all of them in turn."""
    choices = SAMPLED if unit.kind in NEEDS_SAMPLING else SETTINGS
    return choices[unit.number // (2 if unit.kind == HONEST else 1) % len(choices)]


def draw_jobs(unit: Unit, size: Size, seed: int, engine: Engine) -> list[Job]:
    """The unit's jobs. Their prompts are written by this engine, always the same one, so that jobs do not depend on the executor's class."""
    stream = np.random.default_rng(
        list(hashlib.sha256(_PURPOSE + f"{seed} {unit.kind} {unit.number}".encode()).digest())
    )
    lengths = choose_prompt_lengths(engine.context)
    length = lengths[unit.number // 2 % len(lengths)]
    temperature, top_p = choose_settings(unit)
    drafts = [
        Job(
            (int(stream.integers(engine.vocabulary)),),
            max(1, length - 1),
            1_000_000,
            1_000_000,
            stream.bytes(32),
            bytes(32),
        )
        for _ in range(size.jobs)
    ]
    tokens = choose_tokens(engine.context)
    return [
        Job(((*draft.prompt, *written.tokens)[:length]), tokens, temperature, top_p, stream.bytes(32), stream.bytes(32))
        for draft, written in zip(drafts, write_honestly(engine, drafts), strict=True)
    ]


def list_claim_lengths(kind: str, tokens: int) -> list[int]:
    """How long a unit's claims are: as asked, or each reported length where it matters where the lie is."""
    return list_lengths(tokens) if kind in BY_LENGTH else [tokens]
