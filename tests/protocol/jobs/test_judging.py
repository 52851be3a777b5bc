from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.jobs.agreement import Answer, Decision
from protocol.jobs.judging import MAX_JUDGED, Judgement, Judgements, decide_judged, list_judged
from protocol.units import ZERO_HASH, Hash, NodeId

BEACON = b"r" * 32
ACCEPT, REJECT, UNSURE = Judgement.ACCEPT, Judgement.REJECT, Judgement.INCONCLUSIVE


def member(seat: int) -> NodeId:
    return bytes((seat,)) * 32


def output(letter: str) -> Hash:
    return letter.encode() * 32


def texts(letters: str) -> list[Answer]:
    return [Answer(seat, member(seat), output(letter), None) for seat, letter in enumerate(letters) if letter != "."]


def judge(rows: dict[int, dict[str, Judgement]]) -> Judgements:
    return {member(seat): {output(letter): said for letter, said in row.items()} for seat, row in rows.items()}


def test_two_honest_machines_that_parted_at_a_near_tie_both_pass() -> None:
    judged = judge({0: {"b": ACCEPT, "c": REJECT}, 1: {"a": ACCEPT, "c": REJECT}, 2: {"a": REJECT, "b": REJECT}})
    result = decide_judged(texts("abc"), judged, 3, BEACON)
    assert result.decision is Decision.ACCEPTED
    assert result.winning_seats == (0, 1)  # W5: both of them, not only the winner's author
    assert result.winner_hash in {output("a"), output("b")}
    assert dict(result.accepting) == {output("a"): 2, output("b"): 2, output("c"): 1}


def test_the_output_revealed_most_wins_before_the_one_accepted_most() -> None:  # W4
    rows = {seat: {"b": ACCEPT} for seat in range(2)} | {2: {"a": ACCEPT}, 3: {"a": ACCEPT}, 4: {"b": ACCEPT}}
    result = decide_judged(texts("aabcd"), judge(rows), 5, BEACON)
    assert dict(result.accepting)[output("a")] == 4
    assert dict(result.accepting)[output("b")] == 4
    assert result.winner_hash == output("a")


@pytest.mark.parametrize(
    "letters, decision", [("abcde", Decision.INCONCLUSIVE), ("ab...", Decision.FAILED), (".....", Decision.FAILED)]
)
def test_without_a_passing_output_nobody_wins(letters: str, decision: Decision) -> None:  # W6
    result = decide_judged(texts(letters), {}, 5, BEACON)
    assert (result.decision, result.winner_hash, result.winning_seats) == (decision, ZERO_HASH, ())


def test_a_seat_that_does_not_judge_weighs_against_every_output_but_its_own() -> (
    None
):  # W3: the denominator is all seats
    rows = {0: {"b": ACCEPT}, 1: {"a": ACCEPT}}
    assert decide_judged(texts("ab.."), judge(rows), 4, BEACON).decision is not Decision.ACCEPTED
    assert decide_judged(texts("ab."), judge(rows), 3, BEACON).decision is Decision.ACCEPTED


def test_nobody_can_disown_its_output_nor_accept_another_by_being_unsure() -> None:  # W2
    rows = {0: {"a": REJECT, "b": UNSURE}, 1: {"b": REJECT, "a": UNSURE}}
    result = decide_judged(texts("ab"), judge(rows), 2, BEACON)
    assert dict(result.accepting) == {output("a"): 1, output("b"): 1}


def test_at_most_four_outputs_are_judged_the_most_revealed_first() -> None:  # W1
    judged = list_judged(texts("abbcdefghh"), BEACON)
    assert len(judged) == MAX_JUDGED
    assert set(judged[:2]) == {output("b"), output("h")}
    others = {list_judged(texts("abcdefgh"), bytes((n,)) * 32) for n in range(8)}
    assert len(others) > 1  # ties follow the beacon


@given(st.text("abcde.", min_size=1, max_size=9), st.data())
def test_the_order_of_arrival_has_no_say(letters: str, data: st.DataObject) -> None:
    answers = texts(letters)
    said = st.dictionaries(st.sampled_from("abcde"), st.sampled_from(Judgement))
    judged = judge({answer.seat: data.draw(said) for answer in answers})
    shuffled = data.draw(st.permutations(answers))
    expected = decide_judged(answers, judged, len(letters), BEACON)
    assert decide_judged(shuffled, judged, len(letters), BEACON) == expected


@given(st.text("abc", min_size=3, max_size=9))
def test_an_output_that_had_the_majority_passes_without_any_judgement(letters: str) -> None:
    top = max("abc", key=letters.count)
    result = decide_judged(texts(letters), {}, len(letters), BEACON)
    assert (result.decision is Decision.ACCEPTED) == (2 * letters.count(top) > len(letters))
