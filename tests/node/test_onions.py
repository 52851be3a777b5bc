"""Hash onions of whole nodes: renewed before they end, derived again after a restart, revealed only where others accept it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from node.keys import derive_key
from node.onions import Onions
from protocol.jobs.beacon import Onion
from protocol.ledger.queries import get_onion
from protocol.params import MINIMAL
from tests.node.harness import open_world
from tests.protocol.builders import make_genesis, make_key, make_onion, start_chain
from tests.protocol.ledger.test_onions import renew

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 24
NAMES = ("v0", "v1", "v2", "v3")


async def test_a_network_outlives_its_first_onions_and_a_restart_between(homes: Path, autojump_clock: object) -> None:
    genesis = make_genesis(NAMES, params=replace(MINIMAL, idle_interval_ms=100))
    short = [
        replace(entry, onion_tip=make_onion(name, LAYERS).tip)
        for name, entry in zip(NAMES, genesis.validators, strict=True)
    ]
    async with open_world(homes, genesis=replace(genesis, validators=tuple(short)), running=0) as world:
        for node in world.nodes:
            node.onion_layers = LAYERS
        await world.start(*world.nodes)
        await world.wait_height(60)
        await world.restart(world.nodes[1])
        await world.wait_height(LAYERS * len(NAMES) + 20)  # more blocks than the first onions had layers
        for node in world.nodes:
            onion = get_onion(node.ledger, node.id)
            assert onion is not None and onion.renewals >= 1
            assert not node.list_events("onion_exhausted")


def test_a_renewal_is_due_at_half_an_onion_and_said_once_a_period() -> None:
    chain = start_chain()
    onions = Onions(make_key("v0").public, lambda renewals: make_onion(f"v0 {renewals}" if renewals else "v0", 8))
    asked: list[int] = []
    for _ in range(3 * MINIMAL.epoch_heights):
        found = onions.find_renewal(chain.ledger)
        stored = get_onion(chain.ledger, make_key("v0").public)
        assert stored is not None
        if found is not None:
            assert found == (make_onion("v0 1", 8).tip, 1) and 2 * stored.slots >= 8
            asked.append(chain.ledger.chain.snapshot_height)
        chain.step()
    assert asked and len(asked) == len(set(asked))


def test_nothing_is_due_while_the_next_onion_waits() -> None:
    chain = start_chain()
    chain.run(2 * MINIMAL.epoch_heights)
    chain.step(renew(chain, "v0", make_onion("v0 1").tip))
    onions = Onions(make_key("v0").public, lambda _: make_onion("v0", 2))
    assert onions.find_renewal(chain.ledger) is None


def test_a_node_whose_onion_is_not_the_registered_one_reveals_nothing() -> None:
    chain = start_chain()
    node = make_key("v0").public
    assert Onions(node, lambda _: make_onion("v0")).reveal(chain.ledger, 1) == make_onion("v0").reveal(1)
    assert Onions(node, lambda _: make_onion("another")).reveal(chain.ledger, 1) is None
    assert Onions(node, lambda _: make_onion("v0")).reveal(chain.ledger, 4097) is None
    assert Onions(node, None).reveal(chain.ledger, 1) is None
    assert Onions(make_key("asker").public, lambda _: make_onion("v0")).reveal(chain.ledger, 1) is None


def test_every_renewal_has_a_secret_of_its_own_and_the_first_is_the_key_s() -> None:
    key = derive_key(bytes(32))
    secrets = [key.derive_onion_secret(renewals) for renewals in range(4)]
    assert secrets[0] == key.onion_secret
    assert len({Onion(secret, 4).tip for secret in secrets}) == 4
