"""Every way units move inside a block: each keeps the sum, and none takes what is not there (M2, M6)."""

import pytest

from protocol.ledger.accounts import bond, burn_bond, credit, debit, get_account, lock, pay_base_fee, unlock
from protocol.ledger.draft import Draft
from protocol.ledger.entries import Account, account_key
from tests.protocol.builders import make_genesis, make_hash, start_chain

NODE = make_hash("node")
GENESIS = make_genesis()


def make_draft(account: Account = Account(100, 50, 0, 7)) -> Draft:
    draft = Draft(start_chain(GENESIS).ledger)
    draft.put(account_key(NODE), account)
    return draft


def test_credits_debits_and_bonds() -> None:
    draft = make_draft()
    credit(draft, NODE, 5)
    debit(draft, NODE, 100)
    bond(draft, NODE, 5)
    assert get_account(draft, NODE) == Account(0, 55, 0, 7)


@pytest.mark.parametrize("move", [debit, bond, pay_base_fee])
def test_a_balance_is_never_overdrawn(move: object) -> None:
    with pytest.raises(AssertionError):
        move(make_draft(), NODE, 101)


def test_a_credit_of_nothing_makes_no_account() -> None:
    draft = make_draft()
    credit(draft, make_hash("nobody"), 0)
    assert not draft.has(account_key(make_hash("nobody")))


def test_locks_hold_the_free_bond_only() -> None:
    draft = make_draft()
    lock(draft, NODE, 30)
    lock(draft, NODE, 20)
    with pytest.raises(AssertionError):
        lock(draft, NODE, 1)
    unlock(draft, NODE, 50)
    with pytest.raises(AssertionError):
        unlock(draft, NODE, 1)


@pytest.mark.parametrize("locked, amount, lost", [(0, 20, 20), (0, 60, 50), (45, 20, 5), (50, 20, 0)])
def test_a_forfeit_takes_at_most_the_free_bond(locked: int, amount: int, lost: int) -> None:
    draft = make_draft(Account(0, 50, locked, 0))
    assert burn_bond(draft, NODE, amount) == lost
    assert get_account(draft, NODE).bonded == 50 - lost
    assert draft.burned == lost


@pytest.mark.parametrize("fee, kept, burned", [(10, 5, 5), (11, 5, 6), (1, 0, 1), (0, 0, 0)])
def test_a_base_fee_is_halved_and_its_odd_unit_burned(fee: int, kept: int, burned: int) -> None:
    draft = make_draft()
    pay_base_fee(draft, NODE, fee)
    assert get_account(draft, NODE) == Account(100 - fee, 50, 0, 8)
    assert (draft.fees, draft.burned) == (kept, burned)
