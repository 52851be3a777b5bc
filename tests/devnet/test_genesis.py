"""A devnet's genesis is one that a ledger starts from, with equal validators that serve the shipped models."""

from __future__ import annotations

import pytest

from devnet.genesis import (
    BALANCE,
    DEFAULT_MODEL,
    STAKE,
    Founder,
    build_genesis,
    draw_seed,
    find_model,
    list_shipped_models,
    load_shipped_card,
    make_founder,
)
from node.faults import Exit, Fault, Trouble
from node.genesis_file import read_genesis, write_genesis
from node.keys import derive_key
from protocol.crypto import SigningKey
from protocol.genesis import compute_chain_id, compute_validator_set
from protocol.jobs.beacon import Onion, is_reveal_valid
from protocol.ledger.queries import get_account, list_models
from protocol.ledger.state import create_genesis
from protocol.models import compute_model_id

NOW_MS = 1_700_000_000_000


def make_founders(count: int) -> list[Founder]:
    return [Founder(SigningKey(bytes([index + 1]) * 32).public, bytes([index]) * 32) for index in range(count)]


def test_validators_are_equal_and_serve_every_model() -> None:
    card = load_shipped_card(DEFAULT_MODEL)
    genesis = build_genesis(make_founders(5), [card], bytes(32), NOW_MS)
    assert {member.weight for member in compute_validator_set(genesis).members} == {STAKE}
    assert {validator.serves for validator in genesis.validators} == {(compute_model_id(card),)}


def test_a_ledger_starts_from_it_with_full_accounts() -> None:
    card = load_shipped_card(DEFAULT_MODEL)
    founders = make_founders(3)
    ledger, _ = create_genesis(build_genesis(founders, [card], bytes(32), NOW_MS))
    assert [get_account(ledger, founder.node).balance for founder in founders] == [BALANCE] * 3
    assert [get_account(ledger, founder.node).bonded for founder in founders] == [STAKE] * 3
    assert list_models(ledger) == {compute_model_id(card): card}


def test_no_two_networks_are_the_same() -> None:
    card = load_shipped_card(DEFAULT_MODEL)
    one, other = (build_genesis(make_founders(2), [card], draw_seed(), NOW_MS) for _ in range(2))
    assert one.name != other.name
    assert compute_chain_id(one) != compute_chain_id(other)


def test_the_tip_is_that_of_the_onion_which_the_node_will_reveal() -> None:
    key = derive_key(b"k" * 32)
    founder = make_founder(key)
    assert founder.node == key.node
    assert is_reveal_valid(founder.onion_tip, Onion(key.onion_secret).reveal(1), 1, 1)


def test_it_survives_its_file(tmp_path) -> None:
    genesis = build_genesis(make_founders(4), [load_shipped_card(DEFAULT_MODEL)], draw_seed(), NOW_MS)
    write_genesis(tmp_path / "genesis.json", genesis)
    assert read_genesis(tmp_path / "genesis.json") == genesis


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(Fault) as refused:
        find_model("arith-xxl")
    assert (refused.value.reason, refused.value.exit_code) == (Trouble.BAD_MODEL, Exit.CONFIGURATION)
    assert all(name in refused.value.cure for name in list_shipped_models())
