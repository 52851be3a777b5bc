"""With a third of the weight and more Byzantine a network can fork; every fork convicts at least a third of it, and nobody honest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from protocol.evidence import find_vote_conflict
from protocol.ordering.messages import Vote
from protocol.voting import SignedProposal
from tests.simulation.invariants import Violation
from tests.simulation.schedule import Network, Plan, make_network, raise_storm, run_calm
from tests.simulation.world import RAIN

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode

FORKS = {"prefix", "unique-final", "halted", "final-and-null", "unique-notar"}


class Memory:
    """Keeps every verified vote and proposal that an honest node ever held, beyond what the node itself drops.

    Of its own ones those that are in its log: what a crash kept from the disk was never sent, and binds nobody.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self.node = node
        self.votes: set[Vote] = set()
        self.proposals: set[SignedProposal] = set()

    def take(self, now_ms: int, parcel: object) -> None:
        try:
            self.node.take(now_ms, parcel)
        finally:  # the step that shows the fork counts as well
            self.note()

    def note(self) -> None:
        own = self.node.context.own
        for record in self.node.state.views.values():
            self.votes.update(vote for vote in record.votes.values() if vote.signer != own or vote in self.node.durable)
            for evidence in record.evidence:
                self.votes.update(evidence.votes or ())
                self.proposals.update(evidence.proposals or ())
            if record.signed is not None and record.signed.signer != own:
                self.proposals.add(record.signed)


def find_culprits(memories: list[Memory]) -> set[int]:
    """Whom all honest nodes together can convict; the table is the same in every epoch here."""
    cast: dict[tuple[int, int, int], set[Vote]] = {}
    for vote in set[Vote]().union(*(memory.votes for memory in memories)):
        cast.setdefault((vote.signer, vote.epoch, vote.view), set()).add(vote)
    proposed: dict[tuple[int, int, int], set[bytes]] = {}
    for signed in set[SignedProposal]().union(*(memory.proposals for memory in memories)):
        proposed.setdefault((signed.signer, signed.epoch, signed.view), set()).add(signed.block_hash)
    return {
        signer
        for (signer, _, _), votes in cast.items()
        if any(find_vote_conflict(first, second) is not None for first in votes for second in votes)
    } | {signer for (signer, _, _), hashes in proposed.items() if len(hashes) > 1}


def run_until_fork(plan: Plan) -> tuple[str, Network, list[Memory]]:
    network = make_network(plan)
    network.watch.ignored = frozenset({"charged", "liveness"})
    memories = [Memory(node) for node in network.honest]
    for memory in memories:
        network.world.actors[memory.node.address] = memory
    try:
        if plan.adversary == "twins":
            network.world.groups = choose_sides(network, plan)
        raise_storm(network, plan)
        network.start()
        network.world.run(plan.storm_ms, lambda: False)
        network.world.groups = {}
        run_calm(network)
    except Violation as violation:
        return violation.name, network, memories
    return "", network, memories


def choose_sides(network: Network, plan: Plan) -> dict[int, int]:
    """One twin of each key on either side, and about half of the honest weight."""
    members, reach = network.watch.context.validators.members, network.addresses.reach
    groups = {address: side for index in plan.byzantine for side, address in enumerate(reach(members[index].node))}
    weight = [0, 0]
    for node in sorted(network.honest, key=lambda node: -plan.weights[node.address]):
        side = 0 if weight[0] <= weight[1] else 1
        groups[node.address] = side
        weight[side] += plan.weights[node.address]
    return groups


def count_forks(weights: tuple[int, ...], byzantine: set[int], adversary: str, seeds: int, crashes: int) -> int:
    """How many schedules fork. Each fork must convict a third of the weight; no schedule convicts anybody honest."""
    forks = 0
    for seed in range(seeds):
        plan = Plan(seed, weights, frozenset(byzantine), adversary, RAIN, 3_000, crashes, 0, 10)
        name, _, memories = run_until_fork(plan)
        culprits = find_culprits(memories)
        assert culprits <= plan.byzantine, (seed, name)
        assert name != "framed", seed
        if name in FORKS:
            forks += 1
            assert 3 * sum(weights[index] for index in culprits) >= sum(weights), (seed, name, culprits)
    return forks


@pytest.mark.parametrize(
    "weights, byzantine",
    [
        ((1, 1, 1, 1), {1, 2}),
        ((5, 4, 3, 4), {0, 2}),
        ((3, 2, 2, 3), {0, 3}),
        ((4, 1, 1, 1, 1, 1, 1), {0}),
        ((1,) * 7, {0, 1, 2}),
        ((1,) * 7, {1, 3, 4, 6}),
        ((1,) * 10, {0, 2, 5, 9}),
    ],
)
def test_every_fork_by_twins_convicts_a_third_of_the_weight_and_nobody_honest(
    weights: tuple[int, ...], byzantine: set[int]
) -> None:
    share = sum(weights[index] for index in byzantine) / sum(weights)
    assert 1 / 3 < share < 2 / 3
    assert count_forks(weights, byzantine, "twins", 16, 0) >= 8
    count_forks(weights, byzantine, "twins", 4, 6)


@pytest.mark.parametrize("adversary, fewest", [("evil", 3), ("forger", 8)])
def test_every_fork_by_liars_convicts_a_third_of_the_weight_and_nobody_honest(adversary: str, fewest: int) -> None:
    forks = [
        count_forks(weights, byzantine, adversary, 10, 0)
        for weights, byzantine in (((1, 1, 1, 1), {1, 2}), ((5, 4, 3, 4), {0, 2}), ((3, 2, 2, 3), {0, 3}))
    ]
    assert sum(forks) >= fewest, forks


def test_exactly_a_third_cannot_fork() -> None:
    """More than two thirds are a quorum, so two of them share more than a third."""
    for weights in ((1, 1, 1), (1, 1, 1, 1, 1, 1), (2, 1, 1, 1, 1)):
        byzantine = {0} if len(weights) != 6 else {0, 1}
        assert count_forks(weights, byzantine, "twins", 6, 0) == 0
