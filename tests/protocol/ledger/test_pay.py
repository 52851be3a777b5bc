"""How an escrow is divided: every unit goes somewhere, and what does not divide is burned (M3 to M6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.jobs.agreement import Decision
from protocol.ledger.pay import Shares, compute_bond_at_risk, compute_shares
from protocol.params import MINIMAL
from tests.protocol.builders import make_request


@pytest.mark.parametrize(
    "decision, paid, shares",
    [
        (Decision.ACCEPTED, 3, Shares(3_333, 0, 1)),
        (Decision.ACCEPTED, 2, Shares(3_333, 0, 3_334)),  # the absent third's part is burned, not shared out
        (Decision.INCONCLUSIVE, 3, Shares(1_666, 5_000, 2)),
        (Decision.INCONCLUSIVE, 2, Shares(2_500, 5_000, 0)),
        (Decision.FAILED, 1, Shares(1_000, 9_000, 0)),
        (Decision.FAILED, 0, Shares(0, 9_000, 1_000)),
    ],
)
def test_the_division_of_ten_thousand(decision: Decision, paid: int, shares: Shares) -> None:
    assert compute_shares(make_request(fee=10_000), MINIMAL, decision, paid) == shares


@given(
    fee=st.integers(0, 2**53),
    half=st.integers(0, 50),
    paid=st.integers(0, 101),
    decision=st.sampled_from([Decision.ACCEPTED, Decision.FAILED, Decision.INCONCLUSIVE]),
)
def test_every_unit_of_a_fee_goes_somewhere(fee: int, half: int, paid: int, decision: Decision) -> None:
    seats = 2 * half + 1
    paid = min(paid, seats)
    shares = compute_shares(make_request(fee=fee, seats=seats), MINIMAL, decision, paid)
    assert shares.seat * paid + shares.refund + shares.burned == fee
    assert min(shares.seat, shares.refund, shares.burned) >= 0


def test_the_bond_at_risk_is_two_fees_a_job() -> None:
    assert compute_bond_at_risk(make_request(fee=7), MINIMAL) == 14
    assert compute_bond_at_risk(make_request(fee=7), replace(MINIMAL, forfeit_fees=0)) == 0
