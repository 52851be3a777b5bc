"""R5 and R6: certificates, what they lead to, and what they prove."""

from __future__ import annotations

import pytest

from protocol.evidence import EvidenceKind
from protocol.ordering.effects import (
    Broadcast,
    EvidenceFound,
    FetchCerts,
    Persist,
    Send,
)
from protocol.ordering.messages import VoteKind
from protocol.units import ZERO_HASH
from tests.protocol.ordering.rig import (
    FINAL,
    NOTAR,
    NULL,
    Rig,
    certs_in,
    hash_of,
    make_block,
    make_cert,
    node_id,
    tip_of,
)

BLOCK_1 = make_block(1)
HASH_1 = hash_of(BLOCK_1)
OTHER_1 = make_block(1, salt=b"another")
BLOCK_2 = make_block(2, tip_of(BLOCK_1))
HASH_2 = hash_of(BLOCK_2)


# --- R5: certificates


@pytest.mark.parametrize("kind", [NOTAR, NULL, FINAL])
def test_r5_a_quorum_of_votes_is_a_certificate_that_is_kept_and_sent_once(kind: VoteKind) -> None:
    rig = Rig()
    subject = ZERO_HASH if kind == NULL else HASH_1
    assert certs_in(rig.vote(kind, 1, subject, signer=2)) == []
    assert certs_in(rig.vote(kind, 1, subject, signer=3)) == []
    effects = rig.vote(kind, 1, subject, signer=1)
    cert = make_cert(kind, 1, subject)
    assert Persist(cert, durable=False) in effects
    assert effects.count(Broadcast(cert)) == 1
    before = rig.state
    assert rig.cert(kind, 1, subject) == []
    assert rig.state is before


def test_r5_votes_for_different_blocks_do_not_add_up() -> None:
    rig = Rig()
    rig.vote(NOTAR, 1, HASH_1, signer=1)
    rig.vote(NOTAR, 1, HASH_1, signer=2)
    assert certs_in(rig.vote(NOTAR, 1, hash_of(OTHER_1), signer=3)) == []


def test_r5_a_certificate_goes_only_to_peers_that_have_not_shown_it() -> None:
    effects = Rig().cert(NULL, 1, peer=2)
    assert Send((node_id(1), node_id(3)), make_cert(NULL, 1)) in effects


def test_r5_a_notar_certificate_is_no_news_beside_a_final_one() -> None:
    rig = Rig()
    rig.cert(FINAL, 1, HASH_1)
    before = rig.state
    assert rig.cert(NOTAR, 1, HASH_1) == []
    assert rig.state is before


# --- R6: advancing


@pytest.mark.parametrize(
    "kind, view, expected", [(NOTAR, 1, 2), (NULL, 1, 2), (FINAL, 1, 2), (NULL, 5, 6), (FINAL, 7, 8), (NOTAR, 3, 4)]
)
def test_r6_any_certificate_leads_to_the_view_behind_it(kind: VoteKind, view: int, expected: int) -> None:
    rig = Rig()
    rig.cert(kind, view, ZERO_HASH if kind == NULL else HASH_1)
    assert rig.state.view == expected


def test_r6_never_back() -> None:
    rig = Rig()
    rig.cert(NULL, 5)
    rig.cert(NULL, 2)
    assert rig.state.view == 6


def test_r6_views_that_were_jumped_over_are_asked_for() -> None:
    assert FetchCerts(0, (2, 1), Rig().state.context.peers) in Rig().cert(NULL, 3)


def test_r6_a_certificate_of_any_view_costs_no_more_than_a_justification_could_carry() -> None:
    rig = Rig()
    effects = rig.cert(NULL, 2**62)
    asked = [effect for effect in effects if isinstance(effect, FetchCerts)]
    assert [len(effect.views) for effect in asked] == [rig.state.context.params.max_null_certs]
    assert rig.state.view == 2**62 + 1


# --- contradictions


@pytest.mark.parametrize(
    "first, second, kind",
    [
        ((NOTAR, HASH_1), (NOTAR, HASH_2), EvidenceKind.TWO_NOTAR),
        ((FINAL, HASH_1), (FINAL, HASH_2), EvidenceKind.TWO_FINAL),
        ((NOTAR, HASH_1), (FINAL, HASH_2), EvidenceKind.NOTAR_AND_FINAL),
        ((FINAL, HASH_2), (NOTAR, HASH_1), EvidenceKind.NOTAR_AND_FINAL),
        ((NULL, ZERO_HASH), (FINAL, HASH_1), EvidenceKind.NULL_AND_FINAL),
        ((FINAL, HASH_1), (NULL, ZERO_HASH), EvidenceKind.NULL_AND_FINAL),
        ((NOTAR, HASH_1), (NULL, ZERO_HASH), None),
        ((NULL, ZERO_HASH), (NOTAR, HASH_1), None),
        ((NOTAR, HASH_1), (FINAL, HASH_1), None),
    ],
)
def test_contradicting_votes_are_evidence_once(
    first: tuple[VoteKind, bytes], second: tuple[VoteKind, bytes], kind: EvidenceKind | None
) -> None:
    rig = Rig()
    rig.vote(first[0], 1, first[1], signer=3)
    effects = rig.vote(second[0], 1, second[1], signer=3)
    found = [effect.evidence.kind for effect in effects if isinstance(effect, EvidenceFound)]
    assert found == ([] if kind is None else [kind])
    before = rig.state
    rig.vote(second[0], 1, second[1], signer=3)
    assert rig.state is before


def test_a_contradiction_inside_a_certificate_is_evidence_too() -> None:
    rig = Rig()
    rig.vote(FINAL, 1, HASH_1, signer=3)
    effects = rig.cert(NULL, 1)
    assert [e.evidence.signer for e in effects if isinstance(e, EvidenceFound)] == [3]
