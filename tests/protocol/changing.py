"""A chain whose validators change twice, and jobs that stand anywhere in its epochs."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from protocol.certificate_build import build_certificate
from protocol.params import UNIT
from tests.protocol.builders import TestChain, make_genesis, start_chain
from tests.protocol.certificates import ANSWER, collect_parts, right

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol.jobs.settlement import Settlement
    from protocol.ledger.draft import Ledger

FIRST = ("v0", "v1", "v2", "v3", "v4")
NEWCOMERS = ("n0", "n1", "n2")
EPOCH = 8


def start_changing() -> TestChain:
    """A chain whose newcomers vote from epoch 2 on; two of the first leave with epoch 3."""
    genesis = make_genesis(FIRST, ("asker", "other", *NEWCOMERS))
    chain = start_chain(genesis, (*FIRST, *NEWCOMERS, "asker", "other"))
    chain.step(*(chain.bond(name, 100 * UNIT) for name in NEWCOMERS))
    chain.step(*(chain.renew(name) for name in NEWCOMERS))
    chain.run(2 * EPOCH - chain.header.height)
    chain.step(*(chain.unbond(name, 100 * UNIT) for name in ("v0", "v1")))
    return chain


@cache
def settled(epoch: int, place: int) -> tuple[TestChain, Settlement, Ledger]:
    """A job asked in the block after this place (1 to 8) in an epoch; the end of the epoch in which it settles, and the state at its settlement."""
    chain = start_changing()
    chain.run(epoch * EPOCH + place - chain.header.height)
    settlement = chain.settle(answers=lambda _: right())
    at_settlement = chain.ledger
    chain.run(EPOCH - chain.header.height % EPOCH)
    return chain, settlement, at_settlement


@cache
def find_place(is_wanted: Callable[[Settlement], bool]) -> tuple[int, int]:
    """The first epoch and place at which a job ends as wanted."""
    places = ((epoch, place) for epoch in (3, 4, 5) for place in range(1, EPOCH + 1))
    return next(each for each in places if is_wanted(settled(*each)[1]))


def waits_over_the_change(settlement: Settlement) -> bool:
    """Whether a job waited for its beacon over the end of epoch 3, with which two validators leave."""
    return settlement.submit_height < 4 * EPOCH < settlement.maturity_height - 1


def certify_changing(epoch: int, place: int) -> tuple[bytes, TestChain, Settlement]:
    """The certificate of such a job."""
    chain, settlement, ledger = settled(epoch, place)
    return build_certificate(collect_parts(chain, ledger, settlement), ANSWER), chain, settlement
