"""A calibration in words and tables: limits, false alarms and every cell of detection, also where it falls short.

Nothing here depends on time: the same calibration writes the same report. What it cost is in a file of its own.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from verifier.calibrate import Outcome
from verifier.calibrate_plan import HONEST
from verifier.margin import ONE_NAT
from verifier.sketch import DISTANCE_UNITS
from verifier.tolerances import Cell, ProfileBody, Tolerance

REPORT_FILE: Final = "report.md"
COST_FILE: Final = "cost.md"
AIM: Final = 0.999
_SHORTEST: Final = 8  # rows for fewer tokens are in the profile alone
_INTRODUCTION: Final = (
    "Limits were set on the even units of honest jobs; every figure below is of the others, and of cheats, which set no limits. A beginning "
    "of a cheat's claim that is, token by token and code by code, what an honest executor would have said (a small model that writes "
    "the very same greedy text, another seed that draws the same first tokens) is no forgery and is counted nowhere.\n"
)


def write_report(outcome: Outcome, plots: Sequence[tuple[str, str]]) -> str:
    """The report; `plots` are (file name, title)."""
    profile = outcome.profile
    cells = [cell for cell in profile.cells if cell.cheat != HONEST]
    longest = max(cell.tokens for cell in profile.cells)
    own = [cell for cell in cells if cell.executor == cell.auditor == outcome.reference]
    parts = [
        f"# How surely audits of {profile.name} tell honest from dishonest\n",
        f"Model `{profile.model}`. Written by `{profile.command}`; the same command writes the same figures on the same machine.\n",
        _INTRODUCTION,
        _describe_false_alarms(profile, longest),
        f"## Detection in the card's own class, {outcome.reference}\n",
        _tabulate_lengths(own),
        f"## What catches what, at {longest} tokens in that class\n",
        "A likelihood alone is what is left where neither the seed nor a sketch is known; it adds nothing to the other two.\n",
        _tabulate_tests([cell for cell in own if cell.tokens == longest]),
        f"## Every pair of classes, at {longest} tokens\n",
        _tabulate_pairs([cell for cell in cells if cell.tokens == longest]),
        "## Limits\n",
        _tabulate_limits(profile.tolerances),
        *(f"## {title}\n\n![{title}]({name})\n" for name, title in plots),
        _list_shortfalls(own, cells, longest, outcome.reference),
    ]
    return "\n".join(parts).rstrip() + "\n"


def write_cost(outcome: Outcome) -> str:
    """What each part of the calibration took, per job. Units: milliseconds of processor time of whatever machine this was"""
    rows: dict[tuple[str, str], list[float]] = {}
    for record in outcome.records:
        if record.unit.kind == HONEST and record.unit.executor == outcome.reference:
            jobs = len(next(iter(record.seen.values())).margins)
            for part, seconds in record.seconds.items():
                rows.setdefault((part, str(record.tokens)), []).append(1000 * seconds / jobs)
    lines = [[part, tokens, f"{sum(found) / len(found):.2f}"] for (part, tokens), found in rows.items()]
    return (
        f"# What calibrating {outcome.profile.name} took, a job\n\nWritten by {outcome.reference} in batches, read by each class; "
        "wall-clock time of a shared machine, no benchmark.\n\n" + _table(["part", "tokens", "ms a job"], lines)
    )


def _describe_false_alarms(profile: ProfileBody, longest: int) -> str:
    alarm = profile.false_alarm
    honest = [cell for cell in profile.cells if cell.cheat == HONEST]
    shown = [cell for cell in honest if cell.tokens == longest]
    rows = [
        [cell.executor, cell.auditor, str(cell.runs), str(cell.caught), str(cell.hard), _percent(cell.upper95)]
        for cell in shown
    ]
    shorter = sum(cell.caught for cell in honest if cell.tokens != longest)
    return (
        f"## False alarms\n\n{alarm.windows} honest jobs of {longest} tokens, each read by every class: {round(alarm.rate * alarm.windows)} "
        f"rejected by any ({_percent(alarm.rate)}, at most {_percent(alarm.upper95)} with 95 % confidence), {alarm.hard} of them hard. "
        f"In their shorter beginnings, over all pairs and lengths: {shorter} rejections.\n\n"
        + _table(["executor", "auditor", "audits", "rejected", "hard", "upper bound (two-sided 95 %)"], rows)
    )


def _tabulate_lengths(cells: Sequence[Cell]) -> str:
    lengths = sorted({cell.tokens for cell in cells})
    found = {(cell.cheat, cell.tokens): cell for cell in cells}
    rows: list[list[str]] = []
    for cheat in dict.fromkeys(cell.cheat for cell in cells):
        last = found[cheat, lengths[-1]]
        shares = [_share(found.get((cheat, length))) for length in lengths]
        rows.append([cheat, *shares, f"{last.caught} of {last.runs}", f"{last.lower95:.4f}"])
    return _table(["cheat", *(f"{length} tokens" for length in lengths), f"at {lengths[-1]}", "lower bound"], rows)


def _tabulate_tests(cells: Sequence[Cell]) -> str:
    rows = [
        [
            cell.cheat,
            *(
                _rate(hits, cell.runs)
                for hits in (cell.by_margin, cell.by_sketch, cell.caught, cell.hard, cell.by_likelihood)
            ),
        ]
        for cell in cells
    ]
    return _table(["cheat", "margins alone", "sketch alone", "both", "rejected hard", "likelihood alone"], rows)


def _tabulate_pairs(cells: Sequence[Cell]) -> str:
    pairs = list(dict.fromkeys((cell.executor, cell.auditor) for cell in cells))
    found = {(cell.cheat, cell.executor, cell.auditor): cell for cell in cells}
    rows = [
        [cheat, *(_share(found.get((cheat, *pair))) for pair in pairs)]
        for cheat in dict.fromkeys(cell.cheat for cell in cells)
    ]
    return _table(["cheat", *(f"{executor} by {auditor}" for executor, auditor in pairs)], rows)


def _tabulate_limits(tolerances: Sequence[Tolerance]) -> str:
    """Each different set of limits once, with how many pairs have it."""
    pools: dict[tuple[object, ...], list[Tolerance]] = {}
    for limits in tolerances:
        key = (limits.slack, limits.margin_largest, limits.margin_means, limits.distances, limits.score)
        pools.setdefault(key, []).append(limits)
    rows = [
        [
            f"{len(pool)}, such as {pool[0].executor} by {pool[0].auditor}",
            f"{pool[0].margin_largest / ONE_NAT:.4f}",
            " · ".join(
                f"{tokens}: {limit / ONE_NAT:.5f}" for tokens, limit in pool[0].margin_means if tokens >= _SHORTEST
            ),
            " · ".join(
                f"{tokens}: {limit / DISTANCE_UNITS:.1f}" for tokens, limit in pool[0].distances if tokens >= _SHORTEST
            ),
            f"{pool[0].score / 1000:.1f}",
        ]
        for pool in pools.values()
    ]
    heads = ["pairs", "largest margin, nats", "mean margin by tokens, nats", "sketch distance by tokens, steps"]
    return _table([*heads, "likelihood, standard deviations"], rows)


def _list_shortfalls(own: Sequence[Cell], cells: Sequence[Cell], longest: int, reference: str) -> str:
    due = [cell for cell in own if cell.tokens == longest and cell.caught < AIM * cell.runs]
    rest = [cell for cell in cells if cell.tokens == longest and cell not in own and cell.caught < AIM * cell.runs]
    lines = [f"- {cell.cheat}: {_rate(cell.caught, cell.runs)} in {reference}" for cell in due]
    lines += [f"- {cell.cheat}: {_rate(cell.caught, cell.runs)} for {cell.executor} by {cell.auditor}" for cell in rest]
    return f"## Below {AIM} at {longest} tokens\n\n" + ("\n".join(lines) if lines else "Nothing.") + "\n"


def _share(cell: Cell | None) -> str:
    return "–" if cell is None else _rate(cell.caught, cell.runs)


def _rate(hits: int, runs: int) -> str:
    return "–" if runs == 0 else f"{hits / runs:.4f}"


def _percent(share: float) -> str:
    return f"{100 * share:.4f} %"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
