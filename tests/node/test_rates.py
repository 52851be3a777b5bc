from __future__ import annotations

from node.network import Rate
from node.rates import SLOW_S, TokenBucket

RATE = Rate(messages_per_s=10, bytes_per_s=1_000, burst_s=1)


def test_a_burst_within_the_rate_passes_at_once() -> None:
    bucket = TokenBucket(RATE, 0.0)
    assert [bucket.take(1, 10, 0.0) for _ in range(10)] == [0.0] * 10


def test_beyond_the_burst_messages_are_slowed_then_dropped() -> None:
    bucket = TokenBucket(RATE, 0.0)
    taken = [bucket.take(1, 1, 0.0) for _ in range(25)]
    assert taken == [0.0] * 10 + [SLOW_S] * 10 + [None] * 5


def test_a_flood_lasts_until_the_debt_is_paid() -> None:
    bucket = TokenBucket(RATE, 0.0)
    for _ in range(20):
        bucket.take(1, 1, 0.0)
    assert bucket.measure_flood(0.0) == 0.0
    assert bucket.take(1, 1, 1.0 / 64) is None
    assert bucket.take(1, 1, 1.0) == SLOW_S
    assert bucket.measure_flood(2.0) == 2.0 - 1.0 / 64
    assert bucket.take(1, 1, 9.0) == 0.0
    assert bucket.measure_flood(9.0) == 0.0


def test_bytes_count_as_well_as_messages() -> None:
    bucket = TokenBucket(RATE, 0.0)
    assert bucket.take(1, 1_000, 0.0) == 0.0
    assert bucket.take(1, 1_000, 0.0) == SLOW_S
    assert bucket.take(1, 1, 0.0) is None


def test_tokens_return_with_time_up_to_one_burst() -> None:
    bucket = TokenBucket(RATE, 0.0)
    for _ in range(20):
        bucket.take(1, 1, 0.0)
    assert bucket.take(1, 1, 0.05) is None
    assert bucket.take(1, 1, 0.11) == SLOW_S
    assert [bucket.take(1, 1, 100.0) for _ in range(11)] == [0.0] * 10 + [SLOW_S]


def test_what_was_charged_is_paid_for_by_the_next_take() -> None:
    bucket = TokenBucket(RATE, 0.0)
    bucket.charge(2_500, 0.0)
    assert bucket.take(1, 1, 0.0) is None
    assert bucket.take(1, 1, 1.0) == SLOW_S


def test_a_clock_that_stands_still_gives_nothing() -> None:
    bucket = TokenBucket(RATE, 5.0)
    for _ in range(20):
        bucket.take(1, 1, 5.0)
    assert bucket.take(1, 1, 4.0) is None
