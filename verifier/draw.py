"""A request to a model of pictures -> the picture, its digest, and the commitment to how it was drawn."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from protocol.digest import Digest
from protocol.models import ImageOutput
from protocol.units import Hash
from verifier.diffusion import SamplingFailed, run_sampler
from verifier.digests.images import Pixels, compute_image_digest
from verifier.generate import GenerationFailed
from verifier.image_model import ImageModel
from verifier.noise import Latents
from verifier.tokens import PromptRefused
from verifier.trajectory import Commitment, commit_states


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished picture."""

    output: ImageOutput
    digest: Digest
    commitment: Commitment


def draw_picture(model: ImageModel, prompt: str, seed: Hash, is_late: Callable[[], bool]) -> Drawing:
    """The model's picture for this prompt and seed.

    Raises: PromptRefused · GenerationFailed if `is_late` says so before the end, or the model computes what is not a number
    """
    condition = model.engine.encode_prompt(prompt)
    try:
        return finish_drawing(model, run_sampler(model.engine, model.transitions, condition, seed, is_late))
    except SamplingFailed as error:
        raise GenerationFailed(str(error)) from error


def measure_drawing_ms(model: ImageModel) -> int:
    """How long a picture takes here, for whichever prompt of one token the model takes. Units: milliseconds, rounded up"""
    prompt = next(prompt for prompt in sorted(model.engine.tokenizer.tokenizer.get_vocab()) if _is_taken(model, prompt))
    draw_picture(model, prompt, bytes(32), lambda: False)  # what is made once is made here
    started = time.monotonic()
    draw_picture(model, prompt, bytes(32), lambda: False)
    return max(1, math.ceil((time.monotonic() - started) * 1000))


def _is_taken(model: ImageModel, prompt: str) -> bool:
    try:
        model.engine.encode_prompt(prompt)
    except PromptRefused:
        return False
    return True


def finish_drawing(model: ImageModel, states: tuple[Latents, ...]) -> Drawing:
    """The picture at the end of these states. Raises: SamplingFailed where a decoder computes what is not a number."""
    pixels = model.engine.decode(states[-1])
    return Drawing(make_output(model, pixels), compute_image_digest(model.card.family, pixels), commit_states(states))


def make_output(model: ImageModel, pixels: Pixels) -> ImageOutput:
    """The pixels as the model's answer."""
    height, width, channels = pixels.shape
    return ImageOutput(model.id, width, height, channels, pixels.tobytes())
