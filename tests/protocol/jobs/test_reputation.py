from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.codec import encode
from protocol.jobs.committee import Candidate, draw
from protocol.jobs.reputation import (
    DECAY,
    FLOOR,
    NEW_RECORD,
    ONE,
    RECORD_CODEC,
    Record,
    apply_seat_missed,
    apply_seat_served,
    compute_integrity,
    compute_reliability,
    compute_weight_executor,
    compute_weight_reputation,
    is_suspended,
)
from protocol.params import DEVNET
from protocol.transactions import AgreementRule

HEIGHT, TIME = 1000, 5_000_000


def serve(record: Record, seats: int) -> Record:
    for _ in range(seats):
        record = apply_seat_served(record, DEVNET)
    return record


def miss(record: Record, seats: int) -> Record:
    for _ in range(seats):
        record = apply_seat_missed(record, DEVNET, HEIGHT, TIME)
    return record


def share(fixed: int) -> float:
    return fixed / ONE


def test_the_decay_is_the_200th_root_of_one_half() -> None:
    assert round(2 ** (-1 / 200) * 2**32) == DECAY


def test_a_newcomer_is_three_quarters_reliable_and_of_least_integrity() -> None:  # P3, P4
    assert share(compute_reliability(NEW_RECORD)) == 0.75
    assert compute_integrity(NEW_RECORD) == FLOOR
    assert share(FLOOR) == pytest.approx(0.05, abs=1e-9)


def test_serving_raises_and_missing_lowers_reliability() -> None:  # P1, P2
    assert share(compute_reliability(serve(NEW_RECORD, 1))) == pytest.approx(0.8, abs=1e-3)
    assert share(compute_reliability(miss(NEW_RECORD, 1))) == pytest.approx(0.6, abs=1e-3)
    assert share(compute_reliability(serve(NEW_RECORD, 1000))) > 0.99
    assert compute_reliability(miss(NEW_RECORD, 2000)) == FLOOR


@given(st.lists(st.booleans(), max_size=60))
def test_reliability_follows_the_formula(served: list[bool]) -> None:  # P1, P2, P3
    record, good, bad = NEW_RECORD, 3.0, 1.0
    fade = 2 ** (-1 / 200)
    for is_served in served:
        record = serve(record, 1) if is_served else miss(record, 1)
        good, bad = good * fade + is_served, bad * fade + (not is_served)
    assert share(compute_reliability(record)) == pytest.approx(max(0.05, good / (good + bad)), abs=1e-6)


def test_after_200_other_facts_a_miss_counts_half() -> None:  # P1
    record = serve(miss(NEW_RECORD, 1), 200)
    assert share(record.reliability_bad) == pytest.approx((2 ** (-1 / 200) + 1) / 2, abs=1e-6)


@pytest.mark.parametrize("good, bad", [(1.0, 3.0), (10.0, 1.0), (100.0, 3.0), (280.0, 0.5)])
def test_integrity_is_a_lower_bound(good: float, bad: float) -> None:  # P4
    record = replace(NEW_RECORD, integrity_good=int(good * ONE), integrity_bad=int(bad * ONE))
    mean = good / (good + bad)
    expected = max(0.05, mean - 1.645 * sqrt(mean * (1 - mean) / (good + bad + 1)))
    assert share(compute_integrity(record)) == pytest.approx(expected, abs=1e-8)


def test_integrity_after_25_clean_audits_is_the_published_one() -> None:  # P4
    good, bad = ONE, 3 * ONE
    for _ in range(25):
        good, bad = (good * DECAY >> 32) + ONE, bad * DECAY >> 32
    assert share(compute_integrity(replace(NEW_RECORD, integrity_good=good, integrity_bad=bad))) == pytest.approx(
        0.81, abs=0.005
    )


def test_seats_do_not_touch_integrity() -> None:
    for record in (serve(NEW_RECORD, 30), miss(NEW_RECORD, 30)):
        assert (record.integrity_good, record.integrity_bad, record.audits) == (ONE, 3 * ONE, 0)


def test_weight_by_reputation_is_stake_times_both() -> None:  # P5
    stake = 10_000_000
    assert compute_weight_reputation(stake, NEW_RECORD) == pytest.approx(stake * 0.05 * 0.75, abs=1)
    assert compute_weight_reputation(2 * stake, NEW_RECORD) == pytest.approx(2 * stake * 0.05 * 0.75, abs=1)


def test_an_executor_counts_half_integrity_until_30_audits() -> None:  # P7
    assert compute_weight_executor(1_000_000, NEW_RECORD) == 375_000
    assert compute_weight_executor(1_000_000, replace(NEW_RECORD, audits=29)) == 375_000
    assert compute_weight_executor(1_000_000, replace(NEW_RECORD, audits=30)) == pytest.approx(37_500, abs=1)


def test_exactly_half_of_the_window_missed_does_not_suspend() -> None:  # P6
    record = miss(serve(NEW_RECORD, 10), 10)
    assert not is_suspended(record, HEIGHT, TIME)


def test_more_than_half_suspends_for_a_snapshot_and_an_hour() -> None:  # P6
    record = miss(serve(NEW_RECORD, 9), 11)
    height, time_ms = HEIGHT + DEVNET.epoch_heights, TIME + DEVNET.suspension_ms
    assert is_suspended(record, HEIGHT, TIME)
    assert is_suspended(record, height - 1, time_ms)
    assert is_suspended(record, height, time_ms - 1)
    assert not is_suspended(record, height, time_ms)


def test_after_a_suspension_the_window_starts_anew() -> None:  # P6
    record = miss(NEW_RECORD, 11)
    again = apply_seat_missed(record, DEVNET, HEIGHT + 10_000, TIME + 10**9)
    assert record.recent == 0
    assert (again.suspended_height, again.suspended_ms) == (record.suspended_height, record.suspended_ms)


def test_old_misses_leave_the_window() -> None:  # P6
    assert not is_suspended(miss(serve(miss(NEW_RECORD, 10), 20), 10), HEIGHT, TIME)


def test_a_node_that_misses_seats_is_drawn_less() -> None:
    good, bad = serve(NEW_RECORD, 10), miss(NEW_RECORD, 10)
    pool = tuple(
        Candidate(bytes((at,)) * 32, 10**7, compute_weight_reputation(10**7, record), 0)
        for at, record in enumerate((bad, good, good, good))
    )

    def count(rule: AgreementRule) -> Counter[bytes | None]:
        draws = (draw(at.to_bytes(32, "big"), bytes(32), pool, rule, 1, 3, lambda _: True) for at in range(2000))
        return Counter(result.members[0] for result in draws)

    missed = bytes(32)
    assert abs(count(AgreementRule.MAJORITY)[missed] - 500) < 80
    expected = compute_reliability(bad) / (compute_reliability(bad) + 3 * compute_reliability(good))
    assert count(AgreementRule.REPUTATION)[missed] == pytest.approx(2000 * expected, abs=60)
    assert expected < 0.1


@given(st.lists(st.booleans(), max_size=400))
def test_a_record_always_fits_its_codec(served: list[bool]) -> None:
    record = NEW_RECORD
    for is_served in served:
        record = serve(record, 1) if is_served else miss(record, 1)
    assert RECORD_CODEC.decode(encode(record)) == record
