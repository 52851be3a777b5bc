"""Reveals that are too alike for independent work.

Each member's sketch has its own seed, so two members' codes never agree; where a seed is shared, codes of one class may agree to the
last bit, and those of different classes do not. What is flagged is a reason to look, not yet a verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from protocol.units import NodeId
from verifier.classes import ComputeClass
from verifier.sketch import HEADER


class Likeness(StrEnum):
    """What two sketches have in common that independent work does not."""

    SAME_CODES = "same-codes-under-different-seeds"
    ACROSS_CLASSES = "same-codes-in-different-classes"


@dataclass(frozen=True, slots=True)
class Revealed:
    """A member's sketch as it was revealed."""

    member: NodeId
    declared: ComputeClass
    sketch_seed: bytes
    sketch: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """Two members whose sketches are too alike."""

    first: NodeId
    second: NodeId
    likeness: Likeness


def find_copies(reveals: Sequence[Revealed]) -> list[Copy]:
    """All pairs of different members whose sketches agree where independent ones cannot."""
    found: list[Copy] = []
    for one, other in combinations(reveals, 2):
        codes = one.sketch[HEADER.size :]
        if one.member == other.member or not codes or codes != other.sketch[HEADER.size :]:
            continue
        if one.sketch_seed != other.sketch_seed:
            found.append(Copy(one.member, other.member, Likeness.SAME_CODES))
        elif one.declared != other.declared:
            found.append(Copy(one.member, other.member, Likeness.ACROSS_CLASSES))
    return found
