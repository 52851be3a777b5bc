from __future__ import annotations

from itertools import combinations, product

import pytest

from protocol.jobs.capture import compute_binomial_ppb, compute_capture
from protocol.jobs.committee import Candidate
from protocol.transactions import AgreementRule

MAJORITY = AgreementRule.MAJORITY


def candidates(*weights: int) -> tuple[Candidate, ...]:
    return tuple(Candidate(at.to_bytes(32, "big"), weight, 2 * weight, 0) for at, weight in enumerate(weights))


@pytest.mark.parametrize(
    "draws, needed, at_a_fifth, at_a_third",
    [
        (3, 2, 104_000_000, 254_826_000),
        (5, 3, 57_920_000, 204_963_085),
        (7, 5, 4_672_000, 43_375_712),
        (21, 15, 513, 357_365),
    ],
)
def test_the_binomial_figures_are_the_published_ones(
    draws: int, needed: int, at_a_fifth: int, at_a_third: int
) -> None:  # K2
    assert compute_binomial_ppb(draws, needed, 200_000) == at_a_fifth
    assert compute_binomial_ppb(draws, needed, 330_000) == at_a_third


def test_takeovers_raise_three_of_five_to_the_published_figure() -> None:
    capture = compute_capture(candidates(*[10] * 100), MAJORITY, 5, 3, 200_000, with_takeovers=True)
    assert capture.binomial_ppb == 98_880_000
    assert capture.exact_ppb is not None and 90_000_000 < capture.exact_ppb < 98_880_000


def test_one_of_five_equal_nodes_never_captures_a_committee_of_five() -> None:
    assert compute_capture(candidates(10, 10, 10, 10, 10), MAJORITY, 5, 3, 330_000).exact_ppb == 0


def test_equal_nodes_under_a_cap_of_one_are_hypergeometric() -> None:  # K1
    # 20 bad of 100, 2 or 3 of 3 without replacement
    ways = (190 * 80 + 1140) * 1_000_000_000 // 161_700
    assert compute_capture(candidates(*[7] * 100), MAJORITY, 3, 3, 200_000).exact_ppb == ways


def enumerate_capture(weights: tuple[int, ...], seats: int, cap: int, share_ppm: int) -> float:
    """The same chance over every sequence of draws and every affordable choice of bad nodes."""
    best = 0.0
    for size in range(len(weights) + 1):
        for bad in combinations(range(len(weights)), size):
            if sum(weights[at] for at in bad) * 1_000_000 > share_ppm * sum(weights):
                continue
            caught = 0.0
            for sequence in product(range(len(weights)), repeat=seats):
                chance, held = 1.0, [0] * len(weights)
                for at in sequence:
                    left = sum(weight for weight, number in zip(weights, held, strict=True) if number < cap)
                    chance *= weights[at] / left if held[at] < cap else 0.0
                    if not chance:
                        break
                    held[at] += 1
                if sum(held[at] for at in bad) > seats // 2:
                    caught += chance
            best = max(best, caught)
    return best


@pytest.mark.parametrize(
    "weights, seats", [((60, 10, 10, 10, 10), 3), ((5, 4, 3, 2, 2, 1), 3), ((8, 8, 1, 1, 1, 1), 5)]
)
def test_the_exact_figure_is_what_every_sequence_adds_up_to(weights: tuple[int, ...], seats: int) -> None:  # K1
    exact = compute_capture(candidates(*weights), MAJORITY, seats, 3, 330_000).exact_ppb
    assert exact is not None
    assert exact / 1e9 == pytest.approx(enumerate_capture(weights, seats, 1, 330_000), abs=2e-9)


def test_a_cap_above_one_is_counted() -> None:  # K1
    exact = compute_capture(candidates(5, 3, 2, 2), MAJORITY, 7, 3, 330_000).exact_ppb
    assert exact is not None
    assert exact / 1e9 == pytest.approx(enumerate_capture((5, 3, 2, 2), 7, 2, 330_000), abs=2e-9)


def test_honest_weight_taken_out_by_the_cap_makes_the_binomial_figure_too_small() -> None:
    capture = compute_capture(candidates(60, 10, 10, 10, 10), MAJORITY, 3, 3, 200_000)
    assert capture.exact_ppb is not None and capture.exact_ppb > capture.binomial_ppb


def test_too_many_different_weights_leave_the_binomial_figure_alone() -> None:  # K3
    capture = compute_capture(candidates(*range(10, 40)), MAJORITY, 5, 3, 200_000)
    assert capture.exact_ppb is None and capture.binomial_ppb == 57_920_000


def test_the_rules_own_weight_counts() -> None:
    pool = (Candidate(b"a" * 32, 1, 0, 0), Candidate(b"b" * 32, 9, 5, 0), Candidate(b"c" * 32, 9, 5, 0))
    assert compute_capture(pool, AgreementRule.REPUTATION, 1, 3, 500_000).exact_ppb == 500_000_000
