"""What validators say to each other to order blocks: proposals, votes, quorum certificates."""

from typing import Annotated, Final

from msgspec import Meta

from protocol.block import Block
from protocol.codec import Codec, Message, encode
from protocol.crypto import HashDomain, compute_hash
from protocol.units import Epoch, Hash, Signature, View
from protocol.validators import MAX_VALIDATORS
from protocol.voting import Vote, VoteKind

MAX_JUSTIFICATION_CERTS: Final = 1024
MAX_QUORUM_CERT_BYTES: Final = 8 * 1024
MAX_PROPOSAL_BYTES: Final = 1024 * 1024 - 256  # a frame of the direct streams; half of it is left for the justification


class QuorumCert(Message, frozen=True):
    """Votes of one kind on one thing by more than two thirds of the weight: signer indexes ascending, signatures in their order."""

    kind: VoteKind
    epoch: Epoch
    view: View
    block_hash: Hash
    signers: Annotated[tuple[Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)], ...], Meta(max_length=MAX_VALIDATORS)]
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=MAX_VALIDATORS)]


class Justification(Message, frozen=True):
    """Why this parent: its NotarCert (none for the epoch's start), and a NullCert for every view between it and the proposal.

    Of a re-proposal: the proposed block's own NotarCert, and a NullCert for every view since.
    """

    parent: QuorumCert | None
    skipped: Annotated[tuple[QuorumCert, ...], Meta(max_length=MAX_JUSTIFICATION_CERTS)]


class Proposal(Message, frozen=True):
    """A leader's block with the reason for its parent; the signature covers the view, the header's hash and the justification's.

    `view` is the header's, except in a *re-proposal*: an epoch's last block, notarized and not final yet, proposed again in a later
    view. Its body stays empty: whoever notarized the block has it.
    """

    block: Block
    justification: Justification
    view: View
    signer: Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
    signature: Signature


VOTE_CODEC: Final = Codec[Vote](Vote, 256)
QUORUM_CERT_CODEC: Final = Codec[QuorumCert](QuorumCert, MAX_QUORUM_CERT_BYTES)
PROPOSAL_CODEC: Final = Codec[Proposal](Proposal, MAX_PROPOSAL_BYTES)


def compute_justification_hash(justification: Justification) -> Hash:
    """What a proposal's signature binds the justification by."""
    return compute_hash(HashDomain.JUSTIFICATION, encode(justification))
