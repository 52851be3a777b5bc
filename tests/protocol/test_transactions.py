"""Transactions: canonical, named without their signatures, signed for one chain by one author (T14)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.block import MAX_TRANSACTION_BYTES
from protocol.codec import encode
from protocol.errors import InvalidMessage, InvalidTransaction, Rejection
from protocol.transactions import (
    TRANSACTION_CODEC,
    Bond,
    Commit,
    RegisterModel,
    Reveal,
    Serve,
    SignedTransaction,
    Submit,
    Transaction,
    Transfer,
    author_of,
    check_transaction_signature,
    compute_commitment,
    compute_transaction_id,
    sign_transaction,
)
from tests.protocol.builders import ABSTENTION, make_card, make_hash, make_key, make_payload, make_request

KEY = make_key("sender")
CHAIN = make_hash("chain")
JOB = make_hash("job")
SALT = make_hash("salt")

BODIES: list[Transaction] = [
    Transfer(KEY.public, 1, 9, make_key("other").public, 5),
    Bond(KEY.public, 1, 9, 5),
    Serve(KEY.public, 1, 9, make_request().model),
    RegisterModel(KEY.public, 1, 9, make_card()),
    Submit(KEY.public, 1, 9, make_request()),
    Commit(KEY.public, JOB, make_hash("commitment")),
    Reveal(KEY.public, JOB, make_payload(), SALT),
    Reveal(KEY.public, JOB, ABSTENTION, SALT),
]
by_kind = pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)


@by_kind
def test_a_signed_transaction_survives_its_bytes_and_its_check(body: Transaction) -> None:
    signed = sign_transaction(KEY, CHAIN, body)
    assert TRANSACTION_CODEC.decode(encode(signed)) == signed
    check_transaction_signature(CHAIN, signed)
    assert author_of(body) == KEY.public


@by_kind
def test_a_signature_serves_one_chain_one_author_and_one_body(body: Transaction) -> None:
    signed = sign_transaction(KEY, CHAIN, body)
    forged = replace(signed, signature=bytes(64))
    field = "member" if isinstance(body, Commit | Reveal) else "sender"
    stolen = SignedTransaction(replace(body, **{field: make_key("thief").public}), signed.signature)
    for chain, wrong in ((make_hash("other chain"), signed), (CHAIN, forged), (CHAIN, stolen)):
        with pytest.raises(InvalidTransaction) as refusal:
            check_transaction_signature(chain, wrong)
        assert refusal.value.reason is Rejection.BAD_SIGNATURE


def test_kinds_never_share_a_name() -> None:
    assert len({compute_transaction_id(body) for body in BODIES}) == len(BODIES)


def test_a_transaction_s_name_does_not_depend_on_its_signature() -> None:
    signed = sign_transaction(KEY, CHAIN, BODIES[0])
    assert compute_transaction_id(signed.body) == compute_transaction_id(replace(signed, signature=bytes(64)).body)


def test_a_transaction_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidMessage) as refusal:
        TRANSACTION_CODEC.decode(bytes(MAX_TRANSACTION_BYTES + 1))
    assert refusal.value.reason is Rejection.TOO_LARGE


@given(st.binary(max_size=400))
def test_no_bytes_stop_the_decoder(junk: bytes) -> None:
    with pytest.raises(InvalidMessage):
        TRANSACTION_CODEC.decode(junk)


@given(st.integers(0, len(BODIES) - 1), st.integers(0, 10_000), st.integers(1, 255))
def test_an_altered_byte_never_passes_for_the_original(kind: int, place: int, flip: int) -> None:
    encoded = bytearray(encode(sign_transaction(KEY, CHAIN, BODIES[kind])))
    encoded[place % len(encoded)] ^= flip
    with pytest.raises((InvalidMessage, InvalidTransaction)):
        check_transaction_signature(CHAIN, TRANSACTION_CODEC.decode(bytes(encoded)))


def test_a_commitment_is_bound_to_everything_it_stands_for() -> None:
    base = (CHAIN, JOB, KEY.public, make_payload(), SALT)
    others = (make_hash("c"), make_hash("j"), make_hash("m"), make_payload("other"), make_hash("s"))
    changed = [compute_commitment(*base[:at], other, *base[at + 1 :]) for at, other in enumerate(others)]
    assert len({compute_commitment(*base), *changed}) == 6
