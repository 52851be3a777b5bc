"""What validators sign about a view while they order blocks: votes and proposals, as far as a signature covers them.

Shared by ordering, which exchanges them, and by whoever judges a broken rule from two of them (evidence.py).
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from protocol.codec import Message
from protocol.crypto import MAGIC, SignatureDomain
from protocol.units import ChainId, Epoch, Hash, PublicKey, Signature, View
from protocol.validators import MAX_VALIDATORS

Verify: TypeAlias = Callable[[PublicKey, bytes, Signature], bool]
"""Whether this key signed these bytes; in production `protocol.crypto.is_signature_valid`."""


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


class SignedProposal(Message, frozen=True):
    """What of a proposal its signature covers: enough to prove that a leader proposed two blocks in one view."""

    epoch: Epoch
    view: View
    block_hash: Hash
    justification_hash: Hash
    signer: Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
    signature: Signature


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


def proposal_signing_bytes(
    chain: ChainId, epoch: Epoch, view: View, block_hash: Hash, justification_hash: Hash
) -> bytes:
    """The fixed layout that a leader signs: as a vote's, with the justification's hash behind it."""
    domain = bytes((SignatureDomain.PROPOSE,))
    return MAGIC + domain + chain + epoch.to_bytes(8, "big") + view.to_bytes(8, "big") + block_hash + justification_hash
