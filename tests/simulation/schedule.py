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
from protocol.units import ZERO_HASH
from protocol.validators import Validator, ValidatorSet
from tests.simulation.addresses import Addresses
from tests.simulation.adversaries import LEADERS, Silent, UnforgettingChain
from tests.simulation.application import Application, HashChain, make_genesis
from tests.simulation.epoch_liars import EPOCH_LIARS
from tests.simulation.invariants import Violation, Watch
from tests.simulation.keys import CheapSigner, make_public, verify_cheaply
from tests.simulation.liars import LIARS
from tests.simulation.node import SimulatedNode
from tests.simulation.parcels import Crash, Submit
from tests.simulation.stakes import NEVER, RESTAKE, Founding
from tests.simulation.world import CALM, RAIN, STORM, Weather, World

PARAMS: Final = replace(DEVNET, max_delay_ms=2_000, idle_interval_ms=1_000)
GENESIS_MS: Final = 0
CHAIN: Final = b"\x07" * 32
CALM_BLOCKS: Final = 4  # every honest node must make this many more blocks final after the storm
CALM_LIMIT_MS: Final = 120_000

SIZES: Final = ((4,) * 14, (1, 5, 7, 7, 10))
WEIGHTS: Final = ((1, 1, 1, 1), (3, 2, 2, 3), (5, 4, 3, 4))
EPOCHS: Final = (1, 2, 3, 4, 4, 4, 5, 6, 8)  # heights
ENDS: Final = 2  # so many epochs end at least, in the calm if not before
ALL_LIARS: Final = LIARS | EPOCH_LIARS
ADVERSARIES: Final = ("none", "silent", "twins", *LEADERS, *ALL_LIARS)


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
    epoch_heights: int = 8
    spares: int = 0  # honest nodes that begin without a stake
    restakes: int = 0  # transactions that change stakes, in the storm and in the calm


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
    epochs: int  # that every honest node has seen the end of


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
        epoch_heights=random.choice(EPOCHS),
        spares=random.choice((0, 0, 1, 1, 2)),
        restakes=random.choice((0, 2, 4, 8)),
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

    def get_ends(self) -> int:
        """How many epochs every honest node has seen the end of."""
        return min(len(node.ends) for node in self.honest)


def make_context(
    weights: tuple[int, ...], own: int | None, params: Params = PARAMS, epoch_heights: int = NEVER
) -> Context:
    """The first epoch's context of a simulated validator, or of an observer."""
    validators = ValidatorSet(tuple(Validator(make_public(index), weight) for index, weight in enumerate(weights)))
    signer = None if own is None else CheapSigner(make_public(own))
    start = make_genesis(CHAIN, GENESIS_MS)
    return Context(CHAIN, 0, ZERO_HASH, validators, own, params, signer, verify_cheaply, start, None, epoch_heights)


def make_founding(plan: Plan) -> Founding:
    """What the network of a plan begins with."""
    return Founding((*plan.weights, *(0,) * plan.spares), plan.byzantine, plan.epoch_heights)


def make_network(
    plan: Plan,
    make_application: Callable[[int], Application] | None = None,
    params: Params = PARAMS,
    make_node: type[SimulatedNode] = SimulatedNode,
) -> Network:
    """All nodes of a plan, not started yet.

    `make_application` gives the application of the honest node at an address; the default orders a hash chain.
    `make_node`: what honest validators run.
    """
    world = World(Random(f"world {plan.seed}"), plan.weather)
    first, size = make_context(plan.weights, None, params, plan.epoch_heights), len(plan.weights) + plan.spares
    watch = Watch(first, plan.byzantine, tuple(make_public(index) for index in range(size)))
    network = Network(world, watch, Addresses())
    make = make_application or (lambda _: HashChain(CHAIN, GENESIS_MS, make_founding(plan)))
    for index in range(size):
        network.addresses.by_node[make_public(index)] = [index]
        if index in plan.byzantine:
            put_adversary(network, plan, index, params)
            continue
        is_spare = index >= len(plan.weights)
        context = first if is_spare else make_context(plan.weights, index, params, plan.epoch_heights)
        public = make_public(index) if is_spare else None
        skew = world.random.randint(-60, 60)
        node = make_node(index, context, make(index), world, network.addresses, watch, skew, public)
        network.honest.append(node)
        world.actors[index] = node
    return network


def put_adversary(network: Network, plan: Plan, index: int, params: Params) -> None:
    """Whoever stands in a Byzantine validator's place: one, two, or nobody who says anything."""
    world, addresses, founding = network.world, network.addresses, make_founding(plan)
    context = make_context(plan.weights, index, params, plan.epoch_heights)
    nodes: list[SimulatedNode] = []
    if plan.adversary in LEADERS:
        chain = UnforgettingChain(CHAIN, GENESIS_MS, founding)
        nodes.append(LEADERS[plan.adversary](index, index, context, chain, world, addresses))
    elif plan.adversary == "twins":
        second = len(plan.weights) + plan.spares + len(network.others) // 2
        addresses.by_node[make_public(index)] = [index, second]
        for address in (index, second):
            twin = HashChain(CHAIN, GENESIS_MS, founding)
            nodes.append(SimulatedNode(address, context, twin, world, addresses, None))
    elif plan.adversary in ALL_LIARS:
        chain = HashChain(CHAIN, GENESIS_MS, founding)
        nodes.append(ALL_LIARS[plan.adversary](index, context, chain, world, addresses, None))
    else:
        world.actors[index] = Silent()
    network.others.extend(nodes)
    world.actors.update({node.address: node for node in nodes})


def raise_storm(network: Network, plan: Plan) -> None:
    """Puts crashes and transactions onto the heap; partitions come between the pieces of the storm."""
    world, random = network.world, network.world.random
    for _ in range(plan.crashes):
        victim = random.choice(network.honest)
        down_ms = random.randint(20, 1_200) if random.randrange(4) else random.randint(1_200, 5_000)
        world.remind(victim.address, random.randrange(plan.storm_ms), Crash(random.randrange(12), down_ms))
    for number in range(plan.transactions):
        submit(network, random.randrange(plan.storm_ms), b"transaction %d" % number)
    for _ in range(plan.restakes):
        submit(network, random.randrange(plan.storm_ms), make_restake(network))


def submit(network: Network, delay_ms: int, transaction: bytes) -> None:
    """Every process hears of a transaction (gossip is not simulated)."""
    for node in (*network.honest, *network.others):
        network.world.remind(node.address, delay_ms, Submit(transaction))


def make_restake(network: Network) -> bytes:
    """Somebody joins, leaves, or changes its weight."""
    random = network.world.random
    return b"%s %d %d" % (RESTAKE, random.randrange(len(network.watch.names)), random.choice((0, 1, 1, 2, 3)))


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


def run_calm(network: Network, ends: int = 0, restakes: int = 0) -> None:
    """After GST every honest node makes more blocks final, within a bound, and sees the end of so many epochs."""
    world = network.world
    world.groups, world.weather = {}, CALM
    heights = network.watch.context.boundary
    goal = max(max(node.tip.height for node in network.honest) + CALM_BLOCKS, ends * heights + 1)
    for number in range(CALM_BLOCKS):
        submit(network, 200 * number, b"calm %d" % number)
    for number in range(restakes):
        submit(network, 150 * number, make_restake(network))
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
        run_calm(network, ENDS, plan.restakes)
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
        network.get_ends(),
    )
