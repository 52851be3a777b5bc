"""Who votes when (rules V1 to V6): the validator set, the leader schedule's seed and the start of an epoch, as a state knows them.

An epoch is a stretch of heights with one validator set; it starts on the last block of the epoch before, its boundary. A set is
computed two epochs ahead, so everybody knows a whole epoch long who will vote next. It is written once for each change: its key
names the first epoch that it is in force in.
"""

from dataclasses import dataclass
from itertools import pairwise

from protocol.ledger.accounts import get_account
from protocol.ledger.draft import Draft, Ledger
from protocol.ledger.entries import VALIDATORS_CODEC, Kind, conviction_key, validators_key
from protocol.ledger.milestones import find_milestone, is_too_old
from protocol.ledger.onions import is_onion_ready, list_onion_nodes
from protocol.params import compute_boundary, compute_epoch
from protocol.units import Epoch, Hash, Height, Micro, Milliseconds, NodeId
from protocol.validators import MAX_VALIDATORS, Validator, ValidatorSet


@dataclass(frozen=True, slots=True)
class EpochTerms:
    """What ordering needs to know of an epoch, besides the block it starts on."""

    epoch: Epoch
    validators: ValidatorSet
    seed: Hash  # of its leader schedule
    start_height: Height  # of the final block that it starts on: the genesis, or the boundary of the epoch before


def get_epoch(ledger: Ledger) -> Epoch:
    """The epoch of the next block: after a boundary it is the epoch that begins."""
    return compute_epoch(ledger.constants.params, ledger.chain.height + 1)


def get_validators(state: Ledger | Draft, epoch: Epoch) -> ValidatorSet:
    """The set of an epoch: of the next block's, of the one after it, and of those in which evidence still counts.

    Raises: LookupError for any other epoch.
    """
    found = find_validators(state, epoch)
    if found is None:
        raise LookupError(f"no validator set of epoch {epoch} is in this state")
    return found


def find_validators(state: Ledger | Draft, epoch: Epoch) -> ValidatorSet | None:
    """As `get_validators`; None where the state does not know the epoch's set yet, or any more."""
    draft = state if isinstance(state, Draft) else Draft(state)
    if epoch > get_epoch(draft.base) + 1:
        return None
    begun = [first for first in _list_firsts(draft) if first <= epoch]
    return _get_set(draft, begun[-1]) if begun else None


def get_leader_seed(ledger: Ledger) -> Hash:
    """What seeds the leader schedule of the next block's epoch."""
    return ledger.chain.leader_seed


def get_epoch_terms(ledger: Ledger) -> EpochTerms:
    """All of it for the next block's epoch."""
    epoch = get_epoch(ledger)
    start_height = epoch * ledger.constants.params.epoch_heights
    return EpochTerms(epoch, get_validators(ledger, epoch), get_leader_seed(ledger), start_height)


# --- at a boundary, and after it


def write_first_set(draft: Draft, validators: ValidatorSet) -> None:
    """The genesis' set, for the epochs 0 and 1 and as long as nothing changes."""
    draft.put(validators_key(0), validators)


def write_next_set(draft: Draft, epoch: Epoch) -> None:
    """At the boundary of an epoch: who votes two epochs later, if that is another set than the one before it (V3)."""
    before = _get_set(draft, _list_firsts(draft)[-1])
    following = _compute_set(draft, before, compute_boundary(draft.base.constants.params, epoch + 1))
    if following != before:
        draft.put(validators_key(epoch + 2), following)


def forget_sets(draft: Draft, height: Height, time_ms: Milliseconds) -> None:
    """Remove the sets of epochs whose offences no longer count (V6)."""
    params = draft.base.constants.params
    for first, following in pairwise(_list_firsts(draft)):
        later = find_milestone(draft, following, 0)  # an offence of the last epoch with the set is no younger than this
        if later is None or not is_too_old(params, later, height, time_ms):
            return
        draft.remove(validators_key(first))


def _compute_set(draft: Draft, before: ValidatorSet, start_height: Height) -> ValidatorSet:
    """Who qualifies for an epoch that starts on this height: the heaviest, in the order of the set before, newcomers by node id."""
    weights = {
        node: weight for node in list_onion_nodes(draft) if (weight := _compute_weight(draft, node, start_height))
    }
    heaviest = sorted(weights, key=lambda node: (-weights[node], node))[:MAX_VALIDATORS]
    chosen = frozenset(heaviest)
    stayed = [member.node for member in before.members if member.node in chosen]
    joined = sorted(chosen.difference(stayed))
    members = tuple(Validator(node, weights[node]) for node in (*stayed, *joined))
    return ValidatorSet(members) if members else before  # somebody must go on


def _compute_weight(draft: Draft, node: NodeId, start_height: Height) -> Micro:
    """A node's vote in an epoch that starts on this height: its bond, or 0 where it may not vote then (V4)."""
    bonded = get_account(draft, node).bonded
    if bonded < draft.base.constants.params.min_bond or draft.has(conviction_key(node)):
        return 0
    return bonded if is_onion_ready(draft, node, start_height) else 0


def _list_firsts(draft: Draft) -> list[Epoch]:
    """The epochs from which on another set is in force, ascending."""
    return [int.from_bytes(key[1:], "big") for key in draft.list_keys(bytes((Kind.VALIDATORS,)))]


def _get_set(draft: Draft, first: Epoch) -> ValidatorSet:
    found = draft.get(validators_key(first), VALIDATORS_CODEC)
    assert found is not None, first
    return found
