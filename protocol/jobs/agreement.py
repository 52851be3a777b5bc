"""Whether a committee agreed: a pure function of the revealed answers, in integers, the same in every order of arrival.

The ball of an answer is every answer within the tolerance of its digest; at tolerance 0 every answer with the same output hash. The
heaviest ball decides, and only if it weighs strictly more than the threshold of *all* seats. Source: rules A1-A8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from protocol.crypto import HashDomain, compute_stream
from protocol.digest import Digest, compute_distance
from protocol.units import ZERO_HASH, Hash, NodeId

MAJORITY: Final = (1, 2)


class Decision(IntEnum):
    """How a job ended."""

    ACCEPTED = 0
    FAILED = 1  # too few answers to agree at all
    INCONCLUSIVE = 2  # enough answers, no agreement
    CHOSEN = 3  # reserved: picked among different answers by ranking


@dataclass(frozen=True, slots=True)
class Answer:
    """What one seat revealed. An abstention is no answer and is left out."""

    seat: int
    member: NodeId
    output_hash: Hash
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """The decision and what is published with it. `winner_hash` is zero where no answer won.

    Units: `distances` are (seat, bits to the centre of the heaviest ball, None where there is no digest to compare), by seat;
    they are for the eye. `entropy_millibits` is over the different output hashes.
    """

    decision: Decision
    winner_hash: Hash
    winning_seats: tuple[int, ...]
    agreement_ppm: int
    entropy_millibits: int
    distances: tuple[tuple[int, int | None], ...]


def decide(
    answers: Sequence[Answer], tolerance_bits: int, seats: int, beacon: Hash, threshold: tuple[int, int] = MAJORITY
) -> Agreement:
    """The agreement of `seats` seats of which these answered."""
    ordered = sorted(answers, key=lambda answer: answer.seat)  # A7: the order of arrival has no say
    assert len({answer.seat for answer in ordered}) == len(ordered) <= seats, (len(ordered), seats)
    if not ordered:
        return Agreement(Decision.FAILED, ZERO_HASH, (), 0, 0, ())
    votes = Counter(answer.output_hash for answer in ordered)
    balls = {answer.seat: _list_ball(answer, ordered, tolerance_bits) for answer in ordered}
    centre = min(ordered, key=lambda answer: _rank(answer, balls[answer.seat], votes, beacon))
    ball = balls[centre.seat]
    decision = _judge(len(ordered), len(ball), seats, threshold)
    accepted = decision is Decision.ACCEPTED
    return Agreement(
        decision,
        centre.output_hash if accepted else ZERO_HASH,
        tuple(answer.seat for answer in ball) if accepted else (),
        len(ball) * 1_000_000 // seats,
        compute_entropy_millibits(tuple(votes.values())),
        tuple((answer.seat, _measure(centre, answer)) for answer in ordered),
    )


def compute_entropy_millibits(counts: Sequence[int]) -> int:
    """The Shannon entropy of a split into groups of these sizes, exact, rounded down: 1000 (log2 n - sum c log2 c / n).

    2^(n m) <= (n^n / product of c^c)^1000 holds for every m up to the result, so integers suffice.
    """
    total = sum(counts)
    if total == 0:
        return 0
    above, below = (total**total) ** 1000, 1
    for size in counts:
        below *= (size**size) ** 1000
    exponent = above.bit_length() - below.bit_length()
    if above < below << exponent:
        exponent -= 1
    return exponent // total  # A8


def _judge(answered: int, agreed: int, seats: int, threshold: tuple[int, int]) -> Decision:
    part, whole = threshold
    if agreed * whole > part * seats:  # A4
        return Decision.ACCEPTED
    if answered * whole > part * seats:  # A6
        return Decision.INCONCLUSIVE
    return Decision.FAILED  # A5


def _list_ball(centre: Answer, answers: Sequence[Answer], tolerance_bits: int) -> list[Answer]:
    if tolerance_bits == 0:
        return [other for other in answers if other.output_hash == centre.output_hash]  # A1
    return [other for other in answers if _is_near(centre, other, tolerance_bits)]


def _is_near(centre: Answer, other: Answer, tolerance_bits: int) -> bool:
    if other.seat == centre.seat:
        return True  # without a digest an answer agrees with itself alone
    distance = _measure(centre, other)
    return distance is not None and distance <= tolerance_bits  # A2


def _measure(left: Answer, right: Answer) -> int | None:
    if left.digest is None or right.digest is None:
        return None
    if left.digest.family != right.digest.family or len(left.digest.bits) != len(right.digest.bits):
        return None
    return compute_distance(left.digest, right.digest)


def _rank(centre: Answer, ball: Sequence[Answer], votes: Counter[Hash], beacon: Hash) -> tuple[int, int, int, bytes]:
    """Smallest first: heaviest ball, most revealed output hash, least sum of distances, then a draw nobody can grind."""
    spread = sum(_measure(centre, other) or 0 for other in ball)
    bits = b"" if centre.digest is None else centre.digest.bits
    tie = compute_stream(HashDomain.TIE, 32, beacon, centre.output_hash, bits)
    return (-len(ball), -votes[centre.output_hash], spread, tie)  # A3
