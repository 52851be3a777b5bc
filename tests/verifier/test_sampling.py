"""Tokens are chosen by integers: any position replays on its own, ties fall as stated, chances are those of softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.sampling import (
    choose_extensions,
    choose_token,
    compute_log_shares,
    compute_noise,
    draw_raw,
    draw_raw_rows,
    list_nucleus,
    quantise,
)

SEED = bytes(range(32))
ONE = 1 << 16


def test_philox_is_the_published_one() -> None:
    # Random123's known answer for philox4x64-10 with counter and key of zeros; numpy counts up before it draws.
    raw = np.random.Philox(counter=2**256 - 1, key=0).random_raw(4)
    assert [int(word) for word in raw] == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


def test_noise_is_pinned() -> None:
    assert compute_noise(SEED, 0, 4).tolist() == [89960, 211665, -18419, 59217]
    assert compute_noise(SEED, 1000, 4).tolist() == [32936, 87528, 68353, 11403]


@given(st.integers(0, 2**40), st.integers(1, 50), st.integers(1, 50))
def test_noise_of_a_token_does_not_depend_on_the_vocabulary_or_on_other_positions(
    at: int, small: int, more: int
) -> None:
    assert compute_noise(SEED, at, small + more)[:small].tolist() == compute_noise(SEED, at, small).tolist()
    assert compute_noise(SEED, at, 8).tolist() != compute_noise(SEED, at + 1, 8).tolist()


def test_any_position_replays_on_its_own() -> None:
    logits = [quantise(np.random.default_rng(at).normal(size=50)) for at in range(20)]
    forward = [choose_token(logits[at], SEED, at, 1_000_000, 900_000) for at in range(20)]
    backward = [choose_token(logits[at], SEED, at, 1_000_000, 900_000) for at in reversed(range(20))]
    assert forward == backward[::-1]
    assert len(set(forward)) > 1


def test_another_seed_chooses_otherwise() -> None:
    logits = np.zeros(50, dtype=np.int64)
    chosen = [[choose_token(logits, seed, at, 1_000_000, 1_000_000) for at in range(10)] for seed in (SEED, bytes(32))]
    assert chosen[0] != chosen[1]


def test_temperature_zero_takes_the_largest_and_of_equals_the_smallest_id() -> None:
    logits = quantise(np.array([1.0, 3.0, 3.0 + 2**-18, 2.0]))
    assert choose_token(logits, SEED, 0, 0, 1_000_000) == 1


@pytest.mark.parametrize("temperature_ppm", [500_000, 1_000_000, 2_000_000])
def test_sampled_shares_are_those_of_softmax(temperature_ppm: int) -> None:
    values = np.array([0.0, 1.0, -1.0, 0.5])
    chosen = [choose_token(quantise(values), SEED, at, temperature_ppm, 1_000_000) for at in range(4000)]
    expected = np.exp(values / (temperature_ppm / 1e6))
    expected /= expected.sum()
    # Four standard deviations of a share of 4000 draws are below 0.032.
    assert np.abs(np.bincount(chosen, minlength=4) / 4000 - expected).max() < 0.032


def test_the_nucleus_is_the_fewest_tokens_that_reach_top_p() -> None:
    logits = quantise(np.log(np.array([0.1, 0.4, 0.3, 0.2])))
    assert list_nucleus(logits, 1_000_000, 1).tolist() == [1]
    assert list_nucleus(logits, 1_000_000, 390_000).tolist() == [1]
    assert list_nucleus(logits, 1_000_000, 410_000).tolist() == [1, 2]
    assert list_nucleus(logits, 1_000_000, 710_000).tolist() == [1, 2, 3]
    assert list_nucleus(logits, 1_000_000, 1_000_000).tolist() == [0, 1, 2, 3]


def test_of_equally_likely_tokens_the_nucleus_takes_smaller_ids() -> None:
    assert list_nucleus(np.zeros(10, dtype=np.int64), 1_000_000, 300_000).tolist() == [0, 1, 2]


def test_log_shares_are_those_of_softmax() -> None:
    logits = quantise(np.array([[0.0, 1.0, 2.0], [5.0, 5.0, -100.0]]))
    shares = np.exp(compute_log_shares(logits) / ONE)
    assert np.abs(shares - [[0.0900, 0.2447, 0.6652], [0.5, 0.5, 0.0]]).max() < 1e-4


def test_ties_between_beams_fall_to_the_smaller_beam_then_the_smaller_token() -> None:
    scores = np.array([[7, 9, 7], [9, 7, 9]], dtype=np.int64)
    assert choose_extensions(scores, 4) == [(0, 1), (1, 0), (1, 2), (0, 0)]
    assert choose_extensions(scores, 100) == [(0, 1), (1, 0), (1, 2), (0, 0), (0, 2), (1, 1)]


@given(st.lists(st.lists(st.integers(-9, 0), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(1, 30))
def test_extensions_are_the_head_of_the_whole_order(rows: list[list[int]], count: int) -> None:
    scores = np.array(rows, dtype=np.int64)
    order = sorted((-value, beam, token) for beam, row in enumerate(rows) for token, value in enumerate(row))
    assert choose_extensions(scores, count) == [(beam, token) for _, beam, token in order[:count]]


def test_extreme_logits_stay_inside_64_bits() -> None:
    logits = quantise(np.array([np.finfo(np.float32).max, -np.inf, 0.0]))
    assert choose_token(logits, SEED, 2**60, 4_000_000, 999_999) == 0


def test_nan_is_a_fault_not_a_choice() -> None:
    with pytest.raises(AssertionError, match="NaN"):
        quantise(np.array([0.0, np.nan]))


def test_rows_drawn_together_are_those_drawn_one_by_one() -> None:
    rows = draw_raw_rows(SEED, range(5, 9), 37)
    assert all((row == draw_raw(SEED, position, 37)).all() for position, row in zip(range(5, 9), rows, strict=True))
    assert draw_raw_rows(SEED, [], 37).shape == (0, 37)
