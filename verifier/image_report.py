"""What a calibration of a model of pictures found, in tables: `python -P -m verifier.image_report DIR [--jobs N] [--cheating N] [--seed S]`.

It prints Markdown, or with --json the rates alone. Every cell is there, also those that fall short.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from verifier.calibrate_limits import compute_lower, compute_upper
from verifier.digests.images import HASHES
from verifier.draw import draw_picture
from verifier.image_audit import PictureAuditor, PictureClaim, PictureTolerance, audit_picture
from verifier.image_calibration import (
    ANOTHER_SEED,
    HONEST,
    OPENED,
    Judged,
    Measurements,
    Painted,
    Plan,
    derive_seed,
    is_caught,
    load_classes,
    measure,
    set_limits,
)
from verifier.image_cheats import CHEATS, Sitting, draw_honestly
from verifier.image_model import ImageModel
from verifier.model import use_deterministic_settings
from verifier.trajectory import draw_steps, list_opened, open_states

CONFIDENCE: Final = 0.95
VARIED_JOBS: Final = 96
TIMED: Final = 15
Limits = dict[tuple[str, str], PictureTolerance]


@dataclass(frozen=True, slots=True)
class Variation:
    """Honest work done otherwise than alone, on one thread, in the card's class. Units: pixels in brightness steps"""

    name: str
    equal_states: float
    equal_pictures: float
    largest: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="verifier.image_report", description="How surely audits of pictures tell.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a model of pictures")
    parser.add_argument(
        "--jobs", type=int, default=6400, help="honest jobs in the card's class; half of them set limits"
    )
    parser.add_argument("--cheating", type=int, default=400, help="jobs of each cheat, and of each other class")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--kept", type=Path, default=Path("calibration/pictures"), help="finished parts; goes on with them"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    use_deterministic_settings()
    plan = Plan(options.directory, options.jobs, options.cheating, options.seed, options.kept)
    found = measure(plan, lambda line: print(line, file=sys.stderr, flush=True))
    limits = set_limits(found)
    if options.json:
        sys.stdout.write(msgspec.json.encode(summarise(found, limits)).decode() + "\n")
        return
    command = f"python -P -m verifier.image_report {options.directory} --jobs {plan.jobs} --cheating {plan.cheating} --seed {plan.seed}"
    sys.stdout.write("\n".join(write_tables(found, limits, measure_variations(plan), measure_cost(plan), command)))


def summarise(found: Measurements, limits: Limits) -> dict[str, object]:
    """False alarms and detection in the card's own class; the number of opened steps stands for a length."""
    own = [each for each in found.judged if each.executor == each.auditor == found.judged[0].executor]
    honest = [each for each in own if each.kind == HONEST and each.job % 2]
    alarms = count_caught(honest, limits, OPENED[-1])
    rates = {
        cheat: {str(opened): share([each for each in own if each.kind == cheat], limits, opened) for opened in OPENED}
        for cheat in CHEATS
    }
    upper = compute_upper(alarms, len(honest), CONFIDENCE)
    return {
        "false_alarm": {"rate": alarms / len(honest), "upper95": upper, "windows": len(honest)},
        "detection": rates,
    }


def write_tables(
    found: Measurements, limits: Limits, variations: Sequence[Variation], cost: dict[str, float], command: str
) -> list[str]:
    """The report's lines."""
    reference = found.judged[0].executor
    own = [each for each in found.judged if each.executor == each.auditor == reference]
    return [
        f"Measured by `{command}`. Limits were set on the even honest jobs; everything below is of the odd ones and of cheats.\n",
        "## Inside one class, and beside it\n",
        *_tabulate(
            (
                "honest work, against alone on one thread in " + reference,
                "states equal",
                "pictures equal",
                "largest pixel difference",
            ),
            (
                (each.name, _percent(each.equal_states), _percent(each.equal_pictures), str(each.largest))
                for each in variations
            ),
        ),
        "## False alarms, all steps opened\n",
        *_tabulate(
            ("executor", "auditor", "limit", "worst honest", "alarms", "of jobs", "at most (95 %)"),
            (_describe_pair(found, limits, pair) for pair in sorted(limits)),
        ),
        f"## Detection in {reference}, by the number of opened steps\n",
        *_tabulate(
            ("cheat", *(str(opened) for opened in OPENED), "jobs", f"at least ({OPENED[-1]} steps, 95 %)"),
            (_describe_cheat([each for each in own if each.kind == cheat], limits, cheat) for cheat in CHEATS),
        ),
        "## Detection between classes, 2 steps opened · all\n",
        *_tabulate(("cheat", *(_name_pair(pair) for pair in _list_pairs(found))), _describe_classes(found, limits)),
        "## Digests alone\n",
        *_tabulate(
            ("hash", "tolerance", "honest within", "another seed within", *(f"{cheat} rejected" for cheat in CHEATS)),
            (_describe_hash(found.painted, name, reference) for name in HASHES),
        ),
        "## Cost, against drawing the picture\n",
        *_tabulate(("part", "share"), ((part, f"{value:.3f}") for part, value in cost.items())),
    ]


def measure_variations(plan: Plan) -> list[Variation]:
    """The same jobs alone, in a batch, on two threads and in every other class."""
    models = load_classes(plan.directory)
    first = next(iter(models.values()))
    alone = _draw_jobs(plan, first, 1)
    rows = [_compare("in batches of 8", alone, _draw_jobs(plan, first, 8))]
    torch.set_num_threads(2)
    rows.append(_compare("on two threads", alone, _draw_jobs(plan, first, 1)))
    torch.set_num_threads(1)
    return [*rows, *(_compare(name, alone, _draw_jobs(plan, model, 1)) for name, model in list(models.items())[1:])]


def measure_cost(plan: Plan) -> dict[str, float]:
    """The processor time of each audit and of the commitment, as a share of drawing the picture; least of several runs."""
    model = next(iter(load_classes(plan.directory).values()))
    name, seed = model.engine.compute_class.name, derive_seed(plan.seed, HONEST, 0)
    auditor = PictureAuditor(model, {(name, name): PictureTolerance(1024, 0)})
    drawing = draw_picture(model, "7", seed, lambda: False)
    drawn_s = _time(lambda: draw_picture(model, "7", seed, lambda: False))
    shares: dict[str, float] = {}
    for opened in OPENED:
        steps = draw_steps(seed, drawing.commitment.root, len(model.transitions), opened)
        openings = open_states(drawing.commitment, list_opened(steps, len(model.transitions)))
        claim = PictureClaim(
            "7",
            seed,
            model.engine.compute_class,
            drawing.commitment.root,
            drawing.digest,
            drawing.output,
            steps,
            openings,
        )
        shares[f"audit of {opened} steps"] = _time(lambda claim=claim: audit_picture(auditor, claim)) / drawn_s
    return shares


def count_caught(claims: Iterable[Judged], limits: Limits, opened: int) -> int:
    """How many of the claims an audit of so many steps rejects."""
    return sum(is_caught(each, limits[each.executor, each.auditor], opened) for each in claims)


def share(claims: Sequence[Judged], limits: Limits, opened: int) -> float:
    """The same as a share."""
    return count_caught(claims, limits, opened) / len(claims)


def _draw_jobs(plan: Plan, model: ImageModel, rows: int) -> list[tuple[bytes, bytes]]:
    """Each job's states and pixels. Jobs of one prompt stand together."""
    made: list[tuple[bytes, bytes]] = []
    for first in range(0, VARIED_JOBS, rows):
        seeds = tuple(derive_seed(plan.seed, HONEST, first + row) for row in range(rows))
        sitting = Sitting(str(first // 8 % 10), "0", seeds)
        for drawn in draw_honestly(model, sitting):
            made.append((b"".join(state.tobytes() for state in drawn.states), drawn.pixels.tobytes()))
    return made


def _compare(name: str, left: Sequence[tuple[bytes, bytes]], right: Sequence[tuple[bytes, bytes]]) -> Variation:
    pairs = list(zip(left, right, strict=True))
    apart = [
        int(np.abs(np.frombuffer(a, np.uint8).astype(int) - np.frombuffer(b, np.uint8)).max())
        for (_, a), (_, b) in pairs
    ]
    return Variation(
        name,
        sum(a[0] == b[0] for a, b in pairs) / len(pairs),
        sum(a[1] == b[1] for a, b in pairs) / len(pairs),
        max(apart),
    )


def _time(run: Callable[[], object]) -> float:
    """Seconds of this thread's processor time."""
    least = float("inf")
    for _ in range(TIMED):
        started = time.thread_time()
        run()
        least = min(least, time.thread_time() - started)
    return least


def _describe_pair(found: Measurements, limits: Limits, pair: tuple[str, str]) -> Sequence[str]:
    odd = [
        each for each in found.judged if each.kind == HONEST and each.job % 2 and (each.executor, each.auditor) == pair
    ]
    alarms = count_caught(odd, limits, OPENED[-1])
    worst = max(max(each.errors) for each in odd)
    upper = compute_upper(alarms, len(odd), CONFIDENCE)
    return (*pair, str(limits[pair].step), str(worst), str(alarms), str(len(odd)), _percent(upper, 3))


def _describe_cheat(claims: Sequence[Judged], limits: Limits, cheat: str) -> Sequence[str]:
    last = count_caught(claims, limits, OPENED[-1])
    rates = [f"{share(claims, limits, opened):.3f}" for opened in OPENED]
    return (cheat, *rates, str(len(claims)), f"{compute_lower(last, len(claims), CONFIDENCE):.4f}")


def _list_pairs(found: Measurements) -> list[tuple[str, str]]:
    return sorted({(each.executor, each.auditor) for each in found.judged if each.kind != HONEST})


def _name_pair(pair: tuple[str, str]) -> str:
    short = ["/".join(name.split("/")[1:3]) for name in pair]
    return f"{short[0]} by {short[1]}"


def _describe_classes(found: Measurements, limits: Limits) -> Iterable[Sequence[str]]:
    pairs = _list_pairs(found)
    for cheat in CHEATS:
        cells: list[str] = []
        for pair in pairs:
            claims = [each for each in found.judged if each.kind == cheat and (each.executor, each.auditor) == pair]
            cells.append(f"{share(claims, limits, 2):.3f} · {share(claims, limits, OPENED[-1]):.3f}")
        yield (cheat, *cells)


def _describe_hash(painted: Sequence[Painted], name: str, reference: str) -> Sequence[str]:
    """What a vote on this hash would say, a single voter, at the tolerance that half of the honest pictures of all classes need."""
    kept = {each.job: each.hashes[name] for each in painted if each.kind == HONEST and each.executor == reference}

    def measure_distances(kind: str, *, executors: Callable[[str], bool], odd: bool | None) -> list[int]:
        return [
            (int.from_bytes(each.hashes[name]) ^ int.from_bytes(kept[each.job])).bit_count()
            for each in painted
            if each.kind == kind and executors(each.executor) and (odd is None or each.job % 2 == odd)
        ]

    tolerance = max(measure_distances(HONEST, executors=lambda other: other != reference, odd=False))
    honest = measure_distances(HONEST, executors=lambda other: other != reference, odd=True)
    strangers = measure_distances(ANOTHER_SEED, executors=lambda _: True, odd=None)
    rejected = [
        np.mean(
            [each > tolerance for each in measure_distances(cheat, executors=lambda own: own == reference, odd=None)]
        )
        for cheat in CHEATS
    ]
    within = [np.mean([each <= tolerance for each in group]) for group in (honest, strangers)]
    return (
        name,
        str(tolerance),
        *(f"{100 * float(each):.2f} %" for each in within),
        *(f"{float(each):.3f}" for each in rejected),
    )


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _tabulate(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [" | ".join(heads), "|".join("---" for _ in heads), *(" | ".join(row) for row in rows)]
    return [*(f"| {line} |" for line in lines), ""]


if __name__ == "__main__":
    main()
