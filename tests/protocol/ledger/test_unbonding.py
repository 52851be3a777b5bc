"""Leaving: what may leave a bond, when it arrives, and that a model is no longer served (U1 to U5)."""

import pytest
from msgspec.structs import replace

from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.draft import Draft
from protocol.ledger.queries import get_account, get_candidates, list_served_models, list_unbonding
from protocol.ledger.state import check_transaction
from protocol.ledger.unbonding import MAX_NODE_UNBONDINGS, sum_unbonding, take_unbonding
from protocol.params import MINIMAL, UNIT
from protocol.transactions import Bond, SignedTransaction, Transaction, Unbond, Withdraw
from tests.protocol.builders import (
    FOREVER,
    TestChain,
    make_genesis,
    make_key,
    make_payload,
    make_request,
    start_chain,
)

ASKER, V0 = (make_key(name).public for name in ("asker", "v0"))
HEIGHTS, TIME_MS = MINIMAL.unbonding_heights, MINIMAL.unbonding_ms
QUICK = make_genesis(
    params=replace(MINIMAL, unbonding_heights=17, unbonding_ms=200, evidence_max_heights=1, evidence_max_ms=1)
)


def unbond(chain: TestChain, name: str, amount: int) -> SignedTransaction:
    return chain.sign(name, Unbond(make_key(name).public, chain.next_nonce(name), FOREVER, amount))


def bonded(name: str = "asker", amount: int = 20 * UNIT, params: object = MINIMAL) -> TestChain:
    """A chain on which this account has bonded so much more."""
    chain = start_chain(make_genesis(params=params))
    chain.step(chain.sign(name, Bond(make_key(name).public, 1, FOREVER, amount)))
    return chain


def refuse(chain: TestChain, name: str, body: Transaction) -> InvalidTransaction:
    with pytest.raises(InvalidTransaction) as refusal:
        check_transaction(chain.ledger, chain.sign(name, body))
    return refusal.value


@pytest.mark.parametrize(
    "name, amount, reason, words",
    [
        ("asker", 0, Rejection.ZERO_AMOUNT, "at least 1"),
        ("asker", 20 * UNIT + 1, Rejection.NOT_BONDED, "has bonded 20000000"),
        ("asker", 10 * UNIT + 1, Rejection.NOT_BONDED, "or everything"),
        ("other", 1, Rejection.NOT_BONDED, "has bonded 0"),
    ],
)
def test_what_may_not_leave_a_bond(name: str, amount: int, reason: Rejection, words: str) -> None:
    chain = bonded()
    refusal = refuse(chain, name, unbond(chain, name, amount).body)
    assert refusal.reason is reason
    assert words in str(refusal)


@pytest.mark.parametrize("amount", [1, 10 * UNIT, 20 * UNIT])
def test_what_may_leave_a_bond(amount: int) -> None:
    chain = bonded()
    chain.step(unbond(chain, "asker", amount))
    assert get_account(chain.ledger, ASKER).bonded == 20 * UNIT - amount
    assert [entry.amount for _, entry in list_unbonding(chain.ledger, ASKER)] == [amount]


def test_a_voter_may_take_back_everything() -> None:
    chain = start_chain()
    chain.step(unbond(chain, "v0", 100 * UNIT))
    assert get_account(chain.ledger, V0).bonded == 0


@pytest.mark.parametrize("heights", [HEIGHTS, HEIGHTS + 5])
def test_units_arrive_once_both_their_height_and_their_time_have_come(heights: int) -> None:
    chain = bonded()
    before = get_account(chain.ledger, ASKER).balance
    chain.step(unbond(chain, "asker", 20 * UNIT))
    start_ms = chain.header.time_ms
    for _ in range(heights - 1):
        chain.step(after_ms=50)
        assert list_unbonding(chain.ledger, ASKER) != ()
    chain.step(after_ms=TIME_MS - (chain.header.time_ms - start_ms) - 1)
    assert list_unbonding(chain.ledger, ASKER) != ()  # one millisecond short
    chain.step(after_ms=50)
    assert list_unbonding(chain.ledger, ASKER) == ()
    assert get_account(chain.ledger, ASKER).balance == before - MINIMAL.base_fee + 20 * UNIT


def test_units_do_not_arrive_before_their_height_however_late_it_is() -> None:
    chain = bonded()
    chain.step(unbond(chain, "asker", 20 * UNIT))
    chain.step(after_ms=100 * TIME_MS)
    chain.run(HEIGHTS - 2)
    assert list_unbonding(chain.ledger, ASKER) != ()
    chain.step()
    assert list_unbonding(chain.ledger, ASKER) == ()


def test_what_open_jobs_hold_cannot_leave_until_they_settle() -> None:
    chain = bonded("v0", 20 * UNIT)
    for name in ("v1", "v2", "v3", "v4"):
        node = make_key(name).public
        chain.step(chain.sign(name, Bond(node, 1, FOREVER, 20 * UNIT)))
    job = chain.submit(make_request(seats=5, fee=45 * UNIT))  # holds 90 of everybody's 120
    refusal = refuse(chain, "v0", unbond(chain, "v0", 40 * UNIT).body)
    assert refusal.reason is Rejection.BUSY
    assert "wait until they have settled" in str(refusal)
    said = dict.fromkeys(chain.members(job), make_payload())
    chain.commit_all(job, said)
    chain.reveal_all(job, said)
    chain.step(unbond(chain, "v0", 20 * UNIT))


def test_two_amounts_of_one_block_are_one_entry() -> None:
    chain = bonded()
    first = chain.sign("asker", Unbond(ASKER, 2, FOREVER, 3))
    chain.step(first, chain.sign("asker", Unbond(ASKER, 3, FOREVER, 4)))
    assert [entry.amount for _, entry in list_unbonding(chain.ledger, ASKER)] == [7]


def test_only_so_many_amounts_of_a_node_are_on_their_way_at_once() -> None:
    chain = bonded()
    for _ in range(MAX_NODE_UNBONDINGS):
        chain.step(unbond(chain, "asker", 1))
    assert refuse(chain, "asker", unbond(chain, "asker", 1).body).reason is Rejection.BUSY


def test_what_is_taken_comes_from_the_first_to_be_released_and_is_never_more_than_there_is() -> None:
    chain = bonded()
    for amount in (3, 4, 5):
        chain.step(unbond(chain, "asker", amount))
    draft = Draft(chain.ledger)
    assert take_unbonding(draft, ASKER, 5) == 5
    assert sum_unbonding(draft, ASKER) == 7
    assert take_unbonding(draft, ASKER, 100) == 7
    assert sum_unbonding(draft, ASKER) == 0
    assert take_unbonding(draft, V0, 1) == 0


def test_who_withdraws_is_a_candidate_until_the_next_snapshot_and_may_serve_again() -> None:
    chain = start_chain()
    model = make_request().model
    chain.step(chain.sign("v0", Withdraw(V0, 1, FOREVER, model)))
    assert list_served_models(chain.ledger, V0) == ()
    assert refuse(chain, "v0", Withdraw(V0, 2, FOREVER, model)).reason is Rejection.NOT_A_MEMBER
    chain.run(MINIMAL.epoch_heights - chain.header.height)
    for height, is_candidate in ((0, True), (MINIMAL.epoch_heights, False)):
        snapshot = get_candidates(chain.ledger, height)
        assert snapshot is not None
        assert (V0 in {candidate.node for candidate in snapshot.candidates[model]}) is is_candidate


def test_who_serves_nothing_cannot_withdraw() -> None:
    chain = start_chain()
    assert refuse(chain, "asker", Withdraw(ASKER, 1, FOREVER, make_request().model)).reason is Rejection.NOT_A_MEMBER


def test_a_whole_bond_goes_round() -> None:
    chain = start_chain(QUICK)
    chain.step(chain.sign("asker", Bond(ASKER, 1, FOREVER, 20 * UNIT)))
    chain.step(unbond(chain, "asker", 20 * UNIT))
    chain.run(18)
    assert get_account(chain.ledger, ASKER).balance == 1000 * UNIT - 2 * MINIMAL.base_fee
