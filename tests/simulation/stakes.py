"""Who votes when, as a ledger would have it: transactions change stakes, and each boundary's stakes vote two epochs later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from protocol.crypto import HashDomain, compute_hash
from protocol.units import MAX_UINT, ZERO_HASH, Hash
from protocol.validators import Validator, ValidatorSet, compute_validator_set_hash
from tests.simulation.keys import make_public

RESTAKE: Final = b"stake"
NEVER: Final = MAX_UINT


@dataclass(frozen=True, slots=True)
class Founding:
    """What a network begins with: stakes by identity (0: somebody who may join), who is Byzantine, and how long an epoch is."""

    stakes: tuple[int, ...]
    byzantine: frozenset[int]
    epoch_heights: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What ordering needs to know of an epoch, besides the block it starts on."""

    epoch: int
    validators: ValidatorSet
    seed: Hash
    boundary: int


@dataclass(frozen=True, slots=True)
class State:
    """What a block leads to. The root stands for all transactions so far, so any difference in order or content shows in it."""

    root: Hash
    height: int
    stakes: tuple[int, ...]
    sets: tuple[ValidatorSet, ValidatorSet]  # of the next block's epoch, and of the one after that
    hashes: tuple[Hash, Hash]
    seed: Hash  # of the next block's epoch


def found(founding: Founding) -> State:
    """The state that the genesis stands for."""
    validators = make_set(founding.stakes, None)
    name = compute_validator_set_hash(validators)
    return State(ZERO_HASH, 0, founding.stakes, (validators, validators), (name, name), ZERO_HASH)


def get_terms(founding: Founding, state: State) -> Terms:
    """The epoch of the block behind a state."""
    epoch = state.height // founding.epoch_heights
    return Terms(epoch, state.sets[0], state.seed, (epoch + 1) * founding.epoch_heights)


def apply(founding: Founding, state: State, transactions_root: Hash, body: tuple[bytes, ...]) -> State:
    """The state after a block."""
    root = compute_hash(HashDomain.NODE, state.root, transactions_root)
    stakes = state.stakes
    for transaction in body:
        stakes = restake(founding, stakes, transaction)
    after = replace(state, root=root, height=state.height + 1, stakes=stakes)
    if after.height % founding.epoch_heights:
        return after
    following = make_set(stakes, state.sets[1])
    hashes = (state.hashes[1], compute_validator_set_hash(following))
    return replace(
        after, sets=(state.sets[1], following), hashes=hashes, seed=compute_hash(HashDomain.NODE, root, root)
    )


def restake(founding: Founding, stakes: tuple[int, ...], transaction: bytes) -> tuple[int, ...]:
    """The stakes after a transaction; one that would give the Byzantine a third changes nothing."""
    if not transaction.startswith(RESTAKE):
        return stakes
    _, identity, stake = transaction.split()
    changed = (*stakes[: int(identity)], int(stake), *stakes[int(identity) + 1 :])
    weight = sum(changed[index] for index in founding.byzantine)
    return changed if 3 * weight < sum(changed) else stakes


def make_set(stakes: tuple[int, ...], before: ValidatorSet | None) -> ValidatorSet:
    """Everybody with a stake: those of the set before in their order, newcomers behind them by their keys."""
    staked = {make_public(identity): stake for identity, stake in enumerate(stakes) if stake}
    if before is None:
        return ValidatorSet(tuple(Validator(node, stake) for node, stake in staked.items()))
    old = [member.node for member in before.members if member.node in staked]
    new = sorted(node for node in staked if node not in old)
    return ValidatorSet(tuple(Validator(node, staked[node]) for node in (*old, *new)))
