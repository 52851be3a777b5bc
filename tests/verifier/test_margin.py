"""Margins are what scoring every token of the vocabulary with sampling's own integers says, computed for a fraction of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from verifier.margin import MARGIN_CAP, Replay, bound_nucleus, measure_margins
from verifier.sampling import choose_token, compute_noise, list_nucleus, quantise

SEED = bytes(range(7, 39))
TOKENS = 24


def draw_logits(vocabulary: int, spread: float, seed: int) -> torch.Tensor:
    return torch.randn(TOKENS, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def score_all(logits: torch.Tensor, position: int, temperature_ppm: int) -> np.ndarray:
    noise = compute_noise(SEED, position, logits.shape[1]) if temperature_ppm else 0
    return quantise(logits[position].numpy()) * 1_000_000 + noise * temperature_ppm


@pytest.mark.parametrize("temperature_ppm", [0, 1, 10_000, 700_000, 1_000_000, 4_000_000])
@pytest.mark.parametrize("vocabulary, spread", [(17, 1.0), (2048, 0.01), (2048, 3.0), (5000, 12.0)])
def test_margins_are_those_of_scoring_everything(temperature_ppm: int, vocabulary: int, spread: float) -> None:
    logits = draw_logits(vocabulary, spread, vocabulary)
    random = np.random.default_rng(1)
    claimed = [int(token) for token in random.integers(0, vocabulary, TOKENS)]
    claimed[::2] = [
        choose_token(quantise(logits[at].numpy()), SEED, at, temperature_ppm, 1_000_000) for at in range(0, TOKENS, 2)
    ]
    found = measure_margins(logits, claimed, 0, Replay(SEED, temperature_ppm, 1_000_000, 0.001))
    scores = [score_all(logits, at, temperature_ppm) for at in range(TOKENS)]
    expected = [-(-int(row.max() - row[token]) // 1_000_000) for row, token in zip(scores, claimed, strict=True)]
    assert found.tolist() == [min(margin, MARGIN_CAP) for margin in expected]
    assert not found[::2].any()


def test_positions_count_from_where_the_chunk_begins() -> None:
    logits = draw_logits(100, 2.0, 3)
    tokens = [choose_token(quantise(logits[at].numpy()), SEED, at, 1_000_000, 1_000_000) for at in range(TOKENS)]
    replay = Replay(SEED, 1_000_000, 1_000_000, 0.001)
    assert not measure_margins(logits[10:], tokens[10:], 10, replay).any()
    assert measure_margins(logits[10:], tokens[10:], 0, replay).any()


@pytest.mark.parametrize("vocabulary", [50, 3000])
@pytest.mark.parametrize("top_p_ppm", [0, 300_000, 950_000])
def test_a_token_outside_every_honest_nucleus_counts_as_impossible(vocabulary: int, top_p_ppm: int) -> None:
    logits = draw_logits(vocabulary, 1.0, 5)
    replay = Replay(SEED, 1_000_000, top_p_ppm, 0.001)
    honest = [choose_token(quantise(logits[at].numpy()), SEED, at, 1_000_000, top_p_ppm) for at in range(TOKENS)]
    assert not measure_margins(logits, honest, 0, replay).any()
    unlikely = logits.argmin(dim=1).tolist()
    assert (measure_margins(logits, unlikely, 0, replay) == MARGIN_CAP).all()


def test_the_bounds_of_the_nucleus_hold_it_between_them() -> None:
    logits = draw_logits(4000, 0.3, 8)  # so flat that more than the common thousand are needed
    for top_p_ppm in (200_000, 600_000, 999_000):
        inner, outer = bound_nucleus(logits, Replay(SEED, 900_000, top_p_ppm, 0.01))
        moved = logits + 0.005 * (2 * (torch.arange(4000) % 2) - 1)
        for at in range(TOKENS):
            kept = logits[at].numpy()[list_nucleus(quantise(moved[at].numpy()), 900_000, top_p_ppm)]
            assert outer[at] <= kept.min() and (logits[at].numpy() >= inner[at]).sum() <= len(kept)


def test_small_differences_at_the_edge_of_the_nucleus_leave_no_impossible_token() -> None:
    logits = draw_logits(300, 1.5, 9)
    moved = logits + 0.01 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    tokens = [choose_token(quantise(moved[at].numpy()), SEED, at, 1_000_000, 800_000) for at in range(TOKENS)]
    margins = measure_margins(logits, tokens, 0, Replay(SEED, 1_000_000, 800_000, 0.1))
    assert margins.max() < 0.1 * 65536
