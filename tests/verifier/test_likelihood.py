"""The likelihood of a drawn text is what it is expected to be, and that of a text drawn otherwise is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from verifier.likelihood import SURPRISE_CAP, Surprise, compute_score, join_surprise, list_scores, measure_surprise
from verifier.margin import Replay
from verifier.sampling import choose_token, quantise

TOKENS, VOCABULARY = 400, 200
SEED = bytes(range(32))


def draw_logits(spread: float = 2.0) -> torch.Tensor:
    return torch.randn(TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(4)) * spread


def draw_text(logits: torch.Tensor, temperature_ppm: int, top_p_ppm: int) -> list[int]:
    return [choose_token(quantise(row.numpy()), SEED, at, temperature_ppm, top_p_ppm) for at, row in enumerate(logits)]


def score(logits: torch.Tensor, text: list[int], temperature_ppm: int, top_p_ppm: int = 1_000_000) -> int:
    return compute_score(measure_surprise(logits, text, Replay(b"", temperature_ppm, top_p_ppm, 0.001)))


@pytest.mark.parametrize(
    "temperature_ppm, top_p_ppm", [(1_000_000, 1_000_000), (700_000, 950_000), (1_800_000, 500_000)]
)
def test_a_text_drawn_as_it_says_is_within_three_deviations(temperature_ppm: int, top_p_ppm: int) -> None:
    logits = draw_logits()
    assert abs(score(logits, draw_text(logits, temperature_ppm, top_p_ppm), temperature_ppm, top_p_ppm)) < 3000


def test_a_colder_text_is_too_likely_and_a_hotter_one_too_surprising() -> None:
    logits = draw_logits()
    assert score(logits, draw_text(logits, 700_000, 1_000_000), 1_000_000) < -4500
    assert score(logits, draw_text(logits, 1_400_000, 1_000_000), 1_000_000) > 4500
    assert score(logits, logits.argmax(dim=1).tolist(), 1_000_000) < -9000
    assert score(draw_logits().flip(0), draw_text(logits, 1_000_000, 1_000_000), 1_000_000) > 9000


def test_expectation_and_variance_are_those_of_the_distribution() -> None:
    logits = draw_logits()[:1]
    shares = torch.softmax(logits[0].double(), dim=0).numpy()
    found = [measure_surprise(logits, [token], Replay(b"", 1_000_000, 1_000_000, 0.001)) for token in range(VOCABULARY)]
    excess = np.array([float(one.excess[0]) for one in found])
    assert float((shares * excess).sum()) == pytest.approx(0, abs=1e-6)
    assert float((shares * excess**2).sum()) == pytest.approx(float(found[0].variance[0]), rel=1e-6)


def test_an_impossible_token_counts_much_and_not_without_bound() -> None:
    logits = torch.tensor([[0.0, 5000.0, 0.0]])
    surprise = measure_surprise(logits, [2], Replay(b"", 1_000_000, 1_000_000, 0.001))
    assert float(surprise.excess[0]) == SURPRISE_CAP
    assert float(surprise.variance[0]) == 0
    assert compute_score(surprise) == 1000 * SURPRISE_CAP


def test_parts_join_to_the_whole_and_beginnings_have_their_own_scores() -> None:
    logits = draw_logits()
    text = draw_text(logits, 1_000_000, 1_000_000)
    replay = Replay(b"", 1_000_000, 1_000_000, 0.001)
    whole = measure_surprise(logits, text, replay)
    joined = join_surprise(
        [measure_surprise(logits[part], text[part], replay) for part in (slice(0, 9), slice(9, None))]
    )
    assert np.allclose(whole.excess, joined.excess) and np.allclose(whole.variance, joined.variance)
    beginnings = list_scores(whole, [10, TOKENS])
    assert beginnings[1] == compute_score(whole)
    assert beginnings[0] == compute_score(Surprise(whole.excess[:10], whole.variance[:10]))
