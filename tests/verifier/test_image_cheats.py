"""Each way of drawing dishonestly: what it saves or forges is really done, and an audit of all steps finds it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from devnet.models.training import MODELS
from tests.verifier.image_samples import load_digits_model
from verifier.image_audit import compare_pixels, replay_steps
from verifier.image_calibration import LEAST_STEP, build_writer
from verifier.image_cheats import CHEATS, Drawn, Sitting, draw_honestly, draw_with_cheat
from verifier.noise import Latents

MODEL = load_digits_model()
SITTING = Sitting("7", "2", (bytes(range(32)),))


@lru_cache
def draw(name: str) -> Drawn:
    if name == "honest":
        return draw_honestly(MODEL, SITTING)[0]
    return draw_with_cheat(name, MODEL, build_writer(MODELS / "digits", name, MODEL), SITTING)[0]


def measure(drawn: Drawn) -> tuple[dict[int, int], int]:
    states: dict[int, Latents] = dict(enumerate(drawn.states))
    condition = MODEL.engine.encode_prompt(SITTING.prompt)
    errors = replay_steps(MODEL.engine, MODEL.transitions, condition, SITTING.seeds[0], states, range(25))
    return errors, compare_pixels(MODEL.engine.decode(drawn.states[-1]), drawn.pixels)


def list_false(name: str) -> list[int]:
    return [step for step, error in measure(draw(name))[0].items() if error > LEAST_STEP]


@pytest.mark.parametrize("name", CHEATS)
def test_every_cheat_shows_as_many_states_as_are_due_and_starts_from_the_jobs_noise(name: str) -> None:
    assert len(draw(name).states) == 26
    assert np.array_equal(draw(name).states[0], draw("honest").states[0])


@pytest.mark.parametrize("name", CHEATS)
def test_every_cheat_is_found_where_all_steps_are_opened(name: str) -> None:
    errors, pixels = measure(draw(name))
    assert max(errors.values()) > LEAST_STEP or pixels > 0


def test_honest_work_has_no_error_at_all() -> None:
    errors, pixels = measure(draw("honest"))
    assert set(errors.values()) == {0} and pixels == 0


@pytest.mark.parametrize(
    "name, false",
    [
        *((name, list(range(25))) for name in ("small-model", "int8", "int4", "noise", "other-prompt")),
        ("other-seed", list(range(24))),  # the last step adds no noise
        ("skipped-steps", [4, 9, 14, 19, 24]),
        ("forged-step", [24]),
        ("repainted", []),
    ],
)
def test_the_steps_that_a_cheat_forges_are_the_ones_found(name: str, false: list[int]) -> None:
    assert list_false(name) == false


def test_a_run_of_fewer_steps_is_false_nearly_everywhere() -> None:
    assert len(list_false("fewer-steps")) >= 24


def test_repainting_and_forging_end_in_the_wanted_picture() -> None:
    wanted = draw_honestly(MODEL, Sitting("2", "7", SITTING.seeds))[0]
    for name in ("repainted", "forged-step"):
        assert np.array_equal(draw(name).pixels, wanted.pixels)
