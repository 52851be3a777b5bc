from __future__ import annotations

from hashlib import sha256, shake_256

import pytest

from protocol.crypto import (
    MAGIC,
    HashDomain,
    SignatureDomain,
    SigningKey,
    compute_hash,
    compute_stream,
    is_signature_valid,
    signing_bytes,
)
from protocol.errors import InvalidTransaction, Rejection
from protocol.transactions import (
    RevealPayload,
    Transfer,
    check_transaction_signature,
    compute_commitment,
    compute_transaction_id,
    sign_transaction,
)

KEY = SigningKey(bytes(32))
CHAIN, OTHER = b"c" * 32, b"d" * 32
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the base point
PAYLOAD = RevealPayload(False, b"o" * 32, None, bytes(32), 1_000_000)


def test_a_hash_is_sha256_behind_its_domain() -> None:
    assert compute_hash(HashDomain.BLOCK, b"ab", b"c") == sha256(b"\x04abc").digest()
    assert compute_stream(HashDomain.DRAW, 40, b"ab", b"c") == shake_256(b"\x15abc").digest(40)


def test_domains_are_single_different_bytes() -> None:
    assert len({compute_hash(domain, b"") for domain in HashDomain}) == len(HashDomain)
    assert all(0 <= domain < 256 for domain in (*HashDomain, *SignatureDomain))


def test_a_signature_is_rfc_8032() -> None:
    # RFC 8032, section 7.1, test 1
    key = SigningKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


@pytest.mark.parametrize(
    "other",
    [
        signing_bytes(SignatureDomain.EVIDENCE, CHAIN, b"body"),
        signing_bytes(SignatureDomain.TRANSACTION, OTHER, b"body"),
        signing_bytes(SignatureDomain.TRANSACTION, CHAIN, b"Body"),
    ],
    ids=["domain", "chain", "body"],
)
def test_a_signature_holds_for_one_purpose_one_chain_one_body(other: bytes) -> None:
    message = signing_bytes(SignatureDomain.TRANSACTION, CHAIN, b"body")
    signature = KEY.sign(message)
    assert message.startswith(MAGIC + b"\x05" + CHAIN)
    assert is_signature_valid(KEY.public, message, signature)
    assert not is_signature_valid(KEY.public, other, signature)
    assert not is_signature_valid(SigningKey(b"1" * 32).public, message, signature)


def test_every_changed_byte_of_a_signature_is_refused() -> None:
    signature = KEY.sign(b"message")
    for position in range(64):
        changed = bytearray(signature)
        changed[position] ^= 1
        assert not is_signature_valid(KEY.public, b"message", bytes(changed))


def test_a_signature_has_no_second_form() -> None:
    signature = KEY.sign(b"message")
    scalar = int.from_bytes(signature[32:], "little") + ORDER  # the same point, written with S + L
    assert not is_signature_valid(KEY.public, b"message", signature[:32] + scalar.to_bytes(32, "little"))


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\x01" + bytes(31),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        b"\xed" + b"\xff" * 30 + b"\x7f",
    ],
    ids=["order 4", "order 1", "order 2", "order 8", "order 8, other", "not canonical"],
)
def test_a_key_of_small_order_signs_nothing(point: bytes) -> None:
    assert not is_signature_valid(point, b"message", point + bytes(32))
    assert not is_signature_valid(point, b"message", bytes(64))


def test_a_transaction_is_named_without_its_signature_and_held_to_its_author() -> None:
    body = Transfer(KEY.public, 1, 99, b"r" * 32, 5)
    signed = sign_transaction(KEY, CHAIN, body)
    check_transaction_signature(CHAIN, signed)
    assert compute_transaction_id(signed.body) == compute_transaction_id(body)
    with pytest.raises(InvalidTransaction) as caught:
        check_transaction_signature(OTHER, signed)
    assert caught.value.reason is Rejection.BAD_SIGNATURE


def test_a_commitment_opens_for_one_chain_job_member_payload_and_salt() -> None:
    parts = (CHAIN, b"j" * 32, b"m" * 32, PAYLOAD, b"s" * 32)
    others = [
        (OTHER, *parts[1:]),
        (*parts[:1], b"J" * 32, *parts[2:]),
        (*parts[:2], b"M" * 32, *parts[3:]),
        (*parts[:3], RevealPayload(False, b"o" * 32, None, bytes(32), 0), parts[4]),
        (*parts[:4], b"S" * 32),
    ]
    assert len({compute_commitment(*each) for each in (parts, *others)}) == 6
