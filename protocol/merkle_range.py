"""Proofs that a run of consecutive entries, and nothing between them left out, is under a state root.

So a large state can travel in pieces, each judged as it comes (rule S2): the hashes left and right of the run lead up to the root,
which binds the count of all entries, so that an index has one meaning.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Final

from msgspec import Meta

from protocol.codec import Message
from protocol.crypto import HashDomain, compute_hash
from protocol.merkle import MAX_DEPTH, MerkleTree, compute_leaf, compute_value_hash
from protocol.units import Hash, Uint

_NODE: Final = bytes((HashDomain.NODE,))


class RangeProof(Message, frozen=True):
    """Where a run of entries starts among how many, and what stands beside it on its way up, lowest level first."""

    first: Uint
    count: Uint
    left: Annotated[tuple[Hash, ...], Meta(max_length=MAX_DEPTH)]
    right: Annotated[tuple[Hash, ...], Meta(max_length=MAX_DEPTH)]


def prove_range(tree: MerkleTree, first: int, stop: int) -> RangeProof:
    """The proof of the entries from index `first` up to, not including, `stop`: at least one."""
    assert 0 <= first < stop <= len(tree.keys), (first, stop, len(tree.keys))
    left: list[Hash] = []
    right: list[Hash] = []
    start, end = first, stop
    for level in tree.levels[:-1]:
        if start & 1:
            left.append(level[start - 1])
        if end & 1 and end < len(level):
            right.append(level[end])
        start, end = start >> 1, (end + 1) >> 1
    return RangeProof(first, len(tree.keys), tuple(left), tuple(right))


def check_range(root: Hash, entries: Sequence[tuple[bytes, bytes]], proof: RangeProof) -> bool:
    """Whether exactly these entries, ascending by key, stand at the proof's place under this root, with no hash left over."""
    if not entries or proof.first + len(entries) > proof.count or proof.count >= 2**MAX_DEPTH:
        return False
    if not all(left[0] < right[0] for left, right in pairwise(entries)):
        return False
    left, right = iter(proof.left), iter(proof.right)
    nodes = [compute_leaf(key, compute_value_hash(value)) for key, value in entries]
    start, width = proof.first, proof.count
    while width > 1:
        beside = _widen(nodes, start, width, left, right)
        if beside is None:
            return False
        nodes = [*_join_pairs(beside)]
        start, width = start >> 1, (width + 1) >> 1
    is_used_up = next(left, None) is None and next(right, None) is None
    return is_used_up and root == compute_hash(HashDomain.ROOT, proof.count.to_bytes(8, "big"), nodes[0])


def _widen(nodes: list[Hash], start: int, width: int, left: Iterable[Hash], right: Iterable[Hash]) -> list[Hash] | None:
    """The nodes with their siblings at both ends, None where a sibling is missing; a lone last node has none."""
    end = start + len(nodes)
    before = next(iter(left), None) if start & 1 else b""
    after = next(iter(right), None) if end & 1 and end < width else b""
    if before is None or after is None:
        return None
    return [*([before] if before else []), *nodes, *([after] if after else [])]


def _join_pairs(nodes: list[Hash]) -> Iterable[Hash]:
    for index in range(0, len(nodes) - 1, 2):
        yield sha256(_NODE + nodes[index] + nodes[index + 1]).digest()
    if len(nodes) & 1:
        yield nodes[-1]
