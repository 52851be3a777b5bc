"""Making pictures larger: smooth, exact, and the same for every channel."""

from __future__ import annotations

import numpy as np
import pytest

from verifier.noise import ONE
from verifier.pictures import enlarge, round_levels


def test_levels_go_from_black_to_white_and_are_cut_off_beyond() -> None:
    levels = np.array([[[-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 7.0]]])
    picture = enlarge((levels * ONE).astype(np.int32), 1)
    assert picture[0, :, 0].tolist() == [0, 0, 64, 128, 191, 255, 255]


@pytest.mark.parametrize("factor", [1, 2, 7, 8, 16])
def test_an_even_picture_stays_even_at_any_size(factor: int) -> None:
    picture = enlarge(np.full((3, 4, 5), ONE // 2, dtype=np.int32), factor)
    assert picture.shape == (4 * factor, 5 * factor, 3)
    assert set(picture.reshape(-1).tolist()) == {191}


def test_an_edge_stays_where_it_is_and_becomes_smooth() -> None:
    latents = np.where(np.arange(8) < 4, -ONE, ONE).astype(np.int32)[None, None, :].repeat(8, axis=1)
    row = enlarge(latents, 8)[10, :, 0].astype(int)
    assert row[:24].max() == 0 and row[40:].min() == 255
    assert row[31] < 128 <= row[32] and row[31] + row[32] == 255
    assert 0 < row[30] < row[33] < 255


def test_levels_are_even_and_reach_both_ends() -> None:
    ramp = np.linspace(-1.5, 1.5, 3001) * ONE
    rounded = round_levels(ramp.astype(np.int32), 17)
    assert sorted(set(rounded.tolist())) == [step * ONE // 8 for step in range(-8, 9)]
    inside = np.abs(ramp) <= ONE
    assert np.abs(rounded[inside] - ramp[inside]).max() <= ONE // 16 + 1
    assert round_levels(rounded, 17).tolist() == rounded.tolist()


@pytest.mark.parametrize("levels", [2, 3, 255, 256])
def test_any_number_of_levels_is_symmetric(levels: int) -> None:
    values = np.array([-2 * ONE, -ONE, ONE, 2 * ONE], dtype=np.int32)
    assert round_levels(values, levels).tolist() == [-ONE, -ONE, ONE, ONE]


def test_rows_and_columns_are_treated_alike() -> None:
    latents = np.random.default_rng(0).integers(-ONE, ONE, (1, 6, 6)).astype(np.int32)
    assert np.array_equal(enlarge(latents, 4), enlarge(latents.transpose(0, 2, 1), 4).transpose(1, 0, 2))
