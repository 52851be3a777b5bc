"""Sketches tell honest states from others, say whose and in which class they are, and are refused where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from verifier.classes import ComputeClass
from verifier.sketch import (
    HEADER,
    NotFinite,
    SketchFault,
    SketchRefused,
    compute_codes,
    compute_distance,
    decode_sketch,
    derive_challenge_seed,
    derive_member_seed,
    encode_sketch,
    list_windows,
    measure_gaps,
)

CLASS = ComputeClass("quorate", "float32", "eager", "cpu-avx2")
SEED = bytes(range(32))


def draw_states(tokens: int = 32, width: int = 192, seed: int = 1) -> torch.Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed))


def distance(left: torch.Tensor, right: torch.Tensor) -> int:
    return compute_distance(measure_gaps(compute_codes(left, SEED), compute_codes(right, SEED)))


def test_32_tokens_take_at_most_258_bytes_and_come_back() -> None:
    codes = compute_codes(draw_states(), SEED)
    sketched = encode_sketch(codes, CLASS)
    assert len(sketched) == 206
    assert (decode_sketch(sketched, 32, CLASS) == codes).all()


def test_distance_grows_with_the_relative_error_of_the_states() -> None:
    states = draw_states(128)
    errors = [distance(states, states + share * draw_states(128, seed=2)) for share in (0, 1e-6, 1e-3, 1e-2, 1e-1)]
    assert errors == sorted(errors)
    assert errors[0] == 0
    assert errors[1] <= 2  # rounding at a step's edge
    # |N(0,1)| has mean 0.8; a step is 2^-12 of it, a unit a sixteenth of that.
    assert errors[3] == pytest.approx(0.01 * 0.8 * 4096 * 16, rel=0.1)


def test_scale_alone_changes_nothing() -> None:
    states = draw_states()
    assert distance(states, 2 * states) == 0


def test_another_members_sketch_is_as_far_off_as_chance() -> None:
    states, job = draw_states(), bytes(32)
    mine, yours = (compute_codes(states, derive_member_seed(job, bytes([member]) * 32)) for member in (1, 2))
    null = np.zeros_like(mine)
    assert compute_distance(measure_gaps(mine, yours)) > 30_000
    assert compute_distance(measure_gaps(mine, null)) > 30_000
    assert derive_challenge_seed(job, job, job) != derive_member_seed(job, job)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_states_that_are_not_finite_have_no_sketch(bad: float) -> None:
    states = draw_states()
    states[3, 5] = bad
    with pytest.raises(NotFinite):
        compute_codes(states, SEED)


def test_states_of_nothing_but_zeros_have_a_sketch_of_zeros() -> None:
    assert not compute_codes(torch.zeros(4, 16), SEED).any()


def test_whatever_is_wrong_with_the_bytes_is_named() -> None:
    sketched = encode_sketch(compute_codes(draw_states(), SEED), CLASS)
    other_class = ComputeClass("quorate", "bfloat16", "eager", "cpu-avx2")
    for bytes_, tokens, declared, fault in (
        (b"", 32, CLASS, SketchFault.LENGTH),
        (sketched[:-1], 32, CLASS, SketchFault.LENGTH),
        (sketched + b"\0", 32, CLASS, SketchFault.LENGTH),
        (sketched, 31, CLASS, SketchFault.LENGTH),
        (sketched[:5] + b"\x1f" + sketched[6:], 32, CLASS, SketchFault.LENGTH),
        (b"\7" + sketched[1:], 32, CLASS, SketchFault.FAMILY),
        (b"\1\7" + sketched[2:], 32, CLASS, SketchFault.VERSION),
        (sketched, 32, other_class, SketchFault.CLASS),
    ):
        with pytest.raises(SketchRefused) as refused:
            decode_sketch(bytes_, tokens, declared)
        assert refused.value.fault is fault


def test_windows_cover_every_token_once_and_none_but_the_only_one_is_short() -> None:
    for tokens in (1, 31, 32, 33, 63, 64, 100, 128):
        windows = list_windows(tokens)
        assert [at for window in windows for at in range(window.start, window.stop)] == list(range(tokens))
        assert len(windows) == 1 or all(32 <= window.stop - window.start < 64 for window in windows)
    assert HEADER.size == 14
