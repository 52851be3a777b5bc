"""Equivocators over the real ledger: what honest nodes see of them is reported, and every ledger convicts them and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from protocol.evidence import Evidence
from protocol.ledger.queries import get_account, get_conviction
from protocol.transactions import Report
from tests.simulation.ledger_network import make_ledger_network, make_ledger_plan
from tests.simulation.ledger_schedule import run_ledger_calm, run_ledger_storm
from tests.simulation.ledger_town import get_key
from tests.simulation.ledger_verdict import judge

if TYPE_CHECKING:
    from tests.simulation.ledger_network import LedgerNetwork
    from tests.simulation.ledger_node import LedgerActor


class Witness:
    """An honest node that reports what it sees, as real nodes do."""

    def __init__(self, actor: LedgerActor) -> None:
        self.actor = actor
        self.reported: set[Evidence] = set()

    def take(self, now_ms: int, parcel: object) -> None:
        self.actor.take(now_ms, parcel)
        if self.actor.is_up and not self.actor.is_halted:
            found = {proof for record in self.actor.state.views.values() for proof in record.evidence}
            for evidence in sorted(found - self.reported, key=repr):
                self.report(evidence)

    def report(self, evidence: Evidence) -> None:
        """Once, to everybody."""
        self.reported.add(evidence)
        application, town = self.actor.application, self.actor.application.town
        offender = town.genesis.validators[evidence.signer].node
        if get_conviction(application.final.ledger, offender) is None:
            key = get_key(f"v{application.own}")
            encoded = town.sign(key, Report(key.public, evidence))
            if application.receive(encoded, is_own=True):
                self.actor.spread(encoded)


def run_watched(seed: int, adversary: str) -> LedgerNetwork:
    """A whole schedule under witnesses, and one more job when all is calm and reported."""
    whole = make_ledger_network(make_ledger_plan(seed, adversary))
    for actor in whole.honest:
        whole.network.world.actors[actor.address] = Witness(actor)
    run_ledger_storm(whole)
    run_ledger_calm(whole)
    whole.network.world.run(whole.network.world.now_ms + 20_000, lambda: False)
    judge(whole)
    return whole


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("adversary", ["evil", "twins"])
def test_whoever_was_seen_to_equivocate_is_convicted_by_every_node_and_nobody_honest(seed: int, adversary: str) -> None:
    whole = run_watched(seed, adversary)
    seen = {signer for signer, _, _ in whole.network.watch.evidence}
    assert seen <= whole.plan.base.byzantine
    for actor in whole.honest:
        ledger = actor.application.final.ledger
        validators = whole.town.genesis.validators
        convicted = {index for index, entry in enumerate(validators) if get_conviction(ledger, entry.node) is not None}
        assert convicted == seen, (actor.address, convicted, seen)
        for index in convicted:
            assert get_account(ledger, validators[index].node).bonded < validators[index].stake


def test_the_schedules_do_convict() -> None:
    assert any(run_watched(seed, "evil").network.watch.evidence for seed in range(4))
