"""What the network remembers of a node's work: reliability (seats served in time) and integrity (audits), kept apart from quality.

Every number is an unsigned 2^-32 fixed-point integer, products are rounded down, so all nodes get the same bits. Each new fact
fades the old ones by l = 2^(-1/200). Source: rules P1-P7. Integrity stays at its prior until audits exist.
"""

from math import isqrt
from typing import Annotated, Final

from msgspec import Meta
from msgspec.structs import replace

from protocol.codec import Codec, Message
from protocol.params import Params
from protocol.units import Height, Milliseconds, Uint

FRACTION_BITS: Final = 32
ONE: Final = 1 << FRACTION_BITS
DECAY: Final = 4_280_107_838  # 2^(-1/200): a fact counts half after 200 others
FLOOR: Final = ONE // 20  # 0.05: nobody is below it, so that a record can be mended
MISTRUST_NUMERATOR: Final = 1645  # 1.645 standard errors: a one-sided 95 % bound
MISTRUST_DENOMINATOR: Final = 1000
NEWCOMER_AUDITS: Final = 30

Fixed = Annotated[int, Meta(ge=0, le=2**53)]
"""Units: 2^-32. Fading keeps every count below 1 / (1 - l) = 289 (2^41)."""


class Record(Message, frozen=True):
    """A node's record. `recent` holds its last seats, newest in the lowest bit, 1 for a missed one."""

    integrity_good: Fixed
    integrity_bad: Fixed
    audits: Uint
    reliability_good: Fixed
    reliability_bad: Fixed
    recent: Uint
    suspended_height: Height  # not drawn below this height
    suspended_ms: Milliseconds  # nor before this time


RECORD_CODEC: Final = Codec[Record](Record, 128)
NEW_RECORD: Final = Record(ONE, 3 * ONE, 0, 3 * ONE, ONE, 0, 0, 0)
"""Who has done nothing yet: integrity (1, 3), reliability (3, 1)."""


def apply_seat_served(record: Record, params: Params) -> Record:
    """The record after a seat was served in time."""
    return replace(
        record,
        reliability_good=_fade(record.reliability_good) + ONE,  # P1
        reliability_bad=_fade(record.reliability_bad),
        recent=_push(record.recent, 0, params),
    )


def apply_seat_missed(record: Record, params: Params, height: Height, time_ms: Milliseconds) -> Record:
    """The record after a seat was missed at this block; who missed more than half of the window is suspended from here."""
    missed = replace(
        record,
        reliability_good=_fade(record.reliability_good),
        reliability_bad=_fade(record.reliability_bad) + ONE,  # P2
        recent=_push(record.recent, 1, params),
    )
    if 2 * missed.recent.bit_count() <= params.missed_seats_window:
        return missed
    # P6: the window starts anew, otherwise the first seat after a suspension would bring the next
    until_height, until_ms = height + params.epoch_heights, time_ms + params.suspension_ms
    return replace(missed, recent=0, suspended_height=until_height, suspended_ms=until_ms)


def is_suspended(record: Record, height: Height, time_ms: Milliseconds) -> bool:
    """Whether the node is not to be drawn at this block."""
    return height < record.suspended_height or time_ms < record.suspended_ms  # P6


def compute_reliability(record: Record) -> int:
    """The share of seats served in time. Units: 2^-32."""
    good, bad = record.reliability_good, record.reliability_bad
    return max(FLOOR, (good << FRACTION_BITS) // (good + bad))  # P3


def compute_integrity(record: Record) -> int:
    """The lower bound of the share of clean audits. Units: 2^-32."""
    weight = record.integrity_good + record.integrity_bad
    mean = (record.integrity_good << FRACTION_BITS) // weight
    variance = (mean * (ONE - mean) << FRACTION_BITS) // (weight + ONE)  # in 2^-64, so its root is in 2^-32
    return max(FLOOR, mean - MISTRUST_NUMERATOR * isqrt(variance) // MISTRUST_DENOMINATOR)  # P4


def compute_weight_reputation(stake: int, record: Record) -> int:
    """What a node weighs in a draw by reputation: stake x integrity x reliability."""
    return stake * compute_integrity(record) * compute_reliability(record) >> 2 * FRACTION_BITS  # P5


def compute_weight_executor(stake: int, record: Record) -> int:
    """What a node weighs as executor of an audited job: integrity counts at least one half until there were 30 audits."""
    integrity = compute_integrity(record)
    if record.audits < NEWCOMER_AUDITS:
        integrity = max(integrity, ONE // 2)  # P7
    return stake * integrity * compute_reliability(record) >> 2 * FRACTION_BITS


def _fade(amount: int) -> int:
    return amount * DECAY >> FRACTION_BITS


def _push(recent: int, bit: int, params: Params) -> int:
    return (recent << 1 | bit) & (1 << params.missed_seats_window) - 1
