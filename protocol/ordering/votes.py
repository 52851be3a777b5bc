"""Votes and the certificates that quorums of them make: signing, checking, counting.

Votes are verified when they come, not lazily at a quorum: at the committee sizes in use a verification (tens of microseconds) is
far below a disk sync, every stored vote is good evidence, and a bad one is charged to its sender at once.
Each signature is verified once: a certificate's known votes, and known certificates, are not verified again.
"""

from collections.abc import Mapping
from typing import TypeAlias

from protocol.errors import InvalidMessage, Rejection
from protocol.ordering.messages import QuorumCert, Vote, VoteKind
from protocol.ordering.state import Context, ViewRecord
from protocol.units import ZERO_HASH, ChainId, Epoch, Hash, View
from protocol.validators import ValidatorSet, is_quorum
from protocol.voting import Verify, vote_signing_bytes

KnownVotes: TypeAlias = Mapping[tuple[VoteKind, int], Vote]
"""Verified votes of one view."""

NO_VOTES: KnownVotes = {}


def sign_vote(context: Context, kind: VoteKind, view: View, block_hash: Hash) -> Vote:
    """This node's own vote. Whether it may be cast is for rules R2 to R4."""
    assert context.signer is not None and context.own is not None, (kind, view)
    message = vote_signing_bytes(kind, context.chain, context.epoch, view, block_hash)
    return Vote(kind, context.epoch, view, block_hash, context.own, context.signer.sign(message))


def check_vote_shape(vote: Vote, epoch: Epoch, validators: ValidatorSet) -> None:
    """Everything about a vote but its signature.

    Raises: InvalidMessage(OUT_OF_RANGE | UNKNOWN_SIGNER | MALFORMED).
    """
    if vote.epoch != epoch:
        raise InvalidMessage(Rejection.OUT_OF_RANGE, f"vote: expected epoch {epoch}, got {vote.epoch}")
    if vote.signer >= len(validators.members):
        raise InvalidMessage(Rejection.UNKNOWN_SIGNER, f"vote: signer {vote.signer} is not in the validator table")
    _check_hash_shape(vote.kind, vote.view, vote.block_hash)


def check_vote_signature(vote: Vote, chain: ChainId, validators: ValidatorSet, verify: Verify) -> None:
    """Whether the named validator signed the vote.

    Raises: InvalidMessage(BAD_SIGNATURE).
    """
    message = vote_signing_bytes(vote.kind, chain, vote.epoch, vote.view, vote.block_hash)
    if not verify(validators.members[vote.signer].node, message, vote.signature):
        raise InvalidMessage(Rejection.BAD_SIGNATURE, f"vote: the signature is not validator {vote.signer}'s")


def check_quorum_cert(
    cert: QuorumCert,
    chain: ChainId,
    epoch: Epoch,
    validators: ValidatorSet,
    verify: Verify,
    known: KnownVotes = NO_VOTES,
) -> None:
    """Accepts a certificate whose signers are distinct, weigh more than two thirds, and all signed. Cheap checks come first.

    Raises: InvalidMessage(OUT_OF_RANGE | MALFORMED | UNKNOWN_SIGNER | NO_QUORUM | BAD_SIGNATURE).
    """
    if cert.epoch != epoch:
        raise InvalidMessage(Rejection.OUT_OF_RANGE, f"certificate: expected epoch {epoch}, got {cert.epoch}")
    _check_hash_shape(cert.kind, cert.view, cert.block_hash)
    if len(cert.signers) != len(cert.signatures):
        text = f"certificate: {len(cert.signers)} signers but {len(cert.signatures)} signatures"
        raise InvalidMessage(Rejection.MALFORMED, text)
    if any(left >= right for left, right in zip(cert.signers, cert.signers[1:], strict=False)):
        raise InvalidMessage(Rejection.MALFORMED, "certificate: signers must ascend")
    if cert.signers and cert.signers[-1] >= len(validators.members):
        text = f"certificate: signer {cert.signers[-1]} is not in the validator table"
        raise InvalidMessage(Rejection.UNKNOWN_SIGNER, text)
    if not is_quorum(validators, cert.signers):
        raise InvalidMessage(Rejection.NO_QUORUM, "certificate: its signers weigh no more than two thirds")
    message = vote_signing_bytes(cert.kind, chain, cert.epoch, cert.view, cert.block_hash)
    for signer, signature in zip(cert.signers, cert.signatures, strict=True):
        vote = known.get((cert.kind, signer))
        if vote is not None and vote.signature == signature and vote.block_hash == cert.block_hash:
            continue
        if not verify(validators.members[signer].node, message, signature):
            raise InvalidMessage(Rejection.BAD_SIGNATURE, f"certificate: a signature is not validator {signer}'s")


def compute_quorum(context: Context, record: ViewRecord, kind: VoteKind) -> QuorumCert | None:
    """The certificate that a view's votes of one kind make, or None where none weighs enough yet."""
    by_hash: dict[Hash, list[Vote]] = {}
    for index in range(len(context.validators.members)):
        vote = record.votes.get((kind, index))
        if vote is not None:
            by_hash.setdefault(vote.block_hash, []).append(vote)
    for block_hash, votes in by_hash.items():
        signers = tuple(vote.signer for vote in votes)
        if is_quorum(context.validators, signers):
            signatures = tuple(vote.signature for vote in votes)
            return QuorumCert(kind, context.epoch, votes[0].view, block_hash, signers, signatures)
    return None


def split_cert(cert: QuorumCert) -> tuple[Vote, ...]:
    """The votes that a certificate is made of."""
    return tuple(
        Vote(cert.kind, cert.epoch, cert.view, cert.block_hash, signer, signature)
        for signer, signature in zip(cert.signers, cert.signatures, strict=True)
    )


def _check_hash_shape(kind: VoteKind, view: View, block_hash: Hash) -> None:
    if view == 0:
        raise InvalidMessage(Rejection.OUT_OF_RANGE, "vote: nothing is voted on in view 0")
    if (kind == VoteKind.NULL) != (block_hash == ZERO_HASH):
        raise InvalidMessage(Rejection.MALFORMED, f"vote: a {kind.name} vote with block hash {block_hash.hex()[:16]}")
