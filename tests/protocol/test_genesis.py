"""From which genesis a network can start, and what its first state holds (L1)."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from protocol.codec import encode
from protocol.errors import InvalidGenesis, Rejection
from protocol.genesis import GENESIS_CODEC, Genesis, compute_chain_id
from protocol.ledger.entries import Account
from protocol.ledger.queries import get_account
from protocol.ledger.state import create_genesis
from protocol.params import MINIMAL
from tests.protocol.builders import make_card, make_genesis, make_hash, make_key

GENESIS = make_genesis()
FIRST, *REST = GENESIS.validators


def with_params(**changes: int) -> Genesis:
    return replace(GENESIS, params=replace(MINIMAL, **changes))


BAD: list[tuple[str, Callable[[], Genesis], Rejection]] = [
    ("validator twice", lambda: replace(GENESIS, validators=(FIRST, FIRST)), Rejection.DUPLICATE),
    ("account twice", lambda: replace(GENESIS, accounts=GENESIS.accounts[:1] * 2), Rejection.DUPLICATE),
    ("model twice", lambda: replace(GENESIS, models=(make_card(), make_card())), Rejection.DUPLICATE),
    ("name twice", lambda: replace(GENESIS, models=(make_card(), make_card(vocabulary=9))), Rejection.DUPLICATE),
    (
        "serves twice",
        lambda: replace(GENESIS, validators=(replace(FIRST, serves=FIRST.serves * 2), *REST)),
        Rejection.DUPLICATE,
    ),
    ("serves unknown", lambda: replace(GENESIS, models=()), Rejection.UNKNOWN_MODEL),
    ("bad card", lambda: replace(GENESIS, models=(make_card(tolerance_bits=3),)), Rejection.BAD_CARD),
    ("stake too small", lambda: make_genesis(stake=MINIMAL.min_bond - 1), Rejection.NOT_BONDED),
    ("too much", lambda: make_genesis(balance=2**52), Rejection.TOO_LARGE),
    ("too late", lambda: replace(GENESIS, time_ms=2**54), Rejection.BAD_TIME),
    ("beacon too slow", lambda: with_params(beacon_max_blocks=9), Rejection.OUT_OF_RANGE),
    ("no window", lambda: with_params(max_window_ms=MINIMAL.min_window_ms - 1), Rejection.OUT_OF_RANGE),
    ("endless window", lambda: with_params(max_window_ms=2**41), Rejection.OUT_OF_RANGE),
    ("endless suspension", lambda: with_params(suspension_ms=2**41), Rejection.OUT_OF_RANGE),
    ("endless jail", lambda: with_params(jail_ms=2**41), Rejection.OUT_OF_RANGE),
    ("a third jailed", lambda: with_params(jail_share_ppm=333_334), Rejection.OUT_OF_RANGE),
    (
        "leaving before the proof comes",
        lambda: with_params(unbonding_heights=2 * MINIMAL.epoch_heights + MINIMAL.evidence_max_heights - 1),
        Rejection.OUT_OF_RANGE,
    ),
    ("no bond", lambda: with_params(min_bond=0), Rejection.OUT_OF_RANGE),
    ("no fee", lambda: with_params(min_seat_fee=0), Rejection.OUT_OF_RANGE),
    ("no pace", lambda: with_params(pace_ms=0), Rejection.OUT_OF_RANGE),
]


@pytest.mark.parametrize("make, reason", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_genesis_that_no_network_could_start_from(make: Callable[[], Genesis], reason: Rejection) -> None:
    with pytest.raises(InvalidGenesis) as refusal:
        create_genesis(make())
    assert refusal.value.reason is reason


def test_the_smallest_network_is_one_validator_without_models() -> None:
    ledger, header = create_genesis(make_genesis(validators=("v0",), accounts=(), cards=()))
    assert ledger.state_root == header.state_root


def test_stakes_and_balances_are_minted_as_written() -> None:
    ledger, _ = create_genesis(GENESIS)
    assert get_account(ledger, make_key("v0").public) == Account(GENESIS.accounts[0].balance, FIRST.stake, 0, 0)
    minted = sum(entry.stake for entry in GENESIS.validators) + sum(entry.balance for entry in GENESIS.accounts)
    assert ledger.chain.minted == minted


def test_the_chain_is_named_by_every_byte_of_its_genesis() -> None:
    assert GENESIS_CODEC.decode(encode(GENESIS)) == GENESIS
    others = [replace(GENESIS, seed=make_hash("x")), with_params(base_fee=1), replace(GENESIS, name="other")]
    assert len({compute_chain_id(genesis) for genesis in (GENESIS, *others)}) == 4
    assert len({create_genesis(genesis)[1].chain_id for genesis in (GENESIS, *others)}) == 4
