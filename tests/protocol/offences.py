"""Proofs of broken voting rules, made with the keys of those who are said to have broken them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.evidence import Evidence, EvidenceKind, build_proposal_evidence, build_vote_evidence
from protocol.transactions import Report, SignedTransaction
from protocol.units import ZERO_HASH, ChainId, Hash
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


def sign_vote(key: SigningKey, chain: ChainId, kind: VoteKind, view: int, block_hash: Hash, signer: int) -> Vote:
    """A vote of epoch 0."""
    signature = key.sign(vote_signing_bytes(kind, chain, 0, view, block_hash))
    return Vote(kind, 0, view, block_hash, signer, signature)


def sign_header(key: SigningKey, chain: ChainId, view: int, block_hash: Hash, signer: int) -> SignedProposal:
    """A proposal of epoch 0, as far as its signature covers it."""
    reason = make_hash("justification")
    signature = key.sign(proposal_signing_bytes(chain, 0, view, block_hash, reason))
    return SignedProposal(0, view, block_hash, reason, signer, signature)


def convict(
    chain: TestChain, offender: str, kind: EvidenceKind = EvidenceKind.TWO_NOTAR, view: int | None = None
) -> Evidence:
    """The proof that a named validator broke this rule, in the newest view unless said otherwise."""
    key, chain_id = make_key(offender), chain.ledger.constants.chain_id
    signer = [entry.node for entry in chain.genesis.validators].index(key.public)
    at = chain.header.view if view is None else view
    if kind is EvidenceKind.TWO_PROPOSALS:
        first, second = (sign_header(key, chain_id, at, each, signer) for each in (A, B))
        return build_proposal_evidence(first, second)
    votes = (sign_vote(key, chain_id, vote, at, each, signer) for vote, each in PAIRS[kind])
    return build_vote_evidence(kind, *votes)


def report(chain: TestChain, reporter: str, evidence: Evidence) -> SignedTransaction:
    """A named node's signed report of it."""
    return chain.sign(reporter, Report(make_key(reporter).public, evidence))
