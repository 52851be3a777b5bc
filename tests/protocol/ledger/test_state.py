"""Blocks: what a leader may build, what everybody refuses, and what the state is after it."""

import pytest
from msgspec.structs import replace

from protocol.block import Block, Header, compute_header_hash
from protocol.codec import encode
from protocol.errors import InvalidBlock, InvalidMessage, Rejection
from protocol.jobs.beacon import compute_beacon, compute_slots
from protocol.jobs.settlement import Phase
from protocol.ledger.draft import changed_entries, ledger_from_entries
from protocol.ledger.epochs import get_epoch_terms
from protocol.ledger.queries import get_account
from protocol.ledger.state import BuildContext, Work, build_block, check_block, create_genesis, get_onion_gap, has_work
from protocol.params import MINIMAL
from protocol.transactions import compute_transaction_id
from protocol.validators import compute_leader
from tests.protocol.builders import (
    TestChain,
    make_genesis,
    make_hash,
    make_key,
    make_payload,
    make_request,
    start_chain,
)

BASE = MINIMAL.base_fee


@pytest.fixture(scope="module")
def chain() -> TestChain:
    """A chain a few blocks up; these tests do not move it."""
    chain = start_chain()
    chain.run(3)
    return chain


def refuse(chain: TestChain, block: Block) -> InvalidBlock:
    with pytest.raises(InvalidBlock) as refusal:
        check_block(chain.ledger, chain.header, block)
    return refusal.value


def with_header(block: Block, **changes: object) -> Block:
    return replace(block, header=replace(block.header, **changes))


# --- headers (L2, L3, L4, L7, L8, L13)


def test_the_genesis_header_is_the_first_state_s() -> None:
    genesis = make_genesis()
    ledger, header = create_genesis(genesis)
    assert (header.height, header.view, header.beacon) == (0, 0, genesis.seed)
    assert header.state_root == ledger.state_root
    assert header.candidates_root == ledger.chain.candidates_root
    assert create_genesis(genesis)[1] == header


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"chain_id": make_hash("other")}, Rejection.WRONG_CHAIN),
        ({"epoch": 1}, Rejection.BAD_PARENT),
        ({"height": 9}, Rejection.BAD_HEIGHT),
        ({"parent_view": 2}, Rejection.BAD_PARENT),
        ({"parent_hash": make_hash("other")}, Rejection.BAD_PARENT),
        ({"tx_root": make_hash("other")}, Rejection.BAD_ROOT),
        ({"state_root": make_hash("other")}, Rejection.BAD_ROOT),
        ({"valset_hash": make_hash("other")}, Rejection.BAD_ROOT),
        ({"next_valset_hash": make_hash("other")}, Rejection.BAD_ROOT),
        ({"candidates_root": make_hash("other")}, Rejection.BAD_ROOT),
        ({"beacon_reveal": make_hash("other")}, Rejection.BAD_BEACON),
        ({"beacon": make_hash("other")}, Rejection.BAD_BEACON),
        ({"leader_seed": make_hash("other")}, Rejection.BAD_BEACON),
        ({"view": 3}, Rejection.BAD_PARENT),
        ({"view": 2**21}, Rejection.BAD_PARENT),
        ({"time_ms": 2**60}, Rejection.BAD_TIME),
    ],
)
def test_a_header_with_any_other_field_is_refused(
    chain: TestChain, changes: dict[str, object], reason: Rejection
) -> None:
    assert refuse(chain, with_header(chain.build().block, **changes)).reason is reason


def test_every_field_of_a_header_is_checked(chain: TestChain) -> None:
    block = chain.build().block
    for name in Header.__struct_fields__:
        value = getattr(block.header, name)
        other = make_hash("other") if isinstance(value, bytes) else value + 1
        if name == "time_ms":
            other = value - 1
        refuse(chain, with_header(block, **{name: other}))


@pytest.mark.parametrize("after_ms", [50, 10**9])
def test_time_moves_by_the_pace_at_least(chain: TestChain, after_ms: int) -> None:
    block = chain.build(after_ms=after_ms).block
    check_block(chain.ledger, chain.header, block)
    assert block.header.time_ms == chain.header.time_ms + after_ms


def test_a_leader_whose_clock_is_late_still_moves_the_time_by_the_pace(chain: TestChain) -> None:
    assert chain.build(after_ms=-1000).block.header.time_ms == chain.header.time_ms + MINIMAL.pace_ms
    early = with_header(chain.build().block, time_ms=chain.header.time_ms + MINIMAL.pace_ms - 1)
    assert refuse(chain, early).reason is Rejection.BAD_TIME


def test_the_beacon_chains_the_leaders_reveals() -> None:
    chain = start_chain()
    beacon = chain.header.beacon
    for skip in (0, 3, 0, 1, 0):
        chain.step(skip=skip)
        beacon = compute_beacon(beacon, chain.header.beacon_reveal)
    assert chain.header.beacon == beacon


def test_a_skipped_view_uses_up_its_leader_s_layer() -> None:
    chain = start_chain()

    def leader(view: int) -> int:
        return compute_leader(chain.validators, chain.ledger.constants.chain_id, 0, chain.genesis.seed, view)

    first = leader(1)
    later = next(view for view in range(2, 99) if leader(view) == first)
    gap = get_onion_gap(chain.ledger, chain.header, later)
    assert (gap[0], gap[1]) == (first, 2)
    inner = chain.build(skip=later - 1).block
    check_block(chain.ledger, chain.header, inner)
    far = chain.context(skip=later - 1)
    near = BuildContext(0, far.view, far.proposer, far.time_ms, chain.context().beacon_reveal, ())
    with pytest.raises(InvalidBlock) as refusal:
        build_block(chain.ledger, chain.header, near)
    assert refusal.value.reason is Rejection.BAD_BEACON


def test_every_reveal_is_the_layer_of_its_leader_s_own_slot() -> None:
    chain = start_chain()
    start, slots, before = 0, [0] * 5, [0] * 5
    for skip in (0, 7, 0, 12, 1, 0, 3, 20, 0, 0, 9, 0):  # beyond an epoch's end
        terms = get_epoch_terms(chain.ledger)
        shape = (terms.validators, chain.ledger.constants.chain_id, terms.epoch, terms.seed)
        if chain.header.height == terms.start_height:
            start, before = chain.header.view, slots
        chain.step(skip=skip)
        slots = [known + compute_slots(*shape, index, start, chain.header.view) for index, known in enumerate(before)]
        leader = compute_leader(*shape, chain.header.view)
        assert chain.header.beacon_reveal == chain.get_onion(leader).reveal(slots[leader])


def test_only_the_view_s_leader_builds(chain: TestChain) -> None:
    context = chain.context()
    others = BuildContext(0, context.view, (context.proposer + 1) % 5, context.time_ms, context.beacon_reveal, ())
    with pytest.raises(InvalidBlock) as refusal:
        build_block(chain.ledger, chain.header, others)
    assert refusal.value.reason is Rejection.NOT_LEADER


# --- money (M2)


def test_half_of_the_base_fee_is_the_proposer_s_and_the_odd_unit_burns() -> None:
    chain = start_chain(make_genesis(params=replace(MINIMAL, base_fee=1_001)))
    balances = [get_account(chain.ledger, member.node).balance for member in chain.validators.members]
    proposer = chain.context().proposer
    chain.step(chain.transfer("asker", "other", 5), chain.transfer("other", "asker", 5))
    node = chain.validators.members[proposer].node
    assert get_account(chain.ledger, node).balance == balances[proposer] + 2 * 500
    assert chain.ledger.chain.burned == 2 * 501
    assert get_account(chain.ledger, make_key("asker").public).balance == 1000 * 10**6 - 1_001


# --- forks, restore


def test_children_of_one_parent_live_side_by_side(chain: TestChain) -> None:
    left, right = chain.fork(), chain.fork()
    root = chain.ledger.state_root
    left.step(left.transfer("asker", "other", 5))
    right.step(right.transfer("other", "asker", 7))
    assert chain.ledger.state_root == root
    assert left.ledger.state_root != right.ledger.state_root
    assert get_account(right.ledger, make_key("asker").public).nonce == 0


def test_stored_changes_add_up_to_the_same_ledger() -> None:
    chain = start_chain()
    stored = dict(changed_entries(chain.ledger))
    signed = chain.ask()
    chain.step(signed)
    for _ in range(25):
        chain.step(chain.transfer("asker", "other", 5))
        _store(stored, chain)
    restored = ledger_from_entries(chain.genesis, {key: value for key, value in stored.items() if value is not None})
    assert restored.entries == chain.ledger.entries
    assert restored.state_root == chain.ledger.state_root
    assert restored.chain == chain.ledger.chain
    block = chain.build([encode(chain.transfer("asker", "other", 5))]).block
    assert check_block(restored, chain.header, block).state_root == block.header.state_root


def _store(stored: dict[bytes, bytes | None], chain: TestChain) -> None:
    for key, value in changed_entries(chain.ledger).items():
        stored[key] = value
        if value is None:
            del stored[key]


def test_a_damaged_entry_is_refused_when_a_ledger_is_restored() -> None:
    chain = start_chain()
    entries = dict(chain.ledger.entries)
    key = next(key for key in entries if key[0] == 2)
    with pytest.raises(InvalidMessage):
        ledger_from_entries(chain.genesis, {**entries, key: entries[key] + b"x"})


# --- work (L12)


def test_what_wants_a_block_and_when() -> None:
    chain = start_chain()
    assert has_work(chain.ledger, 2**50) == Work(due=False, next_ms=None)
    job = make_job_in(chain, Phase.SUBMITTED)
    assert has_work(chain.ledger, 0) == Work(due=True, next_ms=None)
    while chain.view(job).phase is Phase.SUBMITTED:
        chain.step()
    half_ms = chain.header.time_ms + make_request().commit_ms // 2
    assert has_work(chain.ledger, half_ms - 1) == Work(due=False, next_ms=half_ms)
    assert has_work(chain.ledger, half_ms) == Work(due=True, next_ms=None)
    chain.commit_all(job, dict.fromkeys(chain.members(job), make_payload()))
    end_ms = chain.header.time_ms + make_request().reveal_ms
    assert has_work(chain.ledger, end_ms - 1) == Work(due=False, next_ms=end_ms)
    chain.reveal_all(job, dict.fromkeys(chain.members(job), make_payload()))
    assert has_work(chain.ledger, 2**50) == Work(due=False, next_ms=None)


def make_job_in(chain: TestChain, phase: Phase) -> bytes:
    signed = chain.ask()
    chain.step(signed)
    job = compute_transaction_id(signed.body)
    assert chain.view(job).phase is phase
    return job


def test_the_parent_must_be_the_ledger_s_own(chain: TestChain) -> None:
    assert chain.header.state_root == chain.ledger.state_root
    assert compute_header_hash(chain.header) == chain.build().block.header.parent_hash
