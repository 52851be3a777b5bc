"""Who votes when (rules V1, V2): the validator set, the leader schedule's seed and the start of an epoch, as a state knows them.

An epoch is a stretch of heights with one validator set; it starts on the last block of the epoch before, its boundary. A set is
computed two epochs ahead, so everybody knows a whole epoch long who will vote next. It is written once for each change: its key
names the first epoch that it is in force in.
"""

from dataclasses import dataclass

from protocol.ledger.draft import Draft, Ledger
from protocol.ledger.entries import VALIDATORS_CODEC, Kind, validators_key
from protocol.params import compute_epoch
from protocol.units import Epoch, Hash, Height
from protocol.validators import ValidatorSet


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
    begun = [first for first in list_firsts(draft) if first <= epoch]
    if not begun:
        return None
    found = draft.get(validators_key(begun[-1]), VALIDATORS_CODEC)
    assert found is not None, begun
    return found


def get_leader_seed(ledger: Ledger) -> Hash:
    """What seeds the leader schedule of the next block's epoch."""
    return ledger.chain.leader_seed


def get_epoch_terms(ledger: Ledger) -> EpochTerms:
    """All of it for the next block's epoch."""
    epoch = get_epoch(ledger)
    start_height = epoch * ledger.constants.params.epoch_heights
    return EpochTerms(epoch, get_validators(ledger, epoch), get_leader_seed(ledger), start_height)


def write_first_set(draft: Draft, validators: ValidatorSet) -> None:
    """The genesis' set, for the epochs 0 and 1 and as long as nothing changes."""
    draft.put(validators_key(0), validators)


def list_firsts(draft: Draft) -> list[Epoch]:
    """The epochs from which on another set is in force, ascending."""
    return [int.from_bytes(key[1:], "big") for key in draft.list_keys(bytes((Kind.VALIDATORS,)))]
