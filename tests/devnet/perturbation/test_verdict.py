"""The verdict is ok where nothing is wrong, and every single thing that is wrong is told and makes it not ok."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace as with_fields

from devnet.perturbation.checks import BlockSeen, Estate
from devnet.perturbation.load import Acknowledged, Book
from devnet.perturbation.report import NodeEnd, Outcome, Spread, sum_up_recovery
from devnet.perturbation.schedule import AIM_S, Kind, Perturbation, Way
from devnet.perturbation.sightings import Look, Recovery, Sightings
from devnet.perturbation.strike import describe
from devnet.perturbation.verdict import Evidence, Setting, judge

if TYPE_CHECKING:
    from collections.abc import Callable

NODE = "ab" * 32
SETTING = Setting(4, 1.0, 1, "proxies: as asked", "a machine", 1_000, {NODE: 100})
CHAIN = (BlockSeen(1, "h1", "s1", ("t1",)), BlockSeen(2, "h2", "s2", ()))
ESTATE = Estate(2, "s2", 990, 10, {NODE: 94}, ())
KILLED = Perturbation(1, Kind.KILL, Way.KILL, (3,), 5.0, 1.0)
OUTCOME = describe(KILLED, 5.0, 3, Recovery(1.0, 0.5, 2.0))


def make_evidence() -> Evidence:
    book = Book(submitted=1, acknowledged=[Acknowledged("t1", 0, 1.0)], waited_ms=[70], jobs={"j": "accepted"})
    seen = Sightings(looks=[Look(0, 1.0, 1.1, 2, "h2")], finality_ms=[50, 40, 60])
    return Evidence([OUTCOME], [book], seen, {0: CHAIN, 1: CHAIN}, [ESTATE, ESTATE], [], [], [])


def test_a_run_in_which_everything_held_is_ok_and_its_forfeits_are_counted_apart() -> None:
    report = judge(SETTING, make_evidence())
    assert report.ok, report.problems
    assert (report.forks, report.lost, report.honest_slashed) == (0, 0, 0)
    assert report.recovery_s == Spread(2.0, 2.0)
    assert (report.finality_ms.p50, report.acknowledged_ms.p50) == (50, 70)
    assert report.fees_lost_to_crashes == 6
    assert (report.blocks, report.transfers.acknowledged, report.jobs.accepted) == (2, 1, 1)


def fork(evidence: Evidence) -> Evidence:
    return replace(evidence, chains={0: CHAIN, 1: (CHAIN[0], replace(CHAIN[1], block_hash="other"))})


def lose_transaction(evidence: Evidence) -> Evidence:
    return replace(evidence, chains={0: CHAIN, 1: (replace(CHAIN[0], transactions=()), CHAIN[1])})


def lose_units(evidence: Evidence) -> Evidence:
    return replace(evidence, estates=[ESTATE, replace(ESTATE, held=983)])


def convict(evidence: Evidence) -> Evidence:
    return replace(evidence, estates=[replace(ESTATE, convicted=(NODE,)), ESTATE])


@pytest.mark.parametrize(
    "spoil, forks, lost, slashed",
    [(fork, 1, 0, 0), (lose_transaction, 0, 1, 0), (lose_units, 0, 7, 0), (convict, 0, 0, 1)],
)
def test_what_a_ledger_may_never_do_is_counted_and_told(
    spoil: Callable[[Evidence], Evidence], forks: int, lost: int, slashed: int
) -> None:
    report = judge(SETTING, spoil(make_evidence()))
    assert (report.forks, report.lost, report.honest_slashed) == (forks, lost, slashed)
    assert not report.ok
    assert len(report.problems) == 1


@pytest.mark.parametrize(
    "change, words",
    [
        ({"disk_faults": ["node 1: its ledger is damaged"]}, "damaged"),
        ({"in_trouble": [NodeEnd(2, "ended by itself with exit code 1", ())]}, "node 2 ended by itself"),
        ({"killed": [3]}, "node 3 had to be killed"),
        ({"outcomes": []}, "nothing was perturbed"),
        ({"books": [Book()]}, "no transaction"),
        ({"outcomes": [with_fields(OUTCOME, problem="recovered late")]}, "recovered late"),
        ({"chains": {0: CHAIN, 1: CHAIN[1:]}, "books": [Book(acknowledged=[Acknowledged("t1", 0, 1.0)])]}, "lacks"),
        ({"sightings": Sightings(looks=[Look(1, 1.0, 1.1, 2, "h2", "two blocks are final")])}, "node 1 halted"),
    ],
)
def test_whatever_else_is_wrong_is_told(change: dict, words: str) -> None:
    report = judge(SETTING, replace(make_evidence(), **change))
    assert not report.ok
    assert any(words in problem for problem in report.problems), report.problems


def judged(planned: Perturbation, blocks: int, recovery: Recovery) -> Outcome:
    return describe(planned, 0.0, blocks, recovery)


def test_a_recovery_over_the_aim_or_none_at_all_is_a_problem() -> None:
    assert judged(KILLED, 0, Recovery(1.0, AIM_S, AIM_S)).problem == ""
    assert "instead of 10" in judged(KILLED, 0, Recovery(1.0, 0.1, AIM_S + 0.1)).problem
    assert "no block" in judged(KILLED, 0, Recovery(1.0, None, None)).problem
    assert "come back" in judged(KILLED, 0, Recovery(None, 1.0, None)).problem


def test_with_f_down_the_others_must_go_on_and_with_one_more_they_must_not() -> None:
    well = Recovery(0.1, 1.0, 2.0)
    down = Perturbation(1, Kind.F_DOWN, Way.CUT, (0,), 0.0, 10.0)
    more = Perturbation(1, Kind.F1_DOWN, Way.CUT, (0, 1), 0.0, 10.0)
    assert judged(down, 5, well).problem == ""
    assert "did not go on" in judged(down, 0, well).problem
    assert judged(more, 0, well).problem == ""
    assert "without a quorum" in judged(more, 1, well).problem
    assert judged(KILLED, 0, well).problem == "", "too short to be judged"


def test_the_longest_recovery_is_unknown_where_one_did_not_end() -> None:
    never = with_fields(OUTCOME, recovery_s=None)
    slow = with_fields(OUTCOME, recovery_s=9.0)
    assert sum_up_recovery([OUTCOME, slow]) == Spread(9.0, 9.0)
    assert sum_up_recovery([OUTCOME, never]) == Spread(None, 2.0)
    assert sum_up_recovery([]) == Spread(None, None)
