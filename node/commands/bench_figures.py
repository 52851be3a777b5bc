"""The figures of `bench ledger`: what they are called, how they come out of what was seen, and how they are shown."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from node.commands.bench_job import Percentiles, get_percentile
from node.commands.bench_load import Tally
from node.commands.bench_watch import BlockCount, Cost, Moment, compute_slope
from node.render import open_console, print_facts

MEGABYTE: Final = 1e6


class Breakdown(msgspec.Struct, frozen=True):
    """Where a stretch's time went, mean of the nodes. Units: percent of one core, of the time, of the processor time."""

    stretch: str
    cpu_percent: float
    kernel_percent: float
    disk_wait_percent: float
    cpu_by_area_percent: dict[str, float]


class Stretch(msgspec.Struct, frozen=True):
    """One load and what came of it. Memory is that of the largest node; its slope that of the second half, since the first fills caches."""

    seconds: float
    offered_per_s: float
    tx_per_s: float
    blocks: int
    views: int  # more than blocks where leaders were too slow
    finality_ms: Percentiles
    rss_start_mb: float
    rss_end_mb: float
    rss_slope_mb_per_h: float
    refused: dict[str, int]
    breakdown: Breakdown


class LedgerFigures(msgspec.Struct, frozen=True):
    """finality_ms and rss_slope_mb_per_h at the steady rate; tx_per_s as far as the network was driven."""

    finality_ms: Percentiles
    tx_per_s: float
    idle_cpu_percent: float
    rss_slope_mb_per_h: float
    certificate_check_ms: float | None
    breakdown: Breakdown
    nodes: int
    transaction_bytes: int
    rss_ready_mb: float
    steady: Stretch
    saturated: Stretch | None


@dataclass(frozen=True, slots=True)
class Seen:
    """One stretch as it was watched: the nodes' moments and final blocks, what was sent, what each node spent on it."""

    name: str
    moments: tuple[Moment, ...]
    blocks: tuple[BlockCount, ...]
    tallies: tuple[Tally, ...]
    spent: tuple[Cost, ...]


def sum_up(seen: Seen) -> Stretch:
    """The figures of a stretch."""
    start, end = seen.moments[0], seen.moments[-1]
    seconds = end.at_s - start.at_s
    finality = sorted(value for moment in seen.moments[1:] for value in moment.finality_ms)
    refused = sum((tally.refused for tally in seen.tallies), Counter[str]())
    return Stretch(
        seconds=round(seconds, 1),
        offered_per_s=round(sum(tally.accepted for tally in seen.tallies) / seconds, 1),
        tx_per_s=round(sum(block.transactions for block in seen.blocks) / seconds, 1),
        blocks=end.height - start.height,
        views=end.view - start.view,
        finality_ms=Percentiles(get_percentile(finality, 50), get_percentile(finality, 99)),
        rss_start_mb=round(max(start.rss) / MEGABYTE, 1),
        rss_end_mb=round(max(end.rss) / MEGABYTE, 1),
        rss_slope_mb_per_h=round(_find_steepest(seen.moments[len(seen.moments) // 2 :]), 1),
        refused=dict(refused),
        breakdown=_break_down(seen, seconds),
    )


def subtract_costs(after: Cost, before: Cost) -> Cost:
    """What was spent in between."""
    return Cost(
        after.cpu_s - before.cpu_s,
        after.system_s - before.system_s,
        after.disk_wait_ms - before.disk_wait_ms,
        after.areas - before.areas,
    )


def _find_steepest(moments: Sequence[Moment]) -> float:
    """The growth of the node that grows most. Units: MB an hour."""
    slopes = [
        compute_slope([(moment.at_s / 3600, moment.rss[index] / MEGABYTE) for moment in moments])
        for index in range(len(moments[0].rss))
    ]
    return max(slopes)


def _break_down(seen: Seen, seconds: float) -> Breakdown:
    areas = sum((cost.areas for cost in seen.spent), Counter[str]())
    total, whole_s = areas.total() or 1, seconds * len(seen.spent)
    return Breakdown(
        stretch=seen.name,
        cpu_percent=round(100 * sum(cost.cpu_s for cost in seen.spent) / whole_s, 1),
        kernel_percent=round(100 * sum(cost.system_s for cost in seen.spent) / whole_s, 1),
        disk_wait_percent=round(sum(cost.disk_wait_ms for cost in seen.spent) / 10 / whole_s, 1),
        cpu_by_area_percent={area: round(100 * count / total, 1) for area, count in areas.most_common()},
    )


def print_ledger_figures(figures: LedgerFigures) -> None:
    """The figures with their units."""
    check = figures.certificate_check_ms
    facts = [
        ("finality", f"p50 {figures.finality_ms.p50} ms, p99 {figures.finality_ms.p99} ms at a steady rate"),
        ("throughput", f"{figures.tx_per_s:,.0f} transfers of {figures.transaction_bytes} bytes a second"),
        ("idle", f"{figures.idle_cpu_percent:.1f} % of a core, the busiest of {figures.nodes} nodes"),
        ("memory", f"{figures.rss_ready_mb:.1f} MB when ready, growing {figures.rss_slope_mb_per_h:+.1f} MB an hour"),
        ("certificate", "none to check" if check is None else f"checked in {check:.2f} ms"),
    ]
    for stretch in (figures.steady, figures.saturated):
        if stretch is not None:
            facts.extend(_describe(stretch))
    print_facts(open_console(), facts)


def _describe(stretch: Stretch) -> list[tuple[str, str]]:
    spent = stretch.breakdown
    areas = ", ".join(f"{area} {share:.0f} %" for area, share in spent.cpu_by_area_percent.items() if share >= 1)
    return [
        (
            spent.stretch,
            (
                f"{stretch.seconds:.0f} s, {stretch.blocks} blocks in {stretch.views} views,"
                f" {stretch.tx_per_s:,.0f} final a second,"
                f" finality p50 {stretch.finality_ms.p50} ms p99 {stretch.finality_ms.p99} ms"
            ),
        ),
        ("  memory", f"{stretch.rss_start_mb:.1f} MB at the start, {stretch.rss_end_mb:.1f} MB at the end"),
        (
            "  a node",
            (
                f"{spent.cpu_percent:.0f} % of a core ({spent.kernel_percent:.0f} % in the kernel),"
                f" {spent.disk_wait_percent:.0f} % of the time waiting for the disk"
            ),
        ),
        ("  its time", areas),
    ]
