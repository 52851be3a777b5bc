"""The sampler: the published steps, every step repeatable on its own, all of it from the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from verifier.classes import ComputeClass
from verifier.diffusion import (
    Condition,
    Kind,
    NoisePlan,
    SamplingFailed,
    advance,
    derive_noise,
    list_moments,
    make_kept,
    plan_transitions,
    run_sampler,
)
from verifier.digests.images import Pixels
from verifier.noise import ONE, Latents, compute_noise, to_floats

SEED = bytes(range(32))
SHAPE = (1, 4, 4)
CLASS = ComputeClass("quorate", "float32", "eager", "test")
KEPT = make_kept(1000, 1e-4, 0.02, is_scaled=False)


def make_plan(kind: Kind = "v_prediction") -> NoisePlan:
    return NoisePlan(KEPT, 1.0, kind, "trailing", 0)


@dataclass(frozen=True)
class Knowing:
    """An engine that knows the picture, and predicts exactly how it was mixed."""

    picture: NDArray[np.float64]
    kind: Kind
    latent_shape: tuple[int, int, int] = SHAPE
    picture_shape: tuple[int, int, int] = (4, 4, 1)
    compute_class: ComputeClass = CLASS

    def encode_prompt(self, prompt: str) -> Condition:
        return prompt

    def predict(
        self, latents: NDArray[np.float32], moments: Sequence[int], condition: Condition
    ) -> NDArray[np.float32]:
        rows: list[NDArray[np.float64]] = []
        for row, moment in zip(latents.astype(np.float64), moments, strict=True):
            a, b = np.sqrt(KEPT[moment]), np.sqrt(1 - KEPT[moment])
            noise = (row - a * self.picture) / b
            rows.append(noise if self.kind == "epsilon" else a * noise - b * self.picture)
        return np.stack(rows).astype(np.float32)

    def decode(self, latents: Latents) -> Pixels:
        return np.zeros((4, 4, 1), dtype=np.uint8)


def test_moments_fall_to_the_spacings_end() -> None:
    assert list_moments(1000, 25, "trailing", 0)[:2] == [999, 959]
    assert list_moments(1000, 25, "trailing", 0)[-1] == 39
    assert list_moments(1000, 50, "leading", 1)[:2] == [981, 961]
    assert list_moments(1000, 50, "leading", 1)[-1] == 1
    assert list_moments(1000, 3, "trailing", 0) == [999, 666, 332]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta_ppm", [0, 500_000, 1_000_000])
def test_exact_predictions_end_in_the_picture(kind: Kind, eta_ppm: int) -> None:
    picture = np.linspace(-1, 1, 16).reshape(SHAPE)
    transitions = plan_transitions(make_plan(kind), 25, eta_ppm)
    states = run_sampler(Knowing(picture, kind), transitions, "7", SEED, lambda: False)
    assert len(states) == 26
    assert np.abs(to_floats(states[-1]) - picture).max() < 1e-3


@pytest.mark.parametrize("eta_ppm", [0, 1_000_000])
def test_every_state_has_the_variance_of_its_moment(eta_ppm: int) -> None:
    """What is left of the picture and what was added, squared, is one: so no step loses or gains noise."""
    shape = (1, 64, 64)
    transitions = plan_transitions(make_plan(), 10, eta_ppm)
    state = compute_noise(SEED, 0, 4096).reshape(shape)
    for step, transition in enumerate(transitions[:-1]):
        b = np.sqrt(1 - KEPT[transition.moment])
        velocity = (np.sqrt(KEPT[transition.moment]) * to_floats(state) / b).astype(np.float32)  # of a picture of zeros
        state = advance(transition, state, velocity, derive_noise(transitions, SEED, step, shape))
        assert to_floats(state).std() == pytest.approx(np.sqrt(1 - KEPT[transitions[step + 1].moment]), rel=0.03)


def test_a_step_can_be_repeated_alone() -> None:
    transitions = plan_transitions(make_plan(), 25, 1_000_000)
    engine = Knowing(np.zeros(SHAPE), "v_prediction")
    states = run_sampler(engine, transitions, "7", SEED, lambda: False)
    for step in (0, 7, 24):
        prediction = engine.predict(to_floats(states[step])[None], [transitions[step].moment], "7")[0]
        noise = derive_noise(transitions, SEED, step, SHAPE)
        assert np.array_equal(advance(transitions[step], states[step], prediction, noise), states[step + 1])


def test_the_first_state_and_the_steps_draw_different_noise_and_the_last_step_none() -> None:
    transitions = plan_transitions(make_plan(), 5, 1_000_000)
    drawn = [derive_noise(transitions, SEED, step, SHAPE) for step in range(5)]
    assert drawn[-1] is None
    assert np.array_equal(drawn[0], compute_noise(SEED, 1, 16).reshape(SHAPE))
    assert all(derive_noise(plan_transitions(make_plan(), 5, 0), SEED, step, SHAPE) is None for step in range(5))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_no_number_is_no_state(wrong: float) -> None:
    prediction = np.zeros(SHAPE, dtype=np.float32)
    prediction[0, 1, 2] = wrong
    with pytest.raises(SamplingFailed, match="not a number"):
        advance(plan_transitions(make_plan(), 5, 0)[0], np.zeros(SHAPE, dtype=np.int32), prediction, None)


def test_states_are_cut_off_at_32_bits() -> None:
    prediction = np.full(SHAPE, 1e30, dtype=np.float32)
    state = advance(plan_transitions(make_plan(), 5, 0)[0], np.zeros(SHAPE, dtype=np.int32), prediction, None)
    assert set(np.abs(state.astype(np.int64)).reshape(-1).tolist()) == {2**31 - 1}


def test_a_late_run_ends_with_the_step_it_got_to() -> None:
    transitions = plan_transitions(make_plan(), 5, 0)
    calls = iter([False, False, True])
    with pytest.raises(SamplingFailed, match="after 2 of 5 steps"):
        run_sampler(Knowing(np.zeros(SHAPE), "v_prediction"), transitions, "7", SEED, lambda: next(calls))


def test_scaled_noise_grows_by_its_root() -> None:
    kept = make_kept(1000, 0.00085, 0.012, is_scaled=True)
    assert kept[0] == pytest.approx(1 - 0.00085)
    assert kept[-1] == pytest.approx(0.0047, abs=1e-4)  # Stable Diffusion's
    assert to_floats(np.array([ONE], dtype=np.int32)).tolist() == [1.0]
