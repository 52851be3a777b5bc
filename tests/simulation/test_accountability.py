"""With half of the weight Byzantine a network can fork; every fork convicts at least a third of the weight, and nobody honest."""

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
    """Keeps every verified vote and proposal that an honest node ever held, beyond what the node itself drops."""

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
        for record in self.node.state.views.values():
            self.votes.update(record.votes.values())
            for evidence in record.evidence:
                self.votes.update(evidence.votes or ())
                self.proposals.update(evidence.proposals or ())
            if record.signed is not None:
                self.proposals.add(record.signed)


def find_culprits(memories: list[Memory]) -> set[int]:
    """Whom all honest nodes together can convict."""
    cast: dict[tuple[int, int], set[Vote]] = {}
    for vote in set[Vote]().union(*(memory.votes for memory in memories)):
        cast.setdefault((vote.signer, vote.view), set()).add(vote)
    proposed: dict[tuple[int, int], set[bytes]] = {}
    for signed in set[SignedProposal]().union(*(memory.proposals for memory in memories)):
        proposed.setdefault((signed.signer, signed.view), set()).add(signed.block_hash)
    return {
        signer
        for (signer, _), votes in cast.items()
        if any(find_vote_conflict(first, second) is not None for first in votes for second in votes)
    } | {signer for (signer, _), hashes in proposed.items() if len(hashes) > 1}


def run_until_fork(plan: Plan) -> tuple[str, Network, list[Memory]]:
    network = make_network(plan)
    network.watch.ignored = frozenset({"charged", "liveness"})
    memories = [Memory(node) for node in network.honest]
    for memory in memories:
        network.world.actors[memory.node.address] = memory
    try:
        if plan.adversary == "twins":  # one twin of each key on either side, with one honest node
            network.world.groups = {0: 0, 3: 1, 1: 0, 4: 1, 2: 0, 5: 1}
        raise_storm(network, plan)
        network.start()
        network.world.run(plan.storm_ms, lambda: False)
        network.world.groups = {}
        run_calm(network)
    except Violation as violation:
        return violation.name, network, memories
    return "", network, memories


@pytest.mark.parametrize("adversary, fewest", [("twins", 8), ("evil", 2)])
def test_every_fork_convicts_a_third_of_the_weight_and_nobody_honest(adversary: str, fewest: int) -> None:
    forks = 0
    for seed in range(10):
        plan = Plan(seed, (1, 1, 1, 1), frozenset({1, 2}), adversary, RAIN, 3_000, 0, 0, 10)
        name, network, memories = run_until_fork(plan)
        culprits = find_culprits(memories)
        assert culprits <= plan.byzantine, (seed, name)
        assert name != "framed", seed
        if name in FORKS:
            forks += 1
            assert 3 * len(culprits) >= len(network.watch.context.validators.members), (seed, name, culprits)
    assert forks >= fewest
