"""Proofs that a validator broke a voting rule: two messages of its own about one view that no honest validator signs both.

A proof names its own validator: nobody who keeps rules R2 to R4 and its write-ahead log can be accused.
"""

from enum import IntEnum
from typing import Annotated, Final

from msgspec import Meta

from protocol.codec import Codec, Message
from protocol.errors import InvalidMessage, Rejection
from protocol.units import ChainId, Epoch, View
from protocol.validators import MAX_VALIDATORS, ValidatorSet
from protocol.voting import SignedProposal, Verify, Vote, VoteKind, proposal_signing_bytes, vote_signing_bytes


class EvidenceKind(IntEnum):
    """Which rule was broken."""

    TWO_PROPOSALS = 1  # R1: one proposal a view
    TWO_NOTAR = 2  # R2: one Notar a view
    NOTAR_AND_FINAL = 3  # R3: Final only for the block of the own Notar
    TWO_FINAL = 4  # R3: one Final a view
    NULL_AND_FINAL = 5  # R3, R4: never both


class Evidence(Message, frozen=True):
    """Two signed messages of one validator about one view; exactly one pair is present, according to the kind."""

    kind: EvidenceKind
    epoch: Epoch
    view: View
    signer: Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
    proposals: tuple[SignedProposal, SignedProposal] | None
    votes: tuple[Vote, Vote] | None


EVIDENCE_CODEC: Final = Codec[Evidence](Evidence, 1024)


def find_vote_conflict(first: Vote, second: Vote) -> EvidenceKind | None:
    """Which rule these two votes of one signer in one view break together, if any. The order does not matter."""
    kinds = {first.kind, second.kind}
    if kinds == {VoteKind.NULL, VoteKind.FINAL}:
        return EvidenceKind.NULL_AND_FINAL
    if first.block_hash == second.block_hash or VoteKind.NULL in kinds:
        return None
    if kinds == {VoteKind.NOTAR}:
        return EvidenceKind.TWO_NOTAR
    if kinds == {VoteKind.FINAL}:
        return EvidenceKind.TWO_FINAL
    return EvidenceKind.NOTAR_AND_FINAL


def build_vote_evidence(kind: EvidenceKind, first: Vote, second: Vote) -> Evidence:
    """The proof out of two conflicting votes."""
    return Evidence(kind, first.epoch, first.view, first.signer, None, (first, second))


def build_proposal_evidence(first: SignedProposal, second: SignedProposal) -> Evidence:
    """The proof out of two proposals of different blocks."""
    return Evidence(EvidenceKind.TWO_PROPOSALS, first.epoch, first.view, first.signer, (first, second), None)


def check_evidence(evidence: Evidence, chain: ChainId, validators: ValidatorSet, verify: Verify) -> None:
    """Accepts only what proves a broken rule of `evidence.signer` on this chain, with this epoch's table.

    Raises: InvalidMessage(MALFORMED | UNKNOWN_SIGNER | BAD_PROOF | BAD_SIGNATURE).
    """
    if evidence.signer >= len(validators.members):
        raise InvalidMessage(
            Rejection.UNKNOWN_SIGNER, f"evidence: signer {evidence.signer} is not in the validator table"
        )
    pair = evidence.proposals if evidence.kind == EvidenceKind.TWO_PROPOSALS else evidence.votes
    other = evidence.votes if evidence.kind == EvidenceKind.TWO_PROPOSALS else evidence.proposals
    if pair is None or other is not None:
        raise InvalidMessage(
            Rejection.MALFORMED, f"evidence: kind {evidence.kind.name} carries the wrong pair of messages"
        )
    for message in pair:
        if (message.epoch, message.view, message.signer) != (evidence.epoch, evidence.view, evidence.signer):
            raise InvalidMessage(
                Rejection.BAD_PROOF, "evidence: both messages must be of the named epoch, view and signer"
            )
    if _find_conflict(evidence) != evidence.kind:
        raise InvalidMessage(Rejection.BAD_PROOF, f"evidence: the two messages are no {evidence.kind.name}")
    public = validators.members[evidence.signer].node
    for message in pair:
        if not verify(public, _signed_bytes(chain, message), message.signature):
            raise InvalidMessage(Rejection.BAD_SIGNATURE, f"evidence: a signature is not validator {evidence.signer}'s")


def _find_conflict(evidence: Evidence) -> EvidenceKind | None:
    if evidence.votes is not None:
        return find_vote_conflict(*evidence.votes)
    if evidence.proposals is not None and evidence.proposals[0].block_hash != evidence.proposals[1].block_hash:
        return EvidenceKind.TWO_PROPOSALS
    return None


def _signed_bytes(chain: ChainId, message: SignedProposal | Vote) -> bytes:
    if isinstance(message, Vote):
        return vote_signing_bytes(message.kind, chain, message.epoch, message.view, message.block_hash)
    return proposal_signing_bytes(chain, message.epoch, message.view, message.block_hash, message.justification_hash)
