"""`make fuzz`: any number of inputs into one target or all, resumable; the last line of each target is its summary.

    python -m tests.fuzz [TARGET] --runs 1000000 [--seed 1] [--out build/fuzz] [--minutes 30] [--plain] [--keep] [--table]

`--runs` counts what earlier runs with the same --out have done. Each target's JSON says how many inputs there were, what came of them,
the slowest input in ms and the heaviest in bytes beyond four times its size (measured again by themselves), and every crash.
Exit 0: all good; 1: something came out that is no refusal, or an input cost more than it may.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.corpus import store_inputs
from tests.fuzz.guided import load_atheris
from tests.fuzz.measure import MAX_MS, is_heavy, time_input, weigh_input
from tests.fuzz.summary import Summary, describe, keep_largest, load_summary, store_summary
from tests.fuzz.table import TARGETS
from tests.fuzz.target import judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.target import Target

CHUNK = 50_000
TRIES = 5  # of a slow input: the least of them is its own cost, the rest is the machine's
DEADLINE_S = 3_600


def main(arguments: list[str]) -> int:
    """The exit code."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.table:
        print("\n".join(list_rows(options.out, options.seed)))
        return 0
    ends = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    is_good = True
    for name in TARGETS if options.target == "all" else (options.target,):
        summary = run_target(TARGETS[name], options, ends)
        is_good = is_good and report(TARGETS[name], summary)
        if options.keep:
            keep_found(TARGETS[name], options.out, summary)
    return 0 if is_good else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make fuzz", description="Mutated inputs into everything that reads what others wrote."
    )
    parser.add_argument(
        "target",
        nargs="?",
        default="all",
        choices=("all", *TARGETS),
        metavar="TARGET",
        help=", ".join(("all", *TARGETS)),
    )
    parser.add_argument("--runs", type=int, default=100_000, help="inputs a target, those of earlier runs included")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where the summaries are, to be resumed")
    parser.add_argument("--minutes", type=float, default=0, help="stop after this time, after a whole part")
    parser.add_argument("--plain", action="store_true", help="without coverage, which costs time")
    parser.add_argument("--keep", action="store_true", help="keep new kinds of inputs in tests/fuzz/corpus")
    parser.add_argument("--table", action="store_true", help="print what was done so far as a table, and do nothing")
    return parser.parse_args(arguments)


def run_target(target: Target, options: argparse.Namespace, ends: float) -> Summary:
    """The summary once there are enough inputs, or the time is over."""
    path = options.out / f"{target.name}.json"
    summary = load_summary(path, target.name, options.seed)
    mode = "plain" if options.plain or load_atheris() is None else "guided"
    while summary.runs < options.runs and time.monotonic() < ends:
        part = run_chunk(
            target, min(CHUNK, options.runs - summary.runs), options.seed + 1_000 * summary.chunks, options.out, mode
        )
        summary.add(part)
        measure_again(target, summary)
        store_summary(path, summary)
        print(describe(summary), file=sys.stderr, flush=True)
    return summary


def run_chunk(target: Target, runs: int, seed: int, out: Path, mode: str) -> Summary:
    """A part of the run. Where its process dies, that is a crash: what it had is lost, but its input is in `out`."""
    part = out / f"{target.name}.part"
    part.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "tests.fuzz.guided", target.name, str(runs), str(seed), str(out), mode]
    with (out / f"{target.name}.log").open("ab") as log:
        ended = subprocess.run(command, stdout=log, stderr=log, timeout=DEADLINE_S, check=False)
    if part.exists():
        return load_summary(part, target.name, seed)
    lost = Summary(target.name, seed, runs=1, refusals={"crash": 1})
    lost.crashes.append((f"the process ended with {ended.returncode}: see {out / target.name}.log", ""))
    return lost


def measure_again(target: Target, summary: Summary) -> None:
    """The slowest and the heaviest inputs by themselves: without coverage, without what else the machine did."""
    slowest = [
        (min(time_input(target, bytes.fromhex(known)).cpu_ms for _ in range(TRIES)), known)
        for _, known in summary.slowest
    ]
    summary.slowest = keep_largest(slowest)
    heaviest = []
    for _, known in summary.heaviest:
        content = bytes.fromhex(known)
        judge(target, content)
        heaviest.append((weigh_input(target, content).peak_bytes - 4 * len(content), known))
    summary.heaviest = keep_largest(heaviest)


def report(target: Target, summary: Summary) -> bool:
    """Whether nothing is wrong; says so either way."""
    print(describe(summary))
    slow = [f"{ms:.1f} ms: {content[:200]}" for ms, content in summary.slowest if ms > MAX_MS]
    heavy = [
        f"{excess} bytes: {content[:200]}" for excess, content in summary.heaviest if is_heavy(target, b"", excess)
    ]
    crashes = [f"{error}: {content[:400]}" for error, content in summary.crashes]
    for what, found in (("slow", slow), ("heavy", heavy), ("crash", crashes)):
        for line in found:
            print(f"  {what}: {line}")
    return not (slow or heavy or crashes)


def list_rows(out: Path, seed: int) -> Iterator[str]:
    """A Markdown table of all summaries; memory beyond four times the input, in KiB."""
    yield "| input | mutated inputs | of them guided | ways of ending | slowest, ms | memory beyond 4x, KiB | crashes |"
    yield "|---|---|---|---|---|---|---|"
    for name in TARGETS:
        summary = load_summary(out / f"{name}.json", name, seed)
        slowest = summary.slowest[0][0] if summary.slowest else 0.0
        excess = max(0, summary.heaviest[0][0] if summary.heaviest else 0) / 1024
        done = f"{summary.runs:,} | {summary.guided:,} | {len(summary.refusals)}"
        yield f"| `{name}` | {done} | {slowest:.1f} | {excess:.0f} | {len(summary.crashes)} |"


def keep_found(target: Target, out: Path, summary: Summary) -> None:
    """Keep what was found in the repository, judged anew."""
    folder = out / f"{target.name}.found"
    contents = sorted(path.read_bytes() for path in folder.iterdir()) if folder.is_dir() else []
    found = {}
    for content in contents:
        verdict = judge(target, content)
        if verdict not in found or len(content) < len(found[verdict]):
            found[verdict] = content
    store_inputs(target.name, found, [bytes.fromhex(content) for _, content in summary.crashes if content])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
