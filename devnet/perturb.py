"""`quorate devnet perturb`: real validators under a load of transfers and jobs, killed, halted, cut off and misled, and judged afterwards.

Nothing here knows more than a user does: what the nodes say through RPC, what their customers were told, and what `quorate ledger`
finds on their disks.
"""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devnet.commands import build_plan
from devnet.devnet_file import DevnetFile, DevnetNode
from devnet.homes import create_devnet, hold_directory
from devnet.interruption import Interrupted, Interruption, watch_signals
from devnet.perturbation.checks import Estate
from devnet.perturbation.fleet import open_fleet
from devnet.perturbation.gather import check_disk, read_estate
from devnet.perturbation.isolation import Choice, Isolation, choose_isolation, open_links
from devnet.perturbation.report import Outcome, PerturbReport, print_report
from devnet.perturbation.schedule import LEAST_NODES, Kind, Perturbation, build_schedule
from devnet.perturbation.show import Show
from devnet.perturbation.stage import Load, Stage, Wait
from devnet.perturbation.strike import Field, strike
from devnet.perturbation.verdict import Evidence, Setting, judge
from devnet.wish import MAX_NODES, Wish
from node.commands.bench_job import describe_machine
from node.disk import disk_fault
from node.faults import Exit, Fault, Trouble
from node.genesis_file import read_genesis
from node.render import print_json, print_note

STEP_S: Final = 0.2  # between two looks at the processes
MOST_SEED: Final = 2**32


@dataclass(frozen=True, slots=True)
class PerturbPlan:
    """What is wished for. Without a home: a directory that is gone afterwards, unless something was wrong."""

    nodes: int
    minutes: float
    seed: int | None
    home: Path | None
    isolation: Isolation
    load: Load


def run_perturb(plan: PerturbPlan, *, as_json: bool) -> int:
    """Exit code 0 where everything held, 6 where something did not. Raises: Fault."""
    if not LEAST_NODES <= plan.nodes <= MAX_NODES:
        raise Fault(Trouble.USAGE, f"expected --nodes between {LEAST_NODES} and {MAX_NODES}, got {plan.nodes}")
    seed = secrets.randbelow(MOST_SEED) if plan.seed is None else plan.seed
    schedule = build_schedule(plan.nodes, plan.minutes * 60, seed)
    choice = choose_isolation(plan.isolation)
    with watch_signals() as interruption, _open_home(plan.home) as (home, keep):
        machine = describe_machine(home)
        _announce(plan, schedule, seed, choice, machine)
        with hold_directory(home):
            try:
                report = Run(plan, schedule, seed, choice, machine, home, interruption).play()
            except Interrupted as asked:
                raise Fault(Trouble.INTERRUPTED, "stopped; all nodes have ended") from asked
        if not report.ok:
            keep()
    if as_json:
        print_json(report)
    else:
        print_report(report)
    for problem in report.problems:
        print_note(f"NOT AS IT SHOULD BE: {problem}")
    return Exit.OK if report.ok else Exit.INVALID


@dataclass(frozen=True, slots=True)
class Run:
    """One run, with what was drawn and chosen for it."""

    plan: PerturbPlan
    schedule: Sequence[Perturbation]
    seed: int
    choice: Choice
    machine: str
    home: Path
    interruption: Interruption

    def play(self) -> PerturbReport:
        """Everything from making the homes to the verdict; nothing that was started is left. Raises: Fault; Interrupted."""
        devnet = create_devnet(self.home, build_plan(Wish(self.plan.nodes)), self.interruption.check)
        show = Show(self.plan.minutes * 60)
        with ExitStack() as stack:
            stack.enter_context(show)
            links = stack.enter_context(open_links(self.choice.isolation, devnet.nodes))
            fleet = stack.enter_context(open_fleet(self.home, devnet, links))
            stage = Stage(fleet, show.tell)
            stack.callback(stage.close)
            stage.start_nodes(self.interruption.wait)
            stage.start_load(self.plan.load)
            outcomes = self._perturb(stage, show)
            show.do("waiting for what is under way")
            books = stage.end_load(self._make_wait(stage, show))
            show.do("reading all chains")
            chains = stage.settle(self._make_wait(stage, show))
            stage.close()
            show.do("stopping the nodes")
            killed = fleet.stop()
            estates, faults = self._look_at_disks(devnet, show)
            return judge(
                self._describe_setting(devnet),
                Evidence(outcomes, books, stage.sightings, chains, estates, faults, stage.in_trouble, killed),
            )

    def _perturb(self, stage: Stage, show: Show) -> list[Outcome]:
        wait, began_s = self._make_wait(stage, show), time.monotonic()
        show.begin(began_s)
        field = Field(stage.fleet, stage.sightings, wait, began_s)
        outcomes: list[Outcome] = []
        for planned in self.schedule:
            show.do("calm")
            wait(max(0.0, began_s + planned.at_s - time.monotonic()))
            show.do(planned.describe())
            outcomes.append(strike(field, planned))
            show.tell_outcome(outcomes[-1])
        show.do("calm")
        wait(max(0.0, began_s + self.plan.minutes * 60 - time.monotonic()))
        return outcomes

    def _make_wait(self, stage: Stage, show: Show) -> Wait:
        """Passes that many seconds and attends to the nodes meanwhile. Raises: Interrupted."""

        def wait(seconds: float) -> None:
            until_s = time.monotonic() + seconds
            while True:
                stage.attend()
                show.move()
                self.interruption.check()
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return
                self.interruption.wait(min(STEP_S, left_s))

        return wait

    def _describe_setting(self, devnet: DevnetFile) -> Setting:
        genesis = read_genesis(Path(devnet.genesis))
        bonds = {validator.node.hex(): validator.stake for validator in genesis.validators}
        minted = sum(bonds.values()) + sum(account.balance for account in genesis.accounts)
        isolation = f"{self.choice.isolation.value}: {self.choice.reason}"
        return Setting(self.plan.nodes, self.plan.minutes, self.seed, isolation, self.machine, minted, bonds)

    def _look_at_disks(self, devnet: DevnetFile, show: Show) -> tuple[list[Estate], list[str]]:
        """What each stopped node's state holds, and what is wrong with the disks. Raises: Interrupted."""
        show.do("judging the ledgers on the disks")
        estates: list[Estate] = []
        faults: list[str] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for found in pool.map(self._look_at_disk, devnet.nodes):
                if isinstance(found, Estate):
                    estates.append(found)
                else:
                    faults.append(found)
        return estates, faults

    def _look_at_disk(self, node: DevnetNode) -> Estate | str:
        """What a stopped node's state holds, or what is wrong with it. Raises: Interrupted."""
        try:
            checked, estate = check_disk(node, self.interruption), read_estate(node, self.interruption)
        except Fault as fault:
            return fault.message
        if (checked.height, checked.state_root) != (estate.height, estate.state_root):
            return f"node {node.index}: its state is of height {estate.height}, its chain of {checked.height}"
        return estate


@contextmanager
def _open_home(wished: Path | None) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Where the devnet goes, and what to call so that it stays there."""
    if wished is not None:
        yield wished.absolute(), lambda: None
        return
    try:
        home = Path(tempfile.mkdtemp(prefix="quorate-perturb-", dir=Path.cwd()))
    except OSError as error:
        raise disk_fault(Path.cwd(), error) from error
    kept: list[str] = []
    try:
        yield home, lambda: kept.append("something was wrong")
    except Fault as fault:
        if fault.reason is not Trouble.INTERRUPTED:
            kept.append("it failed")
        raise
    finally:
        if kept:
            print_note(f"{kept[0]}: the nodes' homes and logs are in {home}; remove it when you have read them")
        else:
            shutil.rmtree(home, ignore_errors=True)


def _announce(plan: PerturbPlan, schedule: Sequence[Perturbation], seed: int, choice: Choice, machine: str) -> None:
    print_note(machine)
    print_note(f"{plan.nodes} validators for {plan.minutes:g} minutes, seed {seed}")
    print_note(f"{plan.load.transfers_per_s:g} transfers and {plan.load.jobs_per_s:g} jobs a second over all nodes")
    print_note(f"disconnection by {choice.isolation.value}: {choice.reason}")
    for planned in schedule:
        print_note(f"{planned.number:3}  at {planned.at_s:6.1f} s  {planned.describe()}")
    left = [kind.value for kind in Kind if all(planned.kind is not kind for planned in schedule)]
    if left:
        print_note(f"not in this run, for want of time: {', '.join(left)}")
