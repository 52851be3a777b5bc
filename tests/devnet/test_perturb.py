"""`quorate devnet perturb` on real processes: a killed validator comes back and everything holds; Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devnet.cli import app
from devnet.devnet_file import has_devnet, load_devnet
from devnet.interruption import Interruption
from devnet.perturb import PerturbPlan, Run
from devnet.perturbation.isolation import Choice, Isolation
from devnet.perturbation.schedule import Kind, Perturbation, Way
from devnet.perturbation.stage import Load
from devnet.processes import is_running
from node.cli import run_app
from node.faults import Exit
from tests.devnet.processes import background, list_family, wait_until

if TYPE_CHECKING:
    from devnet.processes import ProcessMark

KILL = Perturbation(1, Kind.KILL, Way.KILL, (2,), 1.0, 0.5)


def test_a_killed_validator_comes_back_and_all_ledgers_are_equal_with_nothing_lost(tmp_path: Path) -> None:
    plan = PerturbPlan(4, 0.05, 1, tmp_path, Isolation.PROXIES, Load(20, 1))
    choice = Choice(Isolation.PROXIES, "as asked")
    report = Run(plan, [KILL], 1, choice, "a machine", tmp_path, Interruption()).play()
    late = [problem for problem in report.problems if "instead of" in problem]  # a busy machine starts a process slowly
    assert list(report.problems) == late
    assert (report.forks, report.lost, report.honest_slashed, report.unequal_states) == (0, 0, 0, 0)
    assert report.transfers.acknowledged == report.transfers.submitted > 0
    (outcome,) = report.perturbations
    assert outcome.recovery_s is not None
    assert (outcome.kind, outcome.nodes) == ("kill", (2,))
    assert load_devnet(tmp_path).marks == (), "all have ended"


def test_an_interrupted_run_leaves_no_process_and_no_namespace(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with background("devnet", "perturb", "--nodes", "4", "--home", str(home), "--json", cwd=tmp_path) as perturb:
        family: tuple[ProcessMark, ...] = ()

        def are_started() -> bool:
            nonlocal family
            assert perturb.poll() is None, (tmp_path / "said").read_text()
            family = list_family(load_devnet(home).marks) if has_devnet(home) else ()
            return len(family) >= 4

        wait_until(are_started, "all four nodes are started", 60)
        perturb.send_signal(signal.SIGINT)
        assert perturb.wait(timeout=60) != Exit.OK
        said = (tmp_path / "said").read_text()
        assert json.loads(said.splitlines()[-1])["error"]["reason"] == "interrupted", said
    assert not any(is_running(mark) for mark in family)
    assert load_devnet(home).marks == ()
    assert not list(Path("/run/netns").glob(f"quorate-{perturb.pid}-*"))


@pytest.mark.parametrize("nodes", ["3", "33"])
def test_fewer_nodes_than_one_may_fail_of_or_more_than_a_machine_runs_are_refused(
    nodes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(app, "quorate devnet", ("perturb", "--nodes", nodes, "--home", str(tmp_path / "d"))) == Exit.USAGE
    assert f"between 4 and 32, got {nodes}" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
