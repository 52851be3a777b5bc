"""The replay half of rule R10: what this node signed before it stopped binds it still.

Missing yet: a node whose log is lost, or older than its chain, has to stay an observer for two epochs (with epochs); until
then whoever runs it must not give it its key.
"""

from typing import assert_never

from msgspec.structs import replace

from protocol.block import Block, compute_header_hash
from protocol.ordering.blocks import check_children, get_signers, want_block
from protocol.ordering.certs import accept_vote, keep_cert
from protocol.ordering.events import Record
from protocol.ordering.justification import compute_signed, get_notarized
from protocol.ordering.messages import Justification, Proposal, QuorumCert, Vote
from protocol.ordering.pace import start_standstill_timer
from protocol.ordering.rules import enter_view, fetch_gap
from protocol.ordering.standstill import resend
from protocol.ordering.state import BlockStatus, Draft, HeldBlock, SeenProposal


def replay(draft: Draft, records: tuple[Record, ...]) -> None:
    """R10: restores votes, proposals, bodies and certificates above the final tip, enters the highest view they name, repeats them."""
    assert not draft.state.is_started, "Replayed is the first event, once"
    view = draft.state.tip.view + 1
    for record in records:
        view = max(view, _restore(draft, record))
    draft.state = replace(draft.state, is_started=True)
    enter_view(draft, view)
    start_standstill_timer(draft)
    check_children(draft, draft.state.tip.block_hash)
    for notarized_view, record in tuple(draft.state.views.items()):
        block_hash = get_notarized(record)
        if block_hash is not None:
            want_block(draft, block_hash, notarized_view, get_signers(draft, notarized_view))
    if records:
        resend(draft)
        fetch_gap(draft)


def _restore(draft: Draft, record: Record) -> int:
    """Takes one record in; the view that it proves this node to have been in."""
    horizon = draft.state.tip.view
    match record:
        case Vote():
            assert record.signer == draft.state.context.own, record
            if record.view > horizon:
                accept_vote(draft, record)
            return record.view
        case QuorumCert():
            if record.view > horizon:
                keep_cert(draft, record)
            return record.view + 1
        case Block():
            if record.header.view > horizon:
                _restore_block(draft, record)
            return 0
        case Proposal():
            if record.block.header.view > horizon:
                _restore_proposal(draft, record)
            return record.block.header.view
        case _:
            assert_never(record)


def _restore_block(draft: Draft, block: Block) -> None:
    """The application has forgotten what it executed above the final tip: every body is executed anew, in order."""
    block_hash = compute_header_hash(block.header)
    if block_hash not in draft.state.blocks:
        draft.put_block(block_hash, HeldBlock(block, BlockStatus.HELD))


def _restore_proposal(draft: Draft, proposal: Proposal) -> None:
    block_hash = compute_header_hash(proposal.block.header)
    view = proposal.block.header.view
    _restore_block(draft, proposal.block)
    _restore_certs(draft, proposal.justification)
    seen = SeenProposal(block_hash, proposal)
    signed = compute_signed(proposal, block_hash)
    draft.put_record(view, replace(draft.get_record(view), proposal=seen, signed=signed))


def _restore_certs(draft: Draft, justification: Justification) -> None:
    parent = () if justification.parent is None else (justification.parent,)
    for cert in (*parent, *justification.skipped):
        if cert.view > draft.state.tip.view:
            keep_cert(draft, cert)
