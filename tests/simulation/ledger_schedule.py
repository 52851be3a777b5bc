"""One seeded schedule over the real ledger: a storm with transfers, bonds, serves and jobs, then calm, then the verdict."""

from __future__ import annotations

import hashlib
import traceback
from dataclasses import dataclass

from protocol.jobs.agreement import Decision
from tests.simulation.invariants import Violation
from tests.simulation.ledger_clients import (
    LONG_REVEAL_MS,
    SHORT_REVEAL_MS,
    make_job,
    offer_job,
    offer_services,
    offer_transfers,
)
from tests.simulation.ledger_network import LedgerNetwork, LedgerPlan, make_ledger_network
from tests.simulation.ledger_verdict import judge
from tests.simulation.parcels import Crash
from tests.simulation.schedule import Outcome, split
from tests.simulation.world import CALM

RECOVERY_MS = 6_000  # after the storm, until nobody is down or behind
CALM_MS = 4_000
CALM_LIMIT_MS = 150_000


@dataclass(frozen=True, slots=True)
class LedgerOutcome(Outcome):
    """What a schedule over the ledger came to. `roots` is a hash over the state roots of all heights."""

    jobs: int
    accepted: int
    roots: str


def run_ledger_schedule(plan: LedgerPlan) -> LedgerOutcome:
    """One schedule from its plan to its verdict."""
    whole = make_ledger_network(plan)
    network, town = whole.network, whole.town
    name = text = ""
    try:
        run_ledger_storm(whole)
        run_ledger_calm(whole)
        judge(whole)
    except Violation as violation:
        name, text = violation.name, str(violation)
    except (AssertionError, KeyError, IndexError) as error:  # the machine's or the ledger's own check
        name, text = "assertion", "".join(traceback.format_exception(error))
    return LedgerOutcome(
        seed=plan.base.seed,
        adversary=plan.base.adversary,
        violation=name,
        text=text,
        steps=network.world.steps,
        height=network.get_height(),
        evidence=len(network.watch.evidence),
        log_hash=network.world.log.hexdigest(),
        epochs=network.get_ends(),
        jobs=len(town.settlements),
        accepted=sum(settlement.decision is Decision.ACCEPTED for settlement in town.settlements.values()),
        roots=hashlib.sha256(b"".join(root for _, root in sorted(town.roots.items()))).hexdigest(),
    )


def run_ledger_storm(whole: LedgerNetwork) -> None:
    """Bad weather until GST."""
    base, network = whole.plan.base, whole.network
    world, random = network.world, network.world.random
    for _ in range(base.crashes):
        crash = Crash(random.randrange(12), random.randint(20, 2_500))
        world.remind(random.choice(network.honest).address, random.randrange(base.storm_ms), crash)
    offer_transfers(whole)
    offer_services(whole)
    for number in range(whole.plan.storm_jobs):
        request = make_job(random, len(base.weights), random.choice((LONG_REVEAL_MS, SHORT_REVEAL_MS)))
        offer_job(whole, random.randrange(base.storm_ms), request, number)
    network.start()
    pieces = base.partitions + 1
    for piece in range(1, pieces + 1):
        world.run(base.storm_ms * piece // pieces, lambda: False)
        if piece < pieces:
            split(network)


def run_ledger_calm(whole: LedgerNetwork) -> None:
    """After GST everything that was submitted settles everywhere, within a bound."""
    network, plan = whole.network, whole.plan
    world = network.world
    world.groups, world.weather = {}, CALM
    for number in range(plan.calm_jobs):
        request = make_job(world.random, len(plan.base.weights), SHORT_REVEAL_MS)
        whole.calm_jobs.add(offer_job(whole, RECOVERY_MS + 300 * number, request, plan.storm_jobs + number))
    world.run(world.now_ms + RECOVERY_MS + CALM_MS, lambda: False)
    run_until_settled(whole, CALM_LIMIT_MS)


def run_until_settled(whole: LedgerNetwork, limit_ms: int) -> None:
    """Until every job of a final block has settled on every honest node; a Violation where that takes too long."""
    network = whole.network
    network.world.run(network.world.now_ms + limit_ms, lambda: whole.count_open() == 0)
    if whole.count_open():
        heights = [actor.tip.height for actor in whole.honest]
        text = f"{whole.count_open()} jobs open at final heights {heights} after {limit_ms} ms of calm"
        network.watch.break_rule("liveness", text)
