"""What a run of `devnet perturb` found: for programs as JSON, for people as a table and a verdict."""

from collections.abc import Sequence
from typing import Final

import msgspec

from devnet.perturbation.schedule import AIM_S
from node.commands.bench_job import Percentiles
from node.render import format_units, open_console, print_facts, print_list, print_table

MOST_TOLD: Final = 20


class Outcome(msgspec.Struct, frozen=True):
    """One perturbation and what came of it. Units: seconds from its undoing; null where it did not happen in the time there was."""

    number: int
    kind: str
    way: str
    nodes: tuple[int, ...]
    at_s: float
    hold_s: float
    skew_ms: int
    blocks_meanwhile: int  # final while it lasted, after the first seconds
    answers_s: float | None  # until every struck node answered its RPC: mostly how long a process takes to start
    finality_s: float | None  # until finality went on
    tip_s: float | None  # until every struck node was where the others were
    recovery_s: float | None  # until both
    problem: str


class Spread(msgspec.Struct, frozen=True):
    """Recovery times. Units: seconds; null where something never recovered"""

    max: float | None
    p50: float | None


class Jobs(msgspec.Struct, frozen=True):
    """What became of the jobs; `unheard` ones died with the node that was asked, before any block had them."""

    asked: int
    accepted: int
    failed: int
    inconclusive: int
    open: int
    unseen: int  # settled, and forgotten by the ledger, while its customer's node was away
    unheard: int


class Transfers(msgspec.Struct, frozen=True):
    """What became of the transfers, by what their customers know; `unknown` ones were still under way in the end."""

    submitted: int
    acknowledged: int
    unknown: int
    unreachable_calls: int
    refused: dict[str, int]


class NodeEnd(msgspec.Struct, frozen=True):
    """A node that ended though nobody wanted it, or that could not follow; with its log's last lines."""

    node: int
    what: str
    tail: tuple[str, ...]


class PerturbReport(msgspec.Struct, frozen=True):
    """The whole run. `lost` counts acknowledged transactions that are absent, and micro-units missing from the sum."""

    ok: bool
    forks: int
    lost: int
    honest_slashed: int
    recovery_s: Spread
    perturbations: tuple[Outcome, ...]
    finality_ms: Percentiles  # as nodes measure it
    acknowledged_ms: Percentiles  # as customers do, the time in which their node was down included
    fees_lost_to_crashes: int  # micro-units of bonds, burned for commits without a reveal
    unequal_states: int
    lost_transactions: int
    lost_micro: int
    transfers: Transfers
    jobs: Jobs
    blocks: int
    views: int
    nodes: int
    minutes: float
    seed: int
    isolation: str
    machine: str
    rss_mb: tuple[float, ...]  # of each node's process in the end
    nodes_in_trouble: tuple[NodeEnd, ...]
    problems: tuple[str, ...]


def sum_up_recovery(outcomes: Sequence[Outcome]) -> Spread:
    """The longest and the median; null where one of them did not end."""
    times = sorted(each.recovery_s for each in outcomes if each.recovery_s is not None)
    if len(times) < len(outcomes) or not times:
        return Spread(None, times[len(times) // 2] if times else None)
    return Spread(times[-1], times[len(times) // 2])


def print_report(report: PerturbReport) -> None:
    """The table of perturbations, the figures, and what is wrong, if anything is."""
    console = open_console()
    columns = ("", "kind", "way", "nodes", "held s", "blocks", "answers s", "finality s", "tip s")
    rows = [
        (
            str(each.number), each.kind, each.way, ",".join(map(str, each.nodes)), f"{each.hold_s:.1f}",
            str(each.blocks_meanwhile), _show(each.answers_s), _show(each.finality_s), _show(each.tip_s),
        )
        for each in report.perturbations
    ]  # fmt: skip
    print_table(console, columns, rows, right=frozenset({"", "held s", "blocks", "answers s", "finality s", "tip s"}))
    transfers, jobs = report.transfers, report.jobs
    print_facts(
        console,
        [
            ("verdict", "ok" if report.ok else "failed"),
            ("forks", str(report.forks)),
            ("lost", f"{report.lost_transactions} transactions, {format_units(report.lost_micro)} units"),
            ("honest slashed", str(report.honest_slashed)),
            ("recovery", f"at most {_show(report.recovery_s.max)} s, median {_show(report.recovery_s.p50)} s, aim {AIM_S:.0f} s"),
            ("finality", f"p50 {report.finality_ms.p50} ms, p99 {report.finality_ms.p99} ms"),
            ("acknowledged", f"p50 {report.acknowledged_ms.p50} ms, p99 {report.acknowledged_ms.p99} ms after submission"),
            ("transfers", f"{transfers.submitted} submitted, {transfers.acknowledged} acknowledged, {transfers.unknown} unknown"),
            ("jobs", f"{jobs.asked} asked, {jobs.accepted} accepted, {jobs.failed} failed, {jobs.inconclusive} inconclusive"),
            ("fees lost", f"{format_units(report.fees_lost_to_crashes)} units of bonds, for commits without a reveal"),
            ("blocks", f"{report.blocks} in {report.views} views"),
            ("isolation", report.isolation),
            ("again with", f"--nodes {report.nodes} --minutes {report.minutes:g} --seed {report.seed}"),
        ],
    )  # fmt: skip
    print_list(console, "!", report.problems[:MOST_TOLD])
    for each in report.nodes_in_trouble:
        print_list(console, "!", [f"node {each.node} {each.what}"])
        print_list(console, "|", each.tail)


def _show(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f}"
