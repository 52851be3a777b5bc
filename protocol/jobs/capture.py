"""How likely it is that a committee falls into bad hands: what is printed beside every decision. It decides nothing.

Stated model: the adversary owns whichever candidates serve it best, as long as they weigh no more than the given share of this
model's candidate weight, and does as it likes with them. It captures the committee when it holds more than half of the n seats; with
takeovers, when it holds that many among the first n + floor(n/3) of the list, since it may silence honest seats until half the window.
Source: rules K1-K3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import comb, prod
from typing import Final

from protocol.jobs.committee import Candidate, compute_seat_cap, weight_of
from protocol.transactions import AgreementRule

PPB: Final = 1_000_000_000
PPM: Final = 1_000_000
_SCALE: Final = 1 << 128  # every step rounds down by less than 2^-128, so the last ppb is right but for a step of one
_MAX_STEPS: Final = 100_000  # about 0.2 s; beyond it only the binomial figure is given


@dataclass(frozen=True, slots=True)
class Capture:
    """Chances of capture. Units: parts per billion.

    `exact` is for this snapshot with its cap, None where the candidates are too many and too different to count. `binomial` takes every
    seat as bad with the same chance: a bound as long as caps take no honest weight out, an estimate otherwise.
    """

    exact_ppb: int | None
    binomial_ppb: int


def compute_capture(
    candidates: Sequence[Candidate],
    rule: AgreementRule,
    seats: int,
    cap_divisor: int,
    share_ppm: int,
    *,
    with_takeovers: bool = False,
) -> Capture:
    """The chance that an adversary with this share of the weight holds more than half of the seats."""
    draws = seats + seats // 3 if with_takeovers else seats
    needed = seats // 2 + 1
    weights = [weight for candidate in candidates if (weight := weight_of(candidate, rule))]
    exact = _compute_exact(Counter(weights), draws, compute_seat_cap(seats, cap_divisor), needed, share_ppm)
    return Capture(exact, compute_binomial_ppb(draws, needed, share_ppm))


def compute_binomial_ppb(draws: int, needed: int, share_ppm: int) -> int:
    """The chance that at least `needed` of `draws` independent draws hit a share. Units: parts per billion, rounded down."""
    rest = PPM - share_ppm
    ways = sum(comb(draws, bad) * share_ppm**bad * rest ** (draws - bad) for bad in range(needed, draws + 1))
    return ways * PPB // PPM**draws  # K2


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one weight on one side: alike, so only how many of them hold how many seats matters."""

    weight: int
    size: int
    is_bad: bool


def _compute_exact(sizes: Counter[int], draws: int, cap: int, needed: int, share_ppm: int) -> int | None:
    """K1: the best of the adversary's choices, or None when counting would take too many steps."""
    if prod(size + 1 for size in sizes.values()) > _MAX_STEPS:  # K3
        return None
    best, steps = 0, _MAX_STEPS
    for bad in _list_choices(sizes, share_ppm):
        groups = [Group(weight, bad[weight], is_bad=True) for weight in sizes]
        groups += [Group(weight, size - bad[weight], is_bad=False) for weight, size in sizes.items()]
        counted = _count([group for group in groups if group.size], draws, cap, needed, steps)
        if counted is None:
            return None
        chance, steps = counted
        best = max(best, chance)
    return best * PPB // _SCALE


def _list_choices(sizes: Counter[int], share_ppm: int) -> Iterator[dict[int, int]]:
    """Every choice of bad candidates, by weight, to which no further one could be added."""
    allowed = sum(weight * size for weight, size in sizes.items()) * share_ppm // PPM
    for numbers in product(*(range(size + 1) for size in sizes.values())):
        bad = dict(zip(sizes, numbers, strict=True))
        rest = allowed - sum(weight * number for weight, number in bad.items())
        if rest >= 0 and all(weight > rest or bad[weight] == size for weight, size in sizes.items()):
            yield bad


State = tuple[tuple[int, ...], ...]
"""For each group: how many of its candidates hold 0, 1, .. cap - 1 seats; the others are at the cap and out."""


def _count(groups: Sequence[Group], draws: int, cap: int, needed: int, steps: int) -> tuple[int, int] | None:
    """(chance of capture in units of 2^-128, steps left), or None when the steps do not suffice."""
    states: dict[State, int] = {tuple((group.size, *(0,) * (cap - 1)) for group in groups): _SCALE}
    for _ in range(draws):
        following: dict[State, int] = {}
        for state, chance in states.items():
            left = sum(group.weight * sum(held) for group, held in zip(groups, state, strict=True))
            if not left:  # everybody is out: the other seats stay empty
                following[state] = following.get(state, 0) + chance
                continue
            for at, seats, number in _list_moves(state):
                moved = _move(state, at, seats)
                following[moved] = following.get(moved, 0) + chance * number * groups[at].weight // left
                steps -= 1
            if steps < 0:
                return None
        states = following
    return sum(chance for state, chance in states.items() if _count_bad(groups, state, cap) >= needed), steps


def _list_moves(state: State) -> Iterator[tuple[int, int, int]]:
    """(group, seats held before, how many such candidates) of everybody who may be drawn next."""
    for at, held in enumerate(state):
        for seats, number in enumerate(held):
            if number:
                yield at, seats, number


def _move(state: State, at: int, seats: int) -> State:
    held = list(state[at])
    held[seats] -= 1
    if seats + 1 < len(held):
        held[seats + 1] += 1
    return (*state[:at], tuple(held), *state[at + 1 :])


def _count_bad(groups: Sequence[Group], state: State, cap: int) -> int:
    """The seats held by bad candidates."""
    bad = 0
    for group, held in zip(groups, state, strict=True):
        if group.is_bad:
            bad += sum(seats * number for seats, number in enumerate(held)) + cap * (group.size - sum(held))
    return bad
