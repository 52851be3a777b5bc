"""Noise: pinned bits, a normal distribution, each step on its own, all of the seed."""

from __future__ import annotations

import hashlib
from statistics import NormalDist

import numpy as np

from verifier.noise import ONE, compute_log, compute_noise, invert_normal

SEED = bytes(range(32))


def test_bits_are_pinned() -> None:
    """Another value on another machine would set honest nodes against one another."""
    assert compute_noise(SEED, 0, 6).tolist() == [3148, 24928, 72325, 6003, -15561, 5865]
    many = compute_noise(SEED, 7, 100_000).astype("<i4").tobytes()
    assert hashlib.sha256(many).hexdigest()[:16] == "9feaec1b151befce"


def test_the_inverse_is_the_normal_distributions_to_the_last_digits() -> None:
    uniform = np.concatenate(
        (np.random.default_rng(0).random(5000), 2.0 ** -np.arange(1, 53), 1 - 2.0 ** -np.arange(1, 53))
    )
    normal = NormalDist()
    expected = np.array([normal.inv_cdf(value) for value in uniform.tolist()])
    assert np.abs(invert_normal(uniform) - expected).max() < 1e-14


def test_logarithms_are_right_over_the_whole_range() -> None:
    values = np.concatenate((np.random.default_rng(1).random(5000), 10.0 ** np.arange(-300, 300, 7), [1.0, 0.5, 2.0]))
    expected = np.log(values)
    assert np.abs(compute_log(values) - expected).max() <= 1e-15 * np.abs(expected).max()


def test_it_is_normal() -> None:
    noise = compute_noise(SEED, 3, 400_000) / ONE
    assert abs(noise.mean()) < 0.006 and abs(noise.std() - 1) < 0.005
    assert abs((noise**4).mean() - 3) < 0.05
    assert abs((np.abs(noise) > 3).mean() - 0.0027) < 0.0004


def test_every_step_and_every_byte_of_the_seed_makes_other_noise() -> None:
    first = compute_noise(SEED, 1, 64)
    others = [compute_noise(SEED, step, 64) for step in (0, 2, 4095)]
    for byte in range(32):
        altered = bytearray(SEED)
        altered[byte] ^= 1
        others.append(compute_noise(bytes(altered), 1, 64))
    assert all(np.count_nonzero(first == other) < 4 for other in others)


def test_longer_noise_begins_with_the_shorter() -> None:
    """Steps do not overlap: a step's counter has 2^64 blocks of its own."""
    assert compute_noise(SEED, 5, 1000)[:10].tolist() == compute_noise(SEED, 5, 10).tolist()
