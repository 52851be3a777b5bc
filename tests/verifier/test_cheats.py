"""Each cheat that calibrations and devnets are given is what it says, and an audit with limits set by hand catches it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from devnet.models.training import MODELS
from protocol.jobs.verdicts import Verdict
from protocol.models import StopReason, greedy
from tests.verifier.audits import SEED, SKETCH_SEED, make_auditor, sample
from verifier.altered_weights import (
    Rivalry,
    encode_difference,
    get_llama_engine,
    keep_layers,
    load_rivals,
    restore_earlier,
    round_weights,
)
from verifier.audit import Auditor, audit_claims
from verifier.card import ModelRefused
from verifier.cheats import CHEATS, Job, answer_dishonestly, build_writer, list_possible, write_honestly
from verifier.claims import Claim, Reason
from verifier.generate import generate_traced
from verifier.model import Model, load_model
from verifier.sketch import compute_codes

PROMPT = "def load(path, encoding=None):\n    "
CODE = MODELS / "code-2m"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(CODE)


@pytest.fixture(scope="module")
def auditor(model: Model) -> Auditor:
    return make_auditor(model)


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_caught_by_what_it_cannot_hide(model: Model, auditor: Auditor, name: str) -> None:
    writer = build_writer(name, model, load_rivals(CODE))
    output, sketch = answer_dishonestly(name, model, writer, PROMPT, sample(48), SEED, SKETCH_SEED)
    claim = Claim(PROMPT, sample(48), SEED, output, model.engine.compute_class, sketch, SKETCH_SEED)
    (finding,) = audit_claims(auditor, [claim])
    assert finding.verdict is Verdict.HARD_REJECT, finding
    if name in ("other-seed", "other-temperature", "altered-token", "truncated", "prefill"):
        assert finding.reason is Reason.MARGIN  # their sketches are right
    if name in ("int8", "copy", "null-sketch"):
        assert finding.reason is Reason.SKETCH  # their tokens are right, or nearly


def test_a_batch_of_jobs_is_written_as_each_alone(model: Model) -> None:
    prompt = tuple(model.tokenizer.tokenizer.encode(PROMPT).ids)
    for temperature, top_p in ((0, 1_000_000), (900_000, 1_000_000), (900_000, 800_000)):
        settings = sample(20, temperature, top_p)
        jobs = [Job(prompt, 20, temperature, top_p, bytes([n]) * 32, SKETCH_SEED) for n in range(3)]
        for job, written in zip(jobs, write_honestly(model.engine, jobs), strict=True):
            alone = generate_traced(replace(model, ends=frozenset[int]()), PROMPT, settings, job.seed, lambda: False)
            assert written.tokens == alone.output.tokens
            gaps = compute_codes(alone.hidden, SKETCH_SEED).astype(int) - written.codes
            assert abs(gaps).max() <= 1


def test_a_truncated_answer_looks_whole(model: Model) -> None:
    output, _ = answer_dishonestly("truncated", model, model.engine, PROMPT, greedy(16), SEED, SKETCH_SEED)
    assert (len(output.tokens), output.stop) == (8, StopReason.END)


def test_rounding_keeps_as_many_values_as_its_bits_say(model: Model) -> None:
    llama = get_llama_engine(model).model
    name = "model.layers.1.mlp.up_proj.weight"
    rounded = round_weights(llama, 8).weights[name]
    assert all(len(row.unique()) <= 255 for row in rounded)
    assert (rounded - llama.weights[name]).abs().max() < llama.weights[name].abs().max() / 127
    coarse = round_weights(llama, 4).weights[name]
    assert all(len(part.unique()) <= 15 for part in coarse.reshape(-1, 64))
    assert torch.equal(rounded, round_weights(llama, 8).weights[name])


def test_the_shipped_earlier_weights_are_near_and_not_the_same(model: Model) -> None:
    rivals = load_rivals(CODE)
    assert rivals.earlier is not None
    llama = get_llama_engine(model).model
    earlier = restore_earlier(llama, rivals.earlier)
    change = sum(float((earlier.weights[name] - weight).square().sum()) for name, weight in llama.weights.items())
    length = sum(float(weight.square().sum()) for weight in llama.weights.values())
    assert 0.015 < (change / length) ** 0.5 < 0.025


def test_differences_come_back_to_a_255th_of_the_largest(tmp_path: Path, model: Model) -> None:
    llama = keep_layers(get_llama_engine(model).model, 1)
    now = dict(llama.weights)
    earlier = {name: weight + 0.01 * torch.randn_like(weight) for name, weight in now.items()}
    save_file(encode_difference(now, earlier), tmp_path / "earlier.safetensors")
    restored = restore_earlier(llama, tmp_path / "earlier.safetensors")
    for name, weight in restored.weights.items():
        assert (weight - earlier[name]).abs().max() <= (earlier[name] - now[name]).abs().max() / 250 + 1e-6
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    for path in (tmp_path / "other.safetensors", tmp_path / "nothing.safetensors"):
        with pytest.raises(ModelRefused):
            restore_earlier(llama, path)


def test_without_rivals_half_the_layers_pass_for_a_smaller_model(model: Model) -> None:
    nothing = Rivalry(None, None)
    assert "checkpoint" not in list_possible(model, nothing)
    assert "truncated" not in list_possible(replace(model, ends=frozenset[int]()), nothing)
    writer = build_writer("small-model", model, nothing)
    assert get_llama_engine(replace(model, engine=writer)).model.config.layers == 2


def test_a_smaller_model_with_another_tokenizer_is_refused(model: Model) -> None:
    with pytest.raises(ModelRefused, match="tokenizer"):
        build_writer("prefill", model, Rivalry(MODELS / "arith-s", None))
