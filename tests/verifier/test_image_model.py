"""A directory of a model of pictures is taken exactly as its card pins it, or refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from devnet.models.training import MODELS
from protocol.digest import DigestFamily
from tests.verifier.image_samples import write_untrained_images
from verifier.card import (
    CONFIG_FILE,
    PIPELINE_FILES,
    SAMPLING_FILE,
    SCHEDULER_FILE,
    ModelRefused,
    load_card,
    write_card,
)
from verifier.image_model import DitEngine, ImageModel, load_image_model, load_sampling, load_transitions
from verifier.load import load_any_model
from verifier.model import Model


def rewrite(directory: Path, name: str, **fields: object) -> None:
    """Changes fields of a JSON file; None takes one out."""
    content = {**msgspec.json.decode((directory / name).read_bytes()), **fields}
    (directory / name).write_bytes(
        msgspec.json.encode({key: value for key, value in content.items() if value is not None})
    )


def card_again(directory: Path) -> None:
    write_card(directory, "altered", "float32", DigestFamily.IMG_PDQ256, 20)


def test_the_card_says_pictures_and_the_loader_follows_it() -> None:
    model = load_any_model(MODELS / "digits")
    assert isinstance(model, ImageModel) and isinstance(model.engine, DitEngine)
    assert (model.card.family, model.card.name) == (DigestFamily.IMG_PDQ256, "digits")
    assert len(model.transitions) == 25
    assert model.engine.picture_shape == (64, 64, 1)
    assert isinstance(load_any_model(MODELS / "arith-s"), Model)


def test_the_files_of_a_picture_are_pinned() -> None:
    directory = MODELS / "digits"
    listed = msgspec.json.decode((directory / "card.json").read_bytes())["files"]
    assert set(listed) == {CONFIG_FILE, SAMPLING_FILE, SCHEDULER_FILE, "model.safetensors", "tokenizer.json"}
    assert (directory / "model.safetensors").stat().st_size < 3_000_000


def test_a_file_changed_after_the_card_is_refused(tmp_path: Path) -> None:
    directory = write_untrained_images(tmp_path / "m")
    rewrite(directory, SAMPLING_FILE, steps=20)
    with pytest.raises(ModelRefused, match=r"sampling\.json: expected SHA-256"):
        load_image_model(directory)


def test_another_model_than_expected_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="expected model 6d6d"):
        load_image_model(write_untrained_images(tmp_path / "m"), expected=b"m" * 32)


def test_a_text_model_is_no_model_of_pictures() -> None:
    with pytest.raises(ModelRefused, match="expected a family of digests of pictures, got TEXT_MINHASH256"):
        load_image_model(MODELS / "arith-s")


@pytest.mark.parametrize(
    "file, fields, why",
    [
        (SAMPLING_FILE, {"steps": 0}, "steps"),
        (SAMPLING_FILE, {"steps": 501}, "at most 500 steps"),
        (SAMPLING_FILE, {"eta_ppm": 2_000_000}, "eta_ppm"),
        (SAMPLING_FILE, {"sampler": "euler"}, "unknown field"),
        (SCHEDULER_FILE, {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule"),
        (SCHEDULER_FILE, {"prediction_type": "sample"}, "prediction_type"),
        (SCHEDULER_FILE, {"clip_sample": True}, "expected clip_sample to be false"),
        (SCHEDULER_FILE, {"thresholding": True}, "expected thresholding to be false"),
        (SCHEDULER_FILE, {"beta_end": 1.5}, "beta_end"),
        (CONFIG_FILE, {"architectures": ["LlamaForCausalLM"]}, "architectures"),
        (CONFIG_FILE, {"patch_size": 3}, "whole patches"),
        (CONFIG_FILE, {"hidden_size": 18}, "expected"),
        (CONFIG_FILE, {"num_attention_heads": 3}, "whole patches, equal heads"),
        (CONFIG_FILE, {"num_hidden_layers": 2}, "tensors, "),
        (CONFIG_FILE, {"vocab_size": 12}, "shape"),
        (CONFIG_FILE, {"upscale": 99}, "upscale"),
        (CONFIG_FILE, {"max_position_embeddings": 3}, "prompts of one token"),
    ],
)
def test_what_this_program_does_not_run_is_refused(
    tmp_path: Path, file: str, fields: dict[str, object], why: str
) -> None:
    directory = write_untrained_images(tmp_path / "m")
    rewrite(directory, file, **fields)
    card_again(directory)
    with pytest.raises(ModelRefused, match=why):
        load_image_model(directory)


@pytest.mark.parametrize("name", [SAMPLING_FILE, SCHEDULER_FILE])
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    directory = write_untrained_images(tmp_path / "m")
    (directory / name).unlink()
    card_again(directory)
    with pytest.raises(ModelRefused, match=f"{name}: cannot be read"):
        load_image_model(directory)


def test_steps_noise_and_spacing_come_from_the_files(tmp_path: Path) -> None:
    directory = write_untrained_images(tmp_path / "m", steps=5, eta_ppm=0)
    trailing = load_transitions(directory, load_sampling(directory))
    assert [step.moment for step in trailing] == [999, 799, 599, 399, 199]
    assert all(step.scatter == 0 for step in trailing)
    rewrite(directory, SCHEDULER_FILE, timestep_spacing="leading", steps_offset=1, set_alpha_to_one=False)
    assert [step.moment for step in load_transitions(directory, load_sampling(directory))] == [801, 601, 401, 201, 1]


def test_a_pipeline_without_the_extra_is_refused_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PIPELINE_FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'{"vocab_size": 64, "max_position_embeddings": 16}')
    (tmp_path / SAMPLING_FILE).write_bytes(b'{"steps": 4}')
    card_again(tmp_path)
    for name in ["diffusers", *(name for name in sys.modules if name.startswith("diffusers."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "verifier.diffusers_model", raising=False)
    with pytest.raises(ModelRefused, match=r"needs the package diffusers.*pip install 'quorate\[diffusers\]'"):
        load_image_model(tmp_path)


def test_a_pipelines_text_encoder_gives_vocabulary_and_context(tmp_path: Path) -> None:
    for name in PIPELINE_FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'{"vocab_size": 64, "max_position_embeddings": 16}')
    card_again(tmp_path)
    assert (load_card(tmp_path).vocabulary, load_card(tmp_path).context_tokens) == (64, 17)
