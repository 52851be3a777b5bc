"""What `bench ledger` measures, and how: real signed transfers through the RPC of every node of a devnet.

In one run: the nodes idle, then at a steady rate, then, if asked, with as much as they take. Finality is what the nodes measure
themselves, for each transfer from its arrival until its FinalCert; throughput is counted in the final blocks; processor time and
memory come from /proc; where the processor time goes, from the nodes' own samples (node/cpu_samples.py).
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

import msgspec

from node.commands.bench_job import BenchPlan, Percentiles, get_percentile, measure_jobs
from node.commands.bench_load import (
    Network,
    Pace,
    Purse,
    Tally,
    fund,
    make_purses,
    read_network,
    send_transfers,
)
from node.commands.bench_watch import Cost, Moment, Watch, Watched, compute_slope, count_transactions, read_cost
from node.commands.connect import DEVNET_FILE, list_devnet_nodes
from node.faults import Fault, Trouble
from node.home import Home
from node.keys import NodeKey, load_key
from node.render import ProgressLine, open_console, print_facts, print_note
from node.rpc_client import NodeClient

IDLE_S: Final = 20.0
SETTLE_S: Final = 3.0  # between stretches: what one left behind is not the next one's
LOOK_S: Final = 1.0
DRAIN_S: Final = 60.0
PURSES_A_NODE: Final = 128
CHECKED_JOBS: Final = 5
CHECKED_MODEL: Final = "arith-s"
MEGABYTE: Final = 1e6


@dataclass(frozen=True, slots=True)
class LedgerPlan:
    """What to measure. Units: rate in transfers a second over all nodes; seconds of each stretch."""

    home: Path | None  # a running devnet's
    directory: Path  # where one's own devnet goes for the time of the run
    nodes: int
    rate: float
    seconds: float
    blocks: int  # the stretch at the steady rate goes on until so many are final
    is_saturating: bool


class Breakdown(msgspec.Struct, frozen=True):
    """Where a stretch's time went, mean of the nodes. Units: percent of one core, of the time, of the processor time."""

    stretch: str
    cpu_percent: float
    kernel_percent: float
    disk_wait_percent: float
    cpu_by_area_percent: dict[str, float]


class Stretch(msgspec.Struct, frozen=True):
    """One load and what came of it. Units: MB; times in seconds since the stretch began."""

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
class LedgerRun:
    """The figures, and what a plot shows: each stretch's name, moments and final blocks as (time in ms, transactions)."""

    figures: LedgerFigures
    curves: tuple[tuple[str, tuple[Moment, ...], tuple[tuple[int, int], ...]], ...]


@dataclass(frozen=True, slots=True)
class _Town:
    network: Network
    watched: tuple[Watched, ...]
    purses: tuple[tuple[Purse, ...], ...]  # by node


@dataclass(frozen=True, slots=True)
class _Measured:
    stretch: Stretch
    moments: tuple[Moment, ...]
    blocks: tuple[tuple[int, int], ...]
    transfer_bytes: int


def measure_ledger(plan: LedgerPlan) -> LedgerRun:
    """The figures of a devnet: the one named, or one that lives as long as this. Raises: Fault."""
    if plan.home is not None:
        return _measure(plan, plan.home)
    with own_devnet(plan.directory, plan.nodes) as home:
        return _measure(plan, home)


@contextmanager
def own_devnet(directory: Path, nodes: int) -> Iterator[Path]:
    """The home of a running devnet that is stopped and removed afterwards. Raises: Fault."""
    home = Path(tempfile.mkdtemp(prefix="quorate-bench-", dir=directory.absolute()))
    try:
        _run_devnet("up", "--nodes", str(nodes), "--detach", "--home", str(home))
        try:
            yield home
        finally:
            _run_devnet("down", "--home", str(home))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run_devnet(*arguments: str) -> None:
    """The verb as a process of its own: networks are started above this package."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "node.cli", "devnet", *arguments], stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise Fault(
            Trouble.NO_NODE_RUNNING, f"`quorate devnet {' '.join(arguments)}` ended with exit code {done.returncode}"
        )


def _measure(plan: LedgerPlan, home: Path) -> LedgerRun:
    watched = _list_watched(home)
    line = ProgressLine()
    rss_ready = max(Watch(watched).look().rss)
    line.show(f"idle for {IDLE_S:.0f} s")
    idle_percent = _measure_idle(watched)
    line.clear()
    check_ms = _measure_certificate(home)
    line.show("funding accounts")
    town = _make_town(home, watched)
    steady = _measure_stretch("steady", plan, town, Pace(plan.rate / len(watched), 0), line)
    saturated = _measure_stretch("saturated", plan, town, Pace(None, 0), line) if plan.is_saturating else None
    line.clear()
    hardest = (saturated or steady).stretch
    figures = LedgerFigures(
        finality_ms=steady.stretch.finality_ms,
        tx_per_s=hardest.tx_per_s,
        idle_cpu_percent=round(idle_percent, 1),
        rss_slope_mb_per_h=steady.stretch.rss_slope_mb_per_h,
        certificate_check_ms=check_ms,
        breakdown=hardest.breakdown,
        nodes=len(watched),
        transaction_bytes=steady.transfer_bytes,
        rss_ready_mb=round(rss_ready / MEGABYTE, 1),
        steady=steady.stretch,
        saturated=None if saturated is None else saturated.stretch,
    )
    named = [("steady", steady), *([] if saturated is None else [("saturated", saturated)])]
    return LedgerRun(figures, tuple((name, each.moments, each.blocks) for name, each in named))


def _list_watched(home: Path) -> tuple[Watched, ...]:
    if not (home / DEVNET_FILE).is_file():
        raise Fault(
            Trouble.NOT_A_HOME,
            f"expected the home of a devnet, got {home}, which has no {DEVNET_FILE}",
            cure="leave --home out: a devnet is then started, measured and removed",
        )
    watched: list[Watched] = []
    for node in list_devnet_nodes(home):
        if node.pid is None:
            raise Fault(Trouble.NO_NODE_RUNNING, f"node {node.index} of the devnet in {home} does not run")
        watched.append(Watched(node.index, node.pid, NodeClient(node.rpc)))
    return tuple(watched)


def _measure_idle(watched: Sequence[Watched]) -> float:
    """The busiest node's processor time without any work. Units: percent of a core."""
    time.sleep(SETTLE_S)
    before, began = [read_cost(node) for node in watched], time.monotonic()
    time.sleep(IDLE_S)
    after, taken_s = [read_cost(node) for node in watched], time.monotonic() - began
    return max(100 * (new.cpu_s - old.cpu_s) / taken_s for old, new in zip(before, after, strict=True))


def _measure_certificate(home: Path) -> float | None:
    """The median of real answers' certificates, or None, with the reason told, where nobody answers."""
    plan = BenchPlan(home, None, None, None, CHECKED_MODEL, 3, CHECKED_JOBS, 1)
    try:
        return measure_jobs(plan).certificate_check_ms
    except Fault as fault:
        print_note(f"no certificate to check: {fault.message}")
        return None


def _make_town(home: Path, watched: Sequence[Watched]) -> _Town:
    network = read_network(watched[0].client)
    purses = [make_purses(PURSES_A_NODE) for _ in watched]
    payers: list[NodeKey] = [load_key(Home(Path(node.home)).key, None) for node in list_devnet_nodes(home)]
    with ThreadPoolExecutor(len(watched)) as pool:
        jobs = [
            pool.submit(fund, node.client, network, payer.signing, own)
            for node, payer, own in zip(watched, payers, purses, strict=True)
        ]
        for job in jobs:
            job.result()
    return _Town(network, tuple(watched), tuple(tuple(own) for own in purses))


def _measure_stretch(name: str, plan: LedgerPlan, town: _Town, pace: Pace, line: ProgressLine) -> _Measured:
    _drain(town.watched)
    watch, stop = Watch(town.watched), Event()
    costs = [read_cost(node) for node in town.watched]
    start, began_ms = watch.look(), time.time_ns() // 1_000_000
    with ThreadPoolExecutor(len(town.watched)) as pool:
        jobs = [
            pool.submit(
                send_transfers, NodeClient(node.client.url), town.network, own, _take_turns(pace, index, plan), stop
            )
            for index, (node, own) in enumerate(zip(town.watched, town.purses, strict=True))
        ]
        try:
            blocks = plan.blocks if name == "steady" else 0
            end = start
            while not any(job.done() for job in jobs):
                end = watch.look()
                done_s, done_blocks = end.at_s - start.at_s, end.height - start.height
                line.show(f"{name}: {done_s:.0f} s, {done_blocks} blocks, {end.waiting} waiting")
                if done_s >= plan.seconds and done_blocks >= blocks:
                    break
                time.sleep(LOOK_S)
        finally:
            stop.set()
        ended_ms = time.time_ns() // 1_000_000
        tallies = [job.result() for job in jobs]
    spent = [_subtract(read_cost(node), cost) for node, cost in zip(town.watched, costs, strict=True)]
    line.show(f"{name}: counting in the blocks")
    return _sum_up(name, town, watch.moments, tallies, spent, (began_ms, ended_ms))


def _take_turns(pace: Pace, index: int, plan: LedgerPlan) -> Pace:
    return Pace(pace.per_second, index / plan.rate)


def _sum_up(
    name: str,
    town: _Town,
    moments: Sequence[Moment],
    tallies: Sequence[Tally],
    spent: Sequence[Cost],
    span_ms: tuple[int, int],
) -> _Measured:
    start, end = moments[0], moments[-1]
    seconds = end.at_s - start.at_s
    finality = sorted(value for moment in moments[1:] for value in moment.finality_ms)
    blocks = tuple(count_transactions(town.watched[0].client, start.height, end.height))
    final = sum(count for time_ms, count in blocks if span_ms[0] <= time_ms <= span_ms[1])
    refused = sum((tally.refused for tally in tallies), Counter[str]())
    stretch = Stretch(
        seconds=round(seconds, 1),
        offered_per_s=round(sum(tally.accepted for tally in tallies) / seconds, 1),
        tx_per_s=round(final / seconds, 1),
        blocks=end.height - start.height,
        views=end.view - start.view,
        finality_ms=Percentiles(get_percentile(finality, 50), get_percentile(finality, 99)),
        rss_start_mb=round(max(start.rss) / MEGABYTE, 1),
        rss_end_mb=round(max(end.rss) / MEGABYTE, 1),
        rss_slope_mb_per_h=round(_find_steepest(moments), 1),
        refused=dict(refused),
        breakdown=_break_down(name, spent, seconds),
    )
    return _Measured(stretch, tuple(moments), blocks, max(tally.transfer_bytes for tally in tallies))


def _find_steepest(moments: Sequence[Moment]) -> float:
    """The growth of the node that grows most. Units: MB an hour."""
    slopes = [
        compute_slope([(moment.at_s / 3600, moment.rss[index] / MEGABYTE) for moment in moments])
        for index in range(len(moments[0].rss))
    ]
    return max(slopes)


def _subtract(after: Cost, before: Cost) -> Cost:
    return Cost(
        after.cpu_s - before.cpu_s,
        after.system_s - before.system_s,
        after.disk_wait_ms - before.disk_wait_ms,
        after.areas - before.areas,
    )


def _break_down(name: str, spent: Sequence[Cost], seconds: float) -> Breakdown:
    areas = sum((cost.areas for cost in spent), Counter[str]())
    total, whole_s = areas.total() or 1, seconds * len(spent)
    return Breakdown(
        stretch=name,
        cpu_percent=round(100 * sum(cost.cpu_s for cost in spent) / whole_s, 1),
        kernel_percent=round(100 * sum(cost.system_s for cost in spent) / whole_s, 1),
        disk_wait_percent=round(sum(cost.disk_wait_ms for cost in spent) / 10 / whole_s, 1),
        cpu_by_area_percent={area: round(100 * count / total, 1) for area, count in areas.most_common()},
    )


def _drain(watched: Sequence[Watched]) -> None:
    deadline = time.monotonic() + DRAIN_S
    while Watch(watched).look().waiting and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    time.sleep(SETTLE_S)


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
                f"{stretch.seconds:.0f} s, {stretch.blocks} blocks in {stretch.views} views, {stretch.tx_per_s:,.0f} final a second, finality p50"
                f" {stretch.finality_ms.p50} ms p99 {stretch.finality_ms.p99} ms"
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
