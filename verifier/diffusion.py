"""From noise to latents in the steps of a schedule: DDIM, with every step's input and noise fixed, so that any step can be done again alone.

The state between two steps is an array of integers in units of 2^-16: what the next step starts from is exactly what can be committed
to, and what an auditor gets. A step's arithmetic around the model is float64 with operations that IEEE 754 rounds alike everywhere, so
the model's prediction is all that may differ from machine to machine.
Source: Song, Meng and Ermon 2021, Denoising Diffusion Implicit Models; Salimans and Ho 2022 for velocities; Lin et al. 2024 for trailing steps
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.units import Hash
from verifier.classes import ComputeClass
from verifier.digests.images import Pixels
from verifier.noise import LIMIT, MAX_STEPS, ONE, Latents, compute_noise, to_floats
from verifier.tokens import TextTokenizer

Predictions = NDArray[np.float32]
Condition = object  # only the engine that made it looks into it
Shape = tuple[int, int, int]  # channels, height, width

Spacing = Literal["leading", "trailing"]
Kind = Literal["epsilon", "v_prediction"]

PPM: Final = 1_000_000


class SamplingFailed(Exception):
    """A picture that was not finished, with the reason."""


class ImageEngine(Protocol):
    """A diffusion model's parts, whichever code runs them."""

    @property
    def latent_shape(self) -> Shape: ...

    @property
    def compute_class(self) -> ComputeClass: ...

    @property
    def tokenizer(self) -> TextTokenizer: ...

    @property
    def picture_shape(self) -> Shape:
        """Height, width and channels of the finished picture."""
        ...

    def encode_prompt(self, prompt: str) -> Condition:
        """What the model is told of the prompt. Raises: PromptRefused"""
        ...

    def predict(self, latents: NDArray[np.float32], moments: Sequence[int], condition: Condition) -> Predictions:
        """What the model predicts at each row's moment.

        Shapes: latents [rows, channels, height, width]; one moment a row, in training steps; as latents
        """
        ...

    def decode(self, latents: Latents) -> Pixels:
        """The picture. Shapes: [channels, height, width]; picture_shape"""
        ...


@dataclass(frozen=True, slots=True)
class NoisePlan:
    """How much of the picture is left at each moment of training, and what was learned to be predicted. Shapes: kept [moments]"""

    kept: NDArray[np.float64]
    last_kept: float  # after the last step: 1, unless the model's makers stopped at the first moment
    kind: Kind
    spacing: Spacing
    offset: int


@dataclass(frozen=True, slots=True)
class Transition:
    """One step: next = stay x latents + move x prediction + scatter x noise. Units: moment in training steps"""

    moment: int
    stay: float
    move: float
    scatter: float


def make_kept(moments: int, first: float, last: float, *, is_scaled: bool) -> NDArray[np.float64]:
    """The share of the picture's variance left at each moment, for noise that grows linearly (or whose root does) from first to last."""
    rise = np.arange(moments, dtype=np.float64) / (moments - 1)
    if is_scaled:
        start, end = math.sqrt(first), math.sqrt(last)
        beta = (start + (end - start) * rise) ** 2
    else:
        beta = first + (last - first) * rise
    return np.cumprod(1.0 - beta, dtype=np.float64)


def plan_transitions(plan: NoisePlan, steps: int, eta_ppm: int) -> tuple[Transition, ...]:
    """The steps of a sampler, first to last. Units: eta in millionths; 0 adds no noise on the way, 1,000,000 as much as was taken in training."""
    assert 1 <= steps <= min(len(plan.kept), MAX_STEPS - 1), steps
    moments = list_moments(len(plan.kept), steps, plan.spacing, plan.offset)
    kept = [float(plan.kept[moment]) for moment in moments]
    return tuple(
        _plan_transition(plan.kind, moment, before, after, eta_ppm / PPM)
        for moment, before, after in zip(moments, kept, [*kept[1:], plan.last_kept], strict=True)
    )


def list_moments(moments: int, steps: int, spacing: Spacing, offset: int) -> list[int]:
    """The training steps at which the model is asked, falling."""
    if spacing == "trailing":
        return [(2 * moments * (steps - step) + steps) // (2 * steps) - 1 for step in range(steps)]
    return [min((steps - 1 - step) * (moments // steps) + offset, moments - 1) for step in range(steps)]


def advance(transition: Transition, latents: Latents, prediction: Predictions, noise: Latents | None) -> Latents:
    """The next state. Raises: SamplingFailed where the prediction is not finite.

    Shapes: all [channels, height, width]
    """
    if not np.isfinite(prediction).all():
        raise SamplingFailed("the model computed what is not a number; nothing is answered")
    moved = transition.stay * latents.astype(np.float64) + transition.move * (prediction.astype(np.float64) * ONE)
    if noise is not None:
        moved = moved + transition.scatter * noise.astype(np.float64)
    return np.rint(np.clip(moved, -LIMIT, LIMIT)).astype(np.int32)


def derive_noise(transitions: Sequence[Transition], seed: Hash, step: int, shape: Shape) -> Latents | None:
    """The noise that a step adds; none where it adds nothing. State 0 is the noise of number 0, step k adds that of number k + 1."""
    if transitions[step].scatter == 0:
        return None
    return draw_latents(seed, step + 1, shape)


def draw_latents(seed: Hash, number: int, shape: Shape) -> Latents:
    """Noise as an array of latents."""
    return compute_noise(seed, number, shape[0] * shape[1] * shape[2]).reshape(shape)


def run_sampler(
    engine: ImageEngine,
    transitions: Sequence[Transition],
    condition: Condition,
    seed: Hash,
    is_late: Callable[[], bool],
) -> tuple[Latents, ...]:
    """All states, from the first noise to the last step's result. Raises: SamplingFailed."""
    states = [draw_latents(seed, 0, engine.latent_shape)]
    for step, transition in enumerate(transitions):
        if is_late():
            raise SamplingFailed(f"the deadline passed after {step} of {len(transitions)} steps; nothing is answered")
        prediction = engine.predict(to_floats(states[-1])[None], [transition.moment], condition)[0]
        noise = derive_noise(transitions, seed, step, engine.latent_shape)
        states.append(advance(transition, states[-1], prediction, noise))
    return tuple(states)


def _plan_transition(kind: Kind, moment: int, before: float, after: float, eta: float) -> Transition:
    """The step's three factors: picture and noise as the prediction has them, mixed again for the share that is to be left."""
    spread = math.sqrt((1 - after) / (1 - before) * (1 - before / after)) * eta
    on_picture, on_noise = math.sqrt(after), math.sqrt(max(0.0, 1 - after - spread**2))
    a, b = math.sqrt(before), math.sqrt(1 - before)
    if kind == "epsilon":  # picture = (x - b e) / a
        stay, move = on_picture / a, on_noise - on_picture * b / a
    else:  # picture = a x - b v, noise = b x + a v
        stay, move = on_picture * a + on_noise * b, on_noise * a - on_picture * b
    return Transition(moment, stay, move, spread)
