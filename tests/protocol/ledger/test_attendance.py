"""Absence: which slots count as let pass, who is jailed for it, how much weight at once, and how one comes back (V7 to V10)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.attendance import count_missed, get_attendance, is_jailed, jail_absent
from protocol.ledger.draft import Draft
from protocol.ledger.entries import Attendance, Jail, Kind, attendance_key
from protocol.ledger.epochs import get_epoch_terms
from protocol.ledger.queries import Standing, get_standing
from protocol.ledger.state import check_transaction
from protocol.params import MINIMAL, UNIT
from protocol.transactions import SignedTransaction, Unjail
from protocol.validators import Validator, ValidatorSet, compute_leader
from tests.protocol.builders import FOREVER, START_MS, TestChain, make_genesis, make_key, start_chain
from tests.protocol.offences import convict, report

TEN = tuple(f"v{index}" for index in range(10))
WINDOW, PPM = MINIMAL.missed_slots_window, 1_000_000


def start(names: tuple[str, ...] = TEN, **changes: int) -> TestChain:
    """A chain of equal validators."""
    genesis = make_genesis(validators=names, params=replace(MINIMAL, **changes))
    return start_chain(genesis, (*names, "asker", "other"))


def unjail(chain: TestChain, name: str) -> SignedTransaction:
    return chain.sign(name, Unjail(make_key(name).public, chain.next_nonce(name), FOREVER))


def refuse(chain: TestChain, name: str) -> Rejection:
    with pytest.raises(InvalidTransaction) as refusal:
        check_transaction(chain.ledger, unjail(chain, name))
    return refusal.value.reason


def standing(chain: TestChain, name: str) -> Standing:
    return get_standing(chain.ledger, make_key(name).public)


def list_jailed(chain: TestChain, names: tuple[str, ...] = TEN) -> list[str]:
    return [name for name in names if standing(chain, name).jailed_until_ms is not None]


def jail_one(name: str = "v3", **changes: int) -> TestChain:
    """A chain at the boundary that jailed this one of ten."""
    chain = start(**changes)
    while not list_jailed(chain):
        chain.finish_epoch(absent=(name,))
    assert list_jailed(chain) == [name]
    return chain


# --- which slots count (V7)


def test_a_window_holds_the_last_slots_of_each_leader_newest_first() -> None:
    chain = start(("v0", "v1", "v2", "v3", "v4"), missed_slots_window=5)
    led: dict[bytes, list[int]] = {member.node: [] for member in chain.validators.members}
    for skip in (0, 3, 1, 0, 9, 0, 0, 2, 17, 0, 0, 5, 0, 1, 0, 0, 40, 0):
        terms, before = get_epoch_terms(chain.ledger), chain.header
        chain.step(skip=skip)
        for view in range(before.view + 1, chain.header.view + 1):
            leader = compute_leader(terms.validators, chain.header.chain_id, terms.epoch, terms.seed, view)
            led[terms.validators.members[leader].node].append(int(view != chain.header.view))
        for node, slots in led.items():
            expected = sum(missed << place for place, missed in enumerate(reversed(slots[-5:])))
            assert get_attendance(Draft(chain.ledger), node).recent == expected


def test_a_standing_tells_how_many_slots_were_let_pass() -> None:
    chain = start()
    passed = chain.get_leader(chain.header.view + 1)
    chain.step(skip=chain.count_passed((passed,)))
    assert standing(chain, passed) == Standing(100 * UNIT, 100 * UNIT, 1, None)
    assert standing(chain, "asker") == Standing(0, 0, 0, None)


# --- who is jailed (V8, V9)


@pytest.mark.parametrize("window", [1, 4, 5, 63])
def test_more_than_half_of_the_window_is_too_much_and_half_is_not(window: int) -> None:
    draft = Draft(start(missed_slots_window=window).ledger)
    validators = get_epoch_terms(draft.base).validators
    nodes = [member.node for member in validators.members]
    first, second = nodes[:2]
    draft.put(attendance_key(first), Attendance((1 << window // 2) - 1, None))
    jail_absent(draft, validators, nodes, START_MS)
    assert not is_jailed(get_attendance(draft, first))
    draft.put(attendance_key(second), Attendance((1 << window // 2 + 1) - 1, None))
    assert jail_absent(draft, validators, nodes, START_MS) == {second}
    assert get_attendance(draft, second) == Attendance(0, Jail(START_MS, PPM // 10, is_over=False))


def test_an_absent_one_of_ten_is_jailed_at_a_boundary_and_votes_no_longer_two_epochs_later() -> None:
    chain = jail_one()
    epoch = chain.header.epoch
    assert chain.header.height % MINIMAL.epoch_heights == 0
    until_ms = chain.header.time_ms + MINIMAL.jail_ms
    assert standing(chain, "v3") == Standing(100 * UNIT, 0, 0, until_ms)
    chain.step(skip=200)
    assert standing(chain, "v3") == Standing(100 * UNIT, 0, 0, until_ms)  # its slots in jail are not counted
    chain.finish_epoch()
    assert chain.header.epoch == epoch + 1
    assert standing(chain, "v3") == Standing(0, 0, 0, until_ms)
    assert len(chain.validators.members) == 9
    assert all(standing(chain, name).weight for name in TEN if name != "v3")


@pytest.mark.parametrize("names", [("v0",), TEN[:4], TEN[:9]])
def test_nobody_is_jailed_who_weighs_more_than_the_share(names: tuple[str, ...]) -> None:
    """Among nine equals one is a ninth, so absence there costs views and no vote; a lone validator never jails itself."""
    chain = start(names)
    absent = names[1:2] or names
    for _ in range(8 * MINIMAL.epoch_heights):
        chain.step(skip=5 if len(names) == 1 else chain.count_passed(absent))
    missed = count_missed(get_attendance(Draft(chain.ledger), make_key(absent[0]).public))
    assert 2 * missed > WINDOW
    assert list_jailed(chain, names) == []
    assert len(chain.validators.members) == len(names)


def judge(
    weights: dict[str, int], missed: dict[str, int], earlier: tuple[Jail, ...] = (), leaving: str = ""
) -> list[str]:
    """Whom a boundary at START_MS jails of these validators, who missed so many slots."""
    draft = Draft(start().ledger)
    validators = ValidatorSet(tuple(Validator(make_key(name).public, weight) for name, weight in weights.items()))
    for name, count in missed.items():
        draft.put(attendance_key(make_key(name).public), Attendance((1 << count) - 1, None))
    for index, jail in enumerate(earlier):
        draft.put(attendance_key(make_key(f"earlier {index}").public), Attendance(0, jail))
    qualified = [make_key(name).public for name in weights if name != leaving]
    jailed = jail_absent(draft, validators, qualified, START_MS)
    assert jailed == {node for node in qualified if is_jailed(get_attendance(draft, node))}
    return [name for name in weights if make_key(name).public in jailed]


def test_the_most_absent_come_first_and_who_is_too_heavy_gives_way() -> None:
    weights = {"heavy": 101, "a": 60, "b": 50, "c": 40, "rest": 749}
    assert judge(weights, {"heavy": 4, "a": 3, "b": 4, "c": 3}) == ["b", "c"]
    assert judge(weights, {"heavy": 4, "a": 4, "b": 3, "c": 3}) == ["a", "c"]
    equals = dict.fromkeys("abcdefghijklmnop", 60)
    assert judge(equals, dict.fromkeys("dea", 3)) == [min("dea", key=lambda name: make_key(name).public)]


@pytest.mark.parametrize(
    "age_ms, is_over, share_ppm, jailed",
    [
        (0, False, 50_001, []),
        (0, False, 50_000, ["small"]),
        (MINIMAL.jail_window_ms - 1, True, 50_001, []),  # it came back, and counts all the same
        (MINIMAL.jail_window_ms, False, 50_001, ["small"]),  # it is still in jail, and counts no longer
    ],
)
def test_the_share_is_of_all_that_was_jailed_within_the_window(
    age_ms: int, is_over: bool, share_ppm: int, jailed: list[str]
) -> None:
    earlier = Jail(START_MS - age_ms, share_ppm, is_over=is_over)
    assert judge({"small": 50, "rest": 950}, {"small": 4}, (earlier,)) == jailed


def test_who_leaves_takes_no_room_from_others() -> None:
    assert judge({"first": 60, "second": 60, "rest": 880}, {"first": 4, "second": 3}) == ["first"]
    assert judge({"first": 60, "second": 60, "rest": 880}, {"first": 4, "second": 3}, leaving="first") == ["second"]


def test_a_share_is_rounded_up() -> None:
    assert judge({"small": 100, "rest": 900}, {"small": 4}) == ["small"]
    assert judge({"small": 100_000_001, "rest": 900_000_000}, {"small": 4}) == []


def test_two_of_twelve_are_jailed_a_window_apart() -> None:
    names = (*TEN, "v10", "v11")  # of ten, the second would be a ninth
    chain = start(names, jail_window_ms=2_000)
    while len(list_jailed(chain)) < 2:
        chain.finish_epoch(absent=("v3", "v5"))
        assert chain.header.epoch < 20
    times = sorted(
        jail.time_ms
        for name in ("v3", "v5")
        if (jail := get_attendance(Draft(chain.ledger), make_key(name).public).jail) is not None
    )
    assert all(later - earlier >= 2_000 for earlier, later in pairwise(times))


# --- coming back (V10)


def test_who_was_jailed_comes_back_by_unjail_after_its_time_and_not_before() -> None:
    chain = jail_one(jail_ms=2_000)
    end_ms = chain.header.time_ms + 2_000
    assert refuse(chain, "v3") is Rejection.JAILED
    chain.finish_epoch(2)
    chain.step(after_ms=end_ms - chain.header.time_ms - 1)
    assert refuse(chain, "v3") is Rejection.JAILED  # a millisecond early
    chain.step()
    chain.step(unjail(chain, "v3"))
    assert list_jailed(chain) == [] and standing(chain, "v3").weight == 0
    assert refuse(chain, "v3") is Rejection.NOT_JAILED
    epoch = chain.header.epoch
    chain.finish_epoch(2)
    assert get_epoch_terms(chain.ledger).epoch == epoch + 2
    assert standing(chain, "v3").weight == 100 * UNIT
    assert chain.names[chain.validators.members[-1].node] == "v3"
    chain.step(skip=next(skip for skip in range(99) if chain.get_leader(chain.header.view + 1 + skip) == "v3"))


def test_without_unjail_nobody_comes_back() -> None:
    chain = jail_one()
    chain.finish_epoch(3, after_ms=10_000)
    assert standing(chain, "v3").weight == 0 and list_jailed(chain) == ["v3"]


@pytest.mark.parametrize("name", ["v0", "asker"])
def test_only_who_is_jailed_can_be_unjailed(name: str) -> None:
    assert refuse(start(), name) is Rejection.NOT_JAILED


def test_a_convict_stays_out() -> None:
    chain = jail_one()
    chain.step(report(chain, "asker", convict(chain, "v3")), after_ms=MINIMAL.jail_ms)
    assert refuse(chain, "v3") is Rejection.CONVICTED


# --- what is remembered


def test_who_left_is_forgotten_but_not_its_jail() -> None:
    chain = jail_one()
    chain.step(chain.unbond("v0", 100 * UNIT))
    chain.finish_epoch(4, after_ms=1_000)
    known = {chain.names[key[1:]] for key in Draft(chain.ledger).list_keys(bytes((Kind.ATTENDANCE,)))}
    assert "v3" in known and "v0" not in known
    assert known <= set(TEN)
