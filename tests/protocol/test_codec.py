from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.block import MAX_TRANSACTION_BYTES
from protocol.codec import Codec, encode
from protocol.errors import InvalidMessage, Rejection
from protocol.ordering.messages import VOTE_CODEC, Vote, VoteKind
from protocol.transactions import TRANSACTION_CODEC, Commit, Reveal, SignedTransaction, Transfer
from protocol.units import MAX_UINT
from tests.vectors.samples import list_samples

HASH = bytes(range(32))
VOTE = Vote(VoteKind.NOTAR, 0, 7, HASH, 3, bytes(64))
HASHES = st.binary(min_size=32, max_size=32)
UINTS = st.integers(0, MAX_UINT)
TRANSFERS = st.builds(Transfer, sender=HASHES, nonce=UINTS, valid_until=UINTS, recipient=HASHES, amount=UINTS)
COMMITS = st.builds(Commit, member=HASHES, job=HASHES, commitment=HASHES)


def refuse(encoded: bytes, codec: Codec[Vote] | Codec[SignedTransaction] = VOTE_CODEC) -> Rejection:
    with pytest.raises(InvalidMessage) as caught:
        codec.decode(encoded)
    return caught.value.reason


@pytest.mark.parametrize("sample", list_samples(), ids=lambda sample: sample.name)
def test_every_message_survives_the_round_trip(sample) -> None:
    assert sample.codec.decode(encode(sample.message)) == sample.message


@given(TRANSFERS | COMMITS, st.binary(min_size=64, max_size=64))
def test_transactions_survive_the_round_trip(body: Transfer | Commit, signature: bytes) -> None:
    signed = SignedTransaction(body, signature)
    assert TRANSACTION_CODEC.decode(encode(signed)) == signed


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_canonical(encoded: bytes) -> None:
    try:
        message = TRANSACTION_CODEC.decode(encoded)
    except InvalidMessage:
        return
    assert encode(message) == encoded


@given(st.integers(0, len(encode(VOTE)) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_another_vote(position: int, flip: int) -> None:
    encoded = bytearray(encode(VOTE))
    encoded[position] ^= flip
    try:
        message = VOTE_CODEC.decode(bytes(encoded))
    except InvalidMessage:
        return
    assert message != VOTE


@pytest.mark.parametrize(
    "wide",
    [b"\xcc\x07", b"\xcd\x00\x07", b"\xce\x00\x00\x00\x07", b"\xcf" + bytes(7) + b"\x07", b"\xd0\x07"],
    ids=["uint8", "uint16", "uint32", "uint64", "int8"],
)
def test_an_integer_has_one_encoding(wide: bytes) -> None:
    narrow = encode(VOTE)
    assert narrow[3] == 7  # array of 6, kind, epoch, view
    assert refuse(narrow[:3] + wide + narrow[4:]) is Rejection.NOT_CANONICAL


def test_a_byte_string_and_an_array_have_one_encoding() -> None:
    encoded = encode(VOTE)
    assert encoded[4:6] == b"\xc4\x20"
    assert refuse(encoded[:4] + b"\xc5\x00\x20" + encoded[6:]) is Rejection.NOT_CANONICAL
    assert refuse(b"\xdc\x00\x06" + encoded[1:]) is Rejection.NOT_CANONICAL


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\x96",
        encode(VOTE)[:-1],
        encode(VOTE) + b"\x00",
        encode((1, 0, 7, HASH, 3)),
        encode((1, 0, 7, HASH, 3, bytes(64), 0)),
        encode((1, 0, -1, HASH, 3, bytes(64))),
        encode((1, 0, 2**63, HASH, 3, bytes(64))),
        encode((1, 0, 7.0, HASH, 3, bytes(64))),
        encode((1, 0, True, HASH, 3, bytes(64))),
        encode((1, 0, 7, "h" * 32, 3, bytes(64))),
        encode((1, 0, 7, HASH[1:], 3, bytes(64))),
        encode((9, 0, 7, HASH, 3, bytes(64))),
        encode((1, 0, 7, HASH, 100, bytes(64))),
        encode({"kind": 1}),
        b"\x91" * 200,
    ],
)
def test_what_is_no_vote_is_malformed(encoded: bytes) -> None:
    assert refuse(encoded) is Rejection.MALFORMED


def test_size_is_judged_before_anything_else() -> None:
    assert refuse(b"\x00" * 257) is Rejection.TOO_LARGE
    assert refuse(b"\x00" * (MAX_TRANSACTION_BYTES + 1), TRANSACTION_CODEC) is Rejection.TOO_LARGE
    assert refuse(b"\x00" * MAX_TRANSACTION_BYTES, TRANSACTION_CODEC) is Rejection.MALFORMED


def test_deep_nesting_is_refused() -> None:
    assert refuse(b"\x91" * 5000, TRANSACTION_CODEC) is Rejection.MALFORMED


def test_a_union_knows_its_members_by_tag() -> None:
    body = Reveal.__struct_config__.tag
    tags = [kind.__struct_config__.tag for kind in (Transfer, Commit, Reveal)]
    assert body == 7 and len(set(tags)) == 3
    assert refuse(encode(((99, HASH), bytes(64))), TRANSACTION_CODEC) is Rejection.MALFORMED


def test_text_must_be_utf8() -> None:
    sample = next(sample for sample in list_samples() if sample.name == "Output")
    encoded = encode(sample.message)
    assert b"81" in encoded
    with pytest.raises(InvalidMessage) as caught:
        sample.codec.decode(encoded.replace(b"81", b"\xff\xfe"))
    assert caught.value.reason is Rejection.MALFORMED
