"""Evidence convicts who broke a rule, and nobody else."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.codec import encode
from protocol.errors import InvalidMessage, Rejection
from protocol.evidence import (
    EVIDENCE_CODEC,
    Evidence,
    EvidenceKind,
    build_proposal_evidence,
    build_vote_evidence,
    check_evidence,
    find_vote_conflict,
)
from protocol.ordering.justification import compute_signed
from protocol.ordering.messages import VoteKind
from protocol.units import ZERO_HASH
from tests.protocol.ordering.rig import (
    CHAIN,
    FINAL,
    NOTAR,
    NULL,
    VALIDATORS,
    hash_of,
    make_block,
    make_proposal,
    make_vote,
)
from tests.simulation.keys import verify_cheaply

A, B = b"\x0a" * 32, b"\x0b" * 32
FIRST, SECOND = make_block(1), make_block(1, salt=b"other")
SIGNED = [compute_signed(make_proposal(block), hash_of(block)) for block in (FIRST, SECOND)]

PAIRS = [
    (EvidenceKind.TWO_NOTAR, (NOTAR, A), (NOTAR, B)),
    (EvidenceKind.NOTAR_AND_FINAL, (NOTAR, A), (FINAL, B)),
    (EvidenceKind.TWO_FINAL, (FINAL, A), (FINAL, B)),
    (EvidenceKind.NULL_AND_FINAL, (NULL, ZERO_HASH), (FINAL, B)),
]


def check(evidence: Evidence) -> None:
    check_evidence(evidence, CHAIN, VALIDATORS, verify_cheaply)


def make_pair(
    first: tuple[VoteKind, bytes], second: tuple[VoteKind, bytes], *, view: int = 1, signer: int = 1
) -> Evidence:
    kind = find_vote_conflict(make_vote(first[0], 1, first[1], 1), make_vote(second[0], 1, second[1], 1))
    assert kind is not None
    return build_vote_evidence(kind, make_vote(first[0], 1, first[1], 1), make_vote(second[0], view, second[1], signer))


@pytest.mark.parametrize("kind, first, second", PAIRS)
@pytest.mark.parametrize("is_turned", [False, True])
def test_each_kind_is_recognised_in_either_order_and_survives_encoding(
    kind: EvidenceKind, first: tuple[VoteKind, bytes], second: tuple[VoteKind, bytes], is_turned: bool
) -> None:
    evidence = make_pair(second, first) if is_turned else make_pair(first, second)
    assert evidence.kind == kind
    check(EVIDENCE_CODEC.decode(encode(evidence)))


def test_two_proposals_are_evidence() -> None:
    check(EVIDENCE_CODEC.decode(encode(build_proposal_evidence(SIGNED[0], SIGNED[1]))))


@pytest.mark.parametrize(
    "first, second",
    [
        ((NOTAR, A), (NOTAR, A)),
        ((NOTAR, A), (NULL, ZERO_HASH)),
        ((NOTAR, A), (FINAL, A)),
        ((NULL, ZERO_HASH), (NULL, ZERO_HASH)),
        ((FINAL, A), (FINAL, A)),
    ],
)
def test_what_an_honest_node_may_sign_is_no_conflict(
    first: tuple[VoteKind, bytes], second: tuple[VoteKind, bytes]
) -> None:
    assert find_vote_conflict(make_vote(first[0], 1, first[1], 1), make_vote(second[0], 1, second[1], 1)) is None
    with pytest.raises(InvalidMessage):
        check(
            build_vote_evidence(
                EvidenceKind.TWO_NOTAR, make_vote(first[0], 1, first[1], 1), make_vote(second[0], 1, second[1], 1)
            )
        )


GOOD = make_pair((NOTAR, A), (NOTAR, B))
PROPOSALS = build_proposal_evidence(SIGNED[0], SIGNED[1])


@pytest.mark.parametrize(
    "evidence, reason",
    [
        (replace(GOOD, kind=EvidenceKind.TWO_FINAL), Rejection.BAD_PROOF),
        (replace(GOOD, signer=2), Rejection.BAD_PROOF),
        (replace(GOOD, signer=7), Rejection.UNKNOWN_SIGNER),
        (replace(GOOD, view=2), Rejection.BAD_PROOF),
        (replace(GOOD, epoch=1), Rejection.BAD_PROOF),
        (replace(GOOD, votes=None), Rejection.MALFORMED),
        (replace(GOOD, proposals=PROPOSALS.proposals), Rejection.MALFORMED),
        (replace(PROPOSALS, proposals=(SIGNED[0], SIGNED[0])), Rejection.BAD_PROOF),
        (replace(PROPOSALS, kind=EvidenceKind.TWO_NOTAR), Rejection.MALFORMED),
        (replace(PROPOSALS, proposals=(SIGNED[0], replace(SIGNED[1], signature=bytes(64)))), Rejection.BAD_SIGNATURE),
        (make_pair((NOTAR, A), (NOTAR, B), view=2), Rejection.BAD_PROOF),
        (make_pair((NOTAR, A), (NOTAR, B), signer=2), Rejection.BAD_PROOF),
        (
            replace(GOOD, votes=(make_vote(NOTAR, 1, A, 1), replace(make_vote(NOTAR, 1, B, 2), signer=1))),
            Rejection.BAD_SIGNATURE,
        ),
    ],
)
def test_nothing_else_convicts(evidence: Evidence, reason: Rejection) -> None:
    with pytest.raises(InvalidMessage) as caught:
        check(evidence)
    assert caught.value.reason == reason


def test_evidence_of_another_chain_convicts_nobody() -> None:
    with pytest.raises(InvalidMessage):
        check_evidence(GOOD, b"\x08" * 32, VALIDATORS, verify_cheaply)
