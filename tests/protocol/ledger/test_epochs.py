"""Epochs in the state: which one a block is of, who leads and votes in it, and that headers say nothing else (V1, V2, L7, L13)."""

from itertools import pairwise

import pytest
from msgspec.structs import replace

from protocol.block import Block, Header
from protocol.codec import encode
from protocol.errors import InvalidBlock, Rejection
from protocol.ledger.draft import Draft, ledger_from_entries
from protocol.ledger.entries import Kind
from protocol.ledger.epochs import find_validators, get_epoch, get_epoch_terms, get_leader_seed, get_validators
from protocol.ledger.foreign import ledger_from_snapshot
from protocol.ledger.state import build_block, check_block
from protocol.params import MINIMAL, UNIT, compute_boundary, compute_epoch
from protocol.transactions import SignedTransaction
from protocol.validators import compute_leader, compute_validator_set_hash
from tests.protocol.builders import TestChain, make_genesis, make_hash, start_chain
from tests.protocol.offences import convict, report

LENGTH = MINIMAL.epoch_heights


def change_set(chain: TestChain) -> None:
    """A bond that changes the set two epochs later."""
    chain.step(chain.bond("v1", UNIT))


@pytest.fixture(scope="module")
def changing() -> TestChain:
    """A chain at its second boundary: the epochs 0 and 1, 2, and 3 have different sets."""
    chain = start_chain()
    for _ in range(2):
        change_set(chain)
        chain.finish_epoch()
    return chain


def refuse(chain: TestChain, block: Block) -> InvalidBlock:
    with pytest.raises(InvalidBlock) as refusal:
        check_block(chain.ledger, chain.header, block)
    return refusal.value


@pytest.mark.parametrize(
    "height, epoch", [(0, 0), (1, 0), (LENGTH, 0), (LENGTH + 1, 1), (2 * LENGTH, 1), (2 * LENGTH + 1, 2)]
)
def test_an_epoch_begins_behind_the_boundary_of_the_one_before(height: int, epoch: int) -> None:
    assert compute_epoch(MINIMAL, height) == epoch
    assert (height == compute_boundary(MINIMAL, epoch)) is (height in (LENGTH, 2 * LENGTH))


def test_the_terms_of_an_epoch_are_the_next_blocks(changing: TestChain) -> None:
    chain = start_chain()
    for block in changing.blocks:
        terms = get_epoch_terms(chain.ledger)
        assert terms.epoch == block.header.epoch == get_epoch(chain.ledger)
        assert terms.start_height == terms.epoch * LENGTH <= chain.header.height
        assert terms.seed == block.header.leader_seed == get_leader_seed(chain.ledger)
        assert terms.validators == get_validators(chain.ledger, terms.epoch)
        assert compute_validator_set_hash(terms.validators) == block.header.valset_hash
        chain.take(block)


def test_a_schedule_is_seeded_by_the_beacon_of_the_boundary_before() -> None:
    chain = start_chain()
    chain.finish_epoch(4)
    seeds = {0: chain.genesis.seed}
    for block in chain.blocks:
        assert block.header.leader_seed == seeds[block.header.epoch]
        if block.header.height % LENGTH == 0:
            seeds[block.header.epoch + 1] = block.header.beacon
    assert len(set(seeds.values())) == 5


def test_views_go_on_across_a_boundary_and_the_new_schedule_leads_from_there() -> None:
    chain = start_chain()
    chain.finish_epoch()
    boundary = chain.header
    members, chain_id = chain.validators, chain.ledger.constants.chain_id
    led = [compute_leader(members, chain_id, 1, boundary.beacon, boundary.view + 1 + later) for later in range(12)]
    assert led != [compute_leader(members, chain_id, 0, chain.genesis.seed, boundary.view + 1 + n) for n in range(12)]
    for later, leader in enumerate(led):
        assert chain.context(skip=later).proposer == leader
        assert chain.build(skip=later).block.header.view == boundary.view + 1 + later


def test_sets_are_known_up_to_the_epoch_after_the_next_blocks(changing: TestChain) -> None:
    assert get_epoch(changing.ledger) == 2
    sets = [get_validators(changing.ledger, epoch) for epoch in range(4)]
    assert [first == second for first, second in pairwise(sets)] == [True, False, False]
    assert get_validators(Draft(changing.ledger), 3) == sets[3]
    assert find_validators(changing.ledger, 4) is None
    with pytest.raises(LookupError):
        get_validators(changing.ledger, 4)


# --- headers


@pytest.mark.parametrize("ahead", [0, 3, LENGTH - 1, LENGTH])
def test_a_header_with_any_field_wrong_is_refused(changing: TestChain, ahead: int) -> None:
    chain = changing.fork()
    chain.run(ahead)
    block = chain.build().block
    header, before = block.header, chain.blocks[-LENGTH - 1].header
    assert before.epoch < header.epoch
    wrong: list[Header] = [
        replace(header, valset_hash=header.next_valset_hash, next_valset_hash=header.valset_hash),
        replace(header, epoch=before.epoch),
        replace(header, leader_seed=before.leader_seed),
        replace(header, leader_seed=chain.header.beacon if ahead % LENGTH else header.beacon),
    ]
    for name in Header.__struct_fields__:
        value = getattr(header, name)
        others = [make_hash("other")] if isinstance(value, bytes) else [value + 1 if name != "time_ms" else value - 1]
        wrong.extend(replace(header, **{name: other}) for other in (*others, getattr(before, name)) if other != value)
    assert len(wrong) > 2 * len(Header.__struct_fields__) - 4
    for other in wrong:
        if other != header:
            refuse(chain, replace(block, header=other))
    check_block(chain.ledger, chain.header, block)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"epoch": 1}, Rejection.BAD_PARENT),
        ({"leader_seed": make_hash("other")}, Rejection.BAD_BEACON),
        ({"valset_hash": make_hash("other")}, Rejection.BAD_ROOT),
        ({"next_valset_hash": make_hash("other")}, Rejection.BAD_ROOT),
    ],
)
def test_a_header_of_another_epoch_is_refused_for_what_is_wrong(
    changing: TestChain, changes: dict[str, object], reason: Rejection
) -> None:
    block = changing.build().block
    assert refuse(changing, replace(block, header=replace(block.header, **changes))).reason is reason


def test_nobody_builds_above_the_boundary_for_the_epoch_that_ended(changing: TestChain) -> None:
    context = changing.context()
    late = type(context)(1, context.view, context.proposer, context.time_ms, context.beacon_reveal, ())
    with pytest.raises(InvalidBlock) as refusal:
        build_block(changing.ledger, changing.header, late)
    assert refusal.value.reason is Rejection.BAD_PARENT


# --- what is kept


def test_a_ledger_from_entries_or_a_snapshot_goes_on_across_boundaries(changing: TestChain) -> None:
    entries = dict(changing.ledger.entries)
    for ledger in (
        ledger_from_entries(changing.genesis, entries),
        ledger_from_snapshot(changing.genesis, sorted(entries.items()), changing.header),
    ):
        chain, other = changing.fork(), changing.fork()
        other.ledger = ledger
        chain.finish_epoch(2)
        for block in chain.blocks[len(changing.blocks) :]:
            other.take(block)
        assert other.ledger.state_root == chain.ledger.state_root


def test_an_unchanged_set_is_written_once() -> None:
    chain = start_chain()
    chain.finish_epoch(5)
    assert len(Draft(chain.ledger).list_keys(bytes((Kind.VALIDATORS,)))) == 1
    assert get_validators(chain.ledger, 0) == get_validators(chain.ledger, 6)


@pytest.mark.parametrize("after_ms", [50, 500])
def test_a_set_is_kept_exactly_as_long_as_some_offence_of_its_epoch_is_punished(after_ms: int) -> None:
    chain = start_chain(make_genesis(balance=10**6 * UNIT))
    reports: dict[int, SignedTransaction] = {}  # by epoch: of an offence behind its last view
    ends: dict[int, Header] = {}
    kept: list[int] = []
    for epoch in range(14):
        change_set(chain)
        for _ in range(LENGTH - 1):
            punished = {each for each in reports if chain.build([encode(reports[each])], after_ms=after_ms).block.body}
            chain.step(after_ms=after_ms)
            held = {each for each in reports if find_validators(chain.ledger, each) is not None}
            assert held == punished
            for gone in reports.keys() - held:
                assert chain.header.height - ends[gone].height > MINIMAL.evidence_max_heights
                assert chain.header.time_ms - ends[gone].time_ms > MINIMAL.evidence_max_ms
                del reports[gone]
                kept.append(chain.header.height - ends.pop(gone).height)
        if epoch:  # epoch 0 has the set of epoch 1
            reports[epoch] = report(chain, "asker", convict(chain, "v0", view=2**40))
            ends[epoch] = chain.header
    assert len(kept) >= 4
    assert max(kept) <= max(MINIMAL.evidence_max_heights, MINIMAL.evidence_max_ms // after_ms) * 5 // 4
