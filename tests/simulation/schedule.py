"""One seeded schedule: a validator table, an adversary, a storm of losses, partitions and crashes, then calm weather and the verdict."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from msgspec.structs import replace

from protocol.ordering.state import Context
from protocol.params import DEVNET, Params
from protocol.units import MAX_UINT, ZERO_HASH
from protocol.validators import Validator, ValidatorSet
from tests.simulation.adversaries import LEADERS, Silent, UnforgettingChain
from tests.simulation.application import Application, HashChain
from tests.simulation.invariants import Violation, Watch
from tests.simulation.keys import CheapSigner, make_public, verify_cheaply
from tests.simulation.liars import LIARS
from tests.simulation.node import Addresses, SimulatedNode
from tests.simulation.parcels import Crash, Submit
from tests.simulation.world import CALM, RAIN, STORM, Weather, World

PARAMS: Final = replace(DEVNET, max_delay_ms=2_000, idle_interval_ms=1_000)
GENESIS_MS: Final = 0
CHAIN: Final = b"\x07" * 32
CALM_BLOCKS: Final = 4  # every honest node must make this many more blocks final after the storm
CALM_LIMIT_MS: Final = 120_000

SIZES: Final = ((4,) * 14, (1, 5, 7, 7, 10))
WEIGHTS: Final = ((1, 1, 1, 1), (3, 2, 2, 3), (5, 4, 3, 4))
ADVERSARIES: Final = ("none", "silent", "twins", *LEADERS, *LIARS)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a schedule that its seed decides before it runs."""

    seed: int
    weights: tuple[int, ...]
    byzantine: frozenset[int]
    adversary: str  # one of ADVERSARIES
    weather: Weather
    storm_ms: int
    crashes: int
    partitions: int
    transactions: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a schedule came to. `violation` is empty for a good one."""

    seed: int
    adversary: str
    violation: str
    text: str
    steps: int
    height: int
    evidence: int
    log_hash: str


def make_plan(seed: int, adversary: str | None = None) -> Plan:
    """What this seed means."""
    random = Random(f"plan {seed}")
    size = random.choice(SIZES[0] + SIZES[1])
    weights = random.choice(WEIGHTS) if size == 4 else tuple(random.randint(1, 3) for _ in range(size))
    kind = random.choice((*ADVERSARIES, "evil", "evil", "twins")) if adversary is None else adversary
    byzantine = frozenset[int]() if kind == "none" else choose_byzantine(random, weights)
    return Plan(
        seed=seed,
        weights=weights,
        byzantine=byzantine,
        adversary=kind if byzantine else "none",
        weather=random.choice((STORM, STORM, RAIN)),  # in rain the others run far ahead of whoever is down
        storm_ms=random.randint(2_000, 8_000),
        crashes=random.randint(0, 10),
        partitions=random.randint(0, 8),
        transactions=random.randint(2, 10),
    )


def choose_byzantine(random: Random, weights: tuple[int, ...]) -> frozenset[int]:
    """A random set of validators of less than a third of the weight, as large as it gets in one pass."""
    chosen: set[int] = set()
    order = list(range(len(weights)))
    random.shuffle(order)
    for index in order:
        if 3 * (sum(weights[other] for other in chosen) + weights[index]) < sum(weights):
            chosen.add(index)
    return frozenset(chosen)


@dataclass(slots=True)
class Network:
    """A world with its validators in place."""

    world: World
    watch: Watch
    addresses: Addresses
    honest: list[SimulatedNode] = field(default_factory=list)
    others: list[SimulatedNode] = field(default_factory=list)

    def start(self) -> None:
        """Everybody opens at once."""
        for node in (*self.honest, *self.others):
            node.start()

    def get_height(self) -> int:
        """The final height that every honest node has reached."""
        return min(node.tip.height for node in self.honest)


def make_context(weights: tuple[int, ...], own: int | None, params: Params = PARAMS) -> Context:
    """The context of a simulated validator, or of an observer."""
    validators = ValidatorSet(tuple(Validator(make_public(index), weight) for index, weight in enumerate(weights)))
    signer = None if own is None else CheapSigner(make_public(own))
    start = HashChain(CHAIN, GENESIS_MS).genesis
    return Context(CHAIN, 0, ZERO_HASH, validators, own, params, signer, verify_cheaply, start, None, MAX_UINT)


def make_network(
    plan: Plan,
    make_application: Callable[[int], Application] | None = None,
    params: Params = PARAMS,
    make_node: type[SimulatedNode] = SimulatedNode,
) -> Network:
    """All validators of a plan, not started yet.

    `make_application` gives the application of the honest node at an address; the default orders a hash chain.
    `make_node`: what honest validators run.
    """
    world = World(Random(f"world {plan.seed}"), plan.weather)
    addresses = Addresses()
    watch = Watch(make_context(plan.weights, None, params), plan.byzantine)
    network = Network(world, watch, addresses)
    make = make_application or (lambda _: HashChain(CHAIN, GENESIS_MS))
    free = len(plan.weights)
    for index in range(len(plan.weights)):
        context = make_context(plan.weights, index, params)
        node_id = context.validators.members[index].node
        addresses.by_node[node_id] = [index]
        if index not in plan.byzantine:
            skew = world.random.randint(-60, 60)
            node = make_node(index, context, make(index), world, addresses, watch, skew)
            network.honest.append(node)
            world.actors[index] = node
        elif plan.adversary in LEADERS:
            evil = LEADERS[plan.adversary](
                index, index, context, UnforgettingChain(CHAIN, GENESIS_MS), world, addresses
            )
            network.others.append(evil)
            world.actors[index] = evil
        elif plan.adversary == "twins":
            for address in (index, free):
                twin = SimulatedNode(address, context, make(address), world, addresses, None)
                network.others.append(twin)
                world.actors[address] = twin
            addresses.by_node[node_id] = [index, free]
            free += 1
        elif plan.adversary in LIARS:
            make_liar, chain = LIARS[plan.adversary], HashChain(CHAIN, GENESIS_MS)
            liar = make_liar(index, context, chain, world, addresses, None)
            network.others.append(liar)
            world.actors[index] = liar
        else:
            world.actors[index] = Silent()
    return network


def raise_storm(network: Network, plan: Plan) -> None:
    """Puts crashes and transactions onto the heap; partitions come between the pieces of the storm."""
    world, random = network.world, network.world.random
    for _ in range(plan.crashes):
        victim = random.choice(network.honest)
        down_ms = random.randint(20, 1_200) if random.randrange(4) else random.randint(1_200, 5_000)
        world.remind(victim.address, random.randrange(plan.storm_ms), Crash(random.randrange(12), down_ms))
    for number in range(plan.transactions):
        submit(network, random.randrange(plan.storm_ms), b"transaction %d" % number)


def submit(network: Network, delay_ms: int, transaction: bytes) -> None:
    """Every process hears of a transaction (gossip is not simulated)."""
    for node in (*network.honest, *network.others):
        network.world.remind(node.address, delay_ms, Submit(transaction))


def split(network: Network) -> None:
    """A new partition into two sides, or none."""
    random = network.world.random
    if random.randrange(4) == 0:
        network.world.groups = {}
    else:
        network.world.groups = {address: random.randrange(2) for address in network.world.actors}


def run_storm(network: Network, plan: Plan) -> None:
    """Bad weather until GST."""
    world = network.world
    raise_storm(network, plan)
    network.start()
    pieces = plan.partitions + 1
    for piece in range(1, pieces + 1):
        world.run(plan.storm_ms * piece // pieces, lambda: False)
        if piece < pieces:
            split(network)


def run_calm(network: Network) -> None:
    """After GST every honest node makes more blocks final, within a bound."""
    world = network.world
    world.groups, world.weather = {}, CALM
    goal = max(node.tip.height for node in network.honest) + CALM_BLOCKS
    for number in range(CALM_BLOCKS):
        submit(network, 200 * number, b"calm %d" % number)
    world.run(world.now_ms + CALM_LIMIT_MS, lambda: network.get_height() >= goal)
    if network.get_height() < goal:
        heights = [node.tip.height for node in network.honest]
        network.watch.break_rule("liveness", f"final heights {heights} of {goal} after {CALM_LIMIT_MS} ms of calm")


def run_schedule(plan: Plan, ignored: frozenset[str] = frozenset()) -> Outcome:
    """One schedule from its plan to its verdict; an assertion in the machine is a violation like any other."""
    network = make_network(plan)
    network.watch.ignored = ignored
    name = text = ""
    try:
        run_storm(network, plan)
        run_calm(network)
    except Violation as violation:
        name, text = violation.name, str(violation)
    except (AssertionError, KeyError, IndexError) as error:  # the machine's or the application's own check
        name, text = "assertion", "".join(traceback.format_exception(error))
    world = network.world
    return Outcome(
        plan.seed,
        plan.adversary,
        name,
        text,
        world.steps,
        network.get_height(),
        len(network.watch.evidence),
        world.log.hexdigest(),
    )
