"""The replay half of rule R10: what this node signed before it stopped binds it still.

Whether the log still binds, and from when its node may sign, is for the node to know: it hands in the context.
"""

from typing import assert_never

from msgspec.structs import replace

from protocol.block import Block, compute_header_hash
from protocol.ordering.blocks import check_children, get_signers, want_block
from protocol.ordering.certs import accept_vote, keep_cert
from protocol.ordering.epochs import end_epoch
from protocol.ordering.events import Record
from protocol.ordering.justification import compute_signed, get_notarized, is_again
from protocol.ordering.messages import Justification, Proposal, QuorumCert, Vote
from protocol.ordering.pace import start_standstill_timer
from protocol.ordering.rules import enter_view, fetch_gap
from protocol.ordering.standstill import resend
from protocol.ordering.state import BlockStatus, Draft, HeldBlock, SeenProposal
from protocol.units import Epoch


def replay(draft: Draft, records: tuple[Record, ...]) -> None:
    """R10: restores votes, proposals, bodies and certificates above the final tip, enters the highest view they name, repeats them.

    R11: records of later epochs wait until these start; those of earlier ones say nothing any more.
    """
    assert not draft.state.is_started, "the log is replayed at the start and at the start of an epoch, once"
    epoch = draft.state.context.epoch
    later = tuple(record for record in records if get_record_epoch(record) > epoch)
    records = tuple(record for record in records if get_record_epoch(record) == epoch)
    view = max((_restore(draft, record) for record in records), default=0)
    draft.state = replace(draft.state, is_started=True, later=later)
    enter_view(draft, max(view, draft.state.tip.view + 1))
    start_standstill_timer(draft)
    check_children(draft, draft.state.tip.block_hash)
    for notarized_view, record in tuple(draft.state.views.items()):
        block_hash = get_notarized(record)
        if block_hash is not None:
            want_block(draft, block_hash, notarized_view, get_signers(draft, notarized_view))
    if records:
        resend(draft)
        fetch_gap(draft)
    end_epoch(draft)


def get_record_epoch(record: Record) -> Epoch:
    """The epoch that a record of the log is of."""
    match record:
        case Vote() | QuorumCert():
            return record.epoch
        case Proposal():
            return record.block.header.epoch
        case Block():
            return record.header.epoch


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
            if record.view > horizon:
                _restore_proposal(draft, record)
            return record.view
        case _:
            assert_never(record)


def _restore_block(draft: Draft, block: Block) -> None:
    """The application has forgotten what it executed above the final tip: every body is executed anew, in order."""
    block_hash = compute_header_hash(block.header)
    if block_hash not in draft.state.blocks:
        draft.put_block(block_hash, HeldBlock(block, BlockStatus.HELD))


def _restore_proposal(draft: Draft, proposal: Proposal) -> None:
    block_hash = compute_header_hash(proposal.block.header)
    if not is_again(proposal):
        _restore_block(draft, proposal.block)
    _restore_certs(draft, proposal.justification)
    seen, signed = SeenProposal(block_hash, proposal), compute_signed(proposal, block_hash)
    draft.put_record(proposal.view, replace(draft.get_record(proposal.view), proposal=seen, signed=signed))


def _restore_certs(draft: Draft, justification: Justification) -> None:
    parent = () if justification.parent is None else (justification.parent,)
    for cert in (*parent, *justification.skipped):
        if cert.view > draft.state.tip.view:
            keep_cert(draft, cert)
