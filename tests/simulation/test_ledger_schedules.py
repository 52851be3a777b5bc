"""Seeded schedules over the real ledger: whatever the network and less than a third of the weight do, every job settles once and for all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.simulation.ledger_mutants import LEDGER_MUTANTS
from tests.simulation.ledger_network import make_ledger_plan
from tests.simulation.ledger_schedule import run_ledger_schedule
from tests.simulation.run import main

if TYPE_CHECKING:
    from pathlib import Path

SCHEDULES = 50
CHUNK = 10


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_every_job_settles_alike_on_every_node_and_its_certificate_verifies(first: int) -> None:
    outcomes = [run_ledger_schedule(make_ledger_plan(seed)) for seed in range(first, first + CHUNK)]
    assert [(outcome.seed, outcome.text) for outcome in outcomes if outcome.violation] == []
    assert sum(outcome.accepted for outcome in outcomes) >= CHUNK


def test_the_schedules_contain_every_adversary_and_conduct() -> None:
    plans = [make_ledger_plan(seed) for seed in range(SCHEDULES)]
    assert {plan.base.adversary for plan in plans} == {"none", "silent", "evil", "twins"}
    assert {conduct.value for plan in plans for conduct in (*plan.conducts, *plan.guests)} == {
        "honest",
        "hasty",
        "cheap",
        "abstainer",
        "absent",
        "mute",
        "copier",
    }
    assert any(plan.base.crashes and plan.base.partitions and plan.storm_jobs for plan in plans)


@pytest.mark.parametrize("adversary", ["none", "silent", "evil", "twins"])
def test_the_same_seed_gives_the_same_run_to_the_last_state_root(adversary: str) -> None:
    first, second = (run_ledger_schedule(make_ledger_plan(11, adversary)) for _ in range(2))
    assert first == second
    other = run_ledger_schedule(make_ledger_plan(12, adversary))
    assert first.log_hash != other.log_hash
    assert first.roots != other.roots


# mutant, what it breaks, seeds that show it. More than one: a change of the machine shifts what a seed means.
CAUGHT = [
    ("lost-answers", {"honest-forfeit"}, (209, 231, 267)),
    ("early-reveal", {"early-reveal", "certificate"}, (0, 1, 5)),
    ("unbound-commitment", {"seat"}, (16, 26, 32)),
]


@pytest.mark.parametrize("mutant, broken, seeds", CAUGHT)
def test_a_broken_rule_shows_on_a_listed_seed(mutant: str, broken: set[str], seeds: tuple[int, ...]) -> None:
    with LEDGER_MUTANTS[mutant]():
        found = {run_ledger_schedule(make_ledger_plan(seed)).violation for seed in seeds}
    assert broken & found, found


def test_a_run_over_the_ledger_can_be_resumed_and_ends_in_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = tmp_path / "progress.json"
    whole = ["--ledger", "--seed", "2", "--schedules", "3"]
    assert main(whole) == 0
    expected = capsys.readouterr().out.splitlines()[-1].rpartition(",")[0]
    assert "jobs settled" in expected
    assert main(["--ledger", "--seed", "2", "--schedules", "2", "--resume", str(progress)]) == 0
    assert json.loads(progress.read_text("utf-8"))["done"] == 2
    assert main([*whole, "--resume", str(progress)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].rpartition(",")[0] == expected
    with pytest.raises(SystemExit):
        main(["--seed", "2", "--resume", str(progress)])
