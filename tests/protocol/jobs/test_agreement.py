from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digest import Digest, DigestFamily
from protocol.jobs.agreement import Answer, Decision, compute_entropy_millibits, decide
from protocol.units import ZERO_HASH

BEACON = b"r" * 32


def synthetic(bits: int) -> Digest:
    return Digest(DigestFamily.SYNTHETIC64, bits.to_bytes(8, "big"))


def answer(seat: int, output: bytes, bits: int | None = None) -> Answer:
    return Answer(seat, bytes((seat,)) * 32, output * 32, None if bits is None else synthetic(bits))


def texts(outputs: str) -> list[Answer]:
    """One answer a letter; a dot is a seat that did not answer."""
    return [answer(seat, letter.encode()) for seat, letter in enumerate(outputs) if letter != "."]


@pytest.mark.parametrize(
    "outputs, decision",
    [
        ("aab", Decision.ACCEPTED),
        ("aa.", Decision.ACCEPTED),
        ("abc", Decision.INCONCLUSIVE),
        ("ab.", Decision.INCONCLUSIVE),
        ("a..", Decision.FAILED),
        ("...", Decision.FAILED),
        ("aaabb", Decision.ACCEPTED),
        ("aabbc", Decision.INCONCLUSIVE),
        ("aab..", Decision.INCONCLUSIVE),
        ("aa...", Decision.FAILED),
        ("a", Decision.ACCEPTED),
    ],
)
def test_more_than_half_of_all_seats_decide(outputs: str, decision: Decision) -> None:  # A4, A5, A6
    result = decide(texts(outputs), 0, len(outputs), BEACON)
    assert result.decision is decision
    assert result.winner_hash == (b"a" * 32 if decision is Decision.ACCEPTED else ZERO_HASH)


def test_exactly_half_is_not_more_than_half() -> None:  # A4, A6
    assert decide(texts("aabb"), 0, 4, BEACON).decision is Decision.INCONCLUSIVE
    assert decide(texts("aa"), 0, 4, BEACON).decision is Decision.FAILED


def test_a_threshold_of_two_thirds_wants_strictly_more() -> None:  # A4
    assert decide(texts("aaaabb"), 0, 6, BEACON, (2, 3)).decision is Decision.INCONCLUSIVE
    assert decide(texts("aaaaab"), 0, 6, BEACON, (2, 3)).decision is Decision.ACCEPTED


def test_the_winning_seats_are_those_of_the_ball() -> None:
    result = decide(texts("abaca"), 0, 5, BEACON)
    assert result.winning_seats == (0, 2, 4)
    assert result.agreement_ppm == 600_000


def test_text_agrees_by_hash_however_near_its_digests_are() -> None:  # A1
    near = [answer(0, b"a", 0), answer(1, b"b", 0), answer(2, b"c", 0)]
    assert decide(near, 0, 3, BEACON).decision is Decision.INCONCLUSIVE


def test_within_the_tolerance_different_outputs_agree() -> None:  # A2
    near = [answer(0, b"a", 0b0), answer(1, b"b", 0b11), answer(2, b"c", 0b11111)]
    assert decide(near, 2, 3, BEACON).decision is Decision.ACCEPTED
    assert decide(near, 1, 3, BEACON).decision is Decision.INCONCLUSIVE


def test_balls_do_not_chain() -> None:  # A2
    chain = [answer(0, b"a", 0b0), answer(1, b"b", 0b11), answer(2, b"c", 0b1111), answer(3, b"d", 0b111111)]
    result = decide(chain, 2, 5, BEACON)
    assert result.decision is Decision.ACCEPTED
    assert result.winning_seats in {(0, 1, 2), (1, 2, 3)}


def test_an_answer_without_a_digest_agrees_with_itself_alone_where_digests_decide() -> None:  # A2
    result = decide([answer(0, b"a"), answer(1, b"a"), answer(2, b"a", 0)], 8, 3, BEACON)
    assert result.decision is Decision.INCONCLUSIVE
    other = Answer(3, bytes(32), b"a" * 32, Digest(DigestFamily.TEXT_SIMHASH64, bytes(8)))
    assert decide([answer(2, b"a", 0), other], 8, 2, BEACON).decision is Decision.INCONCLUSIVE


def test_a_tie_goes_to_the_output_that_most_revealed() -> None:  # A3
    pair = [answer(0, b"a", 0), answer(1, b"b", 1), answer(2, b"b", 1)]
    assert decide(pair, 4, 3, BEACON).winner_hash == b"b" * 32


def test_then_to_the_smaller_sum_of_distances() -> None:  # A3
    line = [answer(0, b"a", 0b1), answer(1, b"b", 0b0), answer(2, b"c", 0b10)]
    assert decide(line, 4, 3, BEACON).winner_hash == b"b" * 32


def test_then_to_a_draw_that_the_smaller_hash_does_not_win() -> None:  # A3
    winners = {
        decide([answer(0, b"a", 0), answer(1, b"b", 1)], 4, 2, bytes((beacon,)) * 32).winner_hash
        for beacon in range(16)
    }
    assert winners == {b"a" * 32, b"b" * 32}


BITS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 3, 7, 15, 31, 63, 0xFF, 0xFF00])
ANSWERS = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.none() | BITS), max_size=9)


@given(ANSWERS, st.integers(0, 12), st.randoms(use_true_random=False))
def test_the_order_of_arrival_has_no_say(drawn, tolerance: int, random) -> None:  # A7
    answers = [answer(seat, output, bits) for seat, (output, bits) in enumerate(drawn)]
    shuffled = list(answers)
    random.shuffle(shuffled)
    assert decide(shuffled, tolerance, 9, BEACON) == decide(answers, tolerance, 9, BEACON)


@given(ANSWERS, st.integers(0, 12), st.permutations(range(9)))
def test_who_holds_which_seat_has_no_say(drawn, tolerance: int, order: list[int]) -> None:  # A7
    seated = decide([answer(seat, *each) for seat, each in enumerate(drawn)], tolerance, 9, BEACON)
    moved = decide([answer(order[seat], *each) for seat, each in enumerate(drawn)], tolerance, 9, BEACON)
    assert (moved.decision, moved.winner_hash, moved.agreement_ppm, moved.entropy_millibits) == (
        seated.decision,
        seated.winner_hash,
        seated.agreement_ppm,
        seated.entropy_millibits,
    )


@given(ANSWERS, st.integers(1, 12))
def test_two_winning_balls_would_lie_within_twice_the_tolerance(drawn, tolerance: int) -> None:
    answers = [answer(seat, output, bits) for seat, (output, bits) in enumerate(drawn)]
    result = decide(answers, tolerance, 9, BEACON)
    if result.decision is Decision.ACCEPTED:
        assert 2 * len(result.winning_seats) > 9
        distances = dict(result.distances)
        inside = [distances[seat] for seat in result.winning_seats]
        assert all(distance is not None and distance <= tolerance for distance in inside)
    else:
        assert result.winning_seats == () and result.winner_hash == ZERO_HASH


def test_distances_are_to_the_centre_and_absent_without_digest() -> None:
    result = decide([answer(0, b"a", 0), answer(1, b"a", 0), answer(2, b"b", 0b111), answer(3, b"c")], 0, 5, BEACON)
    assert result.distances == ((0, 0), (1, 0), (2, 3), (3, None))


@given(st.lists(st.integers(1, 12), max_size=6))
def test_entropy_is_shannons_rounded_down(counts: list[int]) -> None:  # A8
    total = sum(counts)
    exact = 1000 * sum(size / total * log2(total / size) for size in counts)
    got = compute_entropy_millibits(counts)
    assert got <= exact + 1e-6 and exact < got + 1 + 1e-6


@pytest.mark.parametrize(
    "counts, millibits", [((), 0), ((7,), 0), ((1, 1), 1000), ((2, 1), 918), ((1, 1, 1, 1), 2000), ((3, 1, 1), 1370)]
)
def test_entropy_of_known_splits(counts: tuple[int, ...], millibits: int) -> None:  # A8
    assert compute_entropy_millibits(counts) == millibits
