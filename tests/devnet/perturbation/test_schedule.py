"""What will happen is drawn from the seed alone, strikes only as many as it says, and leaves time to recover."""

from __future__ import annotations

from itertools import pairwise

import pytest

from devnet.perturbation.schedule import (
    AIM_S,
    CALM_S,
    LEAST_SKEW_MS,
    Kind,
    Perturbation,
    Way,
    build_schedule,
    count_faulty,
)

HOUR_S = 3_600.0


def test_the_same_seed_gives_the_same_schedule_and_another_one_another() -> None:
    assert build_schedule(7, HOUR_S, 5) == build_schedule(7, HOUR_S, 5)
    assert build_schedule(7, HOUR_S, 5) != build_schedule(7, HOUR_S, 6)


@pytest.mark.parametrize("seed", range(50))
def test_three_minutes_are_enough_for_all_kinds(seed: int) -> None:
    assert {planned.kind for planned in build_schedule(4, 180, seed)} == set(Kind)


def test_a_longer_run_begins_as_the_shorter_one_with_its_seed() -> None:
    short, long = build_schedule(4, 100, 9), build_schedule(4, 300, 9)
    assert short
    assert long[: len(short)] == short


def test_without_time_for_one_nothing_is_planned() -> None:
    assert build_schedule(4, AIM_S, 1) == ()


@pytest.mark.parametrize("nodes, faulty", [(4, 1), (6, 1), (7, 2), (16, 5), (31, 10)])
def test_f_and_f_plus_one_are_struck_and_otherwise_one(nodes: int, faulty: int) -> None:
    assert count_faulty(nodes) == faulty
    for planned in build_schedule(nodes, HOUR_S, 3):
        count = {Kind.F_DOWN: faulty, Kind.F1_DOWN: faulty + 1}.get(planned.kind, 1)
        assert len(planned.nodes) == len(set(planned.nodes)) == count
        assert set(planned.nodes) <= set(range(nodes))
        assert planned.has_quorum == (3 * (nodes - count) > 2 * nodes)


def test_each_has_time_to_last_and_to_recover_before_the_next() -> None:
    schedule = build_schedule(4, HOUR_S, 4)
    for planned, follower in pairwise(schedule):
        assert follower.at_s >= planned.at_s + planned.hold_s + AIM_S + CALM_S - 0.1
    assert schedule[-1].at_s + schedule[-1].hold_s + AIM_S <= HOUR_S


def test_clocks_go_wrong_both_ways_by_seconds_and_only_where_that_is_meant() -> None:
    schedule = build_schedule(4, 4 * HOUR_S, 8)
    skews = [planned.skew_ms for planned in schedule if planned.kind is Kind.SKEW]
    assert min(skews) <= -LEAST_SKEW_MS
    assert max(skews) >= LEAST_SKEW_MS
    assert min(map(abs, skews)) >= LEAST_SKEW_MS
    assert not any(planned.skew_ms for planned in schedule if planned.kind is not Kind.SKEW)


def test_groups_go_down_in_every_way_that_leaves_them_down() -> None:
    groups = [planned for planned in build_schedule(4, 4 * HOUR_S, 8) if planned.kind in {Kind.F_DOWN, Kind.F1_DOWN}]
    assert {planned.way for planned in groups} == {Way.KILL, Way.PAUSE, Way.CUT}


def test_a_perturbation_is_told_in_words() -> None:
    planned = Perturbation(1, Kind.SKEW, Way.SKEW, (3,), 5.0, 12.0, -2_500)
    assert planned.describe() == "clock skew: wrong clock of node 3 for 12.0 s, -2.5 s"
    assert Perturbation(2, Kind.RESTART, Way.END, (0,), 5.0, 0.0).describe() == "restart of node 0"
