"""The shipped models draw what they are asked for, the same picture for the same seed, and fail by name."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from devnet.models.training import MODELS
from protocol.models import compute_output_hash
from tests.verifier.image_samples import SEED, draw_seven, load_digits_model, never
from verifier.draw import draw_picture
from verifier.generate import GenerationFailed
from verifier.image_model import load_image_model
from verifier.llama import Attention
from verifier.noise import to_floats
from verifier.tokens import PromptRefused
from verifier.trajectory import decode_state


def test_most_pictures_are_nearest_to_real_ones_of_the_same_digit() -> None:
    """By the nearest of scikit-learn's 1,797 written digits: 98 % and more (the model's card has a better judge's figure)."""
    model = load_digits_model()
    values, shown = load_digits(return_X_y=True)
    real = np.asarray(values, dtype=np.float64) / 8 - 1
    right = 0
    for number in range(60):
        seed = number.to_bytes(32, "big")
        last = draw_picture(model, str(number % 10), seed, never).commitment.states[-1]
        drawn = np.clip(to_floats(decode_state(last, (1, 8, 8))), -1, 1).reshape(-1)
        right += int(shown[np.argmin(((real - drawn) ** 2).sum(axis=1))] == number % 10)
    assert right >= 57


def test_the_same_seed_is_the_same_picture_to_the_last_pixel() -> None:
    model = load_digits_model()
    again = draw_picture(model, "7", SEED, never)
    assert again.output == draw_seven().output
    assert again.commitment.root == draw_seven().commitment.root
    assert compute_output_hash(again.output) == compute_output_hash(draw_seven().output)


def test_another_seed_or_prompt_is_another_picture() -> None:
    model = load_digits_model()
    others = [draw_picture(model, "7", bytes(32), never), draw_picture(model, "1", SEED, never)]
    assert len({hashlib.sha256(each.output.pixels).digest() for each in [*others, draw_seven()]}) == 3


def test_attention_kernels_leave_the_states_where_they_are() -> None:
    """States are rounded to 2^-16, which swallows nearly all that kernels of float32 differ by."""
    model = load_image_model(MODELS / "digits", attention=Attention.SDPA)
    states = draw_picture(model, "7", SEED, never).commitment.states
    apart = [
        np.abs(decode_state(ours, (1, 8, 8)) - decode_state(theirs, (1, 8, 8))).max()
        for ours, theirs in zip(draw_seven().commitment.states, states, strict=True)
    ]
    assert max(apart) <= 8


@pytest.mark.parametrize("prompt, why", [("", "empty"), ("seven", "no token"), ("77", "no token"), (" 7", "no token")])
def test_what_is_no_digit_is_refused(prompt: str, why: str) -> None:
    with pytest.raises(PromptRefused, match=why):
        draw_picture(load_digits_model(), prompt, SEED, never)


def test_a_picture_that_comes_too_late_is_none() -> None:
    with pytest.raises(GenerationFailed, match="after 0 of 25 steps"):
        draw_picture(load_digits_model(), "7", SEED, lambda: True)
