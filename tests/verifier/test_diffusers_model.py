"""Models as diffusers stores them: a tiny pipeline, never trained, drawn step for step as diffusers' own DDIM does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTextConfig, CLIPTextModel

from protocol.digest import DigestFamily
from protocol.jobs.verdicts import Verdict
from tests.verifier.image_samples import SEED, make_claim, never
from verifier.card import PIPELINE_FILE, PIPELINE_TOKENIZER, SAMPLING_FILE, ModelRefused, write_card
from verifier.diffusers_model import Guided, PipelineEngine
from verifier.draw import draw_picture
from verifier.image_audit import PictureAuditor, PictureReason, PictureTolerance, audit_picture
from verifier.image_model import ImageModel, load_image_model
from verifier.llama import Attention
from verifier.noise import to_floats
from verifier.tokens import PromptRefused
from verifier.trajectory import decode_state

STEPS = 4
WORDS = ("<end>", "<start>", "<unk>", "a", "red", "cat", "dog")


def write_pipeline(directory: Path) -> Path:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        norm_num_groups=4,
        sample_size=16,
    )
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    text_encoder = CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=8, max_position_embeddings=6, eos_token_id=0))
    unet.save_pretrained(directory / "unet")
    vae.save_pretrained(directory / "vae")
    text_encoder.save_pretrained(directory / "text_encoder")
    make_scheduler().save_pretrained(directory / "scheduler")
    (directory / "tokenizer").mkdir()
    make_tokenizer().save(str(directory / PIPELINE_TOKENIZER))
    sampling = {"steps": STEPS, "guidance_ppm": 3_000_000, "height": 16, "width": 16, "pad_token_id": 0}
    (directory / SAMPLING_FILE).write_bytes(msgspec.json.encode(sampling))
    (directory / PIPELINE_FILE).write_bytes(b'{"_class_name": "StableDiffusionPipeline"}')
    card_again(directory)
    return directory


def make_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 0)]
    )
    return tokenizer


def card_again(directory: Path) -> None:
    write_card(directory, "tiny", "float32", DigestFamily.IMG_PDQ256, 100)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("pipelines") / "tiny")


@pytest.fixture(scope="module")
def model(directory: Path) -> ImageModel:
    return load_image_model(directory)


def get_engine(model: ImageModel) -> PipelineEngine:
    assert isinstance(model.engine, PipelineEngine)
    return model.engine


def test_the_steps_are_those_of_diffusers(model: ImageModel) -> None:
    """The same networks, prompt and noise under diffusers' DDIM end in the same latents and the same pixels."""
    engine = get_engine(model)
    drawing = draw_picture(model, "a red cat", SEED, never)
    states = [to_floats(decode_state(state, engine.latent_shape)) for state in drawing.commitment.states]
    condition = engine.encode_prompt("a red cat")
    assert isinstance(condition, Guided) and condition.empty is not None
    scheduler = make_scheduler()
    scheduler.set_timesteps(STEPS)
    latents = torch.from_numpy(states[0])[None]
    with torch.inference_mode():
        for moment in scheduler.timesteps:
            both = torch.cat((condition.empty, condition.prompt))
            free, guided = engine.unet(torch.cat((latents, latents)), moment, encoder_hidden_states=both).sample.chunk(
                2
            )
            latents = scheduler.step(free + 3.0 * (guided - free), moment, latents).prev_sample
        drawn = engine.vae.decode(latents / engine.vae.config.scaling_factor).sample[0]
    assert torch.abs(latents[0] - torch.from_numpy(states[-1])).max() < 1e-3
    levels = ((drawn / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    ours = np.frombuffer(drawing.output.pixels, dtype=np.uint8).reshape(16, 16, 3)
    assert np.abs(levels - ours).max() <= 1
    assert (drawing.output.width, drawing.output.height, drawing.output.channels) == (16, 16, 3)


def test_a_drawing_is_accepted_and_another_prompts_is_not(model: ImageModel) -> None:
    name = model.engine.compute_class.name
    assert name.startswith("diffusers/float32/eager/")
    auditor = PictureAuditor(model, {(name, name): PictureTolerance(4096, 64)})
    drawing = draw_picture(model, "a red cat", SEED, never)
    assert audit_picture(auditor, make_claim(model, drawing, prompt="a red cat")).verdict is Verdict.ACCEPT
    finding = audit_picture(auditor, make_claim(model, drawing, prompt="a dog"))
    # Without a float64 form of its own an auditor does not condemn.
    assert (finding.verdict, finding.reason) == (Verdict.INCONCLUSIVE, PictureReason.UNCONFIRMED)
    assert finding.measured > 2 * finding.limit


def test_attention_kernels_agree_closely(directory: Path, model: ImageModel) -> None:
    fused = load_image_model(directory, attention=Attention.SDPA)
    ours, theirs = (draw_picture(each, "a dog", SEED, never).commitment.states[-1] for each in (model, fused))
    shape = model.engine.latent_shape
    assert np.abs(decode_state(ours, shape) - decode_state(theirs, shape)).max() <= 64


@pytest.mark.parametrize(
    "prompt, why", [("", "empty"), ("a blue cat", "no token for 'blue'"), ("a a a a a", "at most 6")]
)
def test_prompts_are_refused_rather_than_cut(model: ImageModel, prompt: str, why: str) -> None:
    with pytest.raises(PromptRefused, match=why):
        draw_picture(model, prompt, SEED, never)


def test_published_names_of_the_text_encoder_are_understood(directory: Path, tmp_path: Path, model: ImageModel) -> None:
    """Older files carry a prefix and a table of places."""
    copied = copy(directory, tmp_path)
    path = copied / "text_encoder/model.safetensors"
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(path).items()}
    save_file({**tensors, "text_model.embeddings.position_ids": torch.arange(6)[None]}, path)
    card_again(copied)
    drawn = draw_picture(load_image_model(copied), "a dog", SEED, never)
    assert drawn.output.pixels == draw_picture(model, "a dog", SEED, never).output.pixels


def copy(directory: Path, to: Path) -> Path:
    for file in directory.rglob("*"):
        if file.is_file():
            target = to / file.relative_to(directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return to


def edit_json(path: Path, **fields: Any) -> None:
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), **fields}))


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_in.bias"][0] = float("nan")


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["conv_in.bias"]


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_in.bias"] = tensors["conv_in.bias"][:3].clone()


@pytest.mark.parametrize(
    "alter, why",
    [
        (lambda d: edit_json(d / PIPELINE_FILE, _class_name="FluxPipeline"), "expected StableDiffusionPipeline"),
        (lambda d: edit_json(d / SAMPLING_FILE, height=17), "multiples of 2"),
        (lambda d: edit_json(d / SAMPLING_FILE, pad_token_id=8), "padding is 8"),
        (lambda d: edit_json(d / "unet/config.json", block_out_channels=[8]), "describes no UNet2DConditionModel"),
        (lambda d: edit_json(d / "scheduler/scheduler_config.json", clip_sample=True), "clip_sample"),
        (
            lambda d: edit_weights(d / "unet/diffusion_pytorch_model.safetensors", poison),
            "finite numbers in conv_in.bias",
        ),
        (lambda d: edit_weights(d / "unet/diffusion_pytorch_model.safetensors", drop), "'conv_in.bias' differs"),
        (lambda d: edit_weights(d / "unet/diffusion_pytorch_model.safetensors", reshape), "'conv_in.bias' differs"),
    ],
)
def test_a_directory_that_is_no_such_pipeline_is_refused(
    directory: Path, tmp_path: Path, alter: Callable[[Path], None], why: str
) -> None:
    copied = copy(directory, tmp_path)
    alter(copied)
    card_again(copied)
    with pytest.raises(ModelRefused, match=why):
        load_image_model(copied)
