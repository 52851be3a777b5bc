"""Every rule that honest validators could break is broken on purpose, and something notices: a listed seed, or a named situation."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from protocol.voting import Vote, VoteKind
from tests.simulation.adversaries import Silent
from tests.simulation.invariants import Violation
from tests.simulation.model import BREAKABLE, list_schedules, make_model, search
from tests.simulation.mutants import MUTANTS
from tests.simulation.parcels import Crash
from tests.simulation.schedule import Network, Plan, make_network, make_plan, run_calm, run_schedule, run_storm, submit
from tests.simulation.world import RAIN, Weather

UNSAFE = {"unique-notar", "unique-final", "final-and-null", "prefix", "halted"}
ACCUSED = frozenset({"framed", "charged", "false-evidence", "wal-before-send", "body-durable", "light-client"})

# mutant, adversary, seeds, what they show when accusations are left aside. More than one seed: a change of the machine shifts what a
# seed means, and one of them must still catch it.
UNSAFE_SEEDS = [
    ("double-notar", "twins", (2, 9, 17, 22, 26)),
    ("final-after-null", "evil", (1, 5, 8, 9)),
    ("null-after-final", "evil", (2, 3, 4, 5)),
    ("no-wal", "evil", (0, 35, 36, 39, 68, 70, 71)),
    ("gap-unchecked", "skipper", (2, 3, 5, 13, 15, 27, 35, 38)),
    ("justification-incomplete", "skipper", (2, 3, 5, 13, 15, 27, 35, 38)),
    ("certs-unverified", "forger", (1, 3, 4, 5)),
    ("signers-repeated", "forger", (1, 2, 3, 5)),
    ("quorum-half", "forger", (1, 5, 16, 22)),
]

# mutant, adversary, seeds, the invariant that is broken: these do not fork by themselves, or only with more help than a storm gives.
NOTICED_SEEDS = [
    ("own-notar-dropped", "equivocator", (2, 3, 7, 9), "framed"),
    ("held-not-carried", "none", (1, 2, 4, 5), "charged"),
    ("leader-unchecked", "usurper", (1, 2, 3, 4), "false-evidence"),
    ("evidence-without-conflict", "none", (0, 1), "false-evidence"),
    ("null-not-recovered", "none", (2, 4, 7, 9, 19), "framed"),
    ("log-after-send", "none", (0, 1), "wal-before-send"),
    ("proposal-not-logged", "none", (0, 1), "wal-before-send"),
    ("body-not-durable", "none", (0, 1), "body-durable"),
]
NAMED_SITUATIONS = {"quorum-two-thirds", "delay-reset", "body-not-durable"}


def test_every_mutant_is_caught_somewhere() -> None:
    caught = {row[0] for row in (*UNSAFE_SEEDS, *NOTICED_SEEDS)} | NAMED_SITUATIONS
    assert caught == set(MUTANTS)
    assert len(caught) >= 12


@pytest.mark.parametrize("mutant, adversary, seeds", UNSAFE_SEEDS)
def test_a_broken_rule_breaks_safety_on_a_listed_seed(mutant: str, adversary: str, seeds: tuple[int, ...]) -> None:
    plans = [make_plan(seed, adversary) for seed in seeds]
    with MUTANTS[mutant]():
        broken = {plan.seed: run_schedule(plan, ignored=ACCUSED).violation for plan in plans}
    assert UNSAFE & set(broken.values()), broken
    assert [run_schedule(plan).text for plan in plans] == [""] * len(plans)


@pytest.mark.parametrize("mutant, adversary, seeds, name", NOTICED_SEEDS)
def test_a_broken_rule_is_noticed_on_a_listed_seed(
    mutant: str, adversary: str, seeds: tuple[int, ...], name: str
) -> None:
    plans = [make_plan(seed, adversary) for seed in seeds]
    with MUTANTS[mutant]():
        broken = {plan.seed: run_schedule(plan).violation for plan in plans}
    assert name in broken.values(), broken
    assert [run_schedule(plan).text for plan in plans] == [""] * len(plans)


@pytest.mark.parametrize("mutant", ["double-notar", "final-after-null", "null-after-final", "no-wal"])
def test_a_broken_rule_convicts_those_who_broke_it(mutant: str) -> None:
    with MUTANTS[mutant]():
        found = {
            run_schedule(make_plan(seed, adversary)).violation for seed in range(6) for adversary in ("evil", "twins")
        }
    assert "framed" in found


def find_fork_with_a_third(seed: int) -> str:
    """What three equal validators come to, one of them Byzantine: they may stop, but must not fork."""
    network = make_network(Plan(seed, (1, 1, 1), frozenset({1}), "evil", RAIN, 3_000, 4, 2, 10))
    network.watch.ignored = ACCUSED
    try:
        run_storm(network, Plan(seed, (1, 1, 1), frozenset({1}), "evil", RAIN, 3_000, 4, 2, 10))
    except Violation as violation:
        return violation.name
    return ""


def test_a_quorum_is_more_than_two_thirds_because_exactly_a_third_could_fork_it_otherwise() -> None:
    seeds = range(8)
    with MUTANTS["quorum-two-thirds"]():
        assert UNSAFE & {find_fork_with_a_third(seed) for seed in seeds}
    assert {find_fork_with_a_third(seed) for seed in seeds} == {""}


def make_lan(weather: Weather, byzantine: frozenset[int] = frozenset()) -> Network:
    return make_network(Plan(1, (1, 1, 1, 1), byzantine, "lying-sync", weather, 0, 0, 0, 0))


@pytest.mark.parametrize("mutant, is_final", [("", True), ("delay-reset", False)])
def test_links_slower_than_the_first_delay_end_in_finality_only_if_delays_grow_from_it(
    mutant: str, is_final: bool
) -> None:
    with MUTANTS[mutant]() if mutant else nullcontext():
        network = make_lan(Weather(400, 450, 0))
        network.start()
        submit(network, 0, b"work")
        network.world.run(60_000, lambda: network.get_height() >= 3)
    assert (network.get_height() >= 3) == is_final


@pytest.mark.parametrize("mutant, survives", [("", True), ("body-not-durable", False)])
def test_a_block_that_everybody_accepted_survives_everybody_dying_at_once(mutant: str, survives: bool) -> None:
    """Its leader, the only one who would still have it without R2's durable bodies, is never heard of again."""
    with MUTANTS[mutant]() if mutant else nullcontext():
        network = make_lan(Weather(20, 20, 0), frozenset({2}))
        network.watch.ignored = ACCUSED | {"liveness"}
        network.start()
        for number in range(400):
            submit(network, 10 * number, b"%d" % number)
        network.world.run(60_000, lambda: is_accepted_by_all(network, 2))
        assert network.world.now_ms < 60_000
        height = network.get_height()
        network.world.actors[2] = Silent()
        for node in network.honest:
            network.world.remind(node.address, 0, Crash(0, 200))
        run_calm(network)
    assert (network.get_height() > height + 1) == survives


def is_accepted_by_all(network: Network, leader: int) -> bool:
    """Whether every honest log, as it would survive now, holds a Notar for a block of this leader's that no certificate names."""
    for view in {vote.view for vote in network.honest[0].wal if isinstance(vote, Vote)}:
        records = [node.state.views.get(view) for node in network.honest]
        if all(record is not None and record.leader == leader and not record.certs for record in records) and all(
            any(isinstance(vote, Vote) and (vote.kind, vote.view) == (VoteKind.NOTAR, view) for vote in node.wal)
            for node in network.honest
        ):
            return True
    return False


@pytest.mark.parametrize("led", list_schedules(2))
def test_no_state_of_two_views_breaks_an_invariant(led: frozenset[int]) -> None:
    found = search(make_model(2, 1, led))
    assert found.broken == "", found.state
    assert found.states > 2_500


@pytest.mark.parametrize("led", list_schedules(2))
def test_two_of_four_byzantine_break_the_model(led: frozenset[int]) -> None:
    assert search(make_model(2, 2, led)).broken


@pytest.mark.parametrize("broken", BREAKABLE)
def test_every_rule_but_the_own_notar_is_needed_for_safety_in_the_model(broken: str) -> None:
    """The own Notar of R3 is for accountability alone: without it honest validators accuse themselves, and nothing forks."""
    found = [search(make_model(2, 1, led, broken), judged=False).broken for led in list_schedules(2)]
    assert any(found) == (broken != "own-notar"), found
    if broken == "own-notar":
        assert all(search(make_model(2, 1, led, broken)).broken for led in list_schedules(2))
