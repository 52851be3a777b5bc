from __future__ import annotations

import pytest

from protocol.crypto import HashDomain, compute_hash
from protocol.jobs.beacon import Onion, compute_beacon, compute_onion_layer, compute_slots, is_mature, is_reveal_valid
from protocol.validators import Validator, ValidatorSet, compute_leader

CHAIN, SEED = b"c" * 32, b"s" * 32
EQUAL = ValidatorSet(tuple(Validator(bytes((index,)) * 32, 10) for index in range(5)))
SKEWED = ValidatorSet(tuple(Validator(bytes((index,)) * 32, weight) for index, weight in enumerate((50, 30, 20))))


@pytest.mark.parametrize("length, spacing", [(1, 1), (7, 3), (9, 3), (64, 64), (65, 64), (5, 1024)])
def test_an_onion_reveals_its_layers_from_the_outside(length: int, spacing: int) -> None:
    onion = Onion(b"secret", length, spacing)
    tip = onion.tip
    for slot in range(1, length + 1):
        reveal = onion.reveal(slot)
        assert compute_hash(HashDomain.ONION, reveal) == tip
        tip = reveal
    assert onion.has_slot(length) and not onion.has_slot(length + 1) and not onion.has_slot(0)


def test_the_secret_itself_is_never_revealed() -> None:
    assert Onion(b"s" * 32, 4).reveal(4) != b"s" * 32


def test_a_reveal_is_valid_at_its_own_gap_only() -> None:  # B2
    onion = Onion(b"secret", 40, 8)
    tip = onion.reveal(3)
    assert is_reveal_valid(tip, onion.reveal(7), 4, 10)
    assert not is_reveal_valid(tip, onion.reveal(7), 3, 10)
    assert not is_reveal_valid(tip, onion.reveal(7), 5, 10)
    assert not is_reveal_valid(tip, tip, 0, 10)
    assert not is_reveal_valid(tip, bytes(32), 4, 10)


def test_a_gap_is_bounded() -> None:  # B2
    onion = Onion(b"secret", 40, 8)
    assert is_reveal_valid(onion.tip, onion.reveal(10), 10, 10)
    assert not is_reveal_valid(onion.tip, onion.reveal(11), 11, 10)


def test_the_beacon_binds_its_past_and_the_reveal() -> None:  # B3
    first = compute_beacon(b"a" * 32, b"b" * 32)
    assert first == compute_hash(HashDomain.BEACON, b"a" * 32, b"b" * 32)
    assert len({first, compute_beacon(b"b" * 32, b"a" * 32), compute_beacon(b"a" * 32, b"c" * 32)}) == 3


def test_slots_count_every_view_that_a_validator_leads_skipped_or_not() -> None:  # B1
    leaders = [compute_leader(SKEWED, CHAIN, 0, SEED, view) for view in range(1, 101)]
    for index in range(3):
        assert compute_slots(SKEWED, CHAIN, 0, SEED, index, 0, 100) == leaders.count(index)
        assert compute_slots(SKEWED, CHAIN, 0, SEED, index, 0, 40) == leaders[:40].count(index)
        assert compute_slots(SKEWED, CHAIN, 0, SEED, index, 40, 100) == leaders[40:].count(index)
    assert compute_slots(SKEWED, CHAIN, 0, SEED, leaders[0], 0, 1) == 1
    assert compute_slots(SKEWED, CHAIN, 0, SEED, leaders[0], 1, 1) == 0


def is_ripe(table: ValidatorSet, indexes: list[int]) -> bool:
    return is_mature(table, [bytes((index,)) * 32 for index in indexes], 16)


def test_a_beacon_ripens_when_distinct_leaders_weigh_more_than_a_third() -> None:  # B4
    assert not is_ripe(EQUAL, [])
    assert not is_ripe(EQUAL, [2])
    assert not is_ripe(EQUAL, [2, 2, 2])
    assert is_ripe(EQUAL, [2, 2, 3])
    assert is_ripe(SKEWED, [0])
    assert not is_ripe(SKEWED, [1])
    assert is_ripe(SKEWED, [1, 2])


def test_exactly_a_third_is_not_enough() -> None:  # B4
    thirds = ValidatorSet(tuple(Validator(bytes((index,)) * 32, 7) for index in range(3)))
    assert not is_ripe(thirds, [0])
    assert is_ripe(thirds, [0, 1])


def test_a_leader_that_left_the_set_weighs_nothing() -> None:  # B4
    assert is_ripe(EQUAL, [0, 1])
    assert not is_ripe(EQUAL, [0, 9])
    assert is_ripe(EQUAL, [9, 0, 8, 1])
    assert is_ripe(EQUAL, [9] * 16)


def test_a_beacon_ripens_at_the_last_block_whoever_led() -> None:  # B5
    assert not is_ripe(EQUAL, [4] * 15)
    assert is_ripe(EQUAL, [4] * 16)


@pytest.mark.parametrize("size, expected", [(5, 2.3), (16, 7.3)])
def test_ripening_takes_as_long_as_published(size: int, expected: float) -> None:
    table = ValidatorSet(tuple(Validator(bytes((index,)) * 32, 10) for index in range(size)))
    blocks = []
    for start in range(0, 8000, 20):
        leaders: list[int] = []
        while not is_ripe(table, leaders):
            leaders.append(compute_leader(table, CHAIN, 0, SEED, start + len(leaders)))
        blocks.append(len(leaders))
    assert sum(blocks) / len(blocks) == pytest.approx(expected, rel=0.06)


def test_layers_compose() -> None:
    assert compute_onion_layer(compute_onion_layer(b"x" * 32, 5), 7) == compute_onion_layer(b"x" * 32, 12)
