"""How a committee of independent authors decides when no output has the majority: each member judges the others' outputs.

Two honest machines part at a near tie, and their texts differ from there on; teacher-forcing the other's text shows that it was one
of the two. Pure, in integers, the same in every order of arrival. Source: rules W1 to W6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from protocol.crypto import HashDomain, compute_stream
from protocol.jobs.agreement import MAJORITY, Answer, Decision
from protocol.units import ZERO_HASH, Hash, NodeId

MAX_JUDGED: Final = 4  # outputs; a member's work is one pass over each


class Judgement(IntEnum):
    """What a member says of another member's output."""

    ACCEPT = 0  # a machine that computes honestly may write this
    REJECT = 1
    INCONCLUSIVE = 2


Judgements = Mapping[NodeId, Mapping[Hash, Judgement]]
"""What each member revealed; one that did not reveal is not in it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The decision after judging. `winner_hash` is zero where no output passed; `accepting` counts seats, by judged output."""

    decision: Decision
    winner_hash: Hash
    winning_seats: tuple[int, ...]  # every seat whose output passed
    accepting: tuple[tuple[Hash, int], ...]


def list_judged(answers: Sequence[Answer], beacon: Hash) -> tuple[Hash, ...]:
    """The outputs that are judged: the most revealed, at most four; ties by a draw that nobody can grind (W1)."""
    votes = Counter(answer.output_hash for answer in answers)
    return tuple(sorted(votes, key=lambda output: (-votes[output], _tie(beacon, output)))[:MAX_JUDGED])


def decide_judged(
    answers: Sequence[Answer],
    judgements: Judgements,
    seats: int,
    beacon: Hash,
    threshold: tuple[int, int] = MAJORITY,
) -> Judged:
    """The decision of `seats` seats of which these answered, their members having judged.

    A member counts for each of its seats; it accepts its own output without saying so (W2), whatever it says of it.
    """
    judged = list_judged(answers, beacon)
    votes = Counter(answer.output_hash for answer in answers)
    accepting = {output: sum(_accepts(answer, output, judgements) for answer in answers) for output in judged}
    part, whole = threshold
    passed = [output for output in judged if accepting[output] * whole > part * seats]  # W3: of all the seats
    table = tuple((output, accepting[output]) for output in judged)
    if not passed:
        decision = Decision.INCONCLUSIVE if len(answers) * whole > part * seats else Decision.FAILED  # W6
        return Judged(decision, ZERO_HASH, (), table)
    winner = min(passed, key=lambda output: (-votes[output], -accepting[output], _tie(beacon, output)))  # W4
    winning = tuple(sorted(answer.seat for answer in answers if answer.output_hash in passed))  # W5
    return Judged(Decision.ACCEPTED, winner, winning, table)


def _accepts(answer: Answer, output: Hash, judgements: Judgements) -> bool:
    if answer.output_hash == output:
        return True
    return judgements.get(answer.member, {}).get(output) is Judgement.ACCEPT


def _tie(beacon: Hash, output: Hash) -> bytes:
    return compute_stream(HashDomain.TIE, 32, beacon, output)
