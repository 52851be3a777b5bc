"""More situations with a name: one validator of four that misbehaves in one way, links that do, and nodes that come late or only watch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from protocol.block import Block, compute_header_hash
from protocol.evidence import EvidenceKind
from protocol.ordering.messages import Proposal, QuorumCert
from protocol.units import MAX_UINT
from protocol.voting import Vote, VoteKind
from tests.simulation.addresses import OBSERVERS
from tests.simulation.application import HashChain
from tests.simulation.disk import End
from tests.simulation.node import SimulatedNode
from tests.simulation.parcels import Crash, Letter
from tests.simulation.schedule import (
    CHAIN,
    GENESIS_MS,
    Network,
    Plan,
    make_context,
    make_network,
    run_calm,
    submit,
)
from tests.simulation.stakes import Founding
from tests.simulation.world import Weather

LAN = Weather(1, 2, 0)
LIAR = 2
HEIGHTS = 8


def make_faulty(
    adversary: str, weather: Weather = LAN, weights: tuple[int, ...] = (1, 1, 1, 1), transactions: int = 60
) -> Network:
    """Four validators, the third of this kind, with a transaction every tenth of a second."""
    byzantine = frozenset[int]() if adversary == "none" else frozenset({LIAR})
    network = make_network(Plan(3, weights, byzantine, adversary, weather, 0, 0, 0, 0))
    for number in range(transactions):
        submit(network, 100 * number, b"%d" % number)
    network.start()
    return network


def run(network: Network, duration_ms: int) -> None:
    network.world.run(network.world.now_ms + duration_ms, lambda: False)


def list_kinds(network: Network) -> set[int]:
    assert {signer for signer, _, _ in network.watch.evidence} <= {LIAR}
    return {kind for _, _, kind in network.watch.evidence}


def list_null_leaders(network: Network) -> set[int]:
    return network.watch.list_null_leaders()


def test_slow_validator_costs_only_its_own_views() -> None:
    network = make_faulty("slow")
    run(network, 8_000)
    assert network.get_height() >= 20
    assert list_null_leaders(network) == {LIAR}


@pytest.mark.parametrize(
    "adversary, kinds",
    [
        ("conflicter", {EvidenceKind.TWO_NOTAR, EvidenceKind.TWO_FINAL, EvidenceKind.NOTAR_AND_FINAL}),
        ("nuller", {EvidenceKind.NULL_AND_FINAL}),
        ("equivocator", {EvidenceKind.TWO_NOTAR}),
    ],
)
def test_who_contradicts_itself_is_convicted_of_it_and_holds_nobody_up(
    adversary: str, kinds: set[EvidenceKind]
) -> None:
    network = make_faulty(adversary)
    run(network, 8_000)
    assert network.get_height() >= 20
    assert list_kinds(network) >= kinds
    run_calm(network)


@pytest.mark.parametrize("adversary", ["impersonator", "usurper", "flooder", "forger", "evil"])
def test_what_no_honest_validator_can_send_is_charged_to_who_sent_it(adversary: str) -> None:
    network = make_faulty(adversary)
    run(network, 8_000)
    assert network.get_height() >= 20
    assert network.watch.charged == {LIAR}
    run_calm(network)


def test_outdated_votes_change_nothing() -> None:
    network = make_faulty("outdated")
    run(network, 8_000)
    assert network.get_height() >= 20
    assert network.watch.charged == set()
    assert list_null_leaders(network) <= {LIAR}


def test_a_flooder_fills_nobodys_memory() -> None:
    network = make_faulty("flooder")
    run(network, 8_000)
    for node in network.honest:
        window = node.context.params.view_window_behind + node.context.params.view_window_ahead
        assert len(node.state.views) <= window + 2
        assert len(node.state.blocks) <= 4


def test_a_lying_sync_peer_delays_a_newcomer_by_a_few_requests_only() -> None:
    network = make_faulty("lying-sync")
    newcomer = network.honest[0]
    network.world.remind(newcomer.address, 0, Crash(0, 6_000))
    run(network, 6_000)
    assert newcomer.tip.height == 0
    goal = min(node.tip.height for node in network.honest[1:])
    assert goal >= 20
    run(network, 2_000)
    assert newcomer.tip.height >= goal


def test_slow_and_lossy_links_still_make_blocks() -> None:
    network = make_faulty("none", Weather(20, 300, 100_000))
    run(network, 20_000)
    assert network.get_height() >= 5
    run_calm(network)


def test_survives_burst() -> None:
    network = make_faulty("none", transactions=0)
    run(network, 1_000)
    for number in range(300):
        submit(network, 0, b"burst %d" % number)
    run(network, 6_000)
    assert all(not node.application.has_work() for node in network.honest)
    assert network.watch.null == set()


def test_hailstorm_of_single_crashes_never_stops_the_chain() -> None:
    """Every second another one of seven dies, for as long; the others go on."""
    network = make_faulty("none", weights=(1,) * 7, transactions=150)
    for second in range(15):
        victim = network.honest[second * 3 % 7]
        network.world.remind(victim.address, 1_000 * second, Crash(second % 6, 900))
    heights: list[int] = []
    for _ in range(5):
        run(network, 3_000)
        heights.append(max(node.tip.height for node in network.honest))
    assert all(later >= earlier + 5 for earlier, later in pairwise(heights)), heights
    run_calm(network)


def test_all_recovery_after_everybody_was_alone_takes_less_than_ten_seconds() -> None:
    network = make_faulty("none")
    run(network, 2_000)
    network.world.groups = {0: 0, 1: 1, 2: 2, 3: 3}
    run(network, 60_000)
    height = max(node.tip.height for node in network.honest)
    network.world.groups = {}
    submit(network, 0, b"healed")
    run(network, 10_000)
    assert network.get_height() > height


def test_a_hundred_validators_agree() -> None:
    network = make_network(Plan(1, (1,) * 100, frozenset(), "none", LAN, 0, 0, 0, 0))
    submit(network, 0, b"work")
    network.start()
    network.world.run(3_000, lambda: network.get_height() >= 1)
    assert network.get_height() >= 1
    assert network.watch.null == set()


class Gate:
    """Keeps letters from a node for as long as it is closed to them."""

    def __init__(self, node: SimulatedNode, is_closed: Callable[[int, Letter], bool]) -> None:
        self.node = node
        self.is_closed = is_closed
        self.kept: list[Letter] = []

    def take(self, now_ms: int, parcel: object) -> None:
        if isinstance(parcel, Letter) and self.is_closed(self.node.address, parcel):
            self.kept.append(parcel)
        else:
            self.node.take(now_ms, parcel)

    def open(self, is_closed: Callable[[int, Letter], bool]) -> None:
        """Another rule from now on; what it lets through comes now."""
        self.is_closed = is_closed
        kept, self.kept = self.kept, []
        for letter in kept:
            self.take(0, letter)


def is_of(letter: Letter, view: int, kind: VoteKind) -> bool:
    message = letter.message
    return isinstance(message, (Vote, QuorumCert)) and (message.view, message.kind) == (view, kind)


def make_split() -> tuple[Network, list[Gate]]:
    """The first two validators hold view 1's NotarCert, the others its NullCert, and neither hears of the other's kind."""
    network = make_faulty("none")
    gates = [Gate(node, lambda _, letter: True) for node in network.honest]
    for gate in gates:
        network.world.actors[gate.node.address] = gate
    run(network, 2_000)  # nobody hears anything: everybody gives up on view 1
    for gate in gates:
        gate.open(lambda _, letter: not isinstance(letter.message, Proposal))
    run(network, 10)  # now the proposal comes, and is voted for
    for gate in gates:
        gate.open(lambda address, letter: is_of(letter, 1, VoteKind.NULL if address < 2 else VoteKind.NOTAR))
    return network, gates


def list_certs(network: Network) -> list[set[VoteKind]]:
    """What each validator holds about view 1."""
    records = [node.state.get_record(1) for node in network.honest]
    return [set() if record is None else {cert.kind for cert in record.certs} for record in records]


def test_split_views_no_lockup() -> None:
    network, _ = make_split()
    network.world.run(network.world.now_ms + 100, lambda: all(list_certs(network)))
    assert list_certs(network) == [{VoteKind.NOTAR}, {VoteKind.NOTAR}, {VoteKind.NULL}, {VoteKind.NULL}]
    run(network, 6_000)
    assert network.get_height() >= 10


def test_certified_split_heals() -> None:
    network, gates = make_split()
    network.world.run(network.world.now_ms + 100, lambda: all(list_certs(network)))
    for gate in gates:
        gate.open(lambda _, letter: False)
    run_calm(network)


def join(network: Network, blocks: list[Block], ends: list[End], cert: QuorumCert | None) -> SimulatedNode:
    """An observer that starts on a copy of these final blocks, and hears what is broadcast from now on."""
    chain = HashChain(CHAIN, GENESIS_MS, Founding((1, 1, 1, 1), frozenset(), HEIGHTS))
    context = make_context((1, 1, 1, 1), None, epoch_heights=HEIGHTS)
    observer = SimulatedNode(99, context, chain, network.world, network.addresses, network.watch)
    for block in blocks:
        block_hash = compute_header_hash(block.header)
        assert chain.check(block_hash, block)
        chain.commit((block_hash,))
    if cert is not None:
        observer.ends = ends
        observer.keep_final(blocks, cert, MAX_UINT)
        observer.store()
    network.world.actors[99] = observer
    network.addresses.by_node[OBSERVERS] = [99]
    observer.start()
    return observer


@pytest.mark.parametrize("floor_ms", [0, 3_000])
def test_an_observer_joins_at_any_floor_follows_and_signs_nothing(floor_ms: int) -> None:
    network = make_faulty("none")
    run(network, floor_ms)
    source = network.honest[1]
    floor = len(source.blocks), list(source.ends), source.tip_cert
    run(network, 1_500)
    observer = join(network, source.blocks[: floor[0]], floor[1], floor[2])
    assert observer.tip.height < network.get_height()
    run(network, 1_500)
    assert observer.tip.height >= network.get_height() - 1
    assert all(not isinstance(record, (Vote, Proposal)) for record in observer.wal)
