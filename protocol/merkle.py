"""One hash for a sorted map of bytes to bytes, and proofs that an entry is in it or is not.

A binary tree over the entries in key order: leaf = H(LEAF, length of key, key, H(VALUE, value)), inner = H(NODE, left, right), a lone
node moves up unchanged, and the root H(ROOT, count, top) binds the count, so that an index has one meaning. The hash depends on the
entries alone, never on the order in which they came. Source: domain bytes after RFC 6962.

`compute_root` and `MerkleTree.build` take the whole map; `MerkleTree.update` recomputes only what changed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Final

from msgspec import Meta

from protocol.codec import Message
from protocol.crypto import HashDomain, compute_hash
from protocol.units import Hash, Uint

MAX_DEPTH: Final = 40  # 10^12 entries
_NODE: Final = bytes((HashDomain.NODE,))
_LEAF: Final = bytes((HashDomain.LEAF,))
_VALUE: Final = bytes((HashDomain.VALUE,))

Level = tuple[Hash, ...]


class InclusionProof(Message, frozen=True):
    """Where an entry stands among how many, and the siblings on its way up; levels where it moves up alone have none."""

    index: Uint
    count: Uint
    siblings: Annotated[tuple[Hash, ...], Meta(max_length=MAX_DEPTH)]


class Neighbour(Message, frozen=True):
    """An entry beside the place where an absent key would stand."""

    key: Annotated[bytes, Meta(max_length=256)]
    value_hash: Hash
    proof: InclusionProof


class ExclusionProof(Message, frozen=True):
    """The two adjacent entries between which a key would stand; None beyond an end, both None in an empty map."""

    left: Neighbour | None
    right: Neighbour | None


def compute_value_hash(value: bytes) -> Hash:
    """What a leaf holds in place of the value, so that a neighbour in an exclusion proof need not be carried whole."""
    return sha256(_VALUE + value).digest()


def compute_leaf(key: bytes, value_hash: Hash) -> Hash:
    """The hash of one entry."""
    return sha256(_LEAF + len(key).to_bytes(4, "big") + key + value_hash).digest()


def compute_root(entries: Iterable[tuple[bytes, bytes]]) -> Hash:
    """The root of entries sorted by key."""
    return MerkleTree.build(entries).root


@dataclass(frozen=True, slots=True, eq=False)
class MerkleTree:
    """The keys in order and every level of hashes above them: an immutable value; `update` makes another."""

    keys: tuple[bytes, ...]
    levels: tuple[Level, ...]  # leaves first; the last has at most one node
    root: Hash

    @classmethod
    def build(cls, entries: Iterable[tuple[bytes, bytes]]) -> MerkleTree:
        """The tree of entries sorted by key."""
        pairs = tuple(entries)
        keys = tuple(key for key, _ in pairs)
        assert all(left < right for left, right in pairwise(keys)), "entries must ascend by key"
        return _assemble(keys, [compute_leaf(key, compute_value_hash(value)) for key, value in pairs], (), 0)

    def update(self, changed: Mapping[bytes, bytes | None]) -> MerkleTree:
        """The tree after these entries were written (None: removed). Removing what is not there changes nothing."""
        added = [key for key, value in changed.items() if value is not None and not self._has(key)]
        removed = [key for key, value in changed.items() if value is None and self._has(key)]
        if not added and not removed:
            return self._replace({self._find(key): value for key, value in changed.items() if value is not None})
        return self._rebuild(changed, min(bisect_left(self.keys, key) for key in (*added, *removed)))

    def prove_inclusion(self, key: bytes) -> InclusionProof:
        """The proof that a key's entry is under this root. Raises: KeyError if the key is absent."""
        if not self._has(key):
            raise KeyError(key)
        return self._prove(self._find(key))

    def prove_exclusion(self, key: bytes, values: Mapping[bytes, bytes]) -> ExclusionProof:
        """The proof that no entry has this key; `values` gives the neighbours' values. Raises: KeyError if the key is present."""
        if self._has(key):
            raise KeyError(key)
        right = self._find(key)
        return ExclusionProof(self._neighbour(right - 1, values), self._neighbour(right, values))

    def _find(self, key: bytes) -> int:
        return bisect_left(self.keys, key)

    def _has(self, key: bytes) -> bool:
        index = self._find(key)
        return index < len(self.keys) and self.keys[index] == key

    def _prove(self, index: int) -> InclusionProof:
        siblings: list[Hash] = []
        at = index
        for level in self.levels[:-1]:
            if at ^ 1 < len(level):
                siblings.append(level[at ^ 1])
            at >>= 1
        return InclusionProof(index, len(self.keys), tuple(siblings))

    def _neighbour(self, index: int, values: Mapping[bytes, bytes]) -> Neighbour | None:
        if not 0 <= index < len(self.keys):
            return None
        key = self.keys[index]
        return Neighbour(key, compute_value_hash(values[key]), self._prove(index))

    def _replace(self, changed: Mapping[int, bytes]) -> MerkleTree:
        """The tree with other values under the same keys: only the paths above them are hashed again."""
        hashes = {index: compute_leaf(self.keys[index], compute_value_hash(value)) for index, value in changed.items()}
        levels: list[Level] = []
        for level in self.levels:
            row = list(level)
            for index, node in hashes.items():
                row[index] = node
            levels.append(tuple(row))
            hashes = {parent: _join(row, parent) for parent in {index >> 1 for index in hashes}} if len(row) > 1 else {}
        return MerkleTree(self.keys, tuple(levels), _seal(len(self.keys), levels))

    def _rebuild(self, changed: Mapping[bytes, bytes | None], first: int) -> MerkleTree:
        """The tree after keys came or went, the first of them at index `first`: nodes wholly left of it are kept."""
        tail = dict(zip(self.keys[first:], self.levels[0][first:], strict=True))
        kept = list(self.levels[0][:first])
        clean = first
        for key, value in changed.items():
            index = self._find(key)
            if value is None:
                tail.pop(key, None)
            elif index < first:
                kept[index] = compute_leaf(key, compute_value_hash(value))
                clean = min(clean, index)
            else:
                tail[key] = compute_leaf(key, compute_value_hash(value))
        order = sorted(tail)
        return _assemble((*self.keys[:first], *order), [*kept, *(tail[key] for key in order)], self.levels, clean)


def check_inclusion(root: Hash, key: bytes, value: bytes, proof: InclusionProof) -> bool:
    """Whether this entry is under this root."""
    return _is_under(root, compute_leaf(key, compute_value_hash(value)), proof)


def check_exclusion(root: Hash, key: bytes, proof: ExclusionProof) -> bool:
    """Whether no entry under this root has this key."""
    left, right = proof.left, proof.right
    if left is None and right is None:
        return root == _seal(0, ())
    for neighbour in (left, right):
        if neighbour is not None and not _is_under(
            root, compute_leaf(neighbour.key, neighbour.value_hash), neighbour.proof
        ):
            return False
    if left is None:
        return right is not None and right.proof.index == 0 and key < right.key
    if right is None:
        return left.proof.index == left.proof.count - 1 and left.key < key
    return left.proof.index + 1 == right.proof.index and left.key < key < right.key


def _is_under(root: Hash, leaf: Hash, proof: InclusionProof) -> bool:
    """Whether a leaf at the proof's index of the proof's count leads to the root, with no sibling left over."""
    if proof.index >= proof.count:
        return False
    at, width, node = proof.index, proof.count, leaf
    siblings = iter(proof.siblings)
    while width > 1:
        if at ^ 1 < width:
            sibling = next(siblings, None)
            if sibling is None:
                return False
            node = sha256(_NODE + sibling + node).digest() if at & 1 else sha256(_NODE + node + sibling).digest()
        at >>= 1
        width = (width + 1) >> 1
    return next(siblings, None) is None and root == _bind(proof.count, node)


def _assemble(keys: tuple[bytes, ...], leaves: list[Hash], old: Sequence[Level], clean: int) -> MerkleTree:
    """The tree over leaves of which the first `clean` are as in `old`: their common ancestors are taken from there."""
    levels: list[Level] = [tuple(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        clean >>= 1  # a parent is as before only if both its children are
        kept = old[len(levels)][:clean] if len(levels) < len(old) else ()
        pairs = zip(below[2 * len(kept) :: 2], below[2 * len(kept) + 1 :: 2], strict=False)
        row = [*kept, *(sha256(_NODE + left + right).digest() for left, right in pairs)]
        if len(below) & 1:
            row.append(below[-1])
        levels.append(tuple(row))
    return MerkleTree(keys, tuple(levels), _seal(len(keys), levels))


def _join(row: Sequence[Hash], parent: int) -> Hash:
    """The node above a pair, or above a lone last node."""
    left = 2 * parent
    return sha256(_NODE + row[left] + row[left + 1]).digest() if left + 1 < len(row) else row[left]


def _seal(count: int, levels: Sequence[Level]) -> Hash:
    """The root over finished levels; an empty map has no top."""
    return _bind(count, levels[-1][0] if count else b"")


def _bind(count: int, top: bytes) -> Hash:
    return compute_hash(HashDomain.ROOT, count.to_bytes(8, "big"), top)
