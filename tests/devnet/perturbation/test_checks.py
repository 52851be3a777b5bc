"""Forks, losses and missing units are found where there are some, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devnet.perturbation.checks import (
    BlockSeen,
    Estate,
    compute_lost_bonds,
    compute_missing_units,
    find_forks,
    find_lost,
    find_missing_heights,
    find_progress_without_quorum,
    find_unequal_states,
)
from devnet.perturbation.load import Acknowledged
from devnet.perturbation.sightings import Look


def chain(height: int) -> tuple[BlockSeen, ...]:
    return tuple(BlockSeen(each, f"hash-{each}", f"state-{each}", (f"tx-{each}",)) for each in range(1, height + 1))


def look(node: int, height: int, block_hash: str, at_s: float = 1.0) -> Look:
    return Look(node, at_s, at_s + 0.1, height, block_hash)


def test_equal_chains_of_different_lengths_are_no_fork() -> None:
    assert find_forks({0: chain(5), 1: chain(3)}, [look(0, 4, "hash-4"), look(1, 2, "hash-2")]) == []


def test_two_blocks_at_a_height_are_a_fork() -> None:
    other = (*chain(2), replace(chain(3)[2], block_hash="other"))
    (told,) = find_forks({0: chain(3), 1: other, 2: chain(3)}, [])
    assert "height 3" in told
    assert "hash-3 at [0, 2]" in told
    assert "other at [1]" in told


def test_a_block_that_a_node_told_was_final_and_forgot_in_a_crash_is_a_fork() -> None:
    assert len(find_forks({0: chain(3), 1: chain(3)}, [look(1, 2, "forgotten")])) == 1


def test_the_genesis_has_no_block_to_differ_in() -> None:
    assert find_forks({0: chain(1)}, [look(0, 0, "genesis"), look(1, 0, "another word for it")]) == []


def test_equal_blocks_with_unequal_states_are_found() -> None:
    other = (*chain(2), replace(chain(3)[2], state_root="other"))
    assert find_unequal_states({0: chain(3), 1: chain(3)}) == []
    assert find_unequal_states({0: chain(3), 1: other}) == ["height 3: 2 state roots"]


def test_a_gap_in_a_chain_is_told_with_its_node() -> None:
    assert find_missing_heights({0: chain(4)}, 4) == []
    (told,) = find_missing_heights({0: chain(4), 1: (*chain(4)[:1], *chain(4)[3:])}, 4)
    assert "node 1 lacks 2 blocks" in told
    assert "first at 2" in told


def test_an_acknowledged_transaction_that_any_node_lacks_is_lost() -> None:
    told = [Acknowledged("tx-3", 0, 1.0)]
    assert find_lost(told, {0: chain(3), 1: chain(4)}) == []
    (lost,) = find_lost(told, {0: chain(3), 1: chain(2)})
    assert "nodes [1]" in lost


@pytest.mark.parametrize("held, missing", [(900, 0), (890, 10), (905, 5)])
def test_units_that_are_gone_or_came_from_nowhere_are_missing(held: int, missing: int) -> None:
    whole = Estate(5, "root", 900, 100, {}, ())
    assert compute_missing_units(1_000, [whole, replace(whole, held=held)]) == missing


def test_bonds_lost_without_a_conviction_are_fees_and_slashes_are_counted_elsewhere() -> None:
    estate = Estate(5, "root", 0, 0, {"a": 94, "b": 100, "c": 5}, ("c",))
    assert compute_lost_bonds({"a": 100, "b": 100, "c": 100}, estate) == 6


def test_only_heights_that_grew_between_the_two_times_are_progress() -> None:
    looks = [
        look(0, 5, "h", 1.0),
        look(0, 9, "h", 2.0),
        look(0, 9, "h", 3.0),
        look(1, 7, "h", 2.5),
        look(0, 12, "h", 5.0),
    ]
    assert find_progress_without_quorum(looks, 2.0, 4.0) == 0
    assert find_progress_without_quorum(looks, 1.0, 4.0) == 4
    assert find_progress_without_quorum([], 1.0, 4.0) == 0
