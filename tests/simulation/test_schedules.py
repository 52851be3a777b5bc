"""Seeded schedules: no adversary of less than a third of the weight breaks an invariant, and every broken rule is caught."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest

from protocol.ordering.messages import VoteKind
from tests.protocol.ordering.rig import make_cert
from tests.simulation.invariants import Violation, Watch
from tests.simulation.run import main
from tests.simulation.schedule import ADVERSARIES, ENDS, EPOCHS, choose_byzantine, make_context, make_plan, run_schedule

if TYPE_CHECKING:
    from pathlib import Path

SCHEDULES = 1_000
CHUNK = 50


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_no_schedule_breaks_an_invariant(first: int) -> None:
    outcomes = [run_schedule(make_plan(seed)) for seed in range(first, first + CHUNK)]
    assert [(outcome.seed, outcome.text) for outcome in outcomes if outcome.violation] == []
    assert min(outcome.epochs for outcome in outcomes) >= ENDS


def test_the_schedules_contain_every_adversary_and_size() -> None:
    plans = [make_plan(seed) for seed in range(SCHEDULES)]
    assert {plan.adversary for plan in plans} == set(ADVERSARIES)
    assert {len(plan.weights) for plan in plans} == {1, 4, 5, 7, 10}
    assert all(3 * sum(plan.weights[index] for index in plan.byzantine) < sum(plan.weights) for plan in plans)
    assert any(plan.crashes for plan in plans)
    assert any(plan.partitions for plan in plans)
    assert {plan.epoch_heights for plan in plans} == set(EPOCHS)
    assert any(plan.spares and plan.restakes for plan in plans)


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_the_same_seed_gives_the_same_run(adversary: str) -> None:
    first, second = (run_schedule(make_plan(7, adversary)) for _ in range(2))
    assert first == second
    assert first.log_hash != run_schedule(make_plan(8, adversary)).log_hash


@pytest.mark.parametrize("weights", [(1,), (1, 1), (1, 1, 1), (1, 1, 1, 1), (3, 2, 2, 3), (10, 1, 1)])
def test_the_byzantine_weigh_less_than_a_third(weights: tuple[int, ...]) -> None:

    for seed in range(20):
        chosen = choose_byzantine(Random(seed), weights)
        assert 3 * sum(weights[index] for index in chosen) < sum(weights)


def test_the_watch_notices_two_notarized_blocks_of_one_view() -> None:

    watch = Watch(make_context((1, 1, 1, 1), None), frozenset())
    watch.see_cert(make_cert(VoteKind.NOTAR, 1, b"\x01" * 32))
    with pytest.raises(Violation):
        watch.see_cert(make_cert(VoteKind.NOTAR, 1, b"\x02" * 32))


def test_a_run_can_be_resumed_and_ends_in_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = tmp_path / "progress.json"
    whole = ["--seed", "3", "--schedules", "6"]
    assert main(whole) == 0
    expected = capsys.readouterr().out.splitlines()[-1].rpartition(",")[0]
    assert main(["--seed", "3", "--schedules", "4", "--resume", str(progress)]) == 0
    assert json.loads(progress.read_text("utf-8"))["done"] == 4
    assert main([*whole, "--resume", str(progress)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].rpartition(",")[0] == expected
    with pytest.raises(SystemExit):
        main(["--seed", "4", "--resume", str(progress)])
    progress.write_text(progress.read_text("utf-8").replace('"code": "', '"code": "0'), "utf-8")
    with pytest.raises(SystemExit, match="another version"):
        main([*whole, "--resume", str(progress)])


def test_a_run_that_finds_something_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--schedules", "3", "--adversary", "evil", "--mutant", "final-after-null"]) == 1
    assert "seed 1 (evil): framed" in capsys.readouterr().out
