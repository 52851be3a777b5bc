"""The ledger as a value, and the one local copy that a block's execution writes into.

A Ledger is the state's entries, key -> canonical bytes, with their Merkle tree. It is never changed: a child is a new value that
knows which entries it changed, so that several children of one parent can live side by side while ordering decides between them.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

from protocol.codec import Codec, Message, encode
from protocol.genesis import Genesis, compute_chain_id
from protocol.jobs.settlement import JOB_CODEC
from protocol.ledger.entries import ACCOUNT_CODEC, CHAIN_CODEC, CHAIN_KEY, UNBONDING_CODEC, Chain, Kind
from protocol.merkle import MerkleTree
from protocol.params import Params
from protocol.units import ZERO_HASH, ChainId, Hash, Micro

M = TypeVar("M", bound=Message)

_BEYOND: Final = b"\xff" * 128  # behind every key with a prefix: none is that long


@dataclass(frozen=True, slots=True)
class Constants:
    """What never changes on a chain: computed once from its genesis and shared by all its ledgers."""

    chain_id: ChainId
    params: Params


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """The state after a block."""

    constants: Constants
    chain: Chain  # height, time, beacon and totals of the block it is the state after
    entries: Mapping[bytes, bytes]
    worth: Mapping[bytes, Micro]  # what each entry holds, where it holds anything
    tree: MerkleTree
    changes: Mapping[bytes, bytes | None]  # against the parent's state; None: removed

    @property
    def state_root(self) -> Hash:
        """The Merkle root of all entries."""
        return self.tree.root


class Draft:
    """One block's local copy: reads fall through to the parent's state, writes stay here until `seal`."""

    __slots__ = ("_written", "base", "burned", "fees")

    def __init__(self, base: Ledger) -> None:
        self.base: Final = base
        self._written: Final[dict[bytes, Message | None]] = {}
        self.burned: Micro = 0  # by this block
        self.fees: Micro = 0  # the proposer's part of this block's base fees

    def get(self, key: bytes, codec: Codec[M]) -> M | None:
        """The entry's value, or None where there is none."""
        if key in self._written:
            return self._written[key]  # pyright: ignore[reportReturnType] - a key's kind byte fixes its type
        encoded = self.base.entries.get(key)
        return None if encoded is None else codec.decode(encoded)

    def has(self, key: bytes) -> bool:
        """Whether there is such an entry."""
        return self._written[key] is not None if key in self._written else key in self.base.entries

    def put(self, key: bytes, value: Message) -> None:
        """Write an entry."""
        self._written[key] = value

    def remove(self, key: bytes) -> None:
        """Take an entry out; it must exist."""
        assert self.has(key), key.hex()
        self._written[key] = None

    def list_keys(self, prefix: bytes) -> list[bytes]:
        """The keys with this prefix, ascending."""
        keys = list_keys(self.base, prefix)
        for key, value in self._written.items():
            if not key.startswith(prefix) or (value is not None) == (key in self.base.entries):
                continue
            if value is None:
                keys.remove(key)
            else:
                insort(keys, key)
        return keys

    def seal(self, chain: Chain) -> Ledger:
        """The ledger after this block, conservation asserted over every entry."""
        self.put(CHAIN_KEY, chain)
        changes = self._encode_changes()
        return _derive(self.base, chain, changes)

    def _encode_changes(self) -> dict[bytes, bytes | None]:
        changes: dict[bytes, bytes | None] = {}
        for key, value in self._written.items():
            encoded = None if value is None else encode(value)
            if encoded != self.base.entries.get(key):
                changes[key] = encoded
        return changes


def compute_constants(genesis: Genesis) -> Constants:
    """The constants of the chain that starts from this genesis."""
    return Constants(compute_chain_id(genesis), genesis.params)


def create_empty_ledger(constants: Constants) -> Ledger:
    """A ledger without entries: what the genesis' entries are written into."""
    chain = Chain(0, 0, 0, ZERO_HASH, ZERO_HASH, (), 0, ZERO_HASH, 0, 0)
    nothing: Mapping[bytes, bytes] = MappingProxyType({})
    return Ledger(constants, chain, nothing, MappingProxyType({}), MerkleTree.build(()), nothing)


def ledger_from_entries(genesis: Genesis, entries: Mapping[bytes, bytes]) -> Ledger:
    """The ledger that has these entries: what `changed_entries` of every block since the genesis add up to.

    Raises: InvalidMessage where an entry is not canonical.
    """
    ledger = assemble_ledger(genesis, entries)
    assert_conserved(ledger)
    return ledger


def assemble_ledger(genesis: Genesis, entries: Mapping[bytes, bytes]) -> Ledger:
    """As `ledger_from_entries`, of entries that may be foreign: whoever calls it judges whether units are conserved.

    Raises: InvalidMessage where an entry is not canonical.
    """
    kept = dict(entries)
    chain = CHAIN_CODEC.decode(kept[CHAIN_KEY])
    worth = {key: amount for key, encoded in kept.items() if (amount := _compute_worth(key, encoded))}
    return Ledger(
        compute_constants(genesis),
        chain,
        MappingProxyType(kept),
        MappingProxyType(worth),
        MerkleTree.build(sorted(kept.items())),
        MappingProxyType(kept),
    )


def changed_entries(child: Ledger) -> Mapping[bytes, bytes | None]:
    """What a store writes for a block: entries against its parent's state, None where one was removed."""
    return child.changes


def list_keys(ledger: Ledger, prefix: bytes) -> list[bytes]:
    """The keys with this prefix, ascending."""
    keys = ledger.tree.keys
    start = bisect_left(keys, prefix)
    end = bisect_left(keys, prefix + _BEYOND, start)
    return list(keys[start:end])


def assert_conserved(ledger: Ledger) -> None:
    """M1: balances + bonds + unbonding + escrow + burned = minted, summed over all entries; a fault here is ours and stops the node."""
    held = sum(ledger.worth.values())
    assert held == ledger.chain.minted, (ledger.chain.height, held, ledger.chain.minted)


def _derive(base: Ledger, chain: Chain, changes: dict[bytes, bytes | None]) -> Ledger:
    entries, worth = dict(base.entries), dict(base.worth)
    for key, encoded in changes.items():
        if encoded is None:
            del entries[key]
        else:
            entries[key] = encoded
        worth.pop(key, None)
        amount = 0 if encoded is None else _compute_worth(key, encoded)
        if amount:
            worth[key] = amount
    ledger = Ledger(
        base.constants,
        chain,
        MappingProxyType(entries),
        MappingProxyType(worth),
        base.tree.update(changes),
        MappingProxyType(changes),
    )
    assert_conserved(ledger)
    return ledger


def _compute_worth(key: bytes, encoded: bytes) -> Micro:
    """The units that one entry holds, read from its bytes: an account's balance and bond, what unbonds, an open job's escrow, the burned."""
    if key[0] == Kind.ACCOUNT:
        account = ACCOUNT_CODEC.decode(encoded)
        return account.balance + account.bonded
    if key[0] == Kind.UNBONDING:
        return UNBONDING_CODEC.decode(encoded).amount
    if key[0] == Kind.OPEN_JOB:
        return JOB_CODEC.decode(encoded).request.fee
    return CHAIN_CODEC.decode(encoded).burned if key[0] == Kind.CHAIN else 0
