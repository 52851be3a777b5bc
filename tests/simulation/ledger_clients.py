"""What clients ask of a simulated network: transfers, bonds, serves and jobs, each given to some node."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from protocol.models import compute_model_id, greedy
from protocol.params import UNIT
from protocol.transactions import (
    TRANSACTION_CODEC,
    AgreementRule,
    Bond,
    JobRequest,
    Serve,
    Submit,
    Transaction,
    Transfer,
    compute_transaction_id,
)
from tests.simulation.ledger_node import Offer
from tests.simulation.ledger_town import IMAGE_CARD, TEXT_CARD, get_key

if TYPE_CHECKING:
    from protocol.units import JobId
    from tests.simulation.ledger_network import LedgerNetwork

FOREVER: Final = 2**40
ATTEMPTS: Final = 60
LONG_REVEAL_MS: Final = 20_000  # longer than any storm, crash and recovery together: nobody honest may forfeit
SHORT_REVEAL_MS: Final = 2_000


def offer(whole: LedgerNetwork, delay_ms: int, name: str, body: Transaction) -> None:
    """A client with this name's key gives a transaction to some node."""
    world = whole.network.world
    encoded = whole.town.sign(get_key(name), body)
    transaction = compute_transaction_id(body)
    whole.offered[transaction] = TRANSACTION_CODEC.decode(encoded)
    world.remind(world.random.choice(whole.honest).address, delay_ms, Offer(transaction, encoded, ATTEMPTS))


def next_nonce(whole: LedgerNetwork, name: str) -> int:
    """The next nonce of an account that only its client uses."""
    whole.nonces[name] = whole.nonces.get(name, 0) + 1
    return whole.nonces[name]


def offer_transfers(whole: LedgerNetwork) -> None:
    """Small amounts, to known accounts and to new ones, nonces out of order."""
    random, plan = whole.network.world.random, whole.plan
    names = ["alice", "bob", *(f"v{index}" for index in range(len(plan.base.weights)))]
    for number in range(plan.transfers):
        sender = random.choice(names[:3])
        recipient = get_key(random.choice([*names, f"stranger{number}"])).public
        nonce, amount = next_nonce(whole, sender), random.randint(1, UNIT)
        body = Transfer(get_key(sender).public, nonce, FOREVER, recipient, amount)
        offer(whole, random.randrange(plan.base.storm_ms), sender, body)


def offer_services(whole: LedgerNetwork) -> None:
    """Guests bond and serve; late validators serve the second model."""
    random, plan = whole.network.world.random, whole.plan
    image, text = compute_model_id(IMAGE_CARD), compute_model_id(TEXT_CARD)
    for place in range(len(plan.guests)):
        name = f"guest{place}"
        node, delay_ms = get_key(name).public, random.randrange(1 + plan.base.storm_ms // 2)
        offer(whole, delay_ms, name, Bond(node, next_nonce(whole, name), FOREVER, random.randint(20, 200) * UNIT))
        offer(whole, delay_ms, name, Serve(node, next_nonce(whole, name), FOREVER, text))
        offer(whole, delay_ms, name, Serve(node, next_nonce(whole, name), FOREVER, image))
    for index in sorted(plan.late):
        name = f"v{index}"
        body = Serve(get_key(name).public, next_nonce(whole, name), FOREVER, image)
        offer(whole, random.randrange(plan.base.storm_ms), name, body)


def make_job(random: Random, validators: int, reveal_ms: int) -> JobRequest:
    """A question of any size that so many validators can hold; some cost more than a guest's bond covers."""
    seats = random.choice({1: (1,), 4: (1, 3, 3, 3, 7)}.get(validators, (3, 3, 5, 5, 7)))
    return JobRequest(
        model=compute_model_id(random.choice((TEXT_CARD, TEXT_CARD, IMAGE_CARD))),
        prompt=b"%d+%d=" % (random.randrange(100), random.randrange(100)),
        settings=greedy(8),
        rule=random.choice((AgreementRule.MAJORITY, AgreementRule.REPUTATION)),
        seats=seats,
        fee=random.choice((seats * 1_000, seats * 1_001, 20 * UNIT)),
        commit_ms=random.randint(1_500, 3_000),
        reveal_ms=reveal_ms,
    )


def offer_job(whole: LedgerNetwork, delay_ms: int, request: JobRequest, number: int) -> JobId:
    """A job, paid by an account of its own."""
    name = f"asker{number}"
    body = Submit(get_key(name).public, next_nonce(whole, name), FOREVER, request)
    offer(whole, delay_ms, name, body)
    return compute_transaction_id(body)
