from __future__ import annotations

from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.jobs.committee import (
    MAX_SKIPPED,
    Candidate,
    Draw,
    DrawReplay,
    build_candidates_tree,
    check_candidate,
    compute_candidates_root,
    compute_location,
    compute_model_root,
    compute_seat_cap,
    compute_ticket,
    draw,
    draw_replacements,
    get_interval,
    prove_candidate,
)
from protocol.merkle import check_inclusion
from protocol.transactions import AgreementRule
from protocol.units import NodeId

JOB, BEACON = b"j" * 32, b"r" * 32
MAJORITY, REPUTATION = AgreementRule.MAJORITY, AgreementRule.REPUTATION


def node(number: int) -> NodeId:
    return bytes((number,)) * 32


def candidates(*stakes: int) -> tuple[Candidate, ...]:
    return tuple(Candidate(node(at), stake, 3 * stake + at, stake + 1) for at, stake in enumerate(stakes))


def everybody(_: NodeId) -> bool:
    return True


def seats_of(result: Draw) -> list[int | None]:
    return [None if member is None else member[0] for member in result.members]


def job(number: int) -> bytes:
    return number.to_bytes(32, "big")


@given(st.integers(1, 2**70), st.integers(0, 50))
def test_a_ticket_is_below_its_limit(limit: int, attempt: int) -> None:  # D1
    assert 0 <= compute_ticket(JOB, BEACON, attempt, limit) < limit


def test_tickets_are_fair() -> None:  # D1
    counts = Counter(compute_ticket(JOB, BEACON, attempt, 5) for attempt in range(5000))
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert all(abs(number - 1000) < 120 for number in counts.values())  # four standard deviations


def test_tickets_differ_by_job_beacon_and_attempt() -> None:  # D1
    limit = 2**64
    assert (
        len(
            {
                compute_ticket(JOB, BEACON, 0, limit),
                compute_ticket(BEACON, JOB, 0, limit),
                compute_ticket(JOB, BEACON, 1, limit),
            }
        )
        == 3
    )


def test_seats_are_drawn_in_proportion_to_the_rules_weight() -> None:  # D2
    pool = (Candidate(node(0), 100, 1, 0), Candidate(node(1), 300, 1, 0), Candidate(node(2), 0, 2, 0))
    by_stake = Counter(seats_of(draw(job(at), BEACON, pool, MAJORITY, 1, 3, everybody))[0] for at in range(2000))
    by_reputation = Counter(seats_of(draw(job(at), BEACON, pool, REPUTATION, 1, 3, everybody))[0] for at in range(2000))
    assert by_stake[2] == 0 and abs(by_stake[0] - 500) < 80
    assert abs(by_reputation[2] - 1000) < 90 and abs(by_reputation[0] - 500) < 80


@pytest.mark.parametrize("seats, cap", [(1, 1), (3, 1), (5, 1), (7, 2), (9, 3), (21, 7), (101, 33)])
def test_a_node_holds_at_most_a_third_of_the_seats(seats: int, cap: int) -> None:  # D4
    assert compute_seat_cap(seats, 3) == cap
    held = Counter(seats_of(draw(JOB, BEACON, candidates(10_000, 1, 1, 1, 1), MAJORITY, seats, 3, everybody)))
    held.pop(None, None)
    assert max(held.values()) <= cap
    assert held[0] == cap  # a skewed stake fills its cap and does not loop


def test_no_candidate_left_leaves_seats_empty() -> None:  # D6
    assert seats_of(draw(JOB, BEACON, candidates(5, 5), MAJORITY, 5, 3, everybody))[2:] == [None, None, None]
    assert seats_of(draw(JOB, BEACON, (), MAJORITY, 3, 3, everybody)) == [None] * 3
    assert seats_of(draw(JOB, BEACON, candidates(0, 0), MAJORITY, 3, 3, everybody)) == [None] * 3


def test_a_draw_that_hits_too_many_ineligible_nodes_ends() -> None:  # D6
    pool = tuple(Candidate(at.to_bytes(32, "big"), 1, 1, 1) for at in range(2 * MAX_SKIPPED))
    result = draw(JOB, BEACON, pool, MAJORITY, 3, 3, lambda _: False)
    assert result.members == (None, None, None) and len(result.skipped) == MAX_SKIPPED
    assert draw_replacements(result, JOB, BEACON, pool, MAJORITY, 3, 3, everybody, 1) == Draw((None,), ())


def test_an_ineligible_node_is_taken_out_and_recorded_once() -> None:  # D5
    result = draw(JOB, BEACON, candidates(1000, 1, 1, 1), MAJORITY, 3, 3, lambda each: each != node(0))
    assert result.skipped == (node(0),)
    assert sorted(each for each in seats_of(result) if each is not None) == [1, 2, 3]


def test_skipping_leaves_the_others_chances_in_proportion() -> None:  # D3, D5
    pool = candidates(500, 100, 300)
    counts = Counter(
        seats_of(draw(job(at), BEACON, pool, MAJORITY, 1, 3, lambda each: each != node(0)))[0] for at in range(2000)
    )
    assert counts[0] == 0 and abs(counts[1] - 500) < 80


def test_the_list_goes_on_where_the_draw_ended() -> None:  # D7
    pool = candidates(*range(1, 12))
    longer = draw(JOB, BEACON, pool, MAJORITY, 5, 3, everybody)
    first = draw(JOB, BEACON, pool, MAJORITY, 3, 3, everybody)
    assert first.members == longer.members[:3]
    assert draw_replacements(first, JOB, BEACON, pool, MAJORITY, 3, 3, everybody, 2).members == longer.members[3:]


@given(st.integers(0, 200), st.sets(st.integers(0, 7)), st.integers(0, 4), st.sampled_from([3, 5, 7, 9]))
def test_drawing_at_once_or_in_parts_is_the_same(number: int, banned: set[int], split: int, seats: int) -> None:  # D7
    pool = candidates(5, 0, 9, 1, 40, 2, 2, 3)

    def is_eligible(each: NodeId) -> bool:
        return each[0] not in banned

    whole = draw_replacements(Draw((), ()), job(number), BEACON, pool, MAJORITY, seats, 3, is_eligible, seats + split)
    first = draw(job(number), BEACON, pool, MAJORITY, seats, 3, is_eligible)
    rest = draw_replacements(first, job(number), BEACON, pool, MAJORITY, seats, 3, is_eligible, split)
    assert whole == Draw(first.members + rest.members, first.skipped + rest.skipped)


@given(st.lists(st.integers(0, 2**53), min_size=1, max_size=40), st.sampled_from([MAJORITY, REPUTATION]))
def test_a_path_proves_the_interval_that_the_draw_uses(stakes: list[int], rule: AgreementRule) -> None:  # D8
    pool = candidates(*stakes)
    weights = [each.weight_stake if rule is MAJORITY else each.weight_reputation for each in pool]
    root = compute_model_root(pool)
    for at, start in enumerate(list(accumulate(weights, initial=0))[:-1]):
        path = prove_candidate(pool, at)
        assert check_candidate(root, path)
        total, interval = get_interval(compute_location(path), path.candidate, rule)
        assert (total, interval.start, interval.weight, interval.node) == (sum(weights), start, weights[at], node(at))


@given(st.integers(0, 300), st.sampled_from([1, 3, 5, 7, 9]), st.sets(st.integers(0, 9)))
def test_a_stranger_repeats_the_draw_from_the_paths_of_those_it_touched(
    number: int, seats: int, banned: set[int]
) -> None:  # D8
    pool = candidates(5, 7, 9, 1, 40, 2, 2, 3, 8, 8)
    result = draw(job(number), BEACON, pool, MAJORITY, seats, 3, lambda each: each[0] not in banned)
    touched = {each for each in (*result.members, *result.skipped) if each is not None}
    paths = [prove_candidate(pool, each[0]) for each in touched]
    found = [get_interval(compute_location(path), path.candidate, MAJORITY) for path in paths]
    replay = DrawReplay(job(number), BEACON, compute_seat_cap(seats, 3), (found[0][0], [each for _, each in found]))
    members: list[NodeId | None] = []
    while len(members) < seats:
        landed = replay.compute_next()
        if landed in result.skipped:
            replay.skip(landed)
        else:
            members.append(landed)
            if landed is not None:
                replay.seat(landed)
    assert tuple(members) == result.members


def test_a_replay_that_lacks_the_drawn_interval_says_so() -> None:
    pool = candidates(1, 1, 1000)
    total, interval = get_interval(compute_location(prove_candidate(pool, 0)), pool[0], MAJORITY)
    with pytest.raises(KeyError):
        DrawReplay(JOB, BEACON, 1, (total, [interval])).compute_next()


def test_every_part_of_a_path_is_bound() -> None:
    pool = candidates(3, 1, 4, 1, 5)
    root = compute_model_root(pool)
    path = prove_candidate(pool, 1)
    first = path.steps[0]
    forged = [
        replace(path, candidate=replace(path.candidate, node=node(9))),
        *(
            replace(path, candidate=replace(path.candidate, **{name: 77}))
            for name in ("weight_stake", "weight_reputation", "weight_executor")
        ),
        *(
            replace(path, steps=(replace(first, **{name: value}), *path.steps[1:]))
            for name, value in (
                ("is_left", not first.is_left),
                ("sibling", bytes(32)),
                ("sum_stake", 77),
                ("sum_reputation", 77),
                ("sum_executor", 77),
            )
        ),
        replace(path, steps=path.steps[1:]),
        replace(path, steps=path.steps[:-1]),
    ]
    assert check_candidate(root, path)
    assert not any(check_candidate(root, wrong) for wrong in forged)


def test_a_lone_candidate_moves_up_unchanged() -> None:
    pool = candidates(3, 1, 4)
    assert [len(prove_candidate(pool, at).steps) for at in range(3)] == [2, 2, 1]
    assert prove_candidate(pool[:1], 0).steps == ()


def test_the_candidates_root_binds_every_served_model() -> None:
    models = {b"a" * 32: candidates(1, 2), b"b" * 32: candidates(3), b"c" * 32: ()}
    tree = build_candidates_tree(models)
    assert tree.keys == (b"a" * 32, b"b" * 32)
    assert compute_candidates_root(models) == tree.root
    assert check_inclusion(tree.root, b"b" * 32, compute_model_root(models[b"b" * 32]), tree.prove_inclusion(b"b" * 32))
    assert compute_candidates_root({}) != compute_candidates_root({b"b" * 32: candidates(3)})


def test_candidates_out_of_order_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        compute_model_root(candidates(1, 2)[::-1])
