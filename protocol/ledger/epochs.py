"""Who votes when: the validator set, the leader schedule's seed and the first height of an epoch, as a state knows them.

An epoch is a stretch of heights with one validator set; it starts on the last block of the epoch before, its start.
"""

from dataclasses import dataclass

from protocol.ledger.draft import Draft, Ledger
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
    ledger = state.base if isinstance(state, Draft) else state
    if epoch > get_epoch(ledger) + 1:
        raise LookupError(epoch)
    return ledger.constants.validators


def get_leader_seed(ledger: Ledger) -> Hash:
    """What seeds the leader schedule of the next block's epoch."""
    return ledger.constants.leader_seed


def get_epoch_terms(ledger: Ledger) -> EpochTerms:
    """All of it for the next block's epoch."""
    epoch = get_epoch(ledger)
    start_height = epoch * ledger.constants.params.epoch_heights
    return EpochTerms(epoch, get_validators(ledger, epoch), get_leader_seed(ledger), start_height)
