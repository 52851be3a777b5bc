"""Where a mutation's decisions come from: a seeded generator in the long run, Hypothesis in the tests, so that it can shrink them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

T = TypeVar("T")


class Choices(Protocol):
    """Draws numbers; everything else is made of them."""

    def below(self, count: int) -> int:
        """A number from 0 up to, not including, `count`."""
        ...

    def octets(self, count: int) -> bytes:
        """So many bytes."""
        ...


class SeededChoices:
    """The same decisions for the same seed."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def below(self, count: int) -> int:
        return int(self._random.random() * count)

    def octets(self, count: int) -> bytes:
        return self._random.randbytes(count)


class DrawnChoices:
    """Hypothesis' decisions."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def below(self, count: int) -> int:
        return self._data.draw(st.integers(0, count - 1))

    def octets(self, count: int) -> bytes:
        return self._data.draw(st.binary(min_size=count, max_size=count))


def pick(choices: Choices, items: Sequence[T]) -> T:
    """One of these."""
    return items[choices.below(len(items))]


def happens(choices: Choices, one_in: int) -> bool:
    """Now and then."""
    return choices.below(one_in) == 0
