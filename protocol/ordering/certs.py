"""Taking in verified votes and certificates, and noticing those that contradict each other."""

from msgspec.structs import replace

from protocol.evidence import EvidenceKind, build_vote_evidence, find_vote_conflict
from protocol.ordering.blocks import finalize, get_signers, halt, want_block
from protocol.ordering.effects import Broadcast, EvidenceFound, Persist, Send
from protocol.ordering.messages import QuorumCert, Vote, VoteKind
from protocol.ordering.state import Draft, ViewRecord
from protocol.ordering.votes import compute_quorum, split_cert
from protocol.units import NodeId, View


def is_vote_news(record: ViewRecord | None, vote: Vote) -> bool:
    """Whether a vote may be worth verifying: the first of its kind and signer, or one that could be new evidence."""
    if record is None:
        return True
    first = record.votes.get((vote.kind, vote.signer))
    if first is None:
        return True
    if first.block_hash == vote.block_hash:
        return False
    kind = EvidenceKind.TWO_NOTAR if vote.kind == VoteKind.NOTAR else EvidenceKind.TWO_FINAL
    return not _has_evidence(record, kind, vote.signer)


def accept_vote(draft: Draft, vote: Vote) -> None:
    """Keeps a verified vote, the first of its kind and signer, and whatever it proves together with the earlier ones."""
    record = add_vote(draft, draft.get_record(vote.view), vote)
    draft.put_record(vote.view, record)


def add_vote(draft: Draft, record: ViewRecord, vote: Vote) -> ViewRecord:
    """The record with this vote in it."""
    for kind in VoteKind:
        other = record.votes.get((kind, vote.signer))
        broken = None if other is None else find_vote_conflict(other, vote)
        if other is None or broken is None or _has_evidence(record, broken, vote.signer):
            continue
        evidence = build_vote_evidence(broken, other, vote)
        draft.effects.append(EvidenceFound(evidence))
        record = replace(record, evidence=(*record.evidence, evidence))
    if (vote.kind, vote.signer) in record.votes:
        return record
    return replace(record, votes=record.votes | {(vote.kind, vote.signer): vote})


def _has_evidence(record: ViewRecord, kind: EvidenceKind, signer: int) -> bool:
    return any((evidence.kind, evidence.signer) == (kind, signer) for evidence in record.evidence)


def is_cert_news(record: ViewRecord | None, kind: VoteKind) -> bool:
    """Whether a view's certificate of this kind says something new; a FinalCert says what a NotarCert does, and more."""
    if record is None:
        return True
    match kind:
        case VoteKind.NOTAR:
            return record.notar is None and record.final is None
        case VoteKind.NULL:
            return record.null is None
        case VoteKind.FINAL:
            return record.final is None


def accept_cert(draft: Draft, cert: QuorumCert, shown_by: NodeId | None) -> None:
    """R5: keeps a verified certificate that is news, and sends it once to every validator that has not shown it.

    It is not synced before it is sent: a certificate proves itself, and everything signed because of it comes later in the log.
    A peer shows a certificate by sending it; later copies are no news here, so the sender of the first is all there is to know.
    """
    if cert.view <= draft.state.tip.view or not is_cert_news(draft.state.views.get(cert.view), cert.kind):
        return
    keep_cert(draft, cert)
    draft.effects.append(Persist(cert, durable=False))
    context = draft.state.context
    if context.own is None:
        return
    if shown_by is None:
        draft.effects.append(Broadcast(cert))
    else:
        others = tuple(node for node in context.peers if node != shown_by)
        if others:
            draft.effects.append(Send(others, cert))


def keep_cert(draft: Draft, cert: QuorumCert) -> None:
    """Puts a certificate and its votes into the view's record."""
    record = draft.get_record(cert.view)
    for vote in split_cert(cert):
        record = add_vote(draft, record, vote)
    match cert.kind:
        case VoteKind.NOTAR:
            record = replace(record, notar=cert)
        case VoteKind.NULL:
            record = replace(record, null=cert)
        case VoteKind.FINAL:
            record = replace(record, final=cert)
    draft.put_record(cert.view, record)


def form_certs(draft: Draft, view: View) -> None:
    """R5: a quorum of votes of one kind is a certificate."""
    for kind in VoteKind:
        record = draft.get_record(view)
        if is_cert_news(record, kind):
            cert = compute_quorum(draft.state.context, record, kind)
            if cert is not None:
                accept_cert(draft, cert, None)


def follow_certs(draft: Draft, view: View) -> None:
    """R7, and the body of a notarized block that this node lacks: from those who voted for it, who have made it durable."""
    record = draft.get_record(view)
    if record.final is not None:
        finalize(draft)
    elif record.notar is not None:
        want_block(draft, record.notar.block_hash, view, get_signers(draft, view))


def check_old_final(draft: Draft, cert: QuorumCert) -> bool:
    """R7: whether a FinalCert at or below the final tip contradicts it, as far back as this node remembers."""
    finalized = draft.state.finalized
    return (
        cert.kind == VoteKind.FINAL
        and cert.view >= min(finalized)
        and cert.view > 0
        and finalized.get(cert.view) != cert.block_hash
    )


def stop_for_old_final(draft: Draft, cert: QuorumCert) -> None:
    """R7: two verified FinalCerts that no chain contains both of."""
    halt(
        draft,
        f"view {cert.view} is final with a block that the final block of view {draft.state.tip.view} excludes",
        cert,
    )
