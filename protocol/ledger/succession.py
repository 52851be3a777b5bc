"""What the end of an epoch decides (rules V3 to V6, V8): who is jailed for absence, and who votes two epochs later."""

from collections.abc import Mapping
from itertools import pairwise

from protocol.ledger.accounts import get_account
from protocol.ledger.attendance import forget_attendance, get_attendance, is_jailed, jail_absent
from protocol.ledger.draft import Draft
from protocol.ledger.entries import conviction_key, validators_key
from protocol.ledger.epochs import get_epoch, get_validators, list_firsts
from protocol.ledger.milestones import find_milestone, is_too_old
from protocol.ledger.onions import is_onion_ready, list_onion_nodes
from protocol.params import compute_boundary
from protocol.units import Epoch, Height, Micro, Milliseconds, NodeId
from protocol.validators import MAX_VALIDATORS, Validator, ValidatorSet


def end_epoch(draft: Draft, time_ms: Milliseconds) -> None:
    """At the boundary: jail the absent, then write who votes two epochs later, if that is another set than the one before (V3)."""
    epoch = get_epoch(draft.base)
    before, weights = get_validators(draft, epoch + 1), _compute_weights(draft, epoch)
    jailed = jail_absent(draft, get_validators(draft, epoch), weights.keys(), time_ms)
    following = _choose_set(before, {node: weight for node, weight in weights.items() if node not in jailed})
    if following != before:
        draft.put(validators_key(epoch + 2), following)
    forget_attendance(draft, {member.node for member in (*before.members, *following.members)}, time_ms)


def forget_sets(draft: Draft, height: Height, time_ms: Milliseconds) -> None:
    """Remove the sets of epochs whose offences no longer count (V6)."""
    params = draft.base.constants.params
    for first, following in pairwise(list_firsts(draft)):
        later = find_milestone(draft, following, 0)  # an offence of the last epoch with the set is no younger than this
        if later is None or not is_too_old(params, later, height, time_ms):
            return
        draft.remove(validators_key(first))


def _choose_set(before: ValidatorSet, weights: Mapping[NodeId, Micro]) -> ValidatorSet:
    """The heaviest of those who qualify, in the order of the set before, newcomers by node id."""
    heaviest = sorted(weights, key=lambda node: (-weights[node], node))[:MAX_VALIDATORS]
    chosen = frozenset(heaviest)
    stayed = [member.node for member in before.members if member.node in chosen]
    joined = sorted(chosen.difference(stayed))
    members = tuple(Validator(node, weights[node]) for node in (*stayed, *joined))
    return ValidatorSet(members) if members else before  # V5: somebody must go on


def _compute_weights(draft: Draft, epoch: Epoch) -> dict[NodeId, Micro]:
    """Who qualifies for the epoch after the next, with its vote."""
    start_height = compute_boundary(draft.base.constants.params, epoch + 1)
    weights = ((node, _compute_weight(draft, node, start_height)) for node in list_onion_nodes(draft))
    return {node: weight for node, weight in weights if weight}


def _compute_weight(draft: Draft, node: NodeId, start_height: Height) -> Micro:
    """A node's vote in an epoch that starts on this height: its bond, or 0 where it may not vote then (V4)."""
    bonded = get_account(draft, node).bonded
    if bonded < draft.base.constants.params.min_bond or draft.has(conviction_key(node)):
        return 0
    if is_jailed(get_attendance(draft, node)) or not is_onion_ready(draft, node, start_height):
        return 0
    return bonded
