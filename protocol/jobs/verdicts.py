"""What a panel of auditors decides, and what soft rejections add up to: pure, in integers (rules V1 to V7).

An audit is one teacher-forced pass over a finished output. Seven auditors judge first; where they do not agree, or where the executor
would be punished, fourteen more join them.
"""

from collections import Counter
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

PANEL_FACTOR: Final = 3  # the larger panel is so many times the first: 7, then 21
QUORUM: Final = (2, 3)  # of all the panel's seats, strictly more


class Verdict(IntEnum):
    """What one auditor says of one output."""

    ACCEPT = 0
    SOFT_REJECT = 1  # beyond the tolerance
    HARD_REJECT = 2  # beyond twice the tolerance, and so again in float64
    UNAVAILABLE = 3  # the output was committed to, and nobody would give it out
    INCONCLUSIVE = 4  # this auditor cannot tell: another compute class than the profile knows, an engine error


class AuditDecision(IntEnum):
    """What a panel says."""

    ACCEPTED = 0
    SOFT_REJECTED = 1  # unpaid; counts in the sequential test
    HARD_REJECTED = 2  # slashed; only the larger panel can say so
    WITHHELD = 3  # as a commit without a reveal
    INCONCLUSIVE = 4  # enough verdicts, no agreement
    FAILED = 5  # too few verdicts to agree at all
    WIDEN = 6  # the first panel's: fourteen more are drawn


def decide_audit(verdicts: Iterable[Verdict], seats: int, *, may_widen: bool) -> AuditDecision:
    """The panel's decision out of its revealed verdicts, one a seat; seats without one weigh against every decision.

    `may_widen`: more auditors can be drawn. Then a panel that is not of one mind, or that would have the executor slashed, decides nothing.
    """
    counts = Counter(verdicts)
    part, whole = QUORUM
    assert counts.total() <= seats, (counts, seats)

    def agree(*kinds: Verdict) -> bool:
        return whole * sum(counts[kind] for kind in kinds) > part * seats

    if agree(Verdict.ACCEPT):
        return AuditDecision.ACCEPTED  # V1
    if agree(Verdict.UNAVAILABLE):
        return AuditDecision.WITHHELD  # V2
    if agree(Verdict.HARD_REJECT):
        return AuditDecision.WIDEN if may_widen else AuditDecision.HARD_REJECTED  # V3
    if agree(Verdict.SOFT_REJECT, Verdict.HARD_REJECT):
        return AuditDecision.SOFT_REJECTED  # V4: a hard one is a soft one, too
    if may_widen:
        return AuditDecision.WIDEN  # V5
    return AuditDecision.INCONCLUSIVE if agree(*Verdict) else AuditDecision.FAILED  # V6


# --- the sequential test (V7): Page's CUSUM of log-likelihood ratios. An honest executor is softly rejected in at most 0.1 % of its
# audits; one that computes less, in 5 % or more. The score rises by ln(50) with a soft rejection, falls by ln(.999/.95) with an
# acceptance, and is never below 0; beyond ln(10^4) the null hypothesis is given up. Units: nats in 2^-32, as records are.
SOFT_RISE: Final = 16_802_010_870  # ln(.05 / .001)
CLEAN_FALL: Final = 216_005_906  # ln(.999 / .95)
ALARM_SCORE: Final = 39_558_110_683  # ln(10^4)


def apply_audit_to_score(score: int, decision: AuditDecision) -> tuple[int, bool]:
    """(the executor's score after an audit, whether it raises the alarm: then the score starts anew, and the audit counts as bad).

    Three soft rejections with fewer than fifty acceptances between them raise it; two never do.
    """
    match decision:
        case AuditDecision.ACCEPTED:
            return max(0, score - CLEAN_FALL), False
        case AuditDecision.SOFT_REJECTED:
            risen = score + SOFT_RISE
            return (0, True) if risen > ALARM_SCORE else (risen, False)
        case _:
            return score, False
