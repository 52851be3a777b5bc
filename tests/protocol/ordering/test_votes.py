"""Certificates count weight, not heads, and only what was really signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.crypto import SigningKey, is_signature_valid
from protocol.errors import InvalidMessage, Rejection
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.ordering.state import Context, ViewRecord
from protocol.ordering.votes import check_quorum_cert, check_vote_signature, compute_quorum, sign_vote, split_cert
from protocol.units import ZERO_HASH
from protocol.validators import Validator, ValidatorSet, is_quorum
from protocol.voting import vote_signing_bytes
from tests.protocol.ordering.rig import CHAIN, FINAL, GENESIS, NOTAR, NULL, SEED, make_cert, make_context, make_vote

if TYPE_CHECKING:
    from protocol.units import Hash, PublicKey, Signature

HASH = b"\x22" * 32


def make_table(weights: tuple[int, ...]) -> ValidatorSet:
    members = make_context().validators.members
    return ValidatorSet(tuple(Validator(members[index].node, weight) for index, weight in enumerate(weights)))


@pytest.mark.parametrize(
    "weights, signers, is_enough",
    [
        ((1, 1, 1, 1), (0, 1, 2), True),
        ((1, 1, 1, 1), (0, 1), False),
        ((1, 1, 1), (0, 1), False),  # exactly two thirds is not more than two thirds
        ((3, 1, 1, 1), (0, 1), False),  # 4 of 6, likewise
        ((4, 1, 1, 1), (0, 1), True),
        ((2, 2, 2, 1), (1, 2, 3), True),
        ((100, 1, 1, 1), (0,), True),
        ((100, 1, 1, 1), (1, 2, 3), False),
    ],
)
def test_a_certificate_needs_strictly_more_than_two_thirds_of_the_weight(
    weights: tuple[int, ...], signers: tuple[int, ...], is_enough: bool
) -> None:
    context, validators = make_context(), make_table(weights)
    cert = make_cert(NOTAR, 1, HASH, signers)
    if is_enough:
        check_quorum_cert(cert, CHAIN, 0, validators, context.verify)
        return
    with pytest.raises(InvalidMessage) as caught:
        check_quorum_cert(cert, CHAIN, 0, validators, context.verify)
    assert caught.value.reason == Rejection.NO_QUORUM


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12).map(tuple), st.data())
def test_two_quorums_share_more_than_a_third_of_the_weight(weights: tuple[int, ...], data: st.DataObject) -> None:
    members = tuple(Validator(bytes((index,)) * 32, weight) for index, weight in enumerate(weights))
    validators = ValidatorSet(members)
    subsets = st.sets(st.sampled_from(range(len(weights))))
    first, second = data.draw(subsets), data.draw(subsets)
    if is_quorum(validators, first) and is_quorum(validators, second):
        assert 3 * sum(weights[index] for index in first & second) > sum(weights)


def test_a_certificate_is_made_of_its_votes() -> None:
    votes = {(vote.kind, vote.signer): vote for vote in (make_vote(FINAL, 7, HASH, signer) for signer in (0, 2, 3))}
    cert = compute_quorum(make_context(), ViewRecord(0, votes=votes), FINAL)
    assert cert is not None
    assert split_cert(cert) == tuple(votes.values())
    assert compute_quorum(make_context(), ViewRecord(0, votes=votes), NOTAR) is None


def test_a_known_vote_is_not_verified_again_unless_its_signature_differs() -> None:
    context, verified = make_context(), list[bytes]()

    def verify(public: PublicKey, message: bytes, signature: Signature) -> bool:
        verified.append(public)
        return context.verify(public, message, signature)

    cert = make_cert(NULL, 3)
    known = {(vote.kind, vote.signer): vote for vote in split_cert(cert)[:2]}
    check_quorum_cert(cert, CHAIN, 0, context.validators, verify, known)
    assert verified == [context.validators.members[3].node]
    with pytest.raises(InvalidMessage):
        check_quorum_cert(
            replace(cert, signatures=(bytes(64), *cert.signatures[1:])), CHAIN, 0, context.validators, verify, known
        )


def make_real(kind: VoteKind, view: int, block_hash: Hash) -> tuple[QuorumCert, ValidatorSet, list[Context]]:
    keys = [SigningKey(bytes((index,)) * 32) for index in range(4)]
    validators = ValidatorSet(tuple(Validator(key.public, 1) for key in keys))
    params = make_context().params
    contexts = [
        Context(CHAIN, 0, SEED, validators, own, params, key, is_signature_valid, GENESIS, None, params.epoch_heights)
        for own, key in enumerate(keys)
    ]
    votes = [sign_vote(context, kind, view, block_hash) for context in contexts[:3]]
    return (
        QuorumCert(kind, 0, view, block_hash, (0, 1, 2), tuple(vote.signature for vote in votes)),
        validators,
        contexts,
    )


@pytest.mark.parametrize("kind", list(VoteKind))
def test_ed25519_certificates_hold_only_for_what_was_signed(kind: VoteKind) -> None:
    subject = ZERO_HASH if kind == NULL else HASH
    cert, validators, _ = make_real(kind, 5, subject)
    check_quorum_cert(cert, CHAIN, 0, validators, is_signature_valid)
    other_kind = {NOTAR: FINAL, FINAL: NOTAR, NULL: NULL}[kind]
    for chain, altered in (
        (b"\x08" * 32, cert),
        (CHAIN, replace(cert, view=6)),
        (CHAIN, replace(cert, kind=other_kind, view=6 if kind == NULL else 5)),
        (CHAIN, replace(cert, signatures=cert.signatures[::-1])),
    ):
        with pytest.raises(InvalidMessage) as caught:
            check_quorum_cert(altered, chain, 0, validators, is_signature_valid)
        assert caught.value.reason == Rejection.BAD_SIGNATURE


def test_signing_is_deterministic_so_that_a_step_is_pure() -> None:
    _, validators, contexts = make_real(NOTAR, 1, HASH)
    vote = sign_vote(contexts[0], NOTAR, 1, HASH)
    assert vote == sign_vote(contexts[0], NOTAR, 1, HASH)
    check_vote_signature(vote, CHAIN, validators, is_signature_valid)


def test_every_kind_signs_other_bytes() -> None:
    assert len({vote_signing_bytes(kind, CHAIN, 0, 1, HASH) for kind in VoteKind}) == len(VoteKind)
