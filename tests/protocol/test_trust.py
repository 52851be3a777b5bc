from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from protocol.codec import encode
from protocol.errors import InvalidMessage, Rejection
from protocol.genesis import compute_validator_set
from protocol.ordering.messages import VoteKind
from protocol.trust import (
    MAX_STEP_BYTES,
    STEP_CODEC,
    ChainStep,
    RootKind,
    Trust,
    TrustedHeader,
    check_final,
    find_validators,
    make_step,
    trust_genesis,
    trust_header,
    walk_steps,
)
from protocol.validators import Validator, ValidatorSet, compute_validator_set_hash
from tests.protocol.builders import make_genesis, make_hash, make_key
from tests.protocol.trusts import Line, make_line, make_set, sign_final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def refuse(act: Callable[[], object]) -> Rejection:
    with pytest.raises(InvalidMessage) as caught:
        act()
    assert str(caught.value)
    return caught.value.reason


def walk(line: Line, steps: Sequence[ChainStep] | None = None) -> Trust:
    return walk_steps(trust_genesis(line.genesis), line.list_steps() if steps is None else steps)


def look_up(trust: Trust, line: Line, epoch: int) -> ValidatorSet:
    return find_validators(trust, epoch, compute_validator_set_hash(line.get_set(epoch)))


def test_the_genesis_is_enough_while_its_set_votes() -> None:
    line = Line()
    trust = trust_genesis(line.genesis)
    assert (trust.root.kind, trust.root.time_ms, trust.step_count) == (RootKind.GENESIS, line.genesis.time_ms, 0)
    for epoch in (0, 1, 2, 1000):
        assert look_up(trust, line, epoch) == compute_validator_set(line.genesis)
    assert trust.certain_epoch == 1


def test_steps_lead_to_every_epochs_set() -> None:  # C16
    line = make_line()
    trust = walk(line)
    for epoch in (0, 1, 2, 3, 6, 7, 8, 9, 40):
        assert look_up(trust, line, epoch) == line.get_set(epoch)
    assert (trust.step_count, trust.certain_epoch) == (4, 9)


def test_steps_may_come_one_by_one() -> None:
    line, trust = make_line(), trust_genesis(make_line().genesis)
    for step in line.list_steps():
        trust = walk_steps(trust, (step,))
    assert trust == walk(line)
    assert walk_steps(trust, ()) == trust


def test_without_steps_a_changed_set_asks_for_them() -> None:
    line = make_line()
    trust = walk(line, line.list_steps()[:2])
    assert refuse(lambda: look_up(trust, line, 7)) is Rejection.MISSING_STEPS
    assert refuse(lambda: look_up(trust_genesis(line.genesis), line, 2)) is Rejection.MISSING_STEPS


def test_a_set_that_has_left_is_not_believed_later() -> None:
    line = make_line()
    trust = walk(line)
    for epoch, earlier in ((2, 0), (7, 3), (9, 7)):
        valset_hash = compute_validator_set_hash(line.get_set(earlier))
        assert refuse(lambda: find_validators(trust, epoch, valset_hash)) is Rejection.BAD_VALIDATORS  # noqa: B023


def test_a_set_that_is_yet_to_come_is_not_believed_earlier() -> None:
    line = make_line()
    third = compute_validator_set_hash(line.get_set(3))
    assert refuse(lambda: find_validators(walk(line), 2, third)) is Rejection.BAD_VALIDATORS


def test_the_sets_of_the_first_two_epochs_are_the_genesis_and_no_step_changes_that() -> None:
    line = Line({1: make_set("v5", "v6")})
    assert refuse(lambda: walk(line)) is Rejection.BAD_VALIDATORS
    never = compute_validator_set_hash(make_set("v5", "v6"))
    assert refuse(lambda: find_validators(trust_genesis(line.genesis), 1, never)) is Rejection.BAD_VALIDATORS


# --- steps that do not hold


def test_a_step_left_out_is_missed() -> None:  # C16
    line = make_line()
    steps = line.list_steps()
    for index in range(3):
        left = (*steps[:index], *steps[index + 1 :])
        assert refuse(lambda: walk(line, left)) is Rejection.MISSING_STEPS  # noqa: B023
    last_missing = walk(line, steps[:-1])
    assert refuse(lambda: look_up(last_missing, line, 9)) is Rejection.MISSING_STEPS


def test_steps_stand_once_and_in_order() -> None:
    line = make_line()
    first, second, third, _ = line.list_steps()
    for steps in ((second, first, third), (first, first, second), (first, second, third, second), (third, second)):
        assert refuse(lambda: walk(line, steps)) is Rejection.BAD_HEIGHT  # noqa: B023
    trust = walk(line, (first, second))
    for known in (first, second):
        assert refuse(lambda: walk_steps(trust, (known,))) is Rejection.BAD_HEIGHT  # noqa: B023


def test_views_and_times_of_steps_ascend() -> None:
    line = make_line()
    first, second, *_ = line.list_steps()
    for changes in ({"view": first.header.view}, {"time_ms": first.header.time_ms}):
        assert refuse(lambda: walk(line, (first, line.make_step(2, changes=changes)))) is Rejection.BAD_HEIGHT  # noqa: B023
    for changes in ({"view": 0}, {"time_ms": 0}):  # not after the root
        assert refuse(lambda: walk(line, (line.make_step(1, changes=changes), second))) is Rejection.BAD_HEIGHT  # noqa: B023


def test_a_step_of_another_chain_is_refused() -> None:
    other = Line(make_line().sets, make_genesis(stake=7_000_000_000))
    assert refuse(lambda: walk(make_line(), other.list_steps())) is Rejection.WRONG_CHAIN


@pytest.mark.parametrize(
    "changes",
    [{"height": 23}, {"height": 25}, {"height": 0}, {"height": 2**63 - 1}, {"epoch": 1}, {"epoch": 3}, {"epoch": 2**63 - 1}],
)  # fmt: skip
def test_a_step_stands_at_the_end_of_its_epoch(changes: dict[str, int]) -> None:
    line = make_line()
    first = line.list_steps()[0]
    assert refuse(lambda: walk(line, (first, line.make_step(2, changes=changes)))) is Rejection.BAD_HEIGHT


def test_a_step_changes_the_set() -> None:
    line = make_line()
    header = line.make_boundary(4)
    idle = ChainStep(header, sign_final(header, line.get_set(4)), line.get_set(5))
    steps = line.list_steps()
    assert refuse(lambda: walk(line, (*steps[:2], idle, *steps[2:]))) is Rejection.BAD_VALIDATORS


def test_the_set_of_a_step_is_the_one_that_its_header_names() -> None:
    line = make_line()
    step = line.list_steps()[0]
    members = step.validators.members
    for wrong in (members[::-1], members[1:], (*members, members[0]), (replace(members[0], weight=101), *members[1:])):
        forged = replace(step, validators=ValidatorSet(wrong))
        assert refuse(lambda: walk(line, (forged,))) is Rejection.BAD_VALIDATORS  # noqa: B023


def test_a_set_has_no_validator_twice() -> None:
    twice = ValidatorSet((*make_set("v0", "v1").members, Validator(make_key("v0").public, 1)))
    assert refuse(lambda: walk(Line({2: twice}))) is Rejection.BAD_VALIDATORS


def test_only_the_set_of_the_epoch_makes_its_end_final() -> None:
    line = make_line()
    first, second, third, _ = line.list_steps()
    by_the_next = replace(second, final_cert=sign_final(second.header, line.get_set(3)))
    assert refuse(lambda: walk(line, (first, by_the_next))) is Rejection.BAD_SIGNATURE
    by_one_that_left = replace(third, final_cert=sign_final(third.header, line.get_set(2)))
    assert refuse(lambda: walk(line, (first, second, by_one_that_left))) is Rejection.BAD_SIGNATURE
    never = Line({2: make_set("v20", "v21", "v22", "v23", "v24")})
    by_itself = replace(
        never.list_steps()[0],
        final_cert=sign_final(never.make_boundary(1), make_set("v20", "v21", "v22", "v23", "v24")),
    )
    assert refuse(lambda: walk(never, (by_itself,))) is Rejection.BAD_SIGNATURE


def test_more_than_two_thirds_must_have_voted_for_a_step() -> None:
    line = Line({2: make_set("v6")})
    assert refuse(lambda: walk(line, (line.make_step(1, signers=(0, 1, 2)),))) is Rejection.NO_QUORUM
    assert walk(line, (line.make_step(1, signers=(0, 1, 2, 4)),)).step_count == 1


def test_the_votes_of_a_step_are_final_ones_for_its_very_block() -> None:
    line = make_line()
    step = line.list_steps()[0]
    for wrong in (
        replace(step.final_cert, kind=VoteKind.NOTAR),
        replace(step.final_cert, block_hash=make_hash("other")),
        sign_final(line.make_boundary(1, state_root=make_hash("other")), line.get_set(1)),
    ):
        assert refuse(lambda: walk(line, (replace(step, final_cert=wrong),))) is Rejection.NO_QUORUM  # noqa: B023
    later = replace(step, final_cert=replace(step.final_cert, epoch=2))
    assert refuse(lambda: walk(line, (later,))) is Rejection.OUT_OF_RANGE


def test_the_end_of_an_epoch_may_have_been_made_final_in_a_later_view() -> None:
    line = make_line()
    view = line.make_boundary(1).view
    for at, is_valid in ((view, True), (view + 1, True), (view + 1000, True), (view - 1, False)):
        step = line.make_step(1, cast_at=at)
        if is_valid:
            assert walk(line, (step,)).step_count == 1
        else:
            assert refuse(lambda: walk(line, (step,))) is Rejection.OUT_OF_RANGE  # noqa: B023


def test_no_other_block_is_made_final_by_votes_of_another_view() -> None:
    line = make_line()
    trust = trust_genesis(line.genesis)
    header, validators = line.make_header(5), line.get_set(0)
    check_final(trust, header, sign_final(header, validators), validators, "block")
    for view in (header.view - 1, header.view + 1):
        cert = sign_final(header, validators, view=view)
        assert refuse(lambda: check_final(trust, header, cert, validators, "block")) is Rejection.OUT_OF_RANGE  # noqa: B023


def test_no_signature_is_looked_at_before_all_steps_have_their_form() -> None:
    line = make_line()
    first, second, third, fourth = line.list_steps()
    unsigned = replace(first, final_cert=replace(first.final_cert, signatures=(bytes(64),) * 5))
    assert refuse(lambda: walk(line, (unsigned, second, third))) is Rejection.BAD_SIGNATURE
    assert refuse(lambda: walk(line, (unsigned, second, fourth))) is Rejection.MISSING_STEPS


# --- a trusted header


def test_a_trusted_header_is_a_root_of_its_own() -> None:  # C17
    line = make_line()
    trust = trust_header(line.genesis, line.make_trusted(30))  # in epoch 3
    assert (trust.root.kind, trust.root.epoch, trust.root.height) == (RootKind.HEADER, 3, 30)
    assert look_up(trust, line, 3) == look_up(trust, line, 6) == line.get_set(3)
    assert refuse(lambda: look_up(trust, line, 7)) is Rejection.MISSING_STEPS
    assert refuse(lambda: look_up(trust, line, 2)) is Rejection.BEFORE_TRUST
    followed = walk_steps(trust, line.list_steps()[2:])
    assert look_up(followed, line, 7) == line.get_set(7)


def test_the_same_chain_file_serves_every_root() -> None:
    line = make_line()
    for height in (8, 9, 16, 17, 24, 25, 30, 56, 57, 72, 73, 200):
        trust = walk_steps(trust_header(line.genesis, line.make_trusted(height)), line.list_steps())
        for epoch in range(trust.root.epoch, 12):
            assert look_up(trust, line, epoch) == line.get_set(epoch)
        assert all(compute_validator_set_hash(each) in trust.tables for each in line.sets.values())


def test_a_header_that_announces_another_set_wants_the_step_to_it() -> None:
    line = make_line()
    trust = trust_header(line.genesis, line.make_trusted(50))  # in epoch 6, the last of its set
    assert look_up(trust, line, 6) == line.get_set(6)
    same = compute_validator_set_hash(line.get_set(6))
    for epoch in (7, 8, 30):
        assert refuse(lambda: find_validators(trust, epoch, same)) is Rejection.MISSING_STEPS  # noqa: B023
    skipping = Line({**line.sets, 7: line.get_set(6), 8: make_set("v30")})
    assert refuse(lambda: walk_steps(trust, (skipping.make_step(7),))) is Rejection.MISSING_STEPS
    elsewhere = Line({**line.sets, 7: make_set("v30")})
    assert refuse(lambda: walk_steps(trust, (elsewhere.make_step(6),))) is Rejection.BAD_VALIDATORS


def test_steps_before_a_trusted_header_prove_nothing_but_must_lead_to_it() -> None:
    line = make_line()
    other = Line({2: make_set("v20", "v21"), 3: make_set("v22")})
    trust = trust_header(line.genesis, line.make_trusted(30))
    assert refuse(lambda: walk_steps(trust, other.list_steps())) is Rejection.BAD_VALIDATORS
    first, second, *_ = line.list_steps()
    unsigned = replace(first, final_cert=replace(first.final_cert, signatures=(bytes(64),) * 5))
    assert walk_steps(trust, (unsigned, second)).step_count == 0  # its set is at hand by its hash, and nothing more
    assert refuse(lambda: walk_steps(trust_header(line.genesis, line.make_trusted(60)), (first,))) is (
        Rejection.BAD_VALIDATORS
    )
    later = walk_steps(trust, line.list_steps()[2:])
    assert refuse(lambda: walk_steps(later, (first, second))) is Rejection.BAD_HEIGHT


def test_a_step_agrees_with_the_block_that_is_trusted() -> None:
    line = make_line()
    trust = trust_header(line.genesis, line.make_trusted(56))  # the end of epoch 6 itself
    assert walk_steps(trust, (line.make_step(6),)).step_count == 1
    other = line.make_step(6, changes={"state_root": make_hash("other")})
    assert refuse(lambda: walk_steps(trust, (other,))) is Rejection.BAD_PARENT
    before = trust_header(line.genesis, line.make_trusted(55))
    assert refuse(lambda: walk_steps(before, (line.make_step(6, changes={"time_ms": 0}),))) is Rejection.BAD_HEIGHT


def test_a_trusted_header_is_of_this_chain_and_brings_its_own_set() -> None:
    line = make_line()
    trusted = line.make_trusted(30)
    other = make_genesis(stake=7_000_000_000)
    assert refuse(lambda: trust_header(other, trusted)) is Rejection.WRONG_CHAIN
    for height, epoch in ((30, 4), (0, 0), (2**63 - 1, 3)):
        header = replace(trusted.header, height=height, epoch=epoch)
        assert refuse(lambda: trust_header(line.genesis, replace(trusted, header=header))) is Rejection.BAD_HEIGHT  # noqa: B023
    assert refuse(lambda: trust_header(line.genesis, replace(trusted, validators=line.get_set(0)))) is (
        Rejection.BAD_VALIDATORS
    )
    twice = ValidatorSet((*trusted.validators.members, trusted.validators.members[0]))
    header = replace(trusted.header, valset_hash=compute_validator_set_hash(twice))
    assert refuse(lambda: trust_header(line.genesis, TrustedHeader(header, twice, None))) is Rejection.BAD_VALIDATORS


def test_where_a_trusted_header_brings_votes_they_must_hold() -> None:
    line = make_line()
    trusted = line.make_trusted(30)
    assert trust_header(line.genesis, line.make_trusted(30, is_proven=False)).root.height == 30
    too_few = replace(trusted, final_cert=sign_final(trusted.header, trusted.validators, (0, 1)))
    assert refuse(lambda: trust_header(line.genesis, too_few)) is Rejection.NO_QUORUM
    of_another = replace(trusted, final_cert=sign_final(line.make_header(31), trusted.validators))
    assert refuse(lambda: trust_header(line.genesis, of_another)) is Rejection.NO_QUORUM


# --- what a node keeps


def test_a_node_keeps_the_step_of_a_boundary_where_the_set_changes_and_no_other() -> None:
    line = make_line()
    for height in (15, 16, 17, 24, 32, 56):
        header = line.make_header(height)
        cert, following = sign_final(header, line.get_set(header.epoch)), line.get_set(header.epoch + 1)
        step = make_step(header, cert, following, line.genesis.params)
        assert (step is not None) == (height in {16, 24, 56})
        assert step is None or step in line.list_steps()


def test_a_step_of_the_largest_sets_fits_its_limit() -> None:
    everybody = ValidatorSet(tuple(Validator(make_hash(f"node {index}"), 2**53) for index in range(100)))
    line = make_line()
    step = line.list_steps()[0]
    signatures = (b"\xff" * 64,) * 100
    header = replace(step.header, height=2**62, view=2**62, time_ms=2**53, epoch=2**62)
    cert = replace(step.final_cert, view=2**62, epoch=2**62, signers=tuple(range(100)), signatures=signatures)
    largest = encode(ChainStep(header, cert, everybody))
    assert 11_000 < len(largest) <= MAX_STEP_BYTES
    assert STEP_CODEC.decode(largest).validators == everybody
