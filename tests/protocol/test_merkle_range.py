"""A run of entries is proven exactly: none may be changed, left out, added or moved, and no hash of the proof either."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.merkle import MerkleTree
from protocol.merkle_range import RangeProof, check_range, prove_range

Entries = list[tuple[bytes, bytes]]


def make_entries(count: int) -> Entries:
    return [(b"%04d" % number, b"value %d" % number) for number in range(count)]


@pytest.mark.parametrize("count", range(1, 18))
def test_every_run_of_every_small_tree_is_proven(count: int) -> None:
    entries = make_entries(count)
    tree = MerkleTree.build(entries)
    for first in range(count):
        for stop in range(first + 1, count + 1):
            assert check_range(tree.root, entries[first:stop], prove_range(tree, first, stop)), (first, stop)


@given(st.integers(2, 40), st.data())
def test_anything_else_than_the_run_is_refused(count: int, data: st.DataObject) -> None:
    entries = make_entries(count)
    tree = MerkleTree.build(entries)
    first = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(first + 1, count))
    run, proof = entries[first:stop], prove_range(tree, first, stop)
    index = data.draw(st.integers(0, len(run) - 1))
    key, value = run[index]
    wrong: list[Entries] = [
        [*run[:index], (key, value + b"!"), *run[index + 1 :]],
        [*run[:index], (key + b"!", value), *run[index + 1 :]],
        [*run[:index], *run[index + 1 :]],
        [*run, (b"9999", b"more")],
        [(b"0", b"more"), *run],
    ]
    assert not any(check_range(tree.root, entries, proof) for entries in wrong)
    forged = [
        replace(proof, first=proof.first + 1),
        replace(proof, count=proof.count + 1),
        replace(proof, left=(*proof.left, tree.root)),
        replace(proof, right=(*proof.right, tree.root)),
        *(replace(proof, left=proof.left[:-1]) for _ in proof.left[:1]),
        *(replace(proof, right=proof.right[:-1]) for _ in proof.right[:1]),
    ]
    assert not any(check_range(tree.root, run, false) for false in forged)


def test_nothing_and_entries_out_of_order_prove_nothing() -> None:
    entries = make_entries(4)
    tree = MerkleTree.build(entries)
    assert not check_range(tree.root, [], RangeProof(0, 4, (), ()))
    assert not check_range(tree.root, entries[::-1], prove_range(tree, 0, 4))
    assert not check_range(tree.root, [entries[0], entries[0]], prove_range(tree, 0, 2))
