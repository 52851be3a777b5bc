"""The three sets of constants: each can start a network, and the small ones differ in size only."""

import pytest
from msgspec.structs import replace

from protocol.codec import Codec, encode
from protocol.ledger.state import create_genesis
from protocol.params import DEVNET, INTERNET, MINIMAL, Params
from tests.protocol.builders import make_genesis, start_chain

by_name = pytest.mark.parametrize("params", [INTERNET, DEVNET, MINIMAL], ids=["internet", "devnet", "minimal"])


@by_name
def test_a_network_starts_with_these(params: Params) -> None:
    create_genesis(make_genesis(params=params))
    assert Codec[Params](Params, 1024).decode(encode(params)) == params


@by_name
def test_a_job_settles_with_these(params: Params) -> None:
    chain = start_chain(make_genesis(params=replace(params, min_window_ms=100)))
    assert chain.settle().agreement_ppm == 1_000_000


def test_the_small_ones_are_not_laxer_about_money() -> None:
    for name in ("base_fee", "min_bond", "forfeit_fees", "failed_share_ppm", "inconclusive_share_ppm", "min_seat_fee"):
        assert getattr(INTERNET, name) == getattr(DEVNET, name) == getattr(MINIMAL, name)


def test_a_forfeit_is_more_than_toggling_a_job_to_inconclusive_gains() -> None:
    # The most a member saves by turning an accepted answer it dislikes into no answer is one fee's worth of influence.
    assert INTERNET.forfeit_fees > 1
