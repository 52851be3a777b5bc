"""Architectures outside the Llama family run through transformers, from the pinned files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from devnet.models.train_arith import build_tokenizer
from protocol.digest import DigestFamily
from protocol.models import GenerationSettings, SamplingKind, greedy
from verifier.card import ModelRefused, write_card
from verifier.generate import generate
from verifier.model import load_model

QWEN2 = Qwen2Config(
    vocab_size=16,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.4,
)
GPT2 = GPT2Config(vocab_size=16, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.4)


def build_qwen2() -> PreTrainedModel:
    torch.manual_seed(1)
    return Qwen2ForCausalLM(QWEN2).eval()


def build_gpt2() -> PreTrainedModel:
    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2).eval()


def write(directory: Path, theirs: PreTrainedModel, prefix: str = "", dtype: str = "float32") -> Path:
    directory.mkdir()
    config = theirs.config.to_dict() | {"architectures": [type(theirs).__name__], "eos_token_id": 1}
    (directory / "config.json").write_text(json.dumps(config))
    tied = set(theirs.all_tied_weights_keys)
    weights = {name.removeprefix(prefix): t.contiguous() for name, t in theirs.state_dict().items() if name not in tied}
    save_file(weights, directory / "model.safetensors")
    build_tokenizer().save(str(directory / "tokenizer.json"))
    write_card(directory, "foreign", dtype, DigestFamily.TEXT_SIMHASH64, 20)
    return directory


# GPT-2's published file leaves out the prefix that its own code gives its tensors.
@pytest.mark.parametrize("theirs, prefix", [(build_qwen2(), ""), (build_gpt2(), "transformer."), (build_gpt2(), "")])
def test_logits_are_those_of_transformers(tmp_path: Path, theirs: PreTrainedModel, prefix: str) -> None:
    model = load_model(write(tmp_path / "model", theirs, prefix))
    theirs.set_attn_implementation("eager")
    ids = [2, 5, 9, 12, 3]
    with torch.inference_mode():
        expected = theirs(input_ids=torch.tensor([ids])).logits[:, -1]
    hidden, cache = model.engine.compute_next([ids], None)
    logits = model.engine.compute_head(hidden)
    assert torch.equal(logits, expected) or (logits - expected).abs().max() < 1e-4
    hidden, _ = model.engine.compute_next([[4], [5]], model.engine.select_rows(cache, [0, 0]))
    twice = model.engine.compute_head(hidden)
    with torch.inference_mode():
        whole = theirs(input_ids=torch.tensor([[*ids, 4], [*ids, 5]])).logits[:, -1]
    assert (twice - whole).abs().max() < 1e-4


def test_every_way_of_generating_runs(tmp_path: Path) -> None:
    model = load_model(write(tmp_path / "model", build_qwen2()))
    for settings in (
        greedy(8),
        GenerationSettings(SamplingKind.BEAM, 3, 0, 1_000_000, 8),
        GenerationSettings(SamplingKind.SAMPLE, 1, 1_000_000, 900_000, 8),
    ):
        output = generate(model, "1+2=", settings, bytes(32), lambda: False)
        assert output == generate(model, "1+2=", settings, bytes(32), lambda: False)


def test_bfloat16_keeps_rotary_frequencies_exact(tmp_path: Path) -> None:
    model = load_model(write(tmp_path / "model", build_qwen2(), dtype="bfloat16"))
    inner: PreTrainedModel = getattr(model.engine, "model")  # noqa: B009 - the engine protocol does not show it
    assert {p.dtype for p in inner.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in inner.buffers()} == {torch.float32}
    assert model.engine.compute_head(model.engine.compute_next([[2, 3]], None)[0]).dtype == torch.bfloat16


def test_a_tensor_too_few_is_refused(tmp_path: Path) -> None:
    theirs = build_qwen2()
    directory = write(tmp_path / "model", theirs)
    kept = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items() if "norm" not in name}
    save_file(kept, directory / "model.safetensors")
    write_card(directory, "foreign", "float32", DigestFamily.TEXT_SIMHASH64, 20)
    with pytest.raises(ModelRefused, match="5 are missing"):
        load_model(directory)
