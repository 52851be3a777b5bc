"""A model that makes pictures, from a local directory, exactly as its card pins it, ready to run.

Two kinds of directory: one of ours (config.json of a DiffusionTransformer, run by verifier/dit.py), and one as diffusers stores it
(model_index.json and a folder a part, run by verifier/diffusers_model.py). Both say in sampling.json how a picture is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray

from protocol.digest import IMAGE_FAMILIES
from protocol.models import MAX_PIXEL_BYTES, ModelCard, compute_model_id
from protocol.units import ModelId
from verifier import dit
from verifier.card import (
    CARD_FILE,
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    SAMPLING_FILE,
    SCHEDULER_FILE,
    ModelRefused,
    check_files,
    is_pipeline,
    load_card,
    load_config,
    load_json,
)
from verifier.classes import ComputeClass, describe_hardware, name_dtype
from verifier.diffusion import (
    PPM,
    Condition,
    ImageEngine,
    Kind,
    NoisePlan,
    Predictions,
    Shape,
    Spacing,
    Transition,
    make_kept,
    plan_transitions,
)
from verifier.digests.images import Pixels
from verifier.llama import Attention
from verifier.model import DTYPES, get_device
from verifier.noise import Latents
from verifier.pictures import MAX_FACTOR, MAX_LEVELS, enlarge, round_levels
from verifier.tokens import TextTokenizer, encode_prompt, load_tokenizer
from verifier.weights import load_weights

ARCHITECTURE: Final = "DiffusionTransformer"
MAX_SIDE: Final = 2048
NUMBER_TYPES: Final = {**DTYPES, "float64": torch.float64}  # float64 is for disputes alone

Count = Annotated[int, Meta(ge=1, le=65_536)]


@dataclass(frozen=True, slots=True)
class ImageModel:
    """A loaded model and the steps in which it draws."""

    id: ModelId
    card: ModelCard
    engine: ImageEngine
    transitions: tuple[Transition, ...]


class SamplingFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """sampling.json: how a picture is drawn. Guidance, size and padding are for text-to-image models; ours have none to choose."""

    steps: Annotated[int, Meta(ge=1, le=1000)]
    eta_ppm: Annotated[int, Meta(ge=0, le=PPM)] = 0
    guidance_ppm: Annotated[int, Meta(ge=PPM, le=100 * PPM)] = PPM
    height: Annotated[int, Meta(ge=8, le=MAX_SIDE)] | None = None
    width: Annotated[int, Meta(ge=8, le=MAX_SIDE)] | None = None
    pad_token_id: Annotated[int, Meta(ge=0, le=2**24)] | None = None


class SchedulerFields(msgspec.Struct, frozen=True):
    """What of scheduler_config.json decides the steps; absent fields have diffusers' defaults (DDIMScheduler)."""

    num_train_timesteps: Annotated[int, Meta(ge=2, le=100_000)] = 1000
    beta_start: Annotated[float, Meta(gt=0, lt=1)] = 0.0001
    beta_end: Annotated[float, Meta(gt=0, lt=1)] = 0.02
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    prediction_type: Kind = "epsilon"
    timestep_spacing: Spacing = "leading"
    steps_offset: Annotated[int, Meta(ge=0, le=1)] = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    thresholding: bool = False
    rescale_betas_zero_snr: bool = False
    trained_betas: None = None


class DitFields(msgspec.Struct, frozen=True):
    """config.json of a DiffusionTransformer."""

    architectures: tuple[Literal["DiffusionTransformer"]]
    vocab_size: Count
    image_size: Annotated[int, Meta(ge=1, le=256)]
    patch_size: Annotated[int, Meta(ge=1, le=64)]
    in_channels: Literal[1, 3]
    hidden_size: Count
    num_hidden_layers: Annotated[int, Meta(ge=1, le=256)]
    num_attention_heads: Annotated[int, Meta(ge=1, le=1024)]
    wave_size: Annotated[int, Meta(ge=2, le=4096)]
    upscale: Annotated[int, Meta(ge=1, le=MAX_FACTOR)]
    levels: Annotated[int, Meta(ge=2, le=MAX_LEVELS)] = MAX_LEVELS


@dataclass(frozen=True, slots=True)
class DitEngine:
    """Our own transformer: one prompt token, latents that are the picture itself, made larger."""

    model: dit.Dit
    tokenizer: TextTokenizer
    context: int
    upscale: int
    levels: int

    @property
    def latent_shape(self) -> Shape:
        config = self.model.config
        return config.channels, config.side, config.side

    @property
    def compute_class(self) -> ComputeClass:
        weight = self.model.weights["patch.weight"]
        return ComputeClass("quorate", name_dtype(weight.dtype), self.model.attention, describe_hardware(weight.device))

    @property
    def picture_shape(self) -> Shape:
        config = self.model.config
        return config.side * self.upscale, config.side * self.upscale, config.channels

    def encode_prompt(self, prompt: str) -> Condition:
        return encode_prompt(self.tokenizer, prompt, self.context)[0]

    def predict(self, latents: NDArray[np.float32], moments: Sequence[int], condition: Condition) -> Predictions:
        assert isinstance(condition, int), type(condition)
        weight = self.model.weights["patch.weight"]
        rows = torch.from_numpy(latents).to(weight)
        at = torch.tensor(moments, dtype=torch.float32, device=weight.device)
        prompts = torch.full((len(rows),), condition, dtype=torch.int64, device=weight.device)
        with torch.inference_mode():
            return dit.compute_velocity(self.model, rows, at, prompts).float().cpu().numpy()

    def decode(self, latents: Latents) -> Pixels:
        return enlarge(round_levels(latents, self.levels), self.upscale)


def load_image_model(
    directory: Path,
    device: str = "cpu",
    expected: ModelId | None = None,
    *,
    dtype: str | None = None,
    attention: Attention = Attention.EAGER,
) -> ImageModel:
    """The model that the directory's card pins; another dtype or attention than the card's is another compute class of it.

    Raises: ModelRefused naming the file, what was expected and what is there
    """
    card = load_card(directory)
    model_id = compute_model_id(card)
    if expected is not None and model_id != expected:
        raise ModelRefused(f"{directory}: expected model {expected.hex()}, got {model_id.hex()} ({card.name})")
    check_files(directory)
    if card.family not in IMAGE_FAMILIES:
        raise ModelRefused(f"{directory / CARD_FILE}: expected a family of digests of pictures, got {card.family.name}")
    sampling = load_sampling(directory)
    number, place = NUMBER_TYPES[dtype or card.dtype], get_device(device)
    if is_pipeline(directory):
        engine: ImageEngine = _load_pipeline(directory, card, sampling, number, place, attention)
    else:
        engine = load_dit_engine(directory, card, number, place, attention)
    height, width, channels = engine.picture_shape
    if height * width * channels > MAX_PIXEL_BYTES:
        raise ModelRefused(
            f"{directory}: expected pictures of at most {MAX_PIXEL_BYTES} bytes, got {height} x {width} x {channels}"
        )
    return ImageModel(model_id, card, engine, load_transitions(directory, sampling))


def _load_pipeline(
    directory: Path,
    card: ModelCard,
    sampling: "SamplingFields",
    dtype: torch.dtype,
    device: torch.device,
    attention: Attention,
) -> ImageEngine:
    try:
        from verifier.diffusers_model import load_pipeline_engine  # takes seconds to import, and is an extra
    except ModuleNotFoundError as error:
        missing = (error.name or "diffusers").partition(".")[0]
        raise ModelRefused(
            f"{directory}: a model in diffusers' layout needs the package {missing}, which is not installed; "
            "pip install 'quorate[diffusers]'"
        ) from error
    return load_pipeline_engine(directory, card, sampling, dtype, device, attention)


def load_dit_engine(
    directory: Path, card: ModelCard, dtype: torch.dtype, device: torch.device, attention: Attention
) -> DitEngine:
    """The engine of a directory of ours. Raises: ModelRefused"""
    fields = load_config(directory, DitFields)
    _check_fields(directory / CONFIG_FILE, fields)
    config = dit.DitConfig(
        vocabulary=fields.vocab_size,
        side=fields.image_size,
        patch=fields.patch_size,
        channels=fields.in_channels,
        width=fields.hidden_size,
        layers=fields.num_hidden_layers,
        heads=fields.num_attention_heads,
        wave_width=fields.wave_size,
    )
    weights = load_weights(directory, dit.compute_shapes(config), dtype, device)
    tokenizer = load_tokenizer(directory)
    if card.context_tokens != 2 or not tokenizer.size <= fields.vocab_size == card.vocabulary:
        raise ModelRefused(
            f"{directory}: expected prompts of one token (a context of 2) out of {fields.vocab_size}, "
            f"got a context of {card.context_tokens}, {card.vocabulary} on the card, {tokenizer.size} in the tokenizer"
        )
    return DitEngine(dit.Dit(config, weights, attention), tokenizer, card.context_tokens, fields.upscale, fields.levels)


def widen_image_engine(engine: DitEngine) -> DitEngine:
    """The same engine in float64, for disputes."""
    weights = {name: weight.double() for name, weight in engine.model.weights.items()}
    return replace(engine, model=replace(engine.model, weights=weights))


def load_transitions(directory: Path, sampling: SamplingFields) -> tuple[Transition, ...]:
    """The steps that scheduler_config.json and sampling.json describe. Raises: ModelRefused"""
    path = directory / SCHEDULER_FILE
    fields = load_json(path, SchedulerFields, MAX_CONFIG_BYTES)
    unsupported = [name for name in ("clip_sample", "thresholding", "rescale_betas_zero_snr") if getattr(fields, name)]
    if unsupported:
        raise ModelRefused(f"{path}: expected {unsupported[0]} to be false, got true; this sampler has no such step")
    if sampling.steps > fields.num_train_timesteps // 2:
        raise ModelRefused(
            f"{directory / SAMPLING_FILE}: expected at most {fields.num_train_timesteps // 2} steps, got {sampling.steps}"
        )
    kept = make_kept(
        fields.num_train_timesteps,
        fields.beta_start,
        fields.beta_end,
        is_scaled=fields.beta_schedule == "scaled_linear",
    )
    last = 1.0 if fields.set_alpha_to_one else float(kept[0])
    plan = NoisePlan(kept, last, fields.prediction_type, fields.timestep_spacing, fields.steps_offset)
    return plan_transitions(plan, sampling.steps, sampling.eta_ppm)


def load_sampling(directory: Path) -> SamplingFields:
    """sampling.json. Raises: ModelRefused"""
    return load_json(directory / SAMPLING_FILE, SamplingFields, MAX_CONFIG_BYTES)


def _check_fields(path: Path, fields: DitFields) -> None:
    if fields.image_size % fields.patch_size or fields.hidden_size % fields.num_attention_heads or fields.wave_size % 2:
        raise ModelRefused(
            f"{path}: expected whole patches, equal heads and an even wave_size, got size {fields.image_size} of "
            f"{fields.patch_size}, width {fields.hidden_size} in {fields.num_attention_heads}, {fields.wave_size}"
        )
