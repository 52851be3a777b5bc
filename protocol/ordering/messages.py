"""What validators say to each other to order blocks: proposals, votes, quorum certificates, and how each is signed."""

from enum import IntEnum
from typing import Annotated, Final

from msgspec import Meta

from protocol.block import Block
from protocol.codec import Codec, Message, encode
from protocol.crypto import MAGIC, HashDomain, SignatureDomain, compute_hash
from protocol.units import ChainId, Epoch, Hash, Signature, View
from protocol.validators import MAX_VALIDATORS

MAX_JUSTIFICATION_CERTS: Final = 1024
MAX_QUORUM_CERT_BYTES: Final = 8 * 1024
MAX_PROPOSAL_BYTES: Final = 1024 * 1024 - 256  # a frame of the direct streams; half of it is left for the justification


class VoteKind(IntEnum):
    """What a vote, and a quorum of them, says about a view."""

    NOTAR = 1  # this block and no other, in this view
    NULL = 2  # no block of this view from me
    FINAL = 3  # I saw the block notarized and did not give up on the view


_SIGNATURE_DOMAIN: Final = {
    VoteKind.NOTAR: SignatureDomain.NOTAR,
    VoteKind.NULL: SignatureDomain.NULL,
    VoteKind.FINAL: SignatureDomain.FINAL,
}


class Vote(Message, frozen=True):
    """One validator's vote; `block_hash` is zero in a NULL vote."""

    kind: VoteKind
    epoch: Epoch
    view: View
    block_hash: Hash
    signer: Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
    signature: Signature


class QuorumCert(Message, frozen=True):
    """Votes of one kind on one thing by more than two thirds of the weight: signer indexes ascending, signatures in their order."""

    kind: VoteKind
    epoch: Epoch
    view: View
    block_hash: Hash
    signers: Annotated[tuple[Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)], ...], Meta(max_length=MAX_VALIDATORS)]
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=MAX_VALIDATORS)]


class Justification(Message, frozen=True):
    """Why this parent: its NotarCert (none for the genesis), and a NullCert for every view between it and the proposal."""

    parent: QuorumCert | None
    skipped: Annotated[tuple[QuorumCert, ...], Meta(max_length=MAX_JUSTIFICATION_CERTS)]


class Proposal(Message, frozen=True):
    """A leader's block with the reason for its parent; the signature covers the header's hash and the justification's."""

    block: Block
    justification: Justification
    signer: Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
    signature: Signature


class SignedProposal(Message, frozen=True):
    """What of a proposal its signature covers: enough to prove that a leader proposed two blocks in one view."""

    epoch: Epoch
    view: View
    block_hash: Hash
    justification_hash: Hash
    signer: Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
    signature: Signature


VOTE_CODEC: Final = Codec[Vote](Vote, 256)
QUORUM_CERT_CODEC: Final = Codec[QuorumCert](QuorumCert, MAX_QUORUM_CERT_BYTES)
PROPOSAL_CODEC: Final = Codec[Proposal](Proposal, MAX_PROPOSAL_BYTES)


def vote_signing_bytes(kind: VoteKind, chain: ChainId, epoch: Epoch, view: View, block_hash: Hash) -> bytes:
    """The fixed layout that a vote signs: magic, domain, chain id, epoch, view, hash; big-endian."""
    return (
        MAGIC
        + bytes((_SIGNATURE_DOMAIN[kind],))
        + chain
        + epoch.to_bytes(8, "big")
        + view.to_bytes(8, "big")
        + block_hash
    )


def compute_justification_hash(justification: Justification) -> Hash:
    """What a proposal's signature binds the justification by."""
    return compute_hash(HashDomain.JUSTIFICATION, encode(justification))


def proposal_signing_bytes(
    chain: ChainId, epoch: Epoch, view: View, block_hash: Hash, justification_hash: Hash
) -> bytes:
    """The fixed layout that a leader signs: as a vote's, with the justification's hash behind it."""
    domain = bytes((SignatureDomain.PROPOSE,))
    return MAGIC + domain + chain + epoch.to_bytes(8, "big") + view.to_bytes(8, "big") + block_hash + justification_hash
