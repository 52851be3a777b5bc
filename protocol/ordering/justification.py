"""Why a proposal may stand on its parent: rule R1's choice for the leader, rule R2's judgement for everybody else.

The certificates travel with the proposal. What a judge happens to hold does not count: nodes hold different certificates of one
view, and a vote that rests on them would look like a broken rule to everybody else.
"""

from dataclasses import dataclass

from protocol.block import compute_transactions_root
from protocol.errors import InvalidMessage, Rejection
from protocol.ordering.messages import Justification, Proposal, QuorumCert, VoteKind, compute_justification_hash
from protocol.ordering.state import Context, SimplexState, ViewRecord
from protocol.ordering.votes import NO_VOTES, check_quorum_cert
from protocol.units import Hash, View
from protocol.voting import SignedProposal, proposal_signing_bytes


@dataclass(frozen=True, slots=True)
class Base:
    """The block that a leader must propose on."""

    view: View
    block_hash: Hash


@dataclass(frozen=True, slots=True)
class Gap:
    """Views without a certificate between a view and the nearest block that could be its parent."""

    views: tuple[View, ...]


def find_base(state: SimplexState, view: View) -> Base | Gap:
    """The highest notarized block below a view with a NullCert for every view between them, as far as this node knows.

    It stops looking at as many missing ones as no justification could carry: a certificate may lead to any view.
    """
    missing: list[View] = []
    for below in range(view - 1, state.tip.view, -1):
        record = state.views.get(below)
        block_hash = None if record is None else get_notarized(record)
        if block_hash is not None:
            return Gap(tuple(missing)) if missing else Base(below, block_hash)
        if record is None or record.null is None:
            missing.append(below)
        if len(missing) >= state.context.params.max_null_certs:
            break
    return Gap(tuple(missing)) if missing else Base(state.tip.view, state.tip.block_hash)


def get_notarized(record: ViewRecord) -> Hash | None:
    """The block that a quorum accepted in this view; a FinalCert says so too."""
    cert = record.final if record.final is not None else record.notar
    return None if cert is None else cert.block_hash


def find_justification(state: SimplexState, view: View, base: Base) -> Justification | None:
    """The certificates that a proposal of this view on this base carries; None where they are not held (any more: with a third
    of the weight Byzantine another block of the base's view may have become final since it was chosen)."""
    records = [state.views.get(between) for between in range(base.view + 1, view)]
    skipped = tuple(record.null for record in records if record is not None and record.null is not None)
    if len(skipped) != len(records):
        return None
    if base.view == state.tip.view:
        parent = state.tip_cert if state.tip != state.context.start else None
        return Justification(parent, skipped) if base.block_hash == state.tip.block_hash else None
    record = state.views.get(base.view)
    certs = () if record is None else (record.notar, record.final)
    parent = next((cert for cert in certs if cert is not None and cert.block_hash == base.block_hash), None)
    return None if parent is None else Justification(parent, skipped)


def compute_signed(proposal: Proposal, block_hash: Hash) -> SignedProposal:
    """What of the proposal its signature covers."""
    header = proposal.block.header
    justification_hash = compute_justification_hash(proposal.justification)
    return SignedProposal(
        header.epoch, proposal.view, block_hash, justification_hash, proposal.signer, proposal.signature
    )


def is_again(proposal: Proposal) -> bool:
    """Whether it is a re-proposal: a block of an earlier view. Whether it may be one is for check_justification."""
    return proposal.view != proposal.block.header.view


def check_proposal_origin(context: Context, proposal: Proposal, signed: SignedProposal, leader: int) -> None:
    """Whether the leader of the view signed it, and the body is the one that its header commits to.

    A body that does not fit is its sender's fault: the leader's signature covers the header alone. A re-proposal has none.

    Raises: InvalidMessage(NOT_LEADER | BAD_SIGNATURE | BAD_BODY).
    """
    header = proposal.block.header
    if proposal.signer != leader:
        text = f"proposal: view {proposal.view} is led by validator {leader}, not {proposal.signer}"
        raise InvalidMessage(Rejection.NOT_LEADER, text)
    message = proposal_signing_bytes(
        context.chain, header.epoch, proposal.view, signed.block_hash, signed.justification_hash
    )
    if not context.verify(context.validators.members[leader].node, message, proposal.signature):
        raise InvalidMessage(Rejection.BAD_SIGNATURE, f"proposal: the signature is not validator {leader}'s")
    if proposal.block.body if is_again(proposal) else compute_transactions_root(proposal.block.body) != header.tx_root:
        raise InvalidMessage(Rejection.BAD_BODY, "proposal: the body is not the one that its header commits to")


def check_justification(state: SimplexState, proposal: Proposal, block_hash: Hash) -> None:
    """R2: the carried certificates are exactly the parent's, and a NullCert for every view between, all valid.

    The epoch's start needs no certificate; a FinalCert serves as well as a NotarCert.

    Raises: InvalidMessage(WRONG_CHAIN | BAD_JUSTIFICATION | and those of check_quorum_cert).
    """
    context, header, carried = state.context, proposal.block.header, proposal.justification
    if header.chain_id != context.chain:
        raise InvalidMessage(Rejection.WRONG_CHAIN, "proposal: the header is of another chain")
    base = _check_again(state, proposal, block_hash) if is_again(proposal) else header.parent_view
    gap = proposal.view - base - 1
    if gap < 0 or gap != len(carried.skipped) or gap > context.params.max_null_certs:
        text = f"proposal: view {proposal.view} on {base} with {len(carried.skipped)} null certificates"
        raise InvalidMessage(Rejection.BAD_JUSTIFICATION, text)
    if not is_again(proposal):
        _check_parent(state, proposal)
    for offset, cert in enumerate(carried.skipped):  # R2: no gap
        if cert.kind != VoteKind.NULL or cert.view != base + 1 + offset:
            text = f"proposal: expected the null certificate of view {base + 1 + offset}"
            raise InvalidMessage(Rejection.BAD_JUSTIFICATION, text)
    for cert in carried.skipped if carried.parent is None else (carried.parent, *carried.skipped):
        _check_carried(state, cert)


def _check_again(state: SimplexState, proposal: Proposal, block_hash: Hash) -> View:
    """R11: the view of the certificate by which an epoch's last block is proposed again: a quorum accepted this very block."""
    header, own = proposal.block.header, proposal.justification.parent
    if header.height != state.context.boundary or header.view > proposal.view:
        text = f"proposal: view {proposal.view} repeats the block of view {header.view}, which is not the epoch's last"
        raise InvalidMessage(Rejection.BAD_JUSTIFICATION, text)
    if own is None or own.kind == VoteKind.NULL or own.block_hash != block_hash:
        text = "proposal: a block proposed again needs the certificate of its own acceptance"
        raise InvalidMessage(Rejection.BAD_JUSTIFICATION, text)
    if own.view < header.view or own.view <= state.tip.view:
        text = f"proposal: a block of view {header.view} above {state.tip.view} was not accepted in view {own.view}"
        raise InvalidMessage(Rejection.BAD_JUSTIFICATION, text)
    return own.view


def _check_parent(state: SimplexState, proposal: Proposal) -> None:
    header, parent = proposal.block.header, proposal.justification.parent
    if header.parent_view < state.tip.view:
        text = f"proposal: its parent of view {header.parent_view} is below the final view {state.tip.view}"
        raise InvalidMessage(Rejection.BAD_JUSTIFICATION, text)
    start = state.context.start
    if (parent is None) != ((header.parent_view, header.parent_hash) == (start.view, start.block_hash)):
        text = "proposal: the block that the epoch starts on, and no other parent, needs no certificate"
        raise InvalidMessage(Rejection.BAD_JUSTIFICATION, text)
    if parent is None:
        return
    if parent.kind == VoteKind.NULL or (parent.view, parent.block_hash) != (header.parent_view, header.parent_hash):
        raise InvalidMessage(Rejection.BAD_JUSTIFICATION, "proposal: the parent's certificate is of another block")


def _check_carried(state: SimplexState, cert: QuorumCert) -> None:
    record = state.views.get(cert.view)
    if (record is not None and cert in record.certs) or cert == state.tip_cert:
        return  # verified before, byte by byte the same
    context = state.context
    known = NO_VOTES if record is None else record.votes
    check_quorum_cert(cert, context.chain, context.epoch, context.validators, context.verify, known)
