"""The ledger as a value, and the one local copy that a block's execution writes into.

A Ledger is the state's entries, key -> canonical bytes, with their Merkle tree. It is never changed: a child is a new value that
knows which entries it changed, so that several children of one parent can live side by side while ordering decides between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.genesis import Genesis
from protocol.ledger.entries import Chain
from protocol.merkle import MerkleTree
from protocol.params import Params
from protocol.units import ChainId, Hash
from protocol.validators import ValidatorSet


@dataclass(frozen=True, slots=True)
class Constants:
    """What never changes on a chain: computed once from its genesis and shared by all its ledgers."""

    chain_id: ChainId
    params: Params
    leader_seed: Hash
    validators: ValidatorSet
    valset_hash: Hash


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """The state after a block. Entries must not be written to: `draft.Draft` makes the next one."""

    constants: Constants
    chain: Chain  # height, time, beacon and totals of the block it is the state after
    entries: Mapping[bytes, bytes]
    keys: tuple[bytes, ...]  # ascending
    worth: Mapping[bytes, int]  # units held by each entry that holds any
    tree: MerkleTree
    changes: Mapping[bytes, bytes | None]  # against the parent's state; None: removed

    @property
    def state_root(self) -> Hash: ...


def compute_constants(genesis: Genesis) -> Constants: ...


def ledger_from_entries(genesis: Genesis, entries: Mapping[bytes, bytes]) -> Ledger: ...


def changed_entries(child: Ledger) -> Mapping[bytes, bytes | None]: ...
