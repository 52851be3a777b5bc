"""Named situations over the real ledger: what a job comes to, member by member, and what was found by seeds once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from protocol.certificate import check_certificate
from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import Phase, SeatEnd
from protocol.ledger.queries import get_job
from protocol.trust import trust_genesis, walk_steps
from tests.protocol.builders import make_request
from tests.simulation.invariants import Violation
from tests.simulation.ledger_clients import offer_job
from tests.simulation.ledger_members import Conduct
from tests.simulation.ledger_mutants import LEDGER_MUTANTS
from tests.simulation.ledger_network import LedgerNetwork, LedgerPlan, make_ledger_network, make_ledger_plan
from tests.simulation.ledger_schedule import run_ledger_schedule, run_until_settled
from tests.simulation.ledger_town import get_key
from tests.simulation.ledger_verdict import judge
from tests.simulation.parcels import Crash
from tests.simulation.schedule import Plan
from tests.simulation.world import CALM

if TYPE_CHECKING:
    from protocol.jobs.settlement import Settlement

ROOT = Path(__file__).parents[2]


def start_calm(conducts: tuple[Conduct, ...], jobs: int, seed: int = 1) -> LedgerNetwork:
    """A network of equal validators in good weather that has just started."""
    base = Plan(seed, (1,) * len(conducts), frozenset(), "none", CALM, 0, 0, 0, 0)
    whole = make_ledger_network(LedgerPlan(base, conducts, (), False, frozenset(), 0, 0, jobs))
    whole.network.start()
    return whole


def run(whole: LedgerNetwork, duration_ms: int) -> None:
    whole.network.world.run(whole.network.world.now_ms + duration_ms, lambda: False)


def settle_jobs(conducts: tuple[Conduct, ...], jobs: int) -> tuple[LedgerNetwork, list[Settlement]]:
    """Some jobs for three seats, one after the other."""
    whole = start_calm(conducts, jobs)
    for number in range(jobs):
        whole.calm_jobs.add(offer_job(whole, 400 * number, make_request(prompt=b"%d+1=" % number), number))
    run(whole, 400 * jobs + 500)
    run_until_settled(whole, 60_000)
    judge(whole)
    return whole, list(whole.town.settlements.values())


def test_a_job_settles_on_every_node_and_every_nodes_certificate_names_the_answer() -> None:
    whole, [settlement] = settle_jobs((Conduct.HONEST,) * 4, 1)
    assert settlement.decision is Decision.ACCEPTED
    for actor in whole.honest:
        assert actor.application.settled == {settlement.job: settlement}
        trust = walk_steps(trust_genesis(whole.town.genesis), actor.application.steps)
        report = check_certificate(actor.application.certificates[settlement.job], trust)
        assert report.winner_hash == settlement.winner_hash
        if get_key(f"v{actor.address}").public in {seat.holder for seat in settlement.seats}:
            assert report.text is not None


@pytest.mark.parametrize(
    "conduct, ends",
    [
        (Conduct.CHEAP, {SeatEnd.OUTSIDE}),
        (Conduct.ABSTAINER, {SeatEnd.ABSTAINED}),
        (Conduct.MUTE, {SeatEnd.SILENT}),
        (Conduct.COPIER, {SeatEnd.SILENT}),
        (Conduct.HASTY, {SeatEnd.WINNING}),
    ],
)
def test_one_member_among_the_honest_gets_what_its_conduct_deserves(conduct: Conduct, ends: set[SeatEnd]) -> None:
    whole, settlements = settle_jobs((conduct, *(Conduct.HONEST,) * 4), 8)
    odd = get_key("v0").public
    seats = [seat for settlement in settlements for seat in settlement.seats]
    assert {settlement.decision for settlement in settlements} == {Decision.ACCEPTED}
    assert ends <= {seat.end for seat in seats if seat.holder == odd} <= ends | {SeatEnd.ABSENT}
    assert {seat.end for seat in seats if seat.holder != odd} == {SeatEnd.WINNING}
    forfeited = {forfeit.node for settlement in settlements for forfeit in settlement.forfeits}
    assert forfeited == ({odd} if SeatEnd.SILENT in ends else set())
    assert len(whole.honest) == 5


def test_a_member_that_never_commits_is_replaced_and_loses_nothing_but_reliability() -> None:
    _, settlements = settle_jobs((Conduct.ABSENT, *(Conduct.HONEST,) * 4), 8)
    absent = get_key("v0").public
    drawn = [seat for settlement in settlements for seat in settlement.seats if seat.drawn == absent]
    assert drawn
    assert all(seat.taker is not None and seat.end is SeatEnd.WINNING for seat in drawn)
    assert not any(settlement.forfeits for settlement in settlements)


@pytest.mark.parametrize("down_ms, forfeits", [(1_000, False), (9_000, True)])
def test_a_crash_between_commit_and_reveal_costs_time_or_past_the_window_the_bond(down_ms: int, forfeits: bool) -> None:
    whole = start_calm((Conduct.HONEST,) * 4, 1)
    world = whole.network.world
    job = offer_job(whole, 0, make_request(reveal_ms=3_000), 0)
    application = whole.honest[0].application

    def is_revealing() -> bool:
        view = get_job(application.final.ledger, job)
        return view is not None and view.phase is Phase.REVEALING

    def has_committed() -> bool:
        view = get_job(application.final.ledger, job)
        return view is not None and any(seat.committed for seat in view.seats)

    world.run(20_000, has_committed)
    view = get_job(application.final.ledger, job)
    assert view is not None and not is_revealing()
    victim = next(seat.member for seat in view.seats if seat.committed)
    actor = next(actor for actor in whole.honest if get_key(f"v{actor.address}").public == victim)
    world.remind(actor.address, 0, Crash(0, down_ms))
    run_until_settled(whole, 60_000)
    settlement = whole.town.settlements[job]
    assert [forfeit.node for forfeit in settlement.forfeits] == ([victim] if forfeits else [])
    assert settlement.decision is Decision.ACCEPTED
    judge(whole)


def test_a_window_that_never_closes_is_noticed() -> None:
    whole = start_calm((Conduct.MUTE,) * 4, 1)
    offer_job(whole, 0, make_request(), 0)
    run(whole, 500)
    with LEDGER_MUTANTS["stuck-window"](), pytest.raises(Violation, match="liveness"):
        run_until_settled(whole, 15_000)


def test_a_body_whose_fetch_failed_does_not_hold_a_node_back_for_ever() -> None:
    """Seed 10: every answer with one body was lost, and the others went on to where nobody served it any more."""
    assert run_ledger_schedule(make_ledger_plan(10)).text == ""


def test_a_run_is_the_same_in_another_process_with_other_hashes() -> None:
    command = [sys.executable, "-P", "-m", "tests.simulation", "--ledger", "--schedules", "1", "--seed", "4"]
    lines = set[str]()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        lines.add(done.stdout.splitlines()[-1].rpartition(",")[0])
    assert len(lines) == 1
