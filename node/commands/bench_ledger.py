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
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Final

from node.commands.bench_figures import MEGABYTE, LedgerFigures, Seen, subtract_costs, sum_up
from node.commands.bench_job import BenchPlan, measure_jobs
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
from node.commands.bench_watch import Watch, Watched, count_transactions, read_cost
from node.commands.connect import DEVNET_FILE, list_devnet_nodes
from node.disk import disk_fault
from node.faults import Fault, Trouble
from node.home import Home
from node.keys import NodeKey, load_key
from node.render import ProgressLine, print_note
from node.rpc_client import NodeClient

IDLE_S: Final = 20.0
SETTLE_S: Final = 3.0  # between stretches: what one left behind is not the next one's
LOOK_S: Final = 1.0
DRAIN_S: Final = 60.0
PURSES_A_NODE: Final = 128
CHECKED_JOBS: Final = 5
CHECKED_MODEL: Final = "arith-s"
STEADY: Final = "steady"


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


@dataclass(frozen=True, slots=True)
class LedgerRun:
    """The figures, and what was seen, for a plot."""

    figures: LedgerFigures
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class _Town:
    network: Network
    watched: tuple[Watched, ...]
    purses: tuple[tuple[Purse, ...], ...]  # by node


def measure_ledger(plan: LedgerPlan) -> LedgerRun:
    """The figures of a devnet: the one named, or one that lives as long as this. Raises: Fault."""
    if plan.home is not None:
        return _measure(plan, plan.home)
    with own_devnet(plan.directory, plan.nodes) as home:
        return _measure(plan, home)


@contextmanager
def own_devnet(directory: Path, nodes: int) -> Iterator[Path]:
    """The home of a running devnet that is stopped and removed afterwards; kept, for its logs, where the measuring fails. Raises: Fault."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix="quorate-bench-", dir=directory.absolute()))
    except OSError as error:
        raise disk_fault(directory, error) from error
    try:
        _run_devnet("up", "--nodes", str(nodes), "--detach", "--home", str(home))
        try:
            yield home
        finally:
            _run_devnet("down", "--home", str(home))
    except Fault:
        print_note(f"the logs of the devnet that was measured are in {home}; remove it when you have read them")
        raise
    except KeyboardInterrupt:
        shutil.rmtree(home, ignore_errors=True)
        raise
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
    steady = _measure_stretch(STEADY, plan, town, Pace(plan.rate / len(watched), 0), line)
    loaded = [_measure_stretch("saturated", plan, town, Pace(None, 0), line)] if plan.is_saturating else []
    line.clear()
    stretches = [sum_up(seen) for seen in (steady, *loaded)]
    figures = LedgerFigures(
        finality_ms=stretches[0].finality_ms,
        tx_per_s=stretches[-1].tx_per_s,
        idle_cpu_percent=round(idle_percent, 1),
        rss_slope_mb_per_h=stretches[0].rss_slope_mb_per_h,
        certificate_check_ms=check_ms,
        breakdown=stretches[-1].breakdown,
        nodes=len(watched),
        transaction_bytes=max(tally.transfer_bytes for tally in steady.tallies),
        rss_ready_mb=round(rss_ready / MEGABYTE, 1),
        steady=stretches[0],
        saturated=stretches[1] if loaded else None,
    )
    return LedgerRun(figures, (steady, *loaded))


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


def _measure_stretch(name: str, plan: LedgerPlan, town: _Town, pace: Pace, line: ProgressLine) -> Seen:
    _drain(town.watched)
    watch, stop = Watch(town.watched), Event()
    before = [read_cost(node) for node in town.watched]
    with ThreadPoolExecutor(len(town.watched)) as pool:
        senders = [
            pool.submit(
                send_transfers,
                NodeClient(node.client.url),
                town.network,
                own,
                replace(pace, offset_s=index / plan.rate),
                stop,
            )
            for index, (node, own) in enumerate(zip(town.watched, town.purses, strict=True))
        ]
        try:
            _watch_until_done(name, plan, watch, senders, line)
        finally:
            stop.set()
        tallies = tuple(sender.result() for sender in senders)
    spent = [subtract_costs(read_cost(node), cost) for node, cost in zip(town.watched, before, strict=True)]
    line.show(f"{name}: counting in the blocks")
    heights = watch.moments[0].height, watch.moments[-1].height
    blocks = count_transactions(town.watched[0].client, *heights)
    return Seen(name, tuple(watch.moments), blocks, tallies, tuple(spent))


def _watch_until_done(
    name: str, plan: LedgerPlan, watch: Watch, senders: Sequence[Future[Tally]], line: ProgressLine
) -> None:
    start = watch.look()
    blocks = plan.blocks if name == STEADY else 0
    while not any(sender.done() for sender in senders):  # one that ended early has a fault to tell
        time.sleep(LOOK_S)
        now = watch.look()
        done_s, done_blocks = now.at_s - start.at_s, now.height - start.height
        line.show(f"{name}: {done_s:.0f} s, {done_blocks} blocks, {now.waiting} waiting")
        if done_s >= plan.seconds and done_blocks >= blocks:
            return


def _drain(watched: Sequence[Watched]) -> None:
    deadline = time.monotonic() + DRAIN_S
    while Watch(watched).look().waiting and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    time.sleep(SETTLE_S)
