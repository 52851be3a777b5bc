from __future__ import annotations

from itertools import combinations_with_replacement
from math import log

import pytest

from protocol.jobs.verdicts import (
    ALARM_SCORE,
    CLEAN_FALL,
    SOFT_RISE,
    AuditDecision,
    Verdict,
    apply_audit_to_score,
    decide_audit,
)

LETTERS = dict(zip("ashui", Verdict, strict=True))


def panel(letters: str) -> list[Verdict]:
    """One verdict a letter, a dot for a seat without one."""
    return [LETTERS[letter] for letter in letters if letter != "."]


@pytest.mark.parametrize(
    "letters, first, last",
    [
        ("aaaaaaa", AuditDecision.ACCEPTED, AuditDecision.ACCEPTED),
        ("aaaaass", AuditDecision.ACCEPTED, AuditDecision.ACCEPTED),  # V1: five of seven
        ("aaaasss", AuditDecision.WIDEN, AuditDecision.INCONCLUSIVE),  # V5: four are not more than two thirds
        ("aaaaa..", AuditDecision.ACCEPTED, AuditDecision.ACCEPTED),
        ("aaaa...", AuditDecision.WIDEN, AuditDecision.FAILED),  # V6: too few spoke
        (".......", AuditDecision.WIDEN, AuditDecision.FAILED),
        ("uuuuuaa", AuditDecision.WITHHELD, AuditDecision.WITHHELD),  # V2
        ("uuuuaaa", AuditDecision.WIDEN, AuditDecision.INCONCLUSIVE),
        ("sssssaa", AuditDecision.SOFT_REJECTED, AuditDecision.SOFT_REJECTED),  # V4
        ("sshhhaa", AuditDecision.SOFT_REJECTED, AuditDecision.SOFT_REJECTED),
        ("hhhhhaa", AuditDecision.WIDEN, AuditDecision.HARD_REJECTED),  # V3: nobody is slashed by the first seven
        ("hhhhsss", AuditDecision.SOFT_REJECTED, AuditDecision.SOFT_REJECTED),
        ("iiiiiii", AuditDecision.WIDEN, AuditDecision.INCONCLUSIVE),
        ("aassuui", AuditDecision.WIDEN, AuditDecision.INCONCLUSIVE),
    ],
)
def test_more_than_two_thirds_of_all_seats_decide(letters: str, first: AuditDecision, last: AuditDecision) -> None:
    assert decide_audit(panel(letters), len(letters), may_widen=True) is first
    assert decide_audit(panel(letters), len(letters), may_widen=False) is last


def test_a_third_of_the_panel_can_neither_convict_nor_clear_anybody() -> None:
    """Whatever seven liars of twenty-one say, fourteen honest verdicts of one kind, or none at all, are not overturned."""
    for liars in combinations_with_replacement("ashui.", 7):
        rest = "".join(liars)
        honest = decide_audit(panel("a" * 14 + rest), 21, may_widen=False)
        assert honest in {AuditDecision.ACCEPTED, AuditDecision.INCONCLUSIVE, AuditDecision.FAILED}
        cheat = decide_audit(panel("h" * 14 + rest), 21, may_widen=False)
        assert cheat not in {AuditDecision.ACCEPTED, AuditDecision.WITHHELD}


def test_the_constants_are_the_stated_logarithms() -> None:  # V7
    exact = (log(0.05 / 0.001), log(0.999 / 0.95), log(10**4))
    for constant, value in zip((SOFT_RISE, CLEAN_FALL, ALARM_SCORE), exact, strict=True):
        assert abs(constant - value * 2**32) < 1


def count_until_alarm(clean_between: int) -> int | None:
    """How many soft rejections raise the alarm when so many acceptances lie between them; None: a thousand do not."""
    score = 0
    for rejections in range(1, 1001):
        score, is_alarm = apply_audit_to_score(score, AuditDecision.SOFT_REJECTED)
        if is_alarm:
            return rejections
        for _ in range(clean_between):
            score, is_alarm = apply_audit_to_score(score, AuditDecision.ACCEPTED)
            assert not is_alarm
    return None


def test_soft_rejections_add_up_only_when_they_are_frequent() -> None:
    assert count_until_alarm(0) == 3
    assert count_until_alarm(24) == 3
    assert count_until_alarm(100) is None


def test_an_alarm_starts_the_score_anew_and_other_decisions_leave_it() -> None:
    score, is_alarm = apply_audit_to_score(ALARM_SCORE, AuditDecision.SOFT_REJECTED)
    assert (score, is_alarm) == (0, True)
    for decision in AuditDecision:
        if decision not in {AuditDecision.ACCEPTED, AuditDecision.SOFT_REJECTED}:
            assert apply_audit_to_score(123, decision) == (123, False)
