"""Text-to-image models as diffusers stores them (Stable Diffusion's parts), run by diffusers and transformers. Wraps those untyped libraries.

Only the networks are theirs: configuration and weights come from the files that the card pins, never through `from_pretrained`; steps,
noise and guidance are ours. A pipeline's own scheduler, safety checker and code are never run.
"""
# pyright: reportAny=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false, reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateUsage=false

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
import transformers
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn

from protocol.models import ModelCard
from verifier.card import MAX_CONFIG_BYTES, PIPELINE_FILE, SAMPLING_FILE, TEXT_ENCODER, ModelRefused, load_json
from verifier.classes import ComputeClass, describe_hardware, name_dtype
from verifier.diffusion import PPM, Condition, Predictions, SamplingFailed, Shape
from verifier.digests.images import Pixels
from verifier.llama import Attention
from verifier.noise import Latents, to_floats
from verifier.tokens import TextTokenizer, encode_prompt, load_tokenizer
from verifier.weights import load_tensors

PIPELINE_CLASS: Final = "StableDiffusionPipeline"
# Older files name the text encoder's tensors so, and hold a count of places that follows from the configuration.
_OLD_PREFIX: Final = "text_model."
_DERIVED: Final = "position_ids"


class PipelineFields(Protocol):
    """What of sampling.json a pipeline needs (verifier/image_model.py reads it)."""

    @property
    def guidance_ppm(self) -> int: ...
    @property
    def height(self) -> int | None: ...
    @property
    def width(self) -> int | None: ...
    @property
    def pad_token_id(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Guided:
    """An encoded prompt, and the empty one it is pushed away from where there is guidance. Shapes: [1, tokens, width]"""

    prompt: Tensor
    empty: Tensor | None


@dataclass(frozen=True, slots=True)
class PipelineEngine:
    """The parts of a text-to-image model."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: nn.Module
    tokenizer: TextTokenizer
    context: int
    pad_token: int
    guidance: float
    attention: Attention
    latent_shape: Shape
    picture_shape: Shape

    @property
    def compute_class(self) -> ComputeClass:
        return ComputeClass(
            "diffusers", name_dtype(self.unet.dtype), self.attention, describe_hardware(self.unet.device)
        )

    def encode_prompt(self, prompt: str) -> Condition:
        ids = encode_prompt(self.tokenizer, prompt, self.context)
        empty = self.tokenizer.tokenizer.encode("").ids if self.guidance != 1 else None
        return Guided(self._encode(ids), None if empty is None else self._encode(empty))

    def predict(self, latents: NDArray[np.float32], moments: Sequence[int], condition: Condition) -> Predictions:
        assert isinstance(condition, Guided), type(condition)
        rows = torch.from_numpy(latents).to(self.unet.device, self.unet.dtype)
        at = torch.tensor(list(moments), device=self.unet.device)
        with torch.inference_mode():
            guided = self._predict(rows, at, condition.prompt)
            if condition.empty is not None:
                free = self._predict(rows, at, condition.empty)
                guided = free + self.guidance * (guided - free)
        return guided.cpu().numpy()

    def decode(self, latents: Latents) -> Pixels:
        scaled = to_floats(latents)[None] / self.vae.config.scaling_factor
        with torch.inference_mode():
            rows = torch.from_numpy(scaled).to(self.vae.device, self.vae.dtype)
            drawn = self.vae.decode(rows, return_dict=False)[0][0].float().cpu().numpy()
        if not np.isfinite(drawn).all():
            raise SamplingFailed("the decoder computed what is not a number; nothing is answered")
        levels = np.rint(np.clip((drawn + 1) / 2, 0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 0))

    def _encode(self, ids: list[int]) -> Tensor:
        places = self.context - 1
        padded = ids + [self.pad_token] * (places - len(ids))
        with torch.inference_mode():
            return self.text_encoder(torch.tensor([padded], device=self.unet.device)).last_hidden_state

    def _predict(self, rows: Tensor, at: Tensor, prompt: Tensor) -> Tensor:
        states = prompt.expand(len(rows), -1, -1)
        return self.unet(rows, at, encoder_hidden_states=states, return_dict=False)[0].float()


def load_pipeline_engine(
    directory: Path,
    card: ModelCard,
    sampling: PipelineFields,
    dtype: torch.dtype,
    device: torch.device,
    attention: Attention,
) -> PipelineEngine:
    """The networks that the directory's configurations describe, with its weights. Raises: ModelRefused"""
    _check_pipeline(directory)
    unet = _load_part(directory / "unet", UNet2DConditionModel, dtype, device)
    vae = _load_part(directory / "vae", AutoencoderKL, dtype, device)
    processor = AttnProcessor() if attention is Attention.EAGER else AttnProcessor2_0()
    unet.set_attn_processor(processor)
    vae.set_attn_processor(processor)
    height, width, pad = sampling.height, sampling.width, sampling.pad_token_id
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if height is None or width is None or pad is None or height % factor or width % factor:
        raise ModelRefused(
            f"{directory / SAMPLING_FILE}: expected pad_token_id, height and width, these multiples of {factor}, "
            f"got {pad}, {height} and {width}"
        )
    tokenizer = load_tokenizer(directory)
    if tokenizer.size > card.vocabulary or not 0 <= pad < card.vocabulary:
        raise ModelRefused(
            f"{directory}: expected at most {card.vocabulary} tokens, the tokenizer has {tokenizer.size} and padding is {pad}"
        )
    return PipelineEngine(
        unet=unet,
        vae=vae,
        text_encoder=_load_text_encoder(directory / TEXT_ENCODER, dtype, device, attention),
        tokenizer=tokenizer,
        context=card.context_tokens,
        pad_token=pad,
        guidance=sampling.guidance_ppm / PPM,
        attention=attention,
        latent_shape=(unet.config.in_channels, height // factor, width // factor),
        picture_shape=(height, width, vae.config.out_channels),
    )


def _check_pipeline(directory: Path) -> None:
    named = load_json(directory / PIPELINE_FILE, dict[str, object], MAX_CONFIG_BYTES).get("_class_name")
    if named != PIPELINE_CLASS:
        raise ModelRefused(f"{directory / PIPELINE_FILE}: expected {PIPELINE_CLASS}, got {str(named)[:60]!r}")


def _load_part(folder: Path, kind: type, dtype: torch.dtype, device: torch.device):
    config = load_json(folder / "config.json", dict[str, object], MAX_CONFIG_BYTES)
    try:
        with torch.device("meta"):
            part = kind.from_config(config)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelRefused(f"{folder / 'config.json'}: describes no {kind.__name__}: {error}") from error
    _fill(part, folder / "diffusion_pytorch_model.safetensors", dtype, device)
    return part


def _load_text_encoder(folder: Path, dtype: torch.dtype, device: torch.device, attention: Attention) -> nn.Module:
    fields = load_json(folder / "config.json", dict[str, object], MAX_CONFIG_BYTES)
    config = transformers.CLIPTextConfig.from_dict(fields)
    config._attn_implementation = attention.value  # noqa: SLF001 - has no public name
    encoder = transformers.CLIPTextModel(config)
    _fill(encoder, folder / "model.safetensors", dtype, device)
    return encoder


def _fill(part: nn.Module, path: Path, dtype: torch.dtype, device: torch.device) -> None:
    """Puts the file's tensors into the network: exactly those it has, finite. Raises: ModelRefused"""
    shapes = {name: tuple(tensor.shape) for name, tensor in part.state_dict().items()}
    stored = {name.removeprefix(_OLD_PREFIX): tensor for name, tensor in load_tensors(path).items()}
    weights = {name: tensor for name, tensor in stored.items() if not name.endswith(_DERIVED)}
    if {name: tuple(tensor.shape) for name, tensor in weights.items()} != shapes:
        odd = sorted(set(weights) ^ set(shapes)) or [
            name for name in shapes if tuple(weights[name].shape) != shapes[name]
        ]
        raise ModelRefused(f"{path}: expected the {len(shapes)} tensors of its configuration, {odd[0]!r} differs")
    converted = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
    for name, tensor in converted.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelRefused(f"{path}: expected finite numbers in {name}, got NaN or infinity")
    part.load_state_dict(converted, assign=True)
    part.requires_grad_(False)
    part.eval()
