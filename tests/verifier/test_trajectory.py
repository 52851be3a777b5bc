"""The commitment to a sampler's states: what is opened is what was committed to, and who decides what is opened is the beacon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from verifier.trajectory import (
    Opening,
    OpeningRefused,
    commit_states,
    decode_state,
    draw_steps,
    encode_state,
    list_opened,
    open_states,
    read_openings,
    seal_states,
)

SHAPE = (1, 2, 2)
STATES = [np.arange(4, dtype=np.int32).reshape(SHAPE) * (index + 1) - 5 for index in range(26)]
COMMITMENT = commit_states(STATES)
WANTED = (0, 3, 4, 25)
OPENINGS = open_states(COMMITMENT, WANTED)


def test_opened_states_are_the_committed_ones() -> None:
    states = read_openings(OPENINGS, COMMITMENT.root, WANTED)
    assert {index: decode_state(state, SHAPE).tolist() for index, state in states.items()} == {
        index: STATES[index].tolist() for index in WANTED
    }


def swap_states(openings: list[Opening]) -> None:
    openings[1] = replace(openings[1], state=openings[2].state)


def rename(openings: list[Opening]) -> None:
    openings[1] = replace(openings[1], index=5)


def lie_about_the_place(openings: list[Opening]) -> None:
    openings[1] = replace(openings[2], index=openings[1].index)


def leave_one_out(openings: list[Opening]) -> None:
    openings.pop()


def turn_around(openings: list[Opening]) -> None:
    openings.reverse()


def lengthen(openings: list[Opening]) -> None:
    openings[0] = replace(openings[0], state=openings[0].state + b"\x00")


def count_more(openings: list[Opening]) -> None:
    openings[0] = replace(openings[0], proof=replace(openings[0].proof, count=27))


@pytest.mark.parametrize(
    "alter", [swap_states, rename, lie_about_the_place, leave_one_out, turn_around, lengthen, count_more]
)
def test_altered_openings_are_refused(alter: Callable[[list[Opening]], None]) -> None:
    openings = list(OPENINGS)
    alter(openings)
    with pytest.raises(OpeningRefused):
        read_openings(openings, COMMITMENT.root, WANTED)


def test_openings_of_another_run_are_refused() -> None:
    other = commit_states([*STATES[:-1], STATES[-1] + 1])
    with pytest.raises(OpeningRefused, match="not under the root"):
        read_openings(open_states(other, WANTED), COMMITMENT.root, WANTED)


def test_the_number_of_states_is_committed_to() -> None:
    assert commit_states(STATES[:21]).root != commit_states(STATES[:22]).root


def test_a_run_that_was_kept_as_bytes_opens_as_before() -> None:
    assert open_states(seal_states(COMMITMENT.states), WANTED) == OPENINGS


def test_a_state_has_one_form_and_its_size_is_checked() -> None:
    assert encode_state(np.array([[[1, -2]]], dtype=np.int32)) == b"\x01\x00\x00\x00\xfe\xff\xff\xff"
    with pytest.raises(ValueError, match="expected 16 bytes"):
        decode_state(bytes(15), SHAPE)


def test_the_draw_is_fixed_by_beacon_and_root_alone() -> None:
    drawn = draw_steps(b"b" * 32, COMMITMENT.root, 25, 4)
    assert drawn == draw_steps(b"b" * 32, COMMITMENT.root, 25, 4)
    assert len(set(drawn)) == 4 and list(drawn) == sorted(drawn)
    assert draw_steps(b"c" * 32, COMMITMENT.root, 25, 4) != drawn != draw_steps(b"b" * 32, b"r" * 32, 25, 4)


def test_every_step_is_drawn_equally_often() -> None:
    """10,000 steps in 5,000 draws of 2: each of 25 some 400 times, give or take 5 standard deviations."""
    counts = Counter(step for seed in range(5000) for step in draw_steps(seed.to_bytes(32, "big"), b"r" * 32, 25, 2))
    assert set(counts) == set(range(25))
    assert max(abs(count - 400) for count in counts.values()) < 5 * 20


def test_all_steps_are_drawn_where_more_are_wanted() -> None:
    assert draw_steps(b"b" * 32, b"r" * 32, 5, 9) == (0, 1, 2, 3, 4)


def test_ends_are_always_opened() -> None:
    assert list_opened((3,), 25) == (0, 3, 4, 25)
    assert list_opened((0, 1, 24), 25) == (0, 1, 2, 24, 25)
    assert list_opened((), 25) == (0, 25)
