"""Recovery is read from looks: finality above the old tip, and every struck node where the others are."""

from __future__ import annotations

from devnet.perturbation.sightings import Look, Recovery, compute_recovery, get_tip

UNDONE_S = 100.0


def look(node: int, at_s: float, height: int, took_s: float = 0.1) -> Look:
    return Look(node, at_s, at_s + took_s, height, f"{height:064x}")


def test_recovery_waits_for_finality_and_for_the_struck_node() -> None:
    looks = [look(0, 100.5, 10), look(0, 101.0, 11), look(3, 102.0, 4), look(0, 102.5, 20), look(3, 103.0, 20)]
    assert compute_recovery(looks, (3,), UNDONE_S, tip=10) == Recovery(2.1, 1.1, 3.1)


def test_the_height_that_was_final_before_is_no_progress() -> None:
    looks = [look(0, 101.0, 10), look(3, 102.0, 10)]
    assert compute_recovery(looks, (3,), UNDONE_S, tip=10) == Recovery(2.1, None, None)


def test_a_node_behind_what_another_told_before_it_was_asked_is_not_at_the_tip() -> None:
    looks = [look(0, 101.0, 15), look(3, 102.0, 14), look(3, 103.0, 15)]
    assert compute_recovery(looks, (3,), UNDONE_S, tip=10).tip_s == 3.1


def test_what_another_told_while_the_node_was_being_asked_is_not_held_against_it() -> None:
    looks = [look(0, 101.0, 15, took_s=1.5), look(3, 102.0, 14)]
    assert compute_recovery(looks, (3,), UNDONE_S, tip=10).tip_s == 2.1


def test_a_look_that_began_before_the_perturbation_was_undone_does_not_count() -> None:
    looks = [look(3, 99.9, 30, took_s=5.0), look(0, 101.0, 30)]
    assert compute_recovery(looks, (3,), UNDONE_S, tip=10) == Recovery(None, 1.1, None)


def test_all_struck_nodes_must_come_back() -> None:
    looks = [look(0, 100.5, 12), look(2, 101.0, 12), look(3, 102.0, 11), look(0, 102.5, 13)]
    assert compute_recovery(looks, (2, 3), UNDONE_S, tip=10).tip_s is None
    assert compute_recovery([*looks, look(3, 106.0, 13)], (2, 3), UNDONE_S, tip=10) == Recovery(2.1, 0.6, 6.1)


def test_the_tip_is_the_greatest_height_told_by_a_time() -> None:
    looks = [look(0, 98.0, 9), look(1, 99.0, 10), look(2, 99.95, 12)]
    assert get_tip(looks, UNDONE_S) == 10
    assert get_tip([], UNDONE_S) == 0
