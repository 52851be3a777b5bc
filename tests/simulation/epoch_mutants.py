"""Broken rules about epochs, put into the real machine, or into the node around it, for the length of a `with`."""

from __future__ import annotations

from dataclasses import replace as replace_context
from typing import Final

from msgspec.structs import replace

from protocol.errors import InvalidMessage, Rejection
from protocol.ordering import blocks, certs, justification, replay, simplex
from protocol.ordering.effects import Finalize
from protocol.ordering.events import Record
from protocol.ordering.messages import Proposal, VoteKind
from protocol.ordering.state import BlockStatus, Draft, SimplexState, make_tip
from protocol.units import Hash, View
from protocol.validators import index_of
from tests.simulation.application import HashChain
from tests.simulation.mutants import patch_rule
from tests.simulation.node import SimulatedNode

REAL_FINALIZE: Final = SimulatedNode.finalize
REAL_FOLLOW: Final = certs.follow_certs
REAL_REPLAY: Final = replay.replay


def take_next_set(node: SimulatedNode, effect: Finalize) -> None:
    """Set change on sight of finality: the next epoch's validators vote from the first final block on."""
    REAL_FINALIZE(node, effect)
    assert isinstance(node.application, HashChain)
    context, state = node.context, node.application.states[node.application.final_hash]
    if node.watch is not None and context.own is not None and node.tip.height < context.boundary:
        own = index_of(state.sets[1], node.peer)
        signer = None if own is None else node.signer
        changed = replace_context(context, validators=state.sets[1], own=own, signer=signer)
        node.state = replace(node.state, context=changed)


def check_any_last(state: SimplexState, proposal: Proposal, block_hash: Hash) -> View:
    """Re-proposal of another block: any block of the last height, as long as some block of it was accepted."""
    header, own = proposal.block.header, proposal.justification.parent
    if header.height != state.context.boundary or own is None or own.kind == VoteKind.NULL:
        raise InvalidMessage(Rejection.BAD_JUSTIFICATION, "proposal: nothing to propose again")
    return own.view


def follow_without_final(draft: Draft, view: View) -> None:
    """Boundary not final: a notarized one is enough to begin the next epoch."""
    REAL_FOLLOW(draft, view)
    notar = draft.get_record(view).notar
    held = None if notar is None else draft.state.blocks.get(notar.block_hash)
    is_last = held is not None and held.block.header.height == draft.state.context.boundary
    if notar is None or held is None or not is_last or held.status != BlockStatus.VALID or draft.state.is_over:
        return
    path = blocks._find_path(draft, notar)
    if path:
        draft.effects.append(Finalize(path, notar))
        blocks.move_tip(draft, make_tip(notar.block_hash, held.block.header), notar, path)


def replay_this_epoch(draft: Draft, records: tuple[Record, ...]) -> None:
    """Later records dropped: what the log holds of the next epoch is not given back to it."""
    epoch = draft.state.context.epoch
    REAL_REPLAY(draft, tuple(record for record in records if replay.get_record_epoch(record) == epoch))


EPOCH_MUTANTS: Final = {
    "set-on-sight": patch_rule(SimulatedNode, "finalize", take_next_set),
    "another-reproposed": patch_rule(justification, "_check_again", check_any_last),
    "boundary-not-final": patch_rule(simplex, "follow_certs", follow_without_final),
    "later-records-dropped": patch_rule(simplex, "replay", replay_this_epoch),
}
"""Rule -> a context in which every honest node breaks it."""
