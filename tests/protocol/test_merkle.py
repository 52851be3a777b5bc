from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.crypto import HashDomain, compute_hash
from protocol.merkle import (
    InclusionProof,
    MerkleTree,
    check_exclusion,
    check_inclusion,
    compute_leaf,
    compute_root,
    compute_value_hash,
)

KEYS = st.binary(min_size=1, max_size=2)
MAPS = st.dictionaries(KEYS, st.binary(max_size=3), max_size=24)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=12)


def build(entries: dict[bytes, bytes]) -> MerkleTree:
    return MerkleTree.build(sorted(entries.items()))


@pytest.fixture(name="tree")
def make_tree() -> tuple[MerkleTree, dict[bytes, bytes]]:
    entries = {b"%02d" % number: b"value %d" % number for number in range(0, 26, 2)}
    return build(entries), entries


def test_a_root_of_three_is_made_as_written() -> None:
    first, second, third = (compute_leaf(key, compute_value_hash(b"v")) for key in (b"a", b"b", b"c"))
    pair = compute_hash(HashDomain.NODE, first, second)
    top = compute_hash(HashDomain.NODE, pair, third)  # the lone third moves up unchanged
    expected = compute_hash(HashDomain.ROOT, (3).to_bytes(8, "big"), top)
    assert compute_root([(b"a", b"v"), (b"b", b"v"), (b"c", b"v")]) == expected


@given(MAPS, CHANGES)
def test_an_updated_tree_is_the_tree_built_from_nothing(
    entries: dict[bytes, bytes], changed: dict[bytes, bytes | None]
) -> None:
    after = {**entries, **changed}
    expected = build({key: value for key, value in after.items() if value is not None})
    updated = build(entries).update(changed)
    assert (updated.root, updated.keys, updated.levels) == (expected.root, expected.keys, expected.levels)


def test_an_update_leaves_the_old_tree_alone(tree: tuple[MerkleTree, dict[bytes, bytes]]) -> None:
    old, entries = tree
    old.update({b"04": b"other", b"05": b"new", b"06": None})
    assert old.root == build(entries).root


def test_the_root_does_not_depend_on_the_order_of_writing() -> None:
    writes = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4")]
    roots = set()
    for order in permutations(writes):
        tree = MerkleTree.build(())
        for key, value in order:
            tree = tree.update({key: value})
        roots.add(tree.root)
    assert len(roots) == 1


@given(MAPS)
def test_every_key_is_proved_in_or_out(entries: dict[bytes, bytes]) -> None:
    tree = build(entries)
    for number in range(256):
        key = bytes((number,))
        if key in entries:
            assert check_inclusion(tree.root, key, entries[key], tree.prove_inclusion(key))
        else:
            assert check_exclusion(tree.root, key, tree.prove_exclusion(key, entries))


def test_a_proof_holds_for_no_other_key_or_value(tree: tuple[MerkleTree, dict[bytes, bytes]]) -> None:
    built, entries = tree
    proof = built.prove_inclusion(b"04")
    assert check_inclusion(built.root, b"04", entries[b"04"], proof)
    assert not check_inclusion(built.root, b"04", entries[b"06"], proof)
    assert not check_inclusion(built.root, b"06", entries[b"04"], proof)


def test_a_proof_with_any_part_changed_is_refused(tree: tuple[MerkleTree, dict[bytes, bytes]]) -> None:
    built, entries = tree
    for key, value in entries.items():
        proof = built.prove_inclusion(key)
        forged = [
            *(replace(proof, index=index) for index in range(20) if index != proof.index),
            *(replace(proof, count=count) for count in range(40) if count != proof.count),
            replace(proof, siblings=proof.siblings[1:]),
            replace(proof, siblings=(*proof.siblings, bytes(32))),
            *(
                replace(proof, siblings=(*proof.siblings[:at], bytes(32), *proof.siblings[at + 1 :]))
                for at in range(len(proof.siblings))
            ),
        ]
        assert not any(check_inclusion(built.root, key, value, wrong) for wrong in forged)


def test_an_inner_node_is_no_leaf(tree: tuple[MerkleTree, dict[bytes, bytes]]) -> None:
    built, _ = tree
    left, right = built.levels[0][:2]
    assert not check_inclusion(built.root, left, right, InclusionProof(0, 7, built.prove_inclusion(b"00").siblings[1:]))


def test_absence_is_not_proved_by_neighbours_that_are_not_adjacent(tree: tuple[MerkleTree, dict[bytes, bytes]]) -> None:
    built, entries = tree
    near, far = built.prove_exclusion(b"03", entries), built.prove_exclusion(b"07", entries)
    assert check_exclusion(built.root, b"03", near)
    assert not check_exclusion(built.root, b"04", replace(near, right=far.right))
    assert not check_exclusion(built.root, b"03", replace(near, right=far.right))
    assert not check_exclusion(built.root, b"03", replace(near, left=None))
    assert not check_exclusion(built.root, b"03", replace(near, right=None))
    assert not check_exclusion(built.root, b"03", replace(near, left=None, right=None))
    assert not check_exclusion(built.root, b"01", near)
    assert not check_exclusion(built.root, b"02", near)


def test_a_key_beyond_an_end_is_proved_absent_by_the_end_alone(tree: tuple[MerkleTree, dict[bytes, bytes]]) -> None:
    built, entries = tree
    above = built.prove_exclusion(b"99", entries)
    below = built.prove_exclusion(b"/", entries)
    assert above.right is None and check_exclusion(built.root, b"99", above)
    assert below.left is None and check_exclusion(built.root, b"/", below)
    assert not check_exclusion(built.root, b"/", above)
    assert not check_exclusion(built.root, b"99", below)


def test_own_mistakes_are_not_hidden(tree: tuple[MerkleTree, dict[bytes, bytes]]) -> None:
    built, entries = tree
    with pytest.raises(KeyError):
        built.prove_inclusion(b"03")
    with pytest.raises(KeyError):
        built.prove_exclusion(b"04", entries)
    with pytest.raises(AssertionError):
        compute_root([(b"b", b""), (b"a", b"")])
