"""Where an epoch ends and the next one begins, and what is said across: rule R11.

Messages of the next epoch are kept, within bounds, until it starts here; they are nobody's offence, and neither are those of an
epoch that is over.
"""

from typing import Final, TypeAlias

from msgspec.structs import replace

from protocol.codec import encode
from protocol.ordering.context import Context
from protocol.ordering.effects import EndEpoch, FetchCerts, Send
from protocol.ordering.events import BlockReceived, CertReceived, ProposalReceived, VoteReceived
from protocol.ordering.messages import MAX_PROPOSAL_BYTES, Proposal, QuorumCert, Vote
from protocol.ordering.state import Claim, Draft, EarlyMessage, SimplexState, make_state
from protocol.units import Epoch, Milliseconds, NodeId

Message: TypeAlias = ProposalReceived | VoteReceived | CertReceived | BlockReceived

MAX_EARLY_MESSAGES: Final = 64  # of one peer: what it says in about five views
MAX_EARLY_BYTES: Final = MAX_PROPOSAL_BYTES + 128 * 1024  # of one peer: a proposal, and the rest
MAX_ALL_EARLY_BYTES: Final = 16 * 1024 * 1024


def end_epoch(draft: Draft) -> None:
    """R11: says that the epoch is over, once, right after its boundary became final."""
    state = draft.state
    if state.is_over and state.tip_cert is not None:
        draft.effects.append(EndEpoch(state.tip, state.tip_cert))


def open_epoch(draft: Draft, context: Context) -> SimplexState:
    """R11: the machine as it begins the next epoch on the boundary. Of what it knew only what is about this epoch stays."""
    state = draft.state
    assert state.is_over, state.tip
    assert (context.epoch, context.start) == (state.context.epoch + 1, state.tip), context
    fresh = make_state(context, state.tip, state.tip_cert, draft.now_ms)
    return replace(fresh, has_work=state.has_work, later=state.later)


def is_of_this_epoch(draft: Draft, event: Message) -> bool:
    """Whether a message is for the epoch that runs; one that is not is kept, answered or dropped here."""
    if isinstance(event, BlockReceived):
        return not draft.state.is_over  # what was asked for has a name
    epoch, own = get_epoch(event), draft.state.context.epoch
    if epoch == own and not draft.state.is_over:
        return True
    if epoch <= own:
        answer_lower(draft, event)
    else:
        if epoch == own + 1:
            keep_early(draft, event)
        ask_higher(draft, event.peer, epoch)
    return False


def get_epoch(event: ProposalReceived | VoteReceived | CertReceived) -> Epoch:
    """The epoch that a message says it is of."""
    match event:
        case ProposalReceived():
            return event.proposal.block.header.epoch
        case VoteReceived():
            return event.vote.epoch
        case CertReceived():
            return event.cert.epoch


def keep_early(draft: Draft, event: ProposalReceived | VoteReceived | CertReceived) -> None:
    """Keeps a message of the next epoch. Over the bounds the oldest of that peer go, or of whoever has the most."""
    message = EarlyMessage(event, len(encode(_unwrap(event))))
    early = dict(draft.state.early)
    early[event.peer] = (*early.get(event.peer, ()), message)
    while len(early[event.peer]) > MAX_EARLY_MESSAGES or _weigh(early[event.peer]) > MAX_EARLY_BYTES:
        early[event.peer] = early[event.peer][1:]
    while sum(_weigh(kept) for kept in early.values()) > MAX_ALL_EARLY_BYTES:
        largest = max(early, key=lambda peer: _weigh(early[peer]))
        early[largest] = early[largest][1:]
    draft.state = replace(draft.state, early=early)


def _weigh(messages: tuple[EarlyMessage, ...]) -> int:
    return sum(message.size for message in messages)


def _unwrap(event: ProposalReceived | VoteReceived | CertReceived) -> Proposal | Vote | QuorumCert:
    match event:
        case ProposalReceived():
            return event.proposal
        case VoteReceived():
            return event.vote
        case CertReceived():
            return event.cert


def answer_lower(draft: Draft, event: ProposalReceived | VoteReceived | CertReceived) -> None:
    """Tells who speaks of the epoch before how it ended, once a while. At first nobody is told: the certificate is on its way to all."""
    state = draft.state
    cert = state.context.start_cert
    if state.is_over or cert is None or get_epoch(event) != cert.epoch:
        return
    is_known = isinstance(event, CertReceived) and event.cert.block_hash == cert.block_hash
    if not is_known and _is_due(draft, state.answered.get(event.peer, state.opened_ms)):
        recent = {node: at_ms for node, at_ms in state.answered.items() if not _is_due(draft, at_ms)}
        draft.state = replace(state, answered=recent | {event.peer: draft.now_ms})
        draft.effects.append(Send((event.peer,), cert))


def ask_higher(draft: Draft, peer: NodeId, epoch: Epoch) -> None:
    """Asks who speaks of a later epoch how this one ended, once a while."""
    state = draft.state
    claim = state.ahead.get(peer)
    if state.is_over:
        return
    if claim is not None and not _is_due(draft, claim.asked_ms):
        if epoch > claim.epoch:
            draft.state = replace(state, ahead=state.ahead | {peer: Claim(epoch, claim.asked_ms)})
        return
    recent = {node: known for node, known in state.ahead.items() if not _is_due(draft, known.asked_ms)}
    draft.state = replace(state, ahead=recent | {peer: Claim(epoch, draft.now_ms)})
    draft.effects.append(FetchCerts(state.context.epoch, (state.view,), (peer,)))


def ask_on(draft: Draft, before: dict[NodeId, Claim]) -> None:
    """At the start of an epoch: asks those who spoke of still later ones in the epoch before. A node that is far behind hurries."""
    state = draft.state
    claims = {
        peer: Claim(known.epoch, draft.now_ms) for peer, known in before.items() if known.epoch > state.context.epoch
    }
    if claims:
        draft.state = replace(state, ahead=claims)
        draft.effects.append(FetchCerts(state.context.epoch, (state.view,), tuple(claims)))


def _is_due(draft: Draft, last_ms: Milliseconds) -> bool:
    return draft.now_ms >= last_ms + draft.state.context.params.resend_interval_ms
