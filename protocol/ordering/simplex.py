"""S-Simplex: the pure machine that turns what happens to a validator into votes, proposals and final blocks.

`step` takes one event in and then applies the rules, view by view, until none of them has anything left to do. It decides
which block comes next and when it is final; what a block means is for the application, sending and storing for the node.
Rules R1 to R11: the specification's chapter "Ordering".
"""

from typing import assert_never

from msgspec.structs import replace

from protocol.block import compute_header_hash
from protocol.errors import InvalidMessage
from protocol.evidence import build_proposal_evidence
from protocol.ordering.blocks import (
    accept_fetched,
    check_children,
    finalize,
    get_signers,
    hold_block,
    move_tip,
    set_verdict,
    want_block,
)
from protocol.ordering.certs import (
    accept_cert,
    accept_vote,
    check_old_final,
    follow_certs,
    form_certs,
    is_cert_news,
    is_vote_news,
    stop_for_old_final,
)
from protocol.ordering.effects import Effect, EvidenceFound, Halt, Misbehaviour, SetTimer
from protocol.ordering.epochs import Message, ask_on, is_of_this_epoch, open_epoch
from protocol.ordering.events import (
    BlockBuilt,
    BlockChecked,
    BlockReceived,
    BuildDeclined,
    CertReceived,
    EpochStarted,
    Event,
    MaySign,
    ProposalReceived,
    Replayed,
    Synced,
    Timer,
    TimerFired,
    VoteReceived,
    WorkChanged,
)
from protocol.ordering.justification import check_justification, check_proposal_origin, compute_signed, is_again
from protocol.ordering.messages import Proposal, QuorumCert, Vote
from protocol.ordering.pace import change_work, start_view_timers
from protocol.ordering.replay import replay
from protocol.ordering.rules import advance, enter_view, lead, propose, vote_final, vote_notar, vote_null
from protocol.ordering.standstill import break_standstill
from protocol.ordering.state import BlockStatus, Draft, SeenProposal, SimplexState, make_tip, open_draft
from protocol.ordering.votes import check_quorum_cert, check_vote_shape, check_vote_signature
from protocol.units import Hash, NodeId


def step(state: SimplexState, event: Event) -> tuple[SimplexState, tuple[Effect, ...]]:
    """The state after an event, and what is to be done, in order. An event that changes nothing returns the very same state."""
    if state.is_halted or (not state.is_started and not isinstance(event, Replayed)):
        return state, ()
    draft = open_draft(state, event.now_ms)
    if state.is_over and not isinstance(event, Replayed):
        _take_between(draft, event)
    else:
        _take(draft, event)
    _settle(draft)
    return draft.state, _cut_after_halt(draft.effects)


def _take(draft: Draft, event: Event) -> None:
    match event:
        case ProposalReceived() | VoteReceived() | CertReceived() | BlockReceived():
            _take_message(draft, event)
        case Replayed():
            replay(draft, event.records)
        case BlockBuilt():
            propose(draft, event.block)
        case BuildDeclined():
            if event.view == draft.state.view and draft.get_record(event.view).is_building:
                draft.put_record(event.view, replace(draft.get_record(event.view), is_declined=True))
        case BlockChecked():
            set_verdict(draft, event.block_hash, valid=event.valid)
            finalize(draft)
        case WorkChanged():
            change_work(draft, event.pending)
        case TimerFired():
            _take_timer(draft, event.timer)
        case Synced():
            _take_synced(draft, event)
        case MaySign():
            _take_permission(draft, event)
        case EpochStarted():
            raise AssertionError(event)  # of an epoch that runs
        case _:
            assert_never(event)


def _take_between(draft: Draft, event: Event) -> None:
    """R11: between two epochs: messages are sorted, work is noted, whatever was under way is obsolete."""
    match event:
        case EpochStarted():
            _start_epoch(draft, event)
        case ProposalReceived() | VoteReceived() | CertReceived():
            is_of_this_epoch(draft, event)
        case WorkChanged():
            draft.state = replace(draft.state, has_work=event.pending)
        case _:
            return


def _start_epoch(draft: Draft, event: EpochStarted) -> None:
    """R11: the next epoch, with what the log and the others have said about it already."""
    early, ahead = draft.state.early, draft.state.ahead
    draft.state = open_epoch(draft, event.context)
    draft.touched.clear()
    replay(draft, draft.state.later)
    for messages in early.values():
        for message in messages:
            _take_message(draft, message.event)
    ask_on(draft, ahead)


def _take_permission(draft: Draft, event: MaySign) -> None:
    """R10: an observer signs from now on, in the views that it has not left, and above the floor."""
    assert (event.context.epoch, event.context.start) == (draft.state.context.epoch, draft.state.context.start), event
    draft.state = replace(draft.state, context=event.context)
    draft.touched.update(draft.state.views)
    start_view_timers(draft)


def _take_message(draft: Draft, event: Message) -> None:
    """A peer's message; what is wrong with it is charged to the peer and changes nothing."""
    if not is_of_this_epoch(draft, event):
        return
    try:
        match event:
            case ProposalReceived():
                _take_proposal(draft, event.proposal, event.peer)
            case VoteReceived():
                _take_vote(draft, event.vote)
            case CertReceived():
                _take_cert(draft, event.cert, event.peer)
            case BlockReceived():
                accept_fetched(draft, event.block, event.peer)
                finalize(draft)
    except InvalidMessage as error:
        draft.effects.append(Misbehaviour(event.peer, error.reason, str(error)))


def _take_proposal(draft: Draft, proposal: Proposal, peer: NodeId) -> None:
    """R2's first half: signed by the leader, with a complete and valid justification; the first such one of a view counts."""
    context, view = draft.state.context, proposal.view
    if view <= draft.state.tip.view:
        return
    record = draft.get_record(view)
    block_hash = compute_header_hash(proposal.block.header)
    if record.second is not None or (record.signed is not None and record.signed.block_hash == block_hash):
        return
    signed = compute_signed(proposal, block_hash)
    check_proposal_origin(context, proposal, signed, record.leader)
    if record.signed is not None:
        evidence = build_proposal_evidence(record.signed, signed)
        draft.effects.append(EvidenceFound(evidence))
        draft.put_record(view, replace(record, second=signed, evidence=(*record.evidence, evidence)))
        return
    try:
        check_justification(draft.state, proposal, block_hash)
    except InvalidMessage:
        if (
            view <= draft.state.view + context.params.view_window_ahead
        ):  # everybody leads some far views: keep none of them
            draft.put_record(view, replace(record, signed=signed, is_refused=True))  # R4
        raise
    parent = proposal.justification.parent
    for cert in (*(() if parent is None else (parent,)), *proposal.justification.skipped):
        accept_cert(draft, cert, peer)
    draft.put_record(view, replace(record, signed=signed, proposal=SeenProposal(block_hash, proposal)))
    _hold_proposed(draft, proposal, block_hash)


def _hold_proposed(draft: Draft, proposal: Proposal, block_hash: Hash) -> None:
    """The body that came along; of a block that is proposed again those who accepted it have the body."""
    if is_again(proposal):
        assert proposal.justification.parent is not None, proposal.view  # checked
        want_block(draft, block_hash, proposal.view, get_signers(draft, proposal.justification.parent.view))
    else:
        signers = get_signers(draft, proposal.block.header.parent_view)
        hold_block(draft, block_hash, proposal.block, BlockStatus.HELD, signers)


def _take_vote(draft: Draft, vote: Vote) -> None:
    """A vote in the window of views that this node keeps; before that and beyond it votes are dropped unread."""
    state = draft.state
    params = state.context.params
    if not state.tip.view - params.view_window_behind <= vote.view <= state.view + params.view_window_ahead:
        return
    check_vote_shape(vote, state.context.epoch, state.context.validators)
    if is_vote_news(state.views.get(vote.view), vote):
        check_vote_signature(vote, state.context.chain, state.context.validators, state.context.verify)
        accept_vote(draft, vote)


def _take_cert(draft: Draft, cert: QuorumCert, peer: NodeId) -> None:
    """A certificate that is news. Its view has no upper bound: a quorum's signatures cannot be made up."""
    state = draft.state
    record = state.views.get(cert.view)
    is_old = cert.view <= state.tip.view
    if (is_old and not check_old_final(draft, cert)) or (not is_old and not is_cert_news(record, cert.kind)):
        return
    context, known = state.context, {} if record is None else record.votes
    check_quorum_cert(cert, context.chain, context.epoch, context.validators, context.verify, known)
    if is_old:
        stop_for_old_final(draft, cert)
    else:
        accept_cert(draft, cert, peer)


def _take_timer(draft: Draft, timer: Timer) -> None:
    """A timer counts when its deadline has come; one that was set anew since, or fires early, does not."""
    deadline = draft.state.deadlines.get(timer)
    if deadline is None:
        return
    if draft.now_ms < deadline:
        draft.effects.append(SetTimer(timer, deadline))
        return
    if timer is Timer.STANDSTILL:
        break_standstill(draft)
        return
    if timer in (Timer.BUILD, Timer.CLOCK):
        deadlines = {key: at_ms for key, at_ms in draft.state.deadlines.items() if key is not timer}
        draft.state = replace(draft.state, deadlines=deadlines)
    draft.touched.add(draft.state.view)
    if timer is Timer.CLOCK:
        draft.touched.update(draft.state.views)


def _take_synced(draft: Draft, event: Synced) -> None:
    """The node has caught up: its finalized tip is new, and what was heard meanwhile is built on it."""
    block_hash = compute_header_hash(event.header)
    assert block_hash == event.cert.block_hash, (event.cert, event.header)
    draft.state = replace(draft.state, syncing=None)
    if event.cert.view > draft.state.tip.view:
        move_tip(draft, make_tip(block_hash, event.header), event.cert, ())
        if draft.state.is_over:
            return
        if draft.state.view <= event.cert.view:
            enter_view(draft, event.cert.view + 1)
        check_children(draft, block_hash)
    finalize(draft)


def _settle(draft: Draft) -> None:
    """Applies the rules to every touched view, lowest first, until nothing moves: what a rule does touches its view again."""
    while draft.touched and not draft.state.is_halted and not draft.state.is_over:
        view = min(draft.touched)
        draft.touched.remove(view)
        if view <= draft.state.tip.view:
            continue
        form_certs(draft, view)  # R5
        follow_certs(draft, view)  # R7
        advance(draft, view)  # R6
        if draft.state.context.own is None or view <= max(draft.state.tip.view, draft.state.context.floor):
            continue
        vote_final(draft, view)  # R3
        vote_notar(draft, view)  # R2
        vote_null(draft, view)  # R4
        lead(draft, view)  # R1


def _cut_after_halt(effects: list[Effect]) -> tuple[Effect, ...]:
    for index, effect in enumerate(effects):
        if isinstance(effect, Halt):
            return tuple(effects[: index + 1])
    return tuple(effects)
