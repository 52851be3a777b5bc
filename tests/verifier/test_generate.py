"""Generation is a function of model, prompt, settings and seed, ends for a stated reason, and is never cut off silently."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from protocol.models import GenerationSettings, SamplingKind, StopReason, greedy
from verifier.engine import Cache
from verifier.generate import GenerationFailed, generate, search_beams
from verifier.model import Model, load_model
from verifier.sampling import choose_token, quantise

SEED = bytes(range(32))


def never() -> bool:
    return False


def beam(beams: int, max_tokens: int) -> GenerationSettings:
    return GenerationSettings(SamplingKind.BEAM, beams, 0, 1_000_000, max_tokens)


def sample(max_tokens: int, temperature_ppm: int = 1_000_000, top_p_ppm: int = 900_000) -> GenerationSettings:
    return GenerationSettings(SamplingKind.SAMPLE, 1, temperature_ppm, top_p_ppm, max_tokens)


@pytest.fixture(scope="module")
def model(untrained: Path) -> Model:
    """Without an end token, so that only lengths end it."""
    return replace(load_model(untrained), ends=frozenset[int]())


@dataclass(frozen=True, slots=True)
class TableEngine:
    """An engine whose logits are looked up by the tokens so far; its cache is those tokens."""

    table: dict[tuple[int, ...], Sequence[float]]
    vocabulary: int = 3
    context: int = 64

    def compute_next(self, rows: list[list[int]], cache: Cache | None) -> tuple[torch.Tensor, Cache]:
        past = cache if isinstance(cache, list) else [()] * len(rows)
        if cache is None:
            return torch.tensor([self.table[()]]), past
        seen = [(*before, *row) for before, row in zip(past, rows, strict=True)]
        return torch.tensor([self.table[tokens] for tokens in seen]), seen

    def compute_head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def read_hidden(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.zeros(len(rows), len(rows[0]), 1)

    def select_rows(self, cache: Cache, rows: list[int]) -> Cache:
        assert isinstance(cache, list)
        return [cache[row] for row in rows]


def with_table(model: Model, table: Callable[[tuple[int, ...]], Sequence[float]], depth: int, *ends: int) -> Model:
    keys = [key for length in range(depth) for key in itertools.product(range(3), repeat=length)]
    return replace(model, engine=TableEngine({key: table(key) for key in keys}), ends=frozenset(ends))


def test_the_same_request_has_the_same_output(model: Model) -> None:
    for settings in (greedy(20), sample(20), beam(3, 20)):
        assert generate(model, "1+2=", settings, SEED, never) == generate(model, "1+2=", settings, SEED, never)


def test_greedy_takes_the_largest_logit_at_every_position(model: Model) -> None:
    output = generate(model, "1+2=", greedy(12), SEED, never)
    ids = [3, 12, 4, 13]
    for token in output.tokens:
        logits = model.engine.compute_head(model.engine.compute_next([ids], None)[0])
        assert token == int(logits[0].argmax())
        ids.append(token)
    assert output.text == "".join("0123456789+="[token - 2] if 2 <= token < 14 else "" for token in output.tokens)


def test_a_sampled_position_replays_from_logits_seed_and_position_alone(model: Model) -> None:
    tokens = generate(model, "1+2=", sample(30, 1_500_000), SEED, never).tokens
    for position in (29, 3, 17):
        hidden, _ = model.engine.compute_next([[3, 12, 4, 13, *tokens[:position]]], None)
        logits = model.engine.compute_head(hidden)
        assert tokens[position] == choose_token(quantise(logits[0].numpy()), SEED, position, 1_500_000, 900_000)


def test_the_seed_decides_samples_and_nothing_else(model: Model) -> None:
    other = bytes(32)
    assert generate(model, "1+2=", sample(30), SEED, never) != generate(model, "1+2=", sample(30), other, never)
    assert generate(model, "1+2=", greedy(30), SEED, never) == generate(model, "1+2=", greedy(30), other, never)
    cold = sample(30, temperature_ppm=0)
    assert generate(model, "1+2=", cold, SEED, never).tokens == generate(model, "1+2=", greedy(30), SEED, never).tokens


def test_length_and_context_end_a_text_with_their_reason(model: Model) -> None:
    output = generate(model, "1+2=", greedy(5), SEED, never)
    assert (len(output.tokens), output.stop) == (5, StopReason.LENGTH)
    output = generate(model, "1+2=", greedy(500), SEED, never)
    assert (len(output.tokens), output.stop) == (60, StopReason.CONTEXT)
    output = generate(model, "1+2=", greedy(60), SEED, never)
    assert (len(output.tokens), output.stop) == (60, StopReason.LENGTH)


def test_the_end_token_ends_a_text_and_is_one_of_its_tokens(model: Model) -> None:
    fifth = generate(model, "1+2=", greedy(5), SEED, never).tokens
    ended = generate(replace(model, ends=frozenset({fifth[-1]})), "1+2=", greedy(50), SEED, never)
    assert ended.stop is StopReason.END
    assert ended.tokens == fifth[: fifth.index(fifth[-1]) + 1]


@pytest.mark.parametrize("settings", [greedy(50), sample(50), beam(2, 50)])
def test_a_passed_deadline_is_a_failure_not_a_shorter_output(model: Model, settings: GenerationSettings) -> None:
    ticks = itertools.count()
    with pytest.raises(GenerationFailed, match="the deadline passed after 8 of at most 50 tokens"):
        generate(model, "1+2=", settings, SEED, lambda: next(ticks) >= 7)


@pytest.mark.parametrize("settings", [greedy(3), sample(3), beam(2, 3)])
def test_a_model_that_computes_nan_fails(model: Model, settings: GenerationSettings) -> None:
    broken = with_table(model, lambda key: (0.0, float("nan"), 0.0) if key else (1.0, 0.0, 0.0), 4)
    with pytest.raises(GenerationFailed, match="not a number"):
        generate(broken, "1+2=", settings, SEED, never)


def test_one_beam_is_greedy(model: Model) -> None:
    assert (
        generate(model, "1+2=", beam(1, 20), SEED, never).tokens
        == generate(model, "1+2=", greedy(20), SEED, never).tokens
    )


def test_wide_beams_find_the_most_likely_text(model: Model) -> None:
    random = np.random.default_rng(4)
    values = {
        key: random.normal(size=3) * 2 for length in range(4) for key in itertools.product(range(3), repeat=length)
    }
    tabled = with_table(model, lambda key: values[key].tolist(), 4)

    def score(tokens: tuple[int, ...]) -> float:
        rows = [(values[tokens[:at]], token) for at, token in enumerate(tokens)]
        return sum(row[token] - np.log(np.exp(row).sum()) for row, token in rows)

    best = max(itertools.product(range(3), repeat=4), key=score)
    assert search_beams(tabled, [0], 27, 4, never) == list(best)


def test_equal_beams_fall_to_the_smaller_tokens(model: Model) -> None:
    level = with_table(model, lambda _: (0.0, 0.0, 0.0), 4)
    assert search_beams(level, [0], 2, 4, never) == [0, 0, 0, 0]


def test_of_equal_answers_the_one_that_ended_first_wins(model: Model) -> None:
    # Token 2 ends. Going on after token 0 is certain, so ending at once and ending later score the same.
    def table(key: tuple[int, ...]) -> Sequence[float]:
        return (0.0, -90.0, 0.0) if not key else (-90.0, -90.0, 90.0)

    assert search_beams(with_table(model, table, 4, 2), [0], 2, 4, never) == [2]


def test_a_likelier_open_answer_beats_an_ended_one(model: Model) -> None:
    def table(key: tuple[int, ...]) -> Sequence[float]:
        return (2.0, 0.0, 1.0) if not key else (9.0, 0.0, 0.0)

    assert search_beams(with_table(model, table, 4, 2), [0], 2, 4, never) == [0, 0, 0, 0]
