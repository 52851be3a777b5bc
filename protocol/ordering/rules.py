"""When this node signs: rules R1 to R4, and when it moves on: rule R6. Each rule looks at the draft and acts at most once."""

from msgspec.structs import replace

from protocol.block import Block, compute_header_hash
from protocol.codec import encode
from protocol.ordering.blocks import get_executed, get_signers, hold_block, wake_clock, want_block
from protocol.ordering.certs import accept_vote
from protocol.ordering.effects import Broadcast, BuildBlock, FetchCerts, Persist
from protocol.ordering.events import Timer
from protocol.ordering.justification import Base, Gap, compute_signed, find_base, find_justification
from protocol.ordering.messages import (
    MAX_PROPOSAL_BYTES,
    Justification,
    Proposal,
    VoteKind,
    compute_justification_hash,
)
from protocol.ordering.pace import compute_build_time, compute_repeat_time, has_passed, start_view_timers
from protocol.ordering.state import BlockStatus, Draft, SeenProposal
from protocol.ordering.votes import sign_vote
from protocol.units import ZERO_HASH, Hash, View
from protocol.voting import proposal_signing_bytes


def advance(draft: Draft, view: View) -> None:
    """R6: any certificate of the current view or a later one leads to the view behind it; never back.

    A node that lacks the certificates of views in between does not wait for them: proposals carry what they need, and only a
    leader needs them itself, so it asks for them now.
    """
    if view < draft.state.view or not draft.get_record(view).certs:
        return
    skipped = view > draft.state.view
    enter_view(draft, view + 1)
    if skipped:
        fetch_gap(draft)


def enter_view(draft: Draft, view: View) -> None:
    """R1: the new view's timers start."""
    draft.state = replace(draft.state, view=view, entered_ms=draft.now_ms)
    draft.put_record(view, draft.get_record(view))  # its leader is drawn once
    start_view_timers(draft)


def fetch_gap(draft: Draft) -> None:
    """Asks for the certificates without which this node could not justify a proposal in the current view."""
    base = find_base(draft.state, draft.state.view)
    if isinstance(base, Gap):
        limit = draft.state.context.params.max_null_certs
        draft.effects.append(FetchCerts(draft.state.context.epoch, base.views[:limit], draft.state.context.peers))


def _cast(draft: Draft, kind: VoteKind, view: View, block_hash: Hash) -> None:
    """R10: durable first, then to everybody; it counts here at once."""
    vote = sign_vote(draft.state.context, kind, view, block_hash)
    draft.effects.append(Persist(vote, durable=True))
    draft.effects.append(Broadcast(vote))
    accept_vote(draft, vote)


def vote_notar(draft: Draft, view: View) -> None:
    """R2: the first acceptable proposal of a view reached, once, with its parent executed and its body accepted and durable.

    It may follow an own Null vote. It also comes late, for a view already left: rule R3 needs it.
    """
    record = draft.get_record(view)
    seen = record.proposal
    if seen is None or view > draft.state.view or draft.get_own_vote(VoteKind.NOTAR, view) is not None:
        return
    held = draft.state.blocks.get(seen.block_hash)
    if held is None or held.status != BlockStatus.VALID or not wake_clock(draft, held.block.header):
        return
    if not record.is_building and not _is_logged(
        draft, seen.block_hash
    ):  # an own proposal's record holds the body, too
        draft.effects.append(Persist(held.block, durable=True))
    _cast(draft, VoteKind.NOTAR, view, seen.block_hash)


def _is_logged(draft: Draft, block_hash: Hash) -> bool:
    """Whether a block that is proposed again is durable: this node voted for it before."""
    own = draft.state.context.own
    votes = (record.votes.get((VoteKind.NOTAR, own)) for record in draft.state.views.values() if own is not None)
    return any(vote is not None and vote.block_hash == block_hash for vote in votes)


def vote_final(draft: Draft, view: View) -> None:
    """R3: the own Notar's block is notarized, its body held, and this node has not given up on the view. In any later view too."""
    notar = draft.get_record(view).notar
    own = draft.get_own_vote(VoteKind.NOTAR, view)
    if notar is None or own is None or own.block_hash != notar.block_hash or notar.block_hash not in draft.state.blocks:
        return
    if draft.get_own_vote(VoteKind.NULL, view) is not None or draft.get_own_vote(VoteKind.FINAL, view) is not None:
        return
    _cast(draft, VoteKind.FINAL, view, notar.block_hash)


def vote_null(draft: Draft, view: View) -> None:
    """R4: gives up on the current view, unless it voted Final in it."""
    if view != draft.state.view or draft.get_own_vote(VoteKind.FINAL, view) is not None:
        return
    if draft.get_own_vote(VoteKind.NULL, view) is None and _is_hopeless(draft, view):
        _cast(draft, VoteKind.NULL, view, ZERO_HASH)


def _is_hopeless(draft: Draft, view: View) -> bool:
    """R4's reasons: an unacceptable proposal, a leader that steps back, none in time, no certificate in time."""
    record = draft.get_record(view)
    if record.is_refused or record.is_declined or has_passed(draft, Timer.CERTIFICATE):
        return True
    if record.proposal is not None or draft.get_own_vote(VoteKind.NOTAR, view) is not None:
        return False
    return (VoteKind.NULL, record.leader) in record.votes or has_passed(draft, Timer.PROPOSAL)


def lead(draft: Draft, view: View) -> None:
    """R1: the leader builds on the highest notarized block that it can justify, when the pace allows; R11: the epoch's last one it
    proposes again.

    Without the certificates it steps back at once (rule R4). With them but without the body it waits for that as long as everybody
    waits for it: bodies travel slower than votes.
    """
    state, record = draft.state, draft.get_record(view)
    if view != state.view or record.leader != state.context.own:
        return
    if record.signed is not None or record.is_declined or record.is_building:
        return
    base = find_base(state, view)
    if isinstance(base, Gap) or view - base.view - 1 > state.context.params.max_null_certs:
        draft.put_record(view, replace(record, is_declined=True))
        fetch_gap(draft)
        return
    parent = get_executed(draft, base.block_hash)
    if parent is None:
        want_block(draft, base.block_hash, base.view, get_signers(draft, base.view))
        return
    is_last = parent.height == state.context.boundary
    at_ms = compute_repeat_time(draft, parent.time_ms) if is_last else compute_build_time(draft, parent.time_ms)
    if at_ms > draft.now_ms:
        draft.set_timer(Timer.BUILD, at_ms)
        return
    if is_last:
        repropose(draft, view, base)
        return
    draft.put_record(view, replace(record, is_building=True))
    not_before = parent.time_ms + state.context.params.pace_ms
    draft.effects.append(BuildBlock(view, parent.height + 1, base.view, base.block_hash, not_before))


def propose(draft: Draft, block: Block) -> None:
    """R1: signs and sends the block that the application built, once a view. Too late is not wrong: it is dropped."""
    header = block.header
    record = draft.get_record(header.view)
    justification = find_justification(draft.state, header.view, Base(header.parent_view, header.parent_hash))
    is_wanted = header.view == draft.state.view and record.is_building and record.signed is None
    if justification is None or not is_wanted:
        return
    block_hash = compute_header_hash(header)
    _send_proposal(draft, _sign_proposal(draft, block, block_hash, header.view, justification), block_hash)
    hold_block(draft, block_hash, block, BlockStatus.VALID, ())


def repropose(draft: Draft, view: View, base: Base) -> None:
    """R11: signs and sends the epoch's last block again, without its body; steps back where the frame is too small for the reason."""
    justification = find_justification(draft.state, view, base)
    assert justification is not None, base  # just found
    block = replace(draft.state.blocks[base.block_hash].block, body=())
    proposal = _sign_proposal(draft, block, base.block_hash, view, justification)
    if len(encode(proposal)) > MAX_PROPOSAL_BYTES:
        draft.put_record(view, replace(draft.get_record(view), is_declined=True))
        return
    _send_proposal(draft, proposal, base.block_hash)


def _sign_proposal(draft: Draft, block: Block, block_hash: Hash, view: View, justification: Justification) -> Proposal:
    context = draft.state.context
    assert context.signer is not None and context.own is not None, view
    reason = compute_justification_hash(justification)
    message = proposal_signing_bytes(context.chain, context.epoch, view, block_hash, reason)
    return Proposal(block, justification, view, context.own, context.signer.sign(message))


def _send_proposal(draft: Draft, proposal: Proposal, block_hash: Hash) -> None:
    draft.effects.append(Persist(proposal, durable=True))  # R10
    draft.effects.append(Broadcast(proposal))
    seen, signed = SeenProposal(block_hash, proposal), compute_signed(proposal, block_hash)
    draft.put_record(proposal.view, replace(draft.get_record(proposal.view), proposal=seen, signed=signed))
