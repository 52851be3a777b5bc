"""Situations with a name: what a small network does when exactly this happens to it."""

from __future__ import annotations

import pytest

from protocol.ordering.effects import CatchUp, Effect
from protocol.ordering.messages import QuorumCert, Vote, VoteKind
from protocol.ordering.state import BlockStatus
from tests.simulation.node import SimulatedNode
from tests.simulation.parcels import Crash
from tests.simulation.schedule import PARAMS, Network, Plan, make_network, run_calm, submit
from tests.simulation.world import CALM, Weather

LAN = Weather(1, 2, 0)


def make_calm(
    weights: tuple[int, ...] = (1, 1, 1, 1), byzantine: frozenset[int] = frozenset(), seed: int = 1
) -> Network:
    adversary = "silent" if byzantine else "none"
    return make_network(Plan(seed, weights, byzantine, adversary, LAN, 0, 0, 0, 0))


def run(network: Network, duration_ms: int) -> None:
    network.world.run(network.world.now_ms + duration_ms, lambda: False)


def crash(network: Network, node: SimulatedNode, down_ms: int) -> None:
    network.world.remind(node.address, 0, Crash(0, down_ms))


@pytest.mark.parametrize("weights", [(1,), (1, 1, 1, 1), (5, 4, 3, 4), (1,) * 7, (1,) * 16])
def test_all_online_every_view_becomes_final_and_none_is_skipped(weights: tuple[int, ...]) -> None:
    network = make_calm(weights)
    network.start()
    for number in range(40):
        submit(network, number * 50, b"%d" % number)
    run(network, 2_500)
    assert network.get_height() >= 20
    assert network.watch.null == set()
    assert all(not node.application.has_work() for node in network.honest)


def test_an_idle_network_makes_a_block_each_idle_interval_and_skips_none() -> None:
    network = make_calm()
    network.start()
    run(network, 30 * PARAMS.idle_interval_ms)
    assert 28 <= network.get_height() <= 30
    assert network.watch.null == set()


def test_a_transaction_in_an_idle_network_is_final_within_a_few_hops() -> None:
    network = make_calm()
    network.start()
    run(network, 5_300)
    submit(network, 0, b"now")
    run(network, 3 * 2 + PARAMS.pace_ms)
    assert all(not node.application.has_work() for node in network.honest)
    run(network, 10_000)
    assert network.watch.null == set()


def test_one_silent_validator_costs_only_its_own_views() -> None:
    network = make_calm(byzantine=frozenset({2}))
    network.start()
    for number in range(100):
        submit(network, number * 100, b"%d" % number)
    run(network, 12_000)
    assert network.get_height() >= 30
    assert network.watch.list_null_leaders() == {2}


def test_more_than_a_third_down_halts_without_a_fork_and_resumes() -> None:
    network = make_calm()
    network.start()
    run(network, 3_000)
    for node in network.honest[2:]:
        crash(network, node, 20_000)
    run(network, 1_000)
    height = max(node.tip.height for node in network.honest)
    run(network, 18_000)
    assert max(node.tip.height for node in network.honest) <= height + 1
    run(network, 2_000)
    run_calm(network)


def test_all_crash_after_nullify() -> None:
    """Everybody votes Null, everybody dies before anybody holds the certificate: the votes come back from the logs."""
    network = make_calm()
    network.start()
    network.world.weather = Weather(5_000, 5_000, 0)  # votes are cast, and arrive long after everybody is dead
    submit(network, 0, b"work")
    run(network, 1_500)
    cast = [
        vote for node in network.honest for vote in node.wal if isinstance(vote, Vote) and vote.kind == VoteKind.NULL
    ]
    assert len(cast) == 4
    for node in network.honest:
        crash(network, node, 4_000)
    run(network, 100)
    network.world.heap = [entry for entry in network.world.heap if type(entry[3]).__name__ == "Restart"]
    network.world.weather = CALM
    run(network, 8_000)
    assert {(vote.epoch, vote.view) for vote in cast} <= network.watch.null
    run_calm(network)


def test_everybody_restarts_at_once_again_and_again() -> None:
    network = make_calm()
    network.start()
    for round_number in range(12):
        submit(network, 0, b"%d" % round_number)
        run(network, 37 * round_number)
        for node in network.honest:
            network.world.remind(node.address, 0, Crash(round_number % 5, 100))
        run(network, 300)
    run_calm(network)


def test_a_node_that_was_long_away_catches_up_by_range_and_votes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_calm()
    sleeper, caught_up = network.honest[3], list[int]()
    perform = SimulatedNode.perform_one

    def note(node: SimulatedNode, effect: Effect) -> None:
        if isinstance(effect, CatchUp):
            caught_up.append(node.address)
        perform(node, effect)

    monkeypatch.setattr(SimulatedNode, "perform_one", note)
    network.start()
    run(network, 500)
    crash(network, sleeper, 10_000)
    for number in range(120):
        submit(network, number * 60, b"%d" % number)
    run(network, 10_400)
    assert network.honest[0].tip.height >= 40
    run_calm(network)
    assert set(caught_up) == {sleeper.address}
    assert sleeper.tip.height >= 40
    run(network, 3_000)
    recent = network.honest[0].state.views.values()
    assert any(signer == sleeper.context.own for record in recent for _, signer in record.votes)


def test_a_partition_without_a_quorum_stops_and_heals() -> None:
    network = make_calm()
    network.start()
    run(network, 2_000)
    network.world.groups = {0: 0, 1: 0, 2: 1, 3: 1}
    run(network, 300)
    height = max(node.tip.height for node in network.honest)
    run(network, 20_000)
    assert max(node.tip.height for node in network.honest) == height
    run_calm(network)


def test_a_partition_with_a_quorum_goes_on_and_the_rest_catches_up() -> None:
    network = make_calm()
    network.start()
    network.world.groups = {0: 0, 1: 0, 2: 0, 3: 1}
    for number in range(60):
        submit(network, number * 100, b"%d" % number)
    run(network, 8_000)
    heights = [node.tip.height for node in network.honest]
    assert min(heights[:3]) >= 15
    assert heights[3] == 0
    run_calm(network)


def test_a_stalled_network_repeats_itself_within_its_budget() -> None:
    network = make_calm()
    network.start()
    network.world.groups = {0: 0, 1: 0, 2: 1, 3: 1}
    submit(network, 0, b"work")
    run(network, 30_000)
    before = network.world.count
    network.world.groups = {0: 0, 1: 1, 2: 2, 3: 3}
    run(network, 60_000)
    assert network.world.count - before < 60 * 4 * 20


def test_clocks_that_differ_by_less_than_the_drift_cost_nothing() -> None:
    network = make_calm()
    for node, skew in zip(network.honest, (-200, 200, 0, 100), strict=True):
        node.skew_ms = skew
    network.world.now_ms = 1_000
    network.start()
    for number in range(60):
        submit(network, number * 50, b"%d" % number)
    run(network, 6_000)
    assert network.get_height() >= 20
    assert network.watch.null == set()


def test_bodies_held_stay_bounded_while_nothing_becomes_final() -> None:
    network = make_calm()
    network.start()
    network.world.groups = {0: 0, 1: 0, 2: 1, 3: 1}
    submit(network, 0, b"work")
    run(network, 120_000)
    for node in network.honest:
        assert len(node.state.views) <= 8
        assert len(node.state.blocks) <= 4
        assert all(held.status == BlockStatus.VALID for held in node.state.blocks.values())


def test_the_final_certificate_of_every_node_satisfies_a_stranger() -> None:
    network = make_calm((3, 2, 2, 3))
    network.start()
    run(network, 4_000)
    for node in network.honest:
        assert isinstance(node.tip_cert, QuorumCert)
        assert node.tip_cert.block_hash == node.tip.block_hash
        network.watch.see_final(node.tip.height, (node.tip.block_hash,), node.tip_cert)
