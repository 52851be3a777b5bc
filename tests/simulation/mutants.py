"""Broken rules, put into the real machine for the length of a `with`: a simulator that does not catch them proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

from protocol.block import compute_header_hash
from protocol.ordering import justification, rules, simplex
from protocol.ordering.messages import Proposal, VoteKind
from protocol.ordering.state import Draft, SimplexState, ViewRecord
from protocol.units import ZERO_HASH, NodeId
from tests.simulation.node import SimulatedNode

REAL_TAKE_PROPOSAL: Final = simplex._take_proposal
REAL_IS_HOPELESS: Final = rules._is_hopeless


def take_every_proposal(draft: Draft, proposal: Proposal, peer: NodeId) -> None:
    """Double Notar: a second block of a view is treated like the first, and the own Notar for the first is forgotten."""
    view, own = proposal.block.header.view, draft.state.context.own
    record = draft.state.views.get(view)
    if own is not None and view > draft.state.tip.view and record is not None and record.signed is not None:
        block_hash = compute_header_hash(proposal.block.header)
        if record.signed.block_hash != block_hash:
            votes = {key: vote for key, vote in record.votes.items() if key != (VoteKind.NOTAR, own)}
            forgotten = ViewRecord(record.leader, votes=votes, notar=record.notar, null=record.null, final=record.final)
            draft.put_record(view, forgotten)
    REAL_TAKE_PROPOSAL(draft, proposal, peer)


def vote_final_after_null(draft: Draft, view: int) -> None:
    """Final after Null: having given up on the view is forgotten."""
    notar = draft.get_record(view).notar
    own = draft.get_own_vote(VoteKind.NOTAR, view)
    if notar is None or own is None or own.block_hash != notar.block_hash or notar.block_hash not in draft.state.blocks:
        return
    if draft.get_own_vote(VoteKind.FINAL, view) is None:
        rules._cast(draft, VoteKind.FINAL, view, notar.block_hash)


def vote_null_after_final(draft: Draft, view: int) -> None:
    """Null after Final: a timer gives up on the view before the current one as well, whatever was voted in it."""
    if view != draft.state.view or not REAL_IS_HOPELESS(draft, view):
        return
    for hopeless in (view, view - 1):
        if hopeless > draft.state.tip.view and draft.get_own_vote(VoteKind.NULL, hopeless) is None:
            rules._cast(draft, VoteKind.NULL, hopeless, ZERO_HASH)


def check_only_parent(state: SimplexState, proposal: Proposal) -> None:
    """Gap unchecked: the parent's certificate is enough, whatever lies between it and the proposal."""
    justification._check_parent(state, proposal)
    if proposal.justification.parent is not None:
        justification._check_carried(state, proposal.justification.parent)


def _patch(target: object, name: str, broken: object) -> Callable[[], Iterator[None]]:
    @contextmanager
    def broken_rule() -> Iterator[None]:
        with patch.object(target, name, broken):
            yield

    return broken_rule


MUTANTS: Final = {
    "double-notar": _patch(simplex, "_take_proposal", take_every_proposal),
    "final-after-null": _patch(simplex, "vote_final", vote_final_after_null),
    "null-after-final": _patch(simplex, "vote_null", vote_null_after_final),
    "no-wal": _patch(SimulatedNode, "keeps_wal", False),
    "gap-unchecked": _patch(simplex, "check_justification", check_only_parent),
}
"""Rule -> a context in which every honest node breaks it."""
