"""Rule R9: when nothing becomes final, repeat what others may lack: newest first, within a budget, nothing obsolete."""

from collections.abc import Iterator

from protocol.codec import encode
from protocol.ordering.blocks import finalize, get_signers
from protocol.ordering.effects import Broadcast, FetchBlock, FetchCerts, OrderingMessage
from protocol.ordering.events import Timer
from protocol.ordering.messages import VoteKind
from protocol.ordering.pace import compute_standstill_wait, start_standstill_timer
from protocol.ordering.rules import fetch_gap
from protocol.ordering.state import Draft, SimplexState, ViewRecord


def break_standstill(draft: Draft) -> None:
    """R9: repeats what matters and asks again for what is missing, then waits as long again."""
    due_ms = draft.state.tip_since_ms + compute_standstill_wait(draft.state)
    if draft.now_ms < due_ms:  # the work that set a shorter wait is gone
        draft.set_timer(Timer.STANDSTILL, due_ms)
        return
    resend(draft)
    finalize(draft)  # what others hold no more as bodies they give as a range
    for block_hash, view in draft.state.wanted.items():
        peers = get_signers(draft, view)
        if peers:
            draft.effects.append(FetchBlock(block_hash, peers))
    fetch_gap(draft)
    ask_how_it_stands(draft)
    start_standstill_timer(draft)


def ask_how_it_stands(draft: Draft) -> None:
    """R9: asks for certificates of the current view. Whoever is ahead, in this epoch or a later one, answers with what is final: nobody
    repeats itself to those who only follow, and who is to vote next may have missed it."""
    context = draft.state.context
    if context.peers:
        draft.effects.append(FetchCerts(context.epoch, (draft.state.view,), context.peers))


def resend(draft: Draft) -> None:
    """R9: within the byte budget of one interval, counting every copy: repeating everything to everybody is how a stalled network
    drowns itself."""
    context = draft.state.context
    if context.own is None or not context.peers:
        return
    budget = context.params.resend_budget_bytes * context.params.resend_interval_ms // 1000
    for message in _collect(draft.state, context.own):
        budget -= len(encode(message)) * len(context.peers)
        if budget < 0:
            return
        draft.effects.append(Broadcast(message))


def _collect(state: SimplexState, own: int) -> Iterator[OrderingMessage]:
    """The final tip's certificate, then view by view downwards: certificates, own votes, the own proposal."""
    if state.tip_cert is not None:
        yield state.tip_cert
    for view in sorted((view for view in state.views if view > state.tip.view), reverse=True):
        record = state.views[view]
        yield from record.certs
        for kind in VoteKind:
            vote = record.votes.get((kind, own))
            if vote is not None and not _is_obsolete(record, kind):
                yield vote
        if record.leader == own and record.proposal is not None and not record.certs:
            yield record.proposal.proposal


def _is_obsolete(record: ViewRecord, kind: VoteKind) -> bool:
    """A Final vote counts until its FinalCert; the others have done their work once the view has any certificate."""
    return record.final is not None if kind == VoteKind.FINAL else bool(record.certs)
