"""One part of a long run, in a process of its own: `python -m tests.fuzz.guided TARGET RUNS SEED FOLDER guided|plain`.

Guided: libFuzzer through atheris, fed by the branches of this repository's code that an input takes; its mutations and ours take
turns. What is in C, such as msgspec's decoders, it cannot see; there our mutations of well-formed trees have to do. Plain: our
mutations alone; inputs that are refused in a new way join the samples.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.fuzz.summary import MAX_CRASHES, Summary, keep_largest, store_summary

if TYPE_CHECKING:
    from types import ModuleType

    from tests.fuzz.target import Target, Verdict

WEIGHED_EVERY = 64
SAMPLES_SHARE = 0.7  # what was mutated once is worse at getting past a decoder
COLLECTED_EVERY = 256
MAX_POOL = 256
STRUCTURAL = frozenset({"malformed", "not_canonical", "too_large", "BadFrame"})  # nothing lies behind these


class Chunk:
    """The running part: feeds inputs to its target and keeps count."""

    def __init__(self, target: Target, runs: int, seed: int, folder: Path) -> None:
        self.target = target
        self.runs = runs
        self.folder = folder
        self.random = Random(seed)
        self.samples = list(target.samples())
        self.pool = list(self.samples)
        self.summary = Summary(target.name, seed)
        self.found: dict[Verdict, bytes] = {}
        self.started = time.monotonic()

    def feed(self, content: bytes) -> None:
        """One input; the slowest and heaviest are kept, and whatever is no refusal."""
        from tests.fuzz.measure import MAX_TIMES, time_input, weigh_input

        number = self.summary.runs
        if number % COLLECTED_EVERY == 0:
            gc.collect()
        try:
            if number % WEIGHED_EVERY == 1:
                cost = weigh_input(self.target, content)
                excess = cost.peak_bytes - MAX_TIMES * len(content)
                self.summary.heaviest = keep_largest([*self.summary.heaviest, (excess, content.hex())])
            else:
                cost = time_input(self.target, content)
                if cost.cpu_ms > (self.summary.slowest[-1][0] if self.summary.slowest else 0):
                    self.summary.slowest = keep_largest([*self.summary.slowest, (cost.cpu_ms, content.hex())])
        except Exception as error:
            self._keep_crash(error, content)
            return
        self.summary.count(cost.verdict.word)
        self._keep_new(cost.verdict, content)

    def _keep_crash(self, error: Exception, content: bytes) -> None:
        self.summary.count("crash")
        said = f"{type(error).__name__}: {error}"[:300]
        if len(self.summary.crashes) < MAX_CRASHES and said not in {known for known, _ in self.summary.crashes}:
            self.summary.crashes.append((said, content.hex()))

    def _keep_new(self, verdict: Verdict, content: bytes) -> None:
        kept = self.found.get(verdict)
        if kept is None and len(self.found) < 4 * MAX_POOL:
            self.found[verdict] = content
            if len(self.pool) < MAX_POOL and verdict.word not in STRUCTURAL:
                self.pool.append(content)
        elif kept is not None and len(content) < len(kept):
            self.found[verdict] = content

    def mutate(self, content: bytes, seed: int) -> bytes:
        """Our mutation of an input."""
        from tests.fuzz.choices import SeededChoices
        from tests.fuzz.mutation import mutate

        return mutate(content, self.samples, self.target.shape, SeededChoices(Random(seed)))[: self.target.max_bytes]

    def finish(self) -> None:
        """Write down what was done, and the inputs worth keeping beside it."""
        self.summary.seconds = time.monotonic() - self.started
        corpus = self.folder / f"{self.target.name}.found"
        corpus.mkdir(exist_ok=True)
        for verdict, content in self.found.items():
            (corpus / f"{abs(hash_of(verdict)):x}").write_bytes(content)
        store_summary(self.folder / f"{self.target.name}.part", self.summary)


def hash_of(verdict: Verdict) -> int:
    """A number that belongs to a verdict in every process."""
    from hashlib import sha256

    return int.from_bytes(sha256(f"{verdict.word} {verdict.sentence}".encode()).digest()[:8], "big")


def main(arguments: list[str]) -> int:
    """The exit code."""
    name, runs, seed, folder, mode = arguments
    atheris = load_atheris() if mode == "guided" else None
    watching = (
        nullcontext()
        if atheris is None
        else atheris.instrument_imports(include=["protocol", "node", "verifier", "devnet"])
    )
    with watching:
        from tests.fuzz.table import TARGETS
    chunk = Chunk(TARGETS[name], int(runs), int(seed), Path(folder))
    gc.disable()
    if atheris is None:
        run_plain(chunk)
    else:
        run_guided(chunk, atheris)
    return 0


def load_atheris() -> ModuleType | None:
    """The coverage-guided fuzzer, where it is installed."""
    try:
        import atheris
    except ImportError:
        return None
    return atheris


def run_plain(chunk: Chunk) -> None:
    while chunk.summary.runs < chunk.runs:
        known = chunk.samples if chunk.random.random() < SAMPLES_SHARE else chunk.pool
        chunk.feed(chunk.mutate(chunk.random.choice(known), chunk.random.getrandbits(60)))
    chunk.finish()


def run_guided(chunk: Chunk, atheris: ModuleType) -> None:
    """Never returns: libFuzzer owns the process from here on."""
    corpus = chunk.folder / f"{chunk.target.name}.seeds"
    corpus.mkdir(exist_ok=True)
    for number, sample in enumerate(chunk.samples):
        (corpus / f"sample-{number}").write_bytes(sample)

    def take(content: bytes) -> None:
        chunk.feed(content)
        if chunk.summary.runs >= chunk.runs:
            chunk.summary.guided = chunk.summary.runs
            chunk.finish()
            sys.stdout.flush()
            os._exit(0)

    def vary(content: bytes, max_size: int, seed: int) -> bytes:
        return atheris.Mutate(content, max_size) if seed % 3 == 0 else chunk.mutate(content, seed)[:max_size]

    flags = [
        f"-seed={chunk.summary.seed % 2**31 + 1}",
        f"-max_len={chunk.target.max_bytes}",
        "-timeout=120",
        "-mutate_depth=1",
        "-rss_limit_mb=2048",
        "-verbosity=0",
    ]
    atheris.Setup(
        [sys.argv[0], *flags, f"-artifact_prefix={chunk.folder}/{chunk.target.name}.", str(corpus)],
        take,
        custom_mutator=vary,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
