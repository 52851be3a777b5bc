"""Renewed onions: registered once at a time, in force a whole epoch later, revealed from their first layer on (B6, B7)."""

import pytest

from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.entries import NextOnion
from protocol.ledger.onions import compute_renewal_height
from protocol.ledger.queries import get_onion
from protocol.ledger.state import check_transaction
from protocol.params import MINIMAL
from protocol.transactions import RenewOnion, SignedTransaction
from protocol.units import Hash
from tests.protocol.builders import FOREVER, TestChain, make_hash, make_key, make_onion, start_chain
from tests.protocol.offences import convict, report

PERIOD = MINIMAL.epoch_heights


def renew(chain: TestChain, name: str, tip: Hash, renewal: int = 1) -> SignedTransaction:
    return chain.sign(name, RenewOnion(make_key(name).public, chain.next_nonce(name), FOREVER, tip, renewal))


def refuse(chain: TestChain, signed: SignedTransaction) -> InvalidTransaction:
    with pytest.raises(InvalidTransaction) as refusal:
        check_transaction(chain.ledger, signed)
    return refusal.value


@pytest.mark.parametrize(
    "height, after", [(1, 2 * PERIOD), (PERIOD, 2 * PERIOD), (PERIOD + 1, 3 * PERIOD), (2 * PERIOD, 3 * PERIOD)]
)
def test_a_whole_period_lies_between_a_tip_and_its_first_use(height: int, after: int) -> None:
    assert compute_renewal_height(MINIMAL, height) == after


def test_a_renewed_onion_is_revealed_from_its_outermost_layer_and_renewed_again() -> None:
    chain = start_chain()
    for renewals in (1, 2):
        for name in ("v0", "v1", "v2", "v3", "v4"):
            chain.step(renew(chain, name, make_onion(f"{name} {renewals}").tip, renewals))
        before = get_onion(chain.ledger, make_key("v0").public)
        assert before is not None and before.next is not None and before.renewals == renewals - 1
        chain.run(before.next.height - chain.header.height - 1)
        assert get_onion(chain.ledger, make_key("v0").public).renewals == renewals - 1
        chain.step()
        after = get_onion(chain.ledger, make_key("v0").public)
        assert after is not None and (after.renewals, after.slots, after.tip_slot, after.next) == (renewals, 0, 0, None)
        assert after.tip == make_onion(f"v0 {renewals}").tip
        for skip in (0, 2, 5, 0, 0, 0):
            chain.step(skip=skip)  # every leader reveals the new onion; a skipped view uses its layer up


def test_each_renewal_is_registered_once_and_in_its_turn() -> None:
    chain = start_chain()
    assert refuse(chain, renew(chain, "v0", make_hash("none"), 0)).reason is Rejection.DUPLICATE
    assert refuse(chain, renew(chain, "v0", make_hash("next"), 2)).reason is Rejection.TOO_EARLY
    chain.step(renew(chain, "v0", make_hash("first")))
    assert refuse(chain, renew(chain, "v0", make_hash("second"))).reason is Rejection.DUPLICATE
    assert refuse(chain, renew(chain, "v0", make_hash("third"), 2)).reason is Rejection.TOO_EARLY
    assert get_onion(chain.ledger, make_key("v0").public).next == NextOnion(make_hash("first"), 2 * PERIOD)


def test_only_who_has_a_bond_and_kept_the_rules_renews() -> None:
    chain = start_chain()
    chain.step()
    assert refuse(chain, renew(chain, "asker", make_hash("tip"))).reason is Rejection.NOT_BONDED
    chain.step(report(chain, "asker", convict(chain, "v0")))
    assert refuse(chain, renew(chain, "v0", make_hash("tip"))).reason is Rejection.CONVICTED
    assert get_onion(chain.ledger, make_key("asker").public) is None
