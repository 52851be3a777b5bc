"""One pass reads any number of outputs as each would be read alone, in chunks as in one piece, in every compute class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from protocol.models import GenerationSettings, greedy
from tests.verifier.audits import PROMPT, SEED, SKETCH_SEED, never, sample
from verifier import llama, prefill
from verifier.engine import Engine, LlamaEngine, widen_engine
from verifier.generate import generate_traced
from verifier.llama import Attention
from verifier.margin import Replay
from verifier.model import Model, load_model
from verifier.prefill import Passage, Reading, plan_batches, read_passages
from verifier.sketch import NotFinite, compute_codes, compute_distance, measure_gaps

IDS = (3, 12, 4, 13)


@pytest.fixture(scope="module")
def model(untrained: Path) -> Model:
    return replace(load_model(untrained), ends=frozenset[int]())


def make_passage(model: Model, settings: GenerationSettings, slack: float = 0.001) -> Passage:
    tokens = generate_traced(model, PROMPT, settings, SEED, never).output.tokens
    replay = Replay(SEED, settings.temperature_ppm, settings.top_p_ppm, slack)
    drawn = replay if settings.temperature_ppm else None
    return Passage(IDS, tokens, replay, SKETCH_SEED, drawn)


def read(engine: Engine, *passages: Passage) -> list[Reading]:
    readings = read_passages(engine, passages)
    assert all(isinstance(reading, Reading) for reading in readings), readings
    return [reading for reading in readings if isinstance(reading, Reading)]


@pytest.mark.parametrize("settings", [greedy(40), sample(40), sample(40, 700_000, 900_000)])
def test_an_honest_output_has_no_margins_and_its_own_sketch(model: Model, settings: GenerationSettings) -> None:
    made = generate_traced(model, PROMPT, settings, SEED, never)
    (reading,) = read(model.engine, make_passage(model, settings))
    assert not reading.margins.any()
    assert reading.codes is not None
    assert compute_distance(measure_gaps(reading.codes, compute_codes(made.hidden, SKETCH_SEED))) <= 1


def test_passages_of_any_length_read_together_as_alone(model: Model) -> None:
    passages = [make_passage(model, sample(length)) for length in (1, 33, 7, 60, 2)]
    for alone, together in zip(passages, read(model.engine, *passages), strict=True):
        (reading,) = read(model.engine, alone)
        assert (reading.margins == together.margins).all()
        assert reading.codes is not None and together.codes is not None
        assert compute_distance(measure_gaps(reading.codes, together.codes)) <= 1
        assert reading.surprise is not None and together.surprise is not None
        assert reading.surprise.excess == pytest.approx(together.surprise.excess, abs=1e-4)


def test_chunks_of_positions_and_blocks_of_queries_change_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    passage = replace(make_passage(model, sample(58)), tokens=(5,) * 58)
    (whole,) = read(model.engine, passage)
    monkeypatch.setattr(prefill, "CHUNK_BYTES", 4 * model.engine.vocabulary * 7)
    monkeypatch.setattr(llama, "SCORE_BYTES", 1)
    (parts,) = read(model.engine, passage)
    assert len(parts.margins) == 58 and whole.margins.any()
    assert abs(parts.margins - whole.margins).max() <= 2
    assert whole.codes is not None and parts.codes is not None
    assert compute_distance(measure_gaps(whole.codes, parts.codes)) <= 1


def test_other_classes_read_nearly_the_same_and_float64_too(untrained: Path, model: Model) -> None:
    passage = make_passage(model, sample(50), slack=0.5)
    (own,) = read(model.engine, passage)
    assert isinstance(model.engine, LlamaEngine) and own.codes is not None
    fused = load_model(untrained, attention=Attention.SDPA).engine
    half = load_model(untrained, dtype="bfloat16").engine
    wide = widen_engine(model.engine)
    names = {engine.compute_class.name for engine in (model.engine, fused, half, wide)}
    assert len(names) == 4
    for engine, least, most in ((fused, 0, 1), (wide, 0, 1), (half, 16, 4000)):
        (reading,) = read(engine, passage)
        assert reading.codes is not None
        assert least <= compute_distance(measure_gaps(own.codes, reading.codes)) <= most
    assert wide.read_hidden([[1, 2]]).dtype == torch.float64


def test_what_is_not_finite_is_said_of_that_passage(model: Model) -> None:
    @dataclass(frozen=True)
    class Broken(LlamaEngine):
        def compute_head(self, hidden: torch.Tensor) -> torch.Tensor:
            logits = LlamaEngine.compute_head(self, hidden)
            return logits.index_fill(-1, torch.tensor([2]), torch.nan) if hidden.shape[0] == 9 else logits

    assert isinstance(model.engine, LlamaEngine)
    passages = [make_passage(model, greedy(length)) for length in (8, 9)]
    first, second = read_passages(Broken(model.engine.model), passages)
    assert isinstance(first, Reading)
    assert isinstance(second, NotFinite)


def test_batches_hold_every_text_once_within_their_positions() -> None:
    lengths = [5, 4096, 1000, 17, 9000, 1000, 1000, 1000, 30]
    batches = plan_batches(lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= prefill.BATCH_POSITIONS for batch in batches)
    assert plan_batches([]) == []
