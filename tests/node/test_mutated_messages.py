"""A whole node among mutated frames, gossip and answers: it goes on making blocks final, and blames nobody honest."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from node.network import DirectMessage, GossipMessage
from node.wire import TOPIC_CERTIFICATES, TOPIC_TRANSACTIONS
from tests.fuzz.choices import SeededChoices
from tests.fuzz.mutation import mutate
from tests.fuzz.shapes import Packed
from tests.fuzz.targets_wire import list_transactions
from tests.node.harness import open_world
from tests.protocol.builders import make_genesis, make_hash, make_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.node.harness import LiveNode, World

INPUTS = 400
AT_ONCE = 20


class Liar:
    """Mutates what it has overheard, the same in every run."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.choices = SeededChoices(self.random)

    def distort(self, heard: list[bytes], prefix: int) -> bytes:
        """One of these, mutated."""
        return mutate(self.random.choice(heard), heard, Packed(prefix), self.choices)

    def wrap(self, honest: Callable[[bytes, bytes], Awaitable[bytes]]) -> Callable[[bytes, bytes], Awaitable[bytes]]:
        """A node's own answers to what others fetch, three of four of them mutated."""

        async def answer(node: bytes, request: bytes) -> bytes:
            content = await honest(node, request)
            return content if self.random.random() < 0.25 else self.distort([content], 0)

        return answer


def list_honest_charges(world: World, victim: LiveNode) -> set[str]:
    """Whom of the network's own nodes the victim charged."""
    return {node.id.hex() for node in world.nodes} & set(victim.count_charges())


async def test_a_node_among_mutated_messages_goes_on(homes: Path, autojump_clock: object) -> None:
    liar = Liar(11)
    async with open_world(homes) as world:
        await world.nodes[1].service.submit_job(make_request(), None)
        await world.wait_height(8)
        victim = world.nodes[0]
        heard = [data for _, data in world.hub.sent]
        for index in range(INPUTS):
            stranger = make_hash(f"stranger {index}")  # ever new ones, so that none is muted
            victim.push(DirectMessage(stranger, liar.distort(heard, 1)))
            topic = liar.random.choice((TOPIC_TRANSACTIONS, TOPIC_CERTIFICATES))
            victim.push(GossipMessage(topic, stranger, liar.distort([*heard, *list_transactions()], 0)))
            if index % AT_ONCE == 0:
                await victim.node.engine.wait_finalized()
        await world.wait_height(victim.height + 3)
        assert not list_honest_charges(world, victim)
        assert len(victim.count_charges()) > INPUTS // 4
        assert not victim.list_events("callback_fault") and not victim.list_events("ordering_halted")


async def test_a_node_that_catches_up_among_mutated_answers_gets_there(homes: Path, autojump_clock: object) -> None:
    names = tuple(f"v{index}" for index in range(4))
    async with open_world(homes, genesis=make_genesis(names)) as world:
        behind, liars = world.nodes[3], world.nodes[:2]
        await world.wait_height(2)
        await behind.stop()
        await world.wait_height(24, world.nodes[:3])
        for seed, node in enumerate(liars):
            port = world.hub.ports[node.id]
            port.handler = Liar(seed).wrap(port.handler)
        await world.start(behind)
        await behind.wait_height(26)
        assert behind.count_charges() and set(behind.count_charges()) <= {node.id.hex() for node in liars}
        assert not behind.list_events("ordering_halted")
