"""Executors of pictures that cheat, by name: what each of them claims for a job. Calibration measures how surely each is caught.

Every cheat knows the audit and hides as well as its saving allows: whoever draws with other noise still starts from the job's, who
takes fewer steps commits to as many states as were due, and who forges one step computes all the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from protocol.units import Hash
from verifier.altered_weights import NOISE_SHARE
from verifier.diffusion import Transition, advance, derive_noise, draw_latents
from verifier.digests.images import Pixels
from verifier.image_model import DitEngine, ImageModel
from verifier.noise import Latents, to_floats

CHEATS: Final = (
    *("small-model", "int8", "int4", "noise", "other-seed", "other-prompt"),
    *("fewer-steps", "skipped-steps", "forged-step", "repainted"),
)
ALTERED_WEIGHTS: Final = frozenset({"small-model", "int8", "int4", "noise"})
KEPT_STEPS: Final = (4, 5)  # fewer-steps and skipped-steps compute 20 of 25
_NOISE_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Sitting:
    """Jobs that are drawn together: one prompt, a seed each. `other` is a prompt that a cheat takes in its place."""

    prompt: str
    other: str
    seeds: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What an executor claims for a job: every state, and the pixels."""

    states: tuple[Latents, ...]
    pixels: Pixels


def draw_honestly(model: ImageModel, sitting: Sitting) -> list[Drawn]:
    """The sitting's pictures, a row of one batch each."""
    return [_finish(model, states) for states in run_together(model, sitting, sitting.prompt)]


def draw_with_cheat(name: str, honest: ImageModel, writer: ImageModel, sitting: Sitting) -> list[Drawn]:
    """What this cheat claims. `writer` is what `build_image_writer` made for it."""
    match name:
        case "other-seed":
            turned = replace(sitting, seeds=tuple(seed[::-1] for seed in sitting.seeds))
            runs = run_together(honest, turned, sitting.prompt)
            return [
                _finish(honest, (_start(honest, seed), *run[1:])) for seed, run in zip(sitting.seeds, runs, strict=True)
            ]
        case "other-prompt":
            return [_finish(honest, states) for states in run_together(honest, sitting, sitting.other)]
        case "fewer-steps":
            return _draw_fewer(honest, writer, sitting)
        case "skipped-steps":
            return [_finish(honest, states) for states in run_together(honest, sitting, sitting.prompt, skips=True)]
        case "forged-step":
            wanted = run_together(honest, sitting, sitting.other)
            runs = run_together(honest, sitting, sitting.prompt)
            # The last state is the wanted picture's: one false step, wherever it is, makes any picture.
            return [_finish(honest, (*run[:-1], end[-1])) for run, end in zip(runs, wanted, strict=True)]
        case "repainted":
            wanted = draw_honestly(honest, replace(sitting, prompt=sitting.other))
            return [
                replace(drawn, pixels=other.pixels)
                for drawn, other in zip(draw_honestly(honest, sitting), wanted, strict=True)
            ]
        case _:
            return draw_honestly(writer, sitting)


def build_image_writer(
    name: str, model: ImageModel, smaller: ImageModel | None, fewer: Sequence[Transition]
) -> ImageModel:
    """The model that this cheat draws with; `fewer` is the plan of one that takes fewer steps."""
    match name:
        case "small-model":
            assert smaller is not None, name
            return replace(model, engine=smaller.engine)
        case "int8" | "int4":
            return replace(model, engine=round_engine(get_dit_engine(model), int(name[3:])))
        case "noise":
            return replace(model, engine=disturb_engine(get_dit_engine(model), NOISE_SHARE, _NOISE_SEED))
        case "fewer-steps":
            return replace(model, transitions=tuple(fewer))
        case _:
            return model


def run_together(model: ImageModel, sitting: Sitting, prompt: str, *, skips: bool = False) -> list[tuple[Latents, ...]]:
    """The states of each seed's run, all in one batch; `skips`: every fifth step takes over the prediction before it."""
    shape, condition = model.engine.latent_shape, model.engine.encode_prompt(prompt)
    runs = [[_start(model, seed)] for seed in sitting.seeds]
    predictions = np.zeros((len(runs), *shape), dtype=np.float32)
    for step, transition in enumerate(model.transitions):
        if not (skips and step % KEPT_STEPS[1] == KEPT_STEPS[0]):
            rows = np.stack([to_floats(run[-1]) for run in runs])
            predictions = model.engine.predict(rows, [transition.moment] * len(runs), condition)
        for run, seed, prediction in zip(runs, sitting.seeds, predictions, strict=True):
            noise = derive_noise(model.transitions, seed, step, shape)
            run.append(advance(transition, run[-1], prediction, noise))
    return [tuple(run) for run in runs]


def get_dit_engine(model: ImageModel) -> DitEngine:
    """The engine whose weights can be altered."""
    assert isinstance(model.engine, DitEngine), model.engine.compute_class
    return model.engine


def round_engine(engine: DitEngine, bits: int) -> DitEngine:
    """Every projection rounded to signed integers, a scale a row."""

    def round_one(weight: Tensor) -> Tensor:
        wide = weight.float()
        scale = wide.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / (2 ** (bits - 1) - 1)
        return ((wide / scale).round() * scale).to(weight.dtype)

    return _change_projections(engine, {name: round_one(weight) for name, weight in _list_projections(engine)})


def disturb_engine(engine: DitEngine, share: float, seed: int) -> DitEngine:
    """Every projection with normal noise of this share of its own spread."""
    generator = torch.Generator().manual_seed(seed)
    changed: dict[str, Tensor] = {}
    for name, weight in _list_projections(engine):
        noise = torch.randn(weight.shape, generator=generator).to(weight.device)
        changed[name] = (weight.float() + share * weight.float().std() * noise).to(weight.dtype)
    return _change_projections(engine, changed)


def _list_projections(engine: DitEngine) -> list[tuple[str, Tensor]]:
    tables = ("position.weight", "prompt.weight")
    return [(name, weight) for name, weight in engine.model.weights.items() if weight.dim() == 2 and name not in tables]


def _change_projections(engine: DitEngine, changed: dict[str, Tensor]) -> DitEngine:
    return replace(engine, model=replace(engine.model, weights={**engine.model.weights, **changed}))


def _draw_fewer(honest: ImageModel, writer: ImageModel, sitting: Sitting) -> list[Drawn]:
    """A whole run of fewer steps; some of its states stand twice, so that as many are committed to as were due."""
    due, taken = len(honest.transitions), len(writer.transitions)
    chosen = [(index * taken + due // 2) // due for index in range(due + 1)]
    runs = run_together(writer, sitting, sitting.prompt)
    return [_finish(honest, tuple(run[index] for index in chosen)) for run in runs]


def _start(model: ImageModel, seed: Hash) -> Latents:
    return draw_latents(seed, 0, model.engine.latent_shape)


def _finish(model: ImageModel, states: tuple[Latents, ...]) -> Drawn:
    return Drawn(states, model.engine.decode(states[-1]))
