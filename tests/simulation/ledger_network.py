"""A network of simulated nodes over the real ledger: who is in it, how everybody behaves, and what clients ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from protocol.block import compute_header_hash
from protocol.genesis import compute_validator_set
from protocol.ordering.state import Context, make_tip
from protocol.params import compute_boundary
from tests.simulation.addresses import Addresses
from tests.simulation.adversaries import Silent
from tests.simulation.invariants import Watch
from tests.simulation.ledger_application import EquivocatingLedger, LedgerApplication
from tests.simulation.ledger_members import Conduct, Member
from tests.simulation.ledger_node import LedgerActor, LedgerEvil
from tests.simulation.ledger_town import CARDS, TEXT_CARD, Town, get_key, make_town_genesis
from tests.simulation.schedule import Network, Plan, choose_byzantine
from tests.simulation.world import CALM, RAIN, STORM, World

if TYPE_CHECKING:
    from protocol.transactions import SignedTransaction
    from protocol.units import Hash, JobId, NodeId

WEIGHTS: Final = ((1, 1, 1, 1), (1, 1, 1, 1), (3, 2, 2, 3), (1, 1, 1, 1, 1), (3, 1, 2, 2, 1), (1,) * 7, (1,))
ADVERSARIES: Final = ("none", "none", "silent", "evil", "evil", "twins")
CONDUCTS: Final = tuple(Conduct)


@dataclass(frozen=True, slots=True)
class LedgerPlan:
    """A schedule's plan, and what its accounts do."""

    base: Plan
    conducts: tuple[Conduct, ...]  # of the validators as members
    guests: tuple[Conduct, ...]  # accounts that bond and serve while the network runs
    fragile: bool  # nodes die when they have just committed or revealed, as long as the storm lasts
    late: frozenset[int]  # validators that serve the second model only by a transaction
    transfers: int
    storm_jobs: int
    calm_jobs: int


def make_ledger_plan(seed: int, adversary: str | None = None) -> LedgerPlan:
    """What this seed means."""
    random = Random(f"ledger plan {seed}")
    weights = random.choice(WEIGHTS)
    drawn = random.choice(ADVERSARIES)
    kind = drawn if adversary is None else adversary
    byzantine = frozenset[int]() if kind == "none" else choose_byzantine(random, weights)
    base = Plan(
        seed=seed,
        weights=weights,
        byzantine=byzantine,
        adversary=kind if byzantine else "none",
        weather=random.choice((STORM, RAIN, RAIN, CALM)),
        storm_ms=random.randint(2_000, 6_000),
        crashes=random.choice((0, 0, 1, 2, 4, 6)),
        partitions=random.choice((0, 0, 1, 3)),
        transactions=0,
    )
    conducts = [Conduct.HONEST] * len(weights)
    for index in random.sample(range(len(weights)), min(random.choice((0, 1, 1, 2)), len(weights))):
        conducts[index] = random.choice(CONDUCTS)
    return LedgerPlan(
        base=base,
        conducts=tuple(conducts),
        guests=tuple(random.choice((Conduct.HONEST, *CONDUCTS)) for _ in range(random.choice((0, 0, 1, 2)))),
        fragile=random.randrange(3) == 0,
        late=frozenset(index for index in range(len(weights)) if random.randrange(4) == 0),
        transfers=random.randint(2, 8),
        storm_jobs=random.randint(0, 3),
        calm_jobs=random.randint(1, 2),
    )


@dataclass(slots=True)
class LedgerNetwork:
    """The nodes in place, and what clients have asked so far."""

    plan: LedgerPlan
    network: Network
    town: Town
    honest: list[LedgerActor] = field(default_factory=list)
    conducts: dict[NodeId, Conduct] = field(default_factory=dict)
    nonces: dict[str, int] = field(default_factory=dict)
    offered: dict[Hash, SignedTransaction] = field(default_factory=dict)
    calm_jobs: set[JobId] = field(default_factory=set)  # submitted when nothing is lost or down any more

    @property
    def byzantine(self) -> set[NodeId]:
        """The validators that ordering may not rely on: nothing is promised about them as members either."""
        return {get_key(f"v{index}").public for index in self.plan.base.byzantine}

    def count_open(self) -> int:
        """How many jobs of final blocks have not settled on every honest node."""
        settled = [actor.application.settled for actor in self.honest]
        return sum(any(job not in each for each in settled) for job in self.town.submitted)


def make_ledger_network(plan: LedgerPlan) -> LedgerNetwork:
    """All nodes of a plan, not started yet."""
    base = plan.base
    world = World(Random(f"ledger world {base.seed}"), base.weather)
    genesis = make_town_genesis(
        base.seed, base.weights, list_accounts(plan), serves=lambda index: (TEXT_CARD,) if index in plan.late else CARDS
    )
    town = Town(genesis)
    watch = Watch(make_ledger_context(town, None), base.byzantine)
    town.fail = watch.break_rule
    whole = LedgerNetwork(plan, Network(world, watch, Addresses()), town)
    for index in range(len(base.weights)):
        if index in base.byzantine:
            put_adversary(whole, index)
        else:
            put_honest(whole, index)
    for place, conduct in enumerate(plan.guests):
        host = whole.honest[place % len(whole.honest)].application
        host.members = (*host.members, make_member(whole, f"guest{place}", conduct))
    for node in (*whole.network.honest, *whole.network.others):
        assert isinstance(node, LedgerActor)
        node.clients = tuple(actor.address for actor in whole.honest)
        node.fragile_until_ms = base.storm_ms if plan.fragile and node in whole.honest else 0
    return whole


def make_ledger_context(town: Town, own: int | None) -> Context:
    """The context of a validator, or of an observer."""
    genesis = town.genesis
    signer = None if own is None else town.notary.make_signer(get_key(f"v{own}"))
    validators = compute_validator_set(genesis)
    start = make_tip(compute_header_hash(town.header), town.header)
    boundary = compute_boundary(genesis.params, 0)
    return Context(
        town.chain_id,
        0,
        genesis.seed,
        validators,
        own,
        genesis.params,
        signer,
        town.notary.verify,
        start,
        None,
        boundary,
    )


def list_accounts(plan: LedgerPlan) -> list[str]:
    """Who owns something besides the validators: an account for each job, so that a refused one blocks no other."""
    jobs = [f"asker{number}" for number in range(plan.storm_jobs + plan.calm_jobs)]
    return [*jobs, "alice", "bob", *(f"guest{place}" for place in range(len(plan.guests)))]


def make_member(whole: LedgerNetwork, name: str, conduct: Conduct, variant: bytes = b"") -> Member:
    """A member with this name's key, known to the verdict."""
    member = Member(get_key(name), whole.town.chain_id, conduct, variant)
    whole.conducts[member.node] = conduct
    return member


def put_honest(whole: LedgerNetwork, index: int) -> None:
    """A validator that follows the rules of ordering; as a member it may still misbehave."""
    network, context = whole.network, make_ledger_context(whole.town, index)
    network.addresses.by_node[get_key(f"v{index}").public] = [index]
    application = LedgerApplication(whole.town, index, (make_member(whole, f"v{index}", whole.plan.conducts[index]),))
    skew_ms = network.world.random.randint(-60, 60)
    actor = LedgerActor(index, context, application, network.world, network.addresses, network.watch, skew_ms)
    whole.honest.append(actor)
    network.honest.append(actor)
    network.world.actors[index] = actor


def put_adversary(whole: LedgerNetwork, index: int) -> None:
    """Somebody Byzantine in a validator's place. As a member it is absent, or two that contradict each other."""
    network, town, base = whole.network, whole.town, whole.plan.base
    context, key = make_ledger_context(town, index), get_key(f"v{index}")
    whole.conducts[key.public] = Conduct.ABSENT
    addresses = [index]
    if base.adversary == "evil":
        ledger = EquivocatingLedger(town, index, (), Random(f"evil {base.seed} {index}"))
        signer = town.notary.make_signer(key)
        evil = LedgerEvil(index, index, context, ledger, network.world, network.addresses, signer)
        network.others.append(evil)
        network.world.actors[index] = evil
    elif base.adversary == "twins":
        addresses.append(len(base.weights) + len(network.others) // 2)
        for address in addresses:
            twin = LedgerApplication(town, index, (make_member(whole, f"v{index}", Conduct.HONEST, b"%d" % address),))
            twin.is_watched = False
            actor = LedgerActor(address, context, twin, network.world, network.addresses, None)
            network.others.append(actor)
            network.world.actors[address] = actor
        whole.conducts[key.public] = Conduct.ABSENT
    else:
        network.world.actors[index] = Silent()
    network.addresses.by_node[key.public] = addresses
