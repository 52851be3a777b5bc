"""A stranger's state is taken whole and true or refused with an exception: no lie meets an assertion."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.block import Header
from protocol.codec import encode
from protocol.errors import InvalidMessage, Rejection
from protocol.ledger.draft import Ledger
from protocol.ledger.entries import ACCOUNT_CODEC, CHAIN_CODEC, CHAIN_KEY, Kind
from protocol.ledger.foreign import ENTRY_DECODERS, ledger_from_snapshot
from protocol.ledger.state import create_genesis
from protocol.merkle import compute_root
from tests.protocol.builders import make_genesis

Entries = list[tuple[bytes, bytes]]
GENESIS = make_genesis()


@pytest.fixture(name="state")
def make_state() -> tuple[Ledger, Header, Entries]:
    ledger, header = create_genesis(GENESIS)
    return ledger, header, sorted(ledger.entries.items())


def refuse(entries: Entries, header: Header) -> Rejection:
    with pytest.raises(InvalidMessage) as caught:
        ledger_from_snapshot(GENESIS, entries, header)
    return caught.value.reason


def test_a_true_state_is_the_ledger_that_it_was(state: tuple[Ledger, Header, Entries]) -> None:
    ledger, header, entries = state
    loaded = ledger_from_snapshot(GENESIS, entries, header)
    assert (loaded.state_root, loaded.chain, dict(loaded.worth)) == (
        ledger.state_root,
        ledger.chain,
        dict(ledger.worth),
    )


def test_entries_that_are_missing_added_changed_or_out_of_order_are_refused(
    state: tuple[Ledger, Header, Entries],
) -> None:
    _, header, entries = state
    assert refuse(entries[:-1], header) is Rejection.BAD_ROOT
    assert refuse([*entries, (b"\xff", b"")], header) is Rejection.BAD_ROOT
    assert refuse([(entries[0][0], b""), *entries[1:]], header) is Rejection.BAD_ROOT
    assert refuse(entries[::-1], header) is Rejection.MALFORMED
    assert refuse([entries[0], *entries], header) is Rejection.MALFORMED
    assert refuse([], header) is Rejection.BAD_ROOT


def test_even_a_quorum_cannot_make_a_node_take_a_state_that_is_none(state: tuple[Ledger, Header, Entries]) -> None:
    """A header that commits to nonsense, as a quorum of liars could sign it."""
    _, header, entries = state
    index, (key, value) = next((i, entry) for i, entry in enumerate(entries) if entry[0][0] == Kind.ACCOUNT)
    account = ACCOUNT_CODEC.decode(value)
    minted = [*entries]
    minted[index] = (key, encode(replace(account, balance=account.balance + 1)))
    assert refuse(minted, sign_for(header, minted)) is Rejection.BAD_ROOT
    headless = [entry for entry in entries if entry[0] != CHAIN_KEY]
    assert refuse(headless, sign_for(header, headless)) is Rejection.MALFORMED
    garbled = [(each, b"\xc1" if each == key else content) for each, content in entries]
    assert refuse(garbled, sign_for(header, garbled)) is Rejection.MALFORMED
    chain = CHAIN_CODEC.decode(dict(entries)[CHAIN_KEY])
    later = [(each, encode(replace(chain, height=9)) if each == CHAIN_KEY else content) for each, content in entries]
    assert refuse(later, sign_for(header, later)) is Rejection.BAD_HEIGHT


def sign_for(header: Header, entries: Entries) -> Header:
    return replace(header, state_root=compute_root(entries))


@pytest.mark.parametrize(
    "key, value",
    [(bytes((Kind.SETTLEMENT,)) + bytes(32), b"\xc1"), (bytes((Kind.RECORD,)) + bytes(32), b""), (b"\xee", b"\x90")],
)
def test_even_a_quorum_cannot_hide_an_entry_that_says_nothing(
    state: tuple[Ledger, Header, Entries], key: bytes, value: bytes
) -> None:
    _, header, entries = state
    lied = sorted([*entries, (key, value)])
    assert refuse(lied, replace(header, state_root=compute_root(lied))) is Rejection.MALFORMED


def test_every_kind_of_entry_can_be_read() -> None:
    assert set(ENTRY_DECODERS) == set(Kind)
