"""Validators learn of each other's addresses: from themselves, then from others, never one that could only be a trap."""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from node.acquaintances import ASK_MS, DIAL_MS, Acquaintances
from node.network import Limits
from node.wire import Addresses
from protocol.params import MINIMAL
from tests.node.harness import open_world
from tests.node.loopback import make_config as make_network_config
from tests.node.loopback import node_id, running, wait_until
from tests.protocol.builders import make_genesis, make_key

if TYPE_CHECKING:
    from pathlib import Path

    from node.errands import Errands
    from node.network import Network, PeerAddress

OWN, A, B, C = (make_key(name).public for name in ("own", "a", "b", "c"))
HERE, THERE = "/ip4/203.0.113.7/tcp/7550", "/ip4/203.0.113.8/tcp/7550"


@dataclass
class Roads:
    """As much of a network and of errands as acquaintances use."""

    hosts: dict[bytes, str] = field(default_factory=dict)
    kept: dict[bytes, str] = field(default_factory=dict)
    expected: frozenset[bytes] = frozenset()
    asked: list[bytes] = field(default_factory=list)
    addresses: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/7550/p2p/x",)

    def connected(self) -> frozenset[bytes]:
        return frozenset(self.hosts)

    def find_host(self, node: bytes) -> str | None:
        return self.hosts.get(node)

    def expect(self, nodes: frozenset[bytes]) -> None:
        self.expected = nodes

    def keep(self, peer: PeerAddress) -> None:
        self.kept[peer.node_id] = peer.multiaddr

    def let_go(self, node: bytes) -> None:
        self.kept.pop(node, None)

    def fetch_addresses(self, peer: bytes) -> None:
        self.asked.append(peer)


def meet(roads: Roads, configured: dict[bytes, str] | None = None) -> Acquaintances:
    made = Acquaintances(OWN, cast("Network", roads), cast("Errands", roads), configured or {})
    made.seek({OWN, A, B}, 0)
    return made


def test_a_validator_that_nobody_configured_is_asked_after_and_dialled_where_others_say() -> None:
    roads = Roads({A: "198.51.100.1"})
    known = meet(roads)
    assert roads.asked == [] and roads.expected == {A, B}
    known.seek({OWN, A, B}, ASK_MS)
    assert roads.asked == [A]
    known.take(A, Addresses(((B, HERE), (C, HERE))))  # of C nobody asked
    known.seek({OWN, A, B}, ASK_MS + 1_000)
    assert roads.kept == {B: HERE}


def test_what_a_node_says_itself_counts_more_than_hearsay_and_is_handed_on() -> None:
    roads = Roads({A: "198.51.100.1", B: "::ffff:203.0.113.8"})
    known = meet(roads)
    known.take(A, Addresses(((B, HERE),)))
    known.hear(B, "/ip4/0.0.0.0/tcp/7550")
    known.take(A, Addresses(((B, HERE),)))
    assert known.list_known().known == ((B, THERE),)
    del roads.hosts[B]
    known.seek({OWN, A, B}, 1_000)
    assert roads.kept == {B: THERE}


def test_a_wrong_address_gives_way_to_the_next_after_a_while() -> None:
    roads = Roads({A: "198.51.100.1"})
    known = meet(roads)
    known.take(A, Addresses(((B, HERE), (B, THERE), *((B, f"/ip4/203.0.113.{host}/tcp/1") for host in range(9)))))
    dialled: list[str] = []
    for turn in range(5):
        known.seek({OWN, A, B}, 1_000 + turn * DIAL_MS)
        dialled.append(roads.kept[B])
    assert dialled[:2] == [HERE, THERE]
    assert dialled[4] == HERE, "four are remembered, whatever is told"


def test_who_is_no_validator_any_more_is_let_go() -> None:
    roads = Roads({A: "198.51.100.1"})
    known = meet(roads)
    known.take(A, Addresses(((B, HERE),)))
    known.seek({OWN, A, B}, 1_000)
    known.seek({OWN, A}, 2_000)
    assert roads.kept == {} and roads.expected == {A}
    assert known.list_known().known == ()


def test_a_configured_peer_is_dialled_by_its_configuration_alone() -> None:
    roads = Roads({A: "198.51.100.1"})
    known = meet(roads, {B: THERE})
    known.take(A, Addresses(((B, HERE),)))
    known.seek({OWN, A, B}, ASK_MS)
    assert roads.kept == {} and roads.asked == [A]
    assert known.list_known().known == ((B, THERE),)


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/127.0.0.1/tcp/22", "/ip6/::1/tcp/22", "/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/tcp/1", "/ip4/169.254.1.1/tcp/80",
        "/ip4/203.0.113.7/tcp/0", "/ip4/203.0.113.7/tcp/99999", "/ip4/203.0.113.7/udp/1", "/ip6/203.0.113.7/tcp/1",
        "/dns4/example.org/tcp/1", "", "/", "x" * 128,
    ],
)  # fmt: skip
def test_no_address_from_hearsay_leads_to_this_machine_or_nowhere(address: str) -> None:
    roads = Roads({A: "198.51.100.1"})
    known = meet(roads)
    known.take(A, Addresses(((B, address),)))
    known.hear(A, "/ip4/127.0.0.1/tcp/22")
    known.seek({OWN, A, B}, 1_000)
    assert roads.kept == {}
    assert known.list_known().known == ()


def test_where_all_is_on_one_machine_its_addresses_are_told() -> None:
    roads = Roads({A: "127.0.0.1"}, addresses=("/ip4/127.0.0.1/tcp/7550/p2p/x",))
    known = meet(roads)
    known.take(A, Addresses(((B, "/ip4/127.0.0.1/tcp/7551"),)))
    known.seek({OWN, A, B}, 1_000)
    assert roads.kept == {B: "/ip4/127.0.0.1/tcp/7551"}
    assert known.list_known().known == ((OWN, "/ip4/127.0.0.1/tcp/7550"),)


async def test_whole_nodes_expect_the_validators_of_the_running_epoch_and_the_next(
    homes: Path, autojump_clock: object
) -> None:
    names = ("v0", "v1", "v2", "v3")
    genesis = make_genesis(names, accounts=("v4",), params=replace(MINIMAL, idle_interval_ms=100))
    async with open_world(homes, 5, genesis) as world:
        await world.wait_height(2)
        await world.nodes[4].become_validator()
        await world.wait_height((world.nodes[4].epoch + 1) * MINIMAL.epoch_heights + 12)
        assert world.nodes[4].id in world.hub.expected[world.nodes[0].id]


# --- over real sockets


async def test_a_peer_whose_address_was_learned_is_dialled_like_a_configured_one() -> None:
    async with running(make_network_config(0)) as one, running(make_network_config(1)) as other:
        one.network.keep(other.address)
        await wait_until(lambda: node_id(1) in one.network.connected())
        assert one.network.find_host(node_id(1)) == "127.0.0.1"
        one.network.let_go(node_id(1))
        assert node_id(1) in one.network.connected(), "the connection lasts"


async def test_a_validator_is_let_in_where_guests_have_taken_every_place() -> None:
    full = make_network_config(0, limits=replace_fields(Limits(), peers=1))
    async with running(full) as host, running(make_network_config(2, host.address)):
        await wait_until(lambda: node_id(2) in host.network.connected())
        host.network.expect(frozenset({node_id(3)}))
        async with (
            running(make_network_config(1, host.address)),
            running(make_network_config(3, host.address)),
        ):
            await wait_until(lambda: node_id(3) in host.network.connected())
            assert node_id(1) not in host.network.connected()
