"""Copied sketches are flagged; honest ones that agree because they must are not."""

from __future__ import annotations

from dataclasses import replace

from tests.verifier.test_sketch import draw_states
from verifier.classes import ComputeClass
from verifier.copies import Copy, Likeness, Revealed, find_copies
from verifier.sketch import compute_codes, derive_member_seed, encode_sketch

FAST = ComputeClass("quorate", "float32", "eager", "cpu-avx2")
HALF = ComputeClass("quorate", "bfloat16", "eager", "cpu-avx2")


def reveal(number: int, declared: ComputeClass = FAST, seed: bytes | None = None, noise: float = 0.0) -> Revealed:
    member = bytes([number]) * 32
    seed = seed or derive_member_seed(bytes(32), member)
    states = draw_states() + noise * draw_states(seed=number)
    return Revealed(member, declared, seed, encode_sketch(compute_codes(states, seed), declared))


def test_honest_sketches_of_one_job_are_not_flagged() -> None:
    assert find_copies([reveal(1), reveal(2), reveal(3, HALF, noise=0.004)]) == []
    # Under one seed members of one class agree to the bit, and those of two do not.
    shared = bytes(32)
    assert find_copies([reveal(1, seed=shared), reveal(2, seed=shared), reveal(3, HALF, shared, 0.004)]) == []


def test_anothers_codes_are_flagged_whatever_the_header_says() -> None:
    one, other = reveal(1), reveal(2)
    copied = replace(other, sketch=one.sketch)
    redressed = replace(reveal(3, HALF), sketch=reveal(3, HALF).sketch[:14] + one.sketch[14:])
    assert find_copies([one, copied]) == [Copy(one.member, other.member, Likeness.SAME_CODES)]
    assert [copy.second for copy in find_copies([one, redressed])] == [redressed.member]


def test_equal_codes_in_different_classes_are_flagged_under_a_shared_seed() -> None:
    shared = bytes(32)
    found = find_copies([reveal(1, seed=shared), reveal(2, HALF, shared)])
    assert [copy.likeness for copy in found] == [Likeness.ACROSS_CLASSES]


def test_a_members_several_seats_and_empty_sketches_are_no_copies() -> None:
    one = reveal(1)
    assert find_copies([one, one, replace(reveal(2), sketch=b""), replace(reveal(3), sketch=b"")]) == []
