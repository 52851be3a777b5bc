"""`make simulate`: any number of seeded schedules, resumable; the last line is a summary.

    python tests/simulation/run.py --schedules 1000 --seed 1 [--resume FILE] [--adversary NAME] [--mutant NAME] [--ledger]

A failing schedule is printed with its seed; the same seed always does the same. Exit 0: all good; 1: some invariant broke.
`--resume FILE` keeps what is done so far in FILE and goes on from there, as long as the code is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works without the package being installed

from tests.simulation import schedule
from tests.simulation.epoch_mutants import EPOCH_MUTANTS
from tests.simulation.ledger_mutants import LEDGER_MUTANTS
from tests.simulation.ledger_network import ADVERSARIES, make_ledger_plan
from tests.simulation.ledger_schedule import LedgerOutcome, run_ledger_schedule
from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Outcome, make_plan, run_schedule

ALL_MUTANTS = MUTANTS | EPOCH_MUTANTS | LEDGER_MUTANTS


@dataclass(slots=True)
class Tally:
    """What has been run so far, as a resume file keeps it."""

    first_seed: int
    adversary: str | None
    mutant: str | None
    ledger: bool = False
    code: str = ""
    done: int = 0
    jobs: int = 0
    accepted: int = 0
    steps: int = 0
    blocks: int = 0
    epochs: int = 0
    evidence: int = 0
    seconds: float = 0.0
    violations: list[tuple[int, str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.done += 1
        self.steps += outcome.steps
        self.blocks += outcome.height
        self.epochs += outcome.epochs
        self.evidence += outcome.evidence
        if isinstance(outcome, LedgerOutcome):
            self.jobs += outcome.jobs
            self.accepted += outcome.accepted
        if outcome.violation:
            self.violations.append((outcome.seed, outcome.violation))


def main(arguments: list[str]) -> int:
    """The exit code."""
    options = parse(arguments)
    tally = load_tally(options)
    with ALL_MUTANTS[options.mutant]() if options.mutant else nullcontext():
        run_all(options, tally)
    print(describe(tally))
    return 1 if tally.violations else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make simulate", description="Seeded schedules of the ordering simulator.")
    parser.add_argument("--schedules", type=int, default=1000, help="how many, those of a resumed run included")
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule; the others follow")
    parser.add_argument("--resume", type=Path, help="a file that keeps the progress")
    parser.add_argument("--adversary", choices=schedule.ADVERSARIES)
    parser.add_argument(
        "--mutant", choices=tuple(ALL_MUTANTS), help="break a rule in every honest node: violations are expected"
    )
    parser.add_argument("--ledger", action="store_true", help="over the real ledger, with jobs that must settle")
    options = parser.parse_args(arguments)
    if options.ledger and options.adversary not in {None, *ADVERSARIES}:
        parser.error(
            f"with --ledger the adversaries are {', '.join(sorted(set(ADVERSARIES)))}, got {options.adversary}"
        )
    return options


def load_tally(options: argparse.Namespace) -> Tally:
    """A new tally, or the resumed one; a file of other options is refused."""
    fresh = Tally(options.seed, options.adversary, options.mutant, options.ledger, compute_code_hash())
    if options.resume is None or not options.resume.exists():
        return fresh
    kept = Tally(**json.loads(options.resume.read_text("utf-8")))
    if (kept.first_seed, kept.adversary, kept.mutant, kept.ledger) != (
        options.seed,
        options.adversary,
        options.mutant,
        options.ledger,
    ):
        sys.exit(
            f"{options.resume}: made with seed {kept.first_seed}, adversary {kept.adversary}, mutant {kept.mutant}, ledger {kept.ledger}; use the same"
        )
    if kept.code != fresh.code:
        sys.exit(f"{options.resume}: made by another version of the code: remove it, and start anew")
    return kept


def compute_code_hash() -> str:
    """A hash over everything that decides what a schedule does: figures of two versions must not be added up."""
    root = Path(__file__).resolve().parents[2]
    paths = sorted(path for folder in ("protocol", "tests/simulation") for path in (root / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def run_all(options: argparse.Namespace, tally: Tally) -> None:
    while tally.done < options.schedules:
        started = time.perf_counter()
        outcome = run_one(options, options.seed + tally.done)
        tally.seconds += time.perf_counter() - started
        tally.add(outcome)
        if outcome.violation:
            print(f"seed {outcome.seed} ({outcome.adversary}): {outcome.text}", flush=True)
        if tally.done % 100 == 0 or tally.done == options.schedules:
            store_tally(options.resume, tally)
            print(
                f"{tally.done}/{options.schedules} schedules, {len(tally.violations)} violations",
                file=sys.stderr,
                flush=True,
            )


def run_one(options: argparse.Namespace, seed: int) -> Outcome:
    if options.ledger:
        return run_ledger_schedule(make_ledger_plan(seed, options.adversary))
    return run_schedule(make_plan(seed, options.adversary))


def store_tally(path: Path | None, tally: Tally) -> None:
    """Replaces the file in one go, so that an interrupted run leaves a whole one."""
    if path is None:
        return
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(asdict(tally)), "utf-8")
    beside.replace(path)


def describe(tally: Tally) -> str:
    speed = tally.done / tally.seconds if tally.seconds else 0.0
    jobs = f"{tally.jobs} jobs settled, {tally.accepted} accepted, " if tally.ledger else ""
    return (
        f"{tally.done} schedules from seed {tally.first_seed}: {len(tally.violations)} violations, {jobs}{tally.blocks} final blocks in {tally.epochs} epochs that ended, "
        f"{tally.steps} steps, {tally.evidence} proofs against the Byzantine, {speed:.0f} schedules/s"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
