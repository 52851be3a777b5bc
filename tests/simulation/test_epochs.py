"""Where one epoch ends and the next begins: who joins, who leaves, who is late, who dies, and who makes trouble there."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from protocol.ordering.effects import CatchUp, Effect, FetchCerts
from protocol.ordering.justification import is_again
from protocol.ordering.messages import QuorumCert
from protocol.validators import index_of
from protocol.voting import Vote, VoteKind
from tests.simulation.epoch_mutants import EPOCH_MUTANTS
from tests.simulation.invariants import Violation
from tests.simulation.keys import make_public
from tests.simulation.node import SimulatedNode
from tests.simulation.parcels import Crash, Letter
from tests.simulation.schedule import Network, Plan, make_network, make_plan, run_calm, run_schedule, submit
from tests.simulation.stakes import RESTAKE
from tests.simulation.test_faults import Gate
from tests.simulation.world import Weather

LAN = Weather(1, 2, 0)
HEIGHTS = 4
QUIET = frozenset({"charged", "framed", "false-evidence", "light-client"})


def make_epochs(
    weights: tuple[int, ...] = (1, 1, 1, 1),
    *,
    spares: int = 0,
    adversary: str = "none",
    byzantine: frozenset[int] = frozenset(),
    transactions: int = 60,
    seed: int = 1,
) -> Network:
    """Epochs of four heights on a quick network, with work all the time."""
    plan = Plan(seed, weights, byzantine, adversary, LAN, 0, 0, 0, 0, HEIGHTS, spares)
    network = make_network(plan)
    for number in range(transactions):
        submit(network, 100 * number, b"%d" % number)
    return network


def run(network: Network, duration_ms: int) -> None:
    network.world.run(network.world.now_ms + duration_ms, lambda: False)


def restake(network: Network, identity: int, stake: int, delay_ms: int = 0) -> None:
    submit(network, delay_ms, b"%s %d %d" % (RESTAKE, identity, stake))


def list_voters(network: Network, epoch: int) -> set[int]:
    """Whose votes of an epoch are in some honest node's last certificate of it."""
    context = network.watch.epochs[epoch]
    certs = [node.ends[epoch][1] for node in network.honest]
    signers = {context.validators.members[signer].node for cert in certs for signer in cert.signers}
    return {network.watch.names.index(node) for node in signers}


def list_members(network: Network, epoch: int) -> dict[int, int]:
    """Identity -> weight in an epoch."""
    members = network.watch.epochs[epoch].validators.members
    return {network.watch.names.index(member.node): member.weight for member in members}


def test_reconfigurer() -> None:
    """One joins, one leaves, one changes its weight, epoch after epoch; everybody follows and nothing is skipped."""
    network = make_epochs(spares=2)
    changes = [(4, 1), (0, 0), (1, 3), (5, 2), (0, 1), (4, 0), (2, 0), (1, 1)]
    for number, (identity, stake) in enumerate(changes):
        restake(network, identity, stake, 50 + 500 * number)
    network.start()
    run(network, 8_000)
    assert network.get_ends() >= 6
    assert network.watch.null == set()
    tables = [list_members(network, epoch) for epoch in range(network.get_ends())]
    assert tables[0] == tables[1] == {0: 1, 1: 1, 2: 1, 3: 1}  # what changes in the first epoch acts two epochs later
    assert 4 in tables[2]
    assert len({tuple(table.items()) for table in tables}) >= 5
    for epoch, table in enumerate(tables):
        assert list_voters(network, epoch) <= set(table)
    run_calm(network)


def test_who_joined_votes_and_leads_and_who_left_follows() -> None:
    network = make_epochs(spares=1)
    restake(network, 4, 1)
    restake(network, 0, 0)
    network.start()
    run(network, 4_000)
    last = network.get_ends() - 1
    assert last >= 3
    assert set(list_members(network, last)) == {1, 2, 3, 4}
    leaver, joiner = network.honest[0], network.honest[4]
    assert leaver.context.own is None
    assert leaver.tip.height >= network.get_height()
    assert joiner.context.own == index_of(network.watch.epochs[last].validators, make_public(4))
    late = [place for place in network.watch.cast if place[1] >= 2]
    assert {network.watch.names.index(node) for node, _, _ in late} == {1, 2, 3, 4}
    assert {network.watch.names.index(node) for node, epoch, _ in network.watch.proposed if epoch >= 2} >= {4}


def test_newcomers_stand_behind_those_who_stay_so_that_few_numbers_change() -> None:
    network = make_epochs(spares=2)
    for identity in (4, 5):
        restake(network, identity, 1)
    restake(network, 1, 0)
    network.start()
    run(network, 3_000)
    names = [network.watch.names.index(member.node) for member in network.watch.epochs[2].validators.members]
    assert names[:3] == [0, 2, 3]
    assert sorted(names[3:]) == [4, 5]


def test_a_node_two_epochs_behind_catches_up_epoch_by_epoch_and_votes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_epochs(transactions=120)
    sleeper, asked, caught_up = network.honest[3], list[int](), list[int]()
    perform = SimulatedNode.perform_one

    def note(node: SimulatedNode, effect: Effect) -> None:
        if node is sleeper and isinstance(effect, FetchCerts):
            asked.append(effect.epoch)
        if node is sleeper and isinstance(effect, CatchUp):
            caught_up.append(effect.target.epoch)
        perform(node, effect)

    monkeypatch.setattr(SimulatedNode, "perform_one", note)
    network.start()
    run(network, 300)
    began = len(sleeper.ends)
    network.world.remind(sleeper.address, 0, Crash(0, 3_000))
    run(network, 2_990)
    ahead = len(network.honest[0].ends)
    assert ahead >= began + 2
    run(network, 1_000)
    assert len(sleeper.ends) >= ahead
    assert {*range(began, ahead)} <= set(caught_up)
    assert set(asked) >= {*range(began, ahead)}
    run(network, 1_500)
    assert any(node == sleeper.peer and epoch > ahead for node, epoch, _ in network.watch.cast)
    assert network.watch.charged == set()


def hides_finality(_: int, letter: Letter) -> bool:
    return isinstance(letter.message, (Vote, QuorumCert)) and letter.message.kind == VoteKind.FINAL


def make_stuck() -> tuple[Network, list[Gate]]:
    """A network in which no Final vote arrives, up to where the first epoch's last block is notarized."""
    network = make_epochs()
    gates = [Gate(node, hides_finality) for node in network.honest]
    for gate in gates:
        network.world.actors[gate.node.address] = gate
    network.start()
    return network, gates


def list_boundaries(node: SimulatedNode) -> set[bytes]:
    """The notarized blocks of the first epoch's last height, as far as a node holds them."""
    held = node.state.blocks
    notars = {record.notar.block_hash for record in node.state.views.values() if record.notar is not None}
    return {name for name in notars if name in held and held[name].block.header.height == HEIGHTS}


def test_a_boundary_is_proposed_again_and_nothing_above_it_until_it_is_final() -> None:
    network, gates = make_stuck()
    run(network, 6_000)
    node = network.honest[0]
    assert all(not node.ends for node in network.honest)
    assert len(list_boundaries(node)) == 1
    again = [record.proposal.proposal for record in node.state.views.values() if record.proposal is not None]
    assert sum(is_again(proposal) for proposal in again) >= 3
    assert all(proposal.block.body == () for proposal in again if is_again(proposal))
    assert max(held.block.header.height for held in node.state.blocks.values()) == HEIGHTS
    for gate in gates:
        gate.open(lambda _, letter: False)
    run(network, 2_000)
    assert network.get_ends() >= 2
    start = network.watch.epochs[1].start
    assert min(view for epoch, view in network.watch.notar if epoch == 1) == start.view + 1
    assert start.view < max(view for epoch, view in network.watch.notar if epoch == 0)  # numbers of views come twice
    run_calm(network)


def test_a_boundary_that_took_long_is_still_found_by_somebody_who_was_away() -> None:
    network, gates = make_stuck()
    sleeper = network.honest[2]
    run(network, 150)
    network.world.remind(sleeper.address, 0, Crash(0, 6_000))
    run(network, 5_000)
    for gate in gates:
        gate.open(lambda _, letter: False)
    run(network, 3_000)
    assert sleeper.tip.height >= network.get_height() - 1 >= HEIGHTS
    run_calm(network)


def test_everybody_dies_at_the_boundary_again_and_again() -> None:
    network = make_epochs()
    network.start()
    for epoch in range(1, 5):
        for _ in range(200):
            run(network, 5)
            if max(node.tip.height for node in network.honest) >= HEIGHTS * epoch - 1:
                break
        for node in network.honest:
            network.world.remind(node.address, 0, Crash(epoch * 2, 50))
        run(network, 300)
    run_calm(network)


def test_whoever_is_one_hop_late_takes_what_came_early() -> None:
    """It lacks the boundary's Final votes; the others' first proposal and votes of the next epoch wait for it."""
    network = make_epochs()
    late = network.honest[1]
    gate = Gate(late, lambda _, letter: hides_finality(_, letter) and letter.message.view >= HEIGHTS)
    network.world.actors[late.address] = gate
    network.start()
    network.world.run(10_000, lambda: any(late.state.early.values()))
    run(network, 20)
    assert late.context.epoch == 0
    assert network.honest[0].context.epoch == 1
    kinds = {type(message.event).__name__ for kept in late.state.early.values() for message in kept}
    assert {"VoteReceived", "CertReceived"} & kinds
    gate.open(lambda _, letter: False)
    run(network, 200)
    assert late.context.epoch >= 1
    assert network.watch.charged == set()


@pytest.mark.parametrize("adversary", ["changeling", "herald", "replayer"])
def test_who_makes_trouble_at_the_boundary_holds_nobody_up(adversary: str) -> None:
    network = make_epochs(adversary=adversary, byzantine=frozenset({2}))
    network.start()
    run(network, 8_000)
    assert network.get_ends() >= 4
    assert network.watch.charged <= {2}
    for node in network.honest:
        assert sum(len(kept) for kept in node.state.early.values()) <= 64 * 4
    run_calm(network)


def run_kept_back(mutant: str) -> str:
    """The boundary is final at one validator only, and a changeling would rather have another block: the invariant that breaks."""
    network = make_epochs(adversary="changeling", byzantine=frozenset({2}))
    network.watch.ignored = QUIET
    keeper = network.honest[0]

    def hides_last(address: int, letter: Letter) -> bool:
        return hides_finality(address, letter) and (
            not keeper.ends or letter.message.block_hash == keeper.ends[0][0].block_hash
        )

    for address in (1, 2, 3):
        actor = network.world.actors[address]
        assert isinstance(actor, SimulatedNode)
        network.world.actors[address] = Gate(actor, hides_last)
    try:
        with EPOCH_MUTANTS[mutant]() if mutant else nullcontext():
            network.start()
            run(network, 10_000)
    except Violation as violation:
        return violation.name
    assert len(keeper.ends) == 1
    assert {len(node.ends) for node in network.honest[1:]} == {0}
    return ""


def test_a_boundary_that_one_validator_knows_to_be_final_cannot_be_changed_for_another() -> None:
    assert run_kept_back("") == ""
    assert run_kept_back("another-reproposed") == "prefix"


# mutant, seeds, epoch's length (0: the seed's own), what is left aside, what shows it
CAUGHT: list[tuple[str, tuple[int, ...], int, frozenset[str], set[str]]] = [
    ("set-on-sight", (2, 3, 5, 7, 9), 0, frozenset(), {"charged", "light-client"}),
    ("boundary-not-final", (4, 34, 36, 62, 63), 1, QUIET, {"prefix"}),
]
ELSEWHERE = {"another-reproposed", "later-records-dropped"}  # above, and in test_crashes.py


@pytest.mark.parametrize("mutant, seeds, heights, ignored, names", CAUGHT)
def test_a_broken_rule_about_epochs_shows_on_a_listed_seed(
    mutant: str, seeds: tuple[int, ...], heights: int, ignored: frozenset[str], names: set[str]
) -> None:
    plans = [make_plan(seed, "none") for seed in seeds]
    plans = [replace(plan, epoch_heights=heights) if heights else plan for plan in plans]
    with EPOCH_MUTANTS[mutant]():
        broken = {plan.seed: run_schedule(plan, ignored).violation for plan in plans}
    assert names & set(broken.values()), broken
    assert [run_schedule(plan).text for plan in plans] == [""] * len(plans)


def test_every_broken_rule_about_epochs_is_caught_somewhere() -> None:
    assert {row[0] for row in CAUGHT} | ELSEWHERE == set(EPOCH_MUTANTS)
