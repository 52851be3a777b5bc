"""Proofs of broken voting rules, made with the keys of those who are said to have broken them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.evidence import Evidence, EvidenceKind, build_proposal_evidence, build_vote_evidence
from protocol.ledger.epochs import get_validators
from protocol.transactions import Report, SignedTransaction
from protocol.units import ZERO_HASH, ChainId, Hash
from protocol.validators import index_of
from protocol.voting import SignedProposal, Vote, VoteKind, proposal_signing_bytes, vote_signing_bytes
from tests.protocol.builders import TestChain, make_hash, make_key

if TYPE_CHECKING:
    from protocol.crypto import SigningKey

A, B = make_hash("block A"), make_hash("block B")
PAIRS = {
    EvidenceKind.TWO_NOTAR: ((VoteKind.NOTAR, A), (VoteKind.NOTAR, B)),
    EvidenceKind.NOTAR_AND_FINAL: ((VoteKind.NOTAR, A), (VoteKind.FINAL, B)),
    EvidenceKind.TWO_FINAL: ((VoteKind.FINAL, A), (VoteKind.FINAL, B)),
    EvidenceKind.NULL_AND_FINAL: ((VoteKind.NULL, ZERO_HASH), (VoteKind.FINAL, B)),
}


def sign_vote(
    key: SigningKey, chain: ChainId, kind: VoteKind, view: int, block_hash: Hash, signer: int, epoch: int = 0
) -> Vote:
    """A vote."""
    signature = key.sign(vote_signing_bytes(kind, chain, epoch, view, block_hash))
    return Vote(kind, epoch, view, block_hash, signer, signature)


def sign_header(
    key: SigningKey, chain: ChainId, view: int, block_hash: Hash, signer: int, epoch: int = 0
) -> SignedProposal:
    """A proposal, as far as its signature covers it."""
    reason = make_hash("justification")
    signature = key.sign(proposal_signing_bytes(chain, epoch, view, block_hash, reason))
    return SignedProposal(epoch, view, block_hash, reason, signer, signature)


def convict(
    chain: TestChain, offender: str, kind: EvidenceKind = EvidenceKind.TWO_NOTAR, view: int | None = None
) -> Evidence:
    """The proof that a named validator broke this rule, in the newest block's epoch, and view unless said otherwise."""
    key, chain_id, epoch = make_key(offender), chain.ledger.constants.chain_id, chain.header.epoch
    signer = index_of(get_validators(chain.ledger, epoch), key.public)
    assert signer is not None, (offender, epoch)
    at = chain.header.view if view is None else view
    if kind is EvidenceKind.TWO_PROPOSALS:
        first, second = (sign_header(key, chain_id, at, each, signer, epoch) for each in (A, B))
        return build_proposal_evidence(first, second)
    votes = (sign_vote(key, chain_id, vote, at, each, signer, epoch) for vote, each in PAIRS[kind])
    return build_vote_evidence(kind, *votes)


def report(chain: TestChain, reporter: str, evidence: Evidence) -> SignedTransaction:
    """A named node's signed report of it."""
    return chain.sign(reporter, Report(make_key(reporter).public, evidence))
