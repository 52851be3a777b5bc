"""A model is exactly what its card pins, or it is refused by one sentence that names the file, what was expected and what came."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from protocol.digest import DigestFamily
from protocol.models import compute_model_id
from verifier.card import MAX_CONFIG_BYTES, ModelRefused, load_card, write_card
from verifier.engine import LlamaEngine
from verifier.model import load_llama_config, load_model

Make = Callable[..., Path]


def pin_again(directory: Path) -> None:
    """What an operator does who believes that the files are right: the hashes are true, the content is judged."""
    write_card(directory, "untrained", "float32", DigestFamily.TEXT_MINHASH256, 20)


def change_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    pin_again(directory)


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, directory / "model.safetensors")
    pin_again(directory)


def test_a_loaded_model_has_the_id_of_its_card(untrained: Path) -> None:
    model = load_model(untrained)
    assert model.id == compute_model_id(load_card(untrained))
    assert (model.ends, model.engine.vocabulary, model.engine.context) == ({1}, 16, 64)
    assert load_model(untrained, expected=model.id).id == model.id


def test_another_id_than_expected_is_refused_by_name(untrained: Path) -> None:
    with pytest.raises(ModelRefused, match=f"expected model {'00' * 32}, got {load_model(untrained).id.hex()}"):
        load_model(untrained, expected=bytes(32))


def test_other_weights_are_another_model(make_directory: Make) -> None:
    assert load_card(make_directory("a", seed=1)).manifest != load_card(make_directory("b", seed=2)).manifest


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_changed_byte_is_refused_naming_the_file_and_both_hashes(make_directory: Make, name: str) -> None:
    directory = make_directory()
    pinned = json.loads((directory / "card.json").read_text())["files"][name]
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(ModelRefused, match=rf"{name}: expected SHA-256 {pinned} .* got [0-9a-f]{{64}}; restore"):
        load_model(directory)


@pytest.mark.parametrize("name", ["card.json", "config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_refused_by_name(make_directory: Make, name: str) -> None:
    directory = make_directory()
    (directory / name).unlink()
    with pytest.raises(ModelRefused, match=name):
        load_model(directory)


def test_a_file_that_the_card_does_not_pin_is_refused(make_directory: Make) -> None:
    directory = make_directory()
    (directory / "generation_config.json").write_text('{"eos_token_id": 5}')
    with pytest.raises(ModelRefused, match="restore the model directory"):
        load_model(directory)
    pin_again(directory)
    assert load_model(directory).ends == {5}


@pytest.mark.parametrize(
    "card",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe",
        b"{}",
        b'{"name": 5}',
        b" " * (MAX_CONFIG_BYTES + 1),
    ],
)
def test_a_card_that_is_none_is_refused(make_directory: Make, card: bytes) -> None:
    directory = make_directory()
    (directory / "card.json").write_bytes(card)
    with pytest.raises(ModelRefused, match=r"card\.json: expected"):
        load_model(directory)


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", "Über"),
        ("dtype", "float8"),
        ("family", "img-pdq256"),
        ("token_ms", 0),
        ("context_tokens", -1),
        ("context_tokens", 2**70),
        ("extra", 1),
    ],
)
def test_a_card_with_a_meaningless_field_is_refused(make_directory: Make, field: str, value: object) -> None:
    directory = make_directory()
    card = json.loads((directory / "card.json").read_text())
    (directory / "card.json").write_text(json.dumps(card | {field: value}))
    with pytest.raises(ModelRefused, match=r"card\.json"):
        load_model(directory)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architectures": ["MambaForCausalLM"]}, "expected one architecture of LlamaForCausalLM, GPT2LMHeadModel"),
        ({"architectures": []}, "expected one architecture"),
        ({"hidden_act": "gelu"}, "expected hidden_act silu"),
        ({"num_key_value_heads": 3}, "query heads in whole groups"),
        ({"head_dim": 5}, "even head width"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "expected rope type default or llama3, got 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "expected llama3 rope with factor"),
        ({"rope_theta": -1.0}, "config.json: expected LlamaFields"),
        ({"num_hidden_layers": 10**9}, "config.json: expected LlamaFields"),
        ({"hidden_size": "64"}, "config.json: expected LlamaFields"),
        ({"vocab_size": 20}, r"expected model.embed_tokens.weight of shape \(20, 32\), got \(16, 32\)"),
        ({"vocab_size": 8}, "expected at most 8 tokens, the tokenizer has 14"),
        ({"num_hidden_layers": 3}, r"\d+ are missing, first model.layers.2"),
        ({"num_hidden_layers": 1}, "has no place for"),
        ({"eos_token_id": 99}, "expected eos_token_id below 16"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    make_directory: Make, changes: dict[str, object], message: str
) -> None:
    directory = make_directory()
    change_config(directory, **changes)
    with pytest.raises(ModelRefused, match=message):
        load_model(directory)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(make_directory: Make, poison: float) -> None:
    directory = make_directory()
    change_weights(directory, lambda weights: weights["model.norm.weight"].fill_(poison))
    with pytest.raises(ModelRefused, match=r"model\.norm\.weight, got NaN or infinity"):
        load_model(directory)


def test_integers_for_weights_are_refused(make_directory: Make) -> None:
    directory = make_directory()
    change_weights(directory, lambda weights: weights.update({"model.norm.weight": torch.ones(32, dtype=torch.int64)}))
    with pytest.raises(ModelRefused, match="expected floating point"):
        load_model(directory)


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95pickle", (2**63).to_bytes(8, "little"), b"\xff" * 64])
def test_what_is_no_safetensors_file_is_refused(make_directory: Make, content: bytes) -> None:
    directory = make_directory()
    (directory / "model.safetensors").write_bytes(content)
    pin_again(directory)
    with pytest.raises(ModelRefused, match="no readable safetensors file"):
        load_model(directory)


def test_shards_load_as_the_whole_does(make_directory: Make, untrained: Path) -> None:
    directory = make_directory()
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[:7], "model-00002-of-00002.safetensors": names[7:]}
    for shard, held in shards.items():
        save_file({name: weights[name] for name in held}, directory / shard)
    placed = {name: shard for shard, held in shards.items() for name in held}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    pin_again(directory)
    sharded, whole = load_model(directory).engine, load_model(untrained).engine
    assert isinstance(sharded, LlamaEngine) and isinstance(whole, LlamaEngine)
    assert all(sharded.model.weights[name].equal(whole.model.weights[name]) for name in names)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "model.bin", "a/b.safetensors", ".safetensors"]
)
def test_an_index_reaches_no_file_outside_its_directory(make_directory: Make, shard: str) -> None:
    directory = make_directory()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
    with pytest.raises(ModelRefused, match=r"expected names of \.safetensors files"):
        load_model(directory)


def test_bfloat16_of_the_card_decides_the_arithmetic(make_directory: Make) -> None:
    directory = make_directory()
    write_card(directory, "untrained", "bfloat16", DigestFamily.TEXT_SIMHASH64, 20)
    engine = load_model(directory).engine
    logits = engine.compute_head(engine.compute_next([[2, 3, 4]], None)[0])
    assert logits.dtype == torch.bfloat16
    assert logits.shape == (1, 16)


def test_llama3_scaling_is_read_from_either_field(make_directory: Make) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 16}
    old, new = make_directory("old"), make_directory("new")
    change_config(old, rope_scaling=scaling, rope_theta=500000.0)
    change_config(new, rope_parameters={**scaling, "rope_theta": 500000.0}, rope_theta=None)
    assert load_llama_config(old) == load_llama_config(new)
    assert load_llama_config(old).rope_scaling is not None
    assert load_llama_config(old).rope_theta == 500000.0


@pytest.mark.parametrize("device", ["gpu", "mps", "meta", "cuda:99", "cpu; rm"])
def test_a_device_that_is_not_there_is_refused(untrained: Path, device: str) -> None:
    with pytest.raises(ModelRefused, match=r"expected (a device cpu, cuda or cuda:N|cuda:99 to exist)"):
        load_model(untrained, device)


def test_files_beside_the_pinned_ones_change_nothing(make_directory: Make) -> None:
    directory = make_directory()
    card = load_card(directory)
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (directory / "modeling.py").write_text("raise SystemExit")
    assert compute_model_id(load_model(directory).card) == compute_model_id(card)


def test_the_written_card_is_readable_json(untrained: Path) -> None:
    card = msgspec.json.decode((untrained / "card.json").read_bytes())
    assert sorted(card["files"]) == ["config.json", "model.safetensors", "tokenizer.json"]
