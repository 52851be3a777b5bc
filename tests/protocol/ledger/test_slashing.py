"""Broken voting rules: who is convicted, what it costs, whom it pays, and that nobody is drawn again who was (E1 to E9)."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.codec import encode
from protocol.errors import InvalidBlock, InvalidTransaction, Rejection
from protocol.evidence import Evidence, EvidenceKind
from protocol.ledger.queries import get_account, get_candidates, get_conviction, list_unbonding
from protocol.ledger.slashing import compute_slash_ppm
from protocol.ledger.state import check_block, check_transaction
from protocol.params import MINIMAL, UNIT
from protocol.transactions import Bond, Report, Serve, Transaction, Unbond, Withdraw
from protocol.validators import MAX_VALIDATORS
from tests.protocol.builders import (
    FOREVER,
    TestChain,
    make_genesis,
    make_key,
    make_payload,
    make_request,
    start_chain,
)
from tests.protocol.offences import convict, report

NAMES = tuple(f"v{index}" for index in range(10))
TEN = make_genesis(validators=NAMES)  # a tenth of the weight each
ALL = (*NAMES, "asker", "other")
STAKE = 100 * UNIT
WINDOW = MINIMAL.slash_window_heights, MINIMAL.slash_window_ms


def start_ten() -> TestChain:
    chain = start_chain(TEN, ALL)
    chain.run(2)
    return chain


@pytest.fixture(scope="module")
def chain() -> TestChain:
    """A chain of ten equal validators, two blocks up; these tests do not move it."""
    return start_ten()


def refuse(chain: TestChain, body: Transaction, name: str = "asker") -> InvalidTransaction:
    with pytest.raises(InvalidTransaction) as refusal:
        check_transaction(chain.ledger, chain.sign(name, body))
    return refusal.value


def slashed(chain: TestChain, name: str) -> int:
    conviction = get_conviction(chain.ledger, make_key(name).public)
    return 0 if conviction is None else conviction.slashed


# --- what convicts (E1 to E4)


@pytest.mark.parametrize("kind", EvidenceKind)
@pytest.mark.parametrize("reporter", ["asker", "stranger", "v1"])
def test_each_offence_convicts_whoever_reports_it(kind: EvidenceKind, reporter: str) -> None:
    chain, node = start_ten(), make_key("v0").public
    chain.names[make_key(reporter).public] = reporter
    chain.step(report(chain, reporter, convict(chain, "v0", kind)))
    conviction = get_conviction(chain.ledger, node)
    assert conviction is not None
    assert (conviction.kind, conviction.view, conviction.height) == (kind, 2, 3)
    assert (conviction.share_ppm, conviction.stake) == (100_000, STAKE)
    assert [get_conviction(chain.ledger, entry.node) is None for entry in chain.genesis.validators].count(False) == 1


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda e: replace(e, epoch=1), Rejection.OUT_OF_RANGE),
        (lambda e: replace(e, signer=10), Rejection.UNKNOWN_SIGNER),
        (lambda e: replace(e, signer=MAX_VALIDATORS - 1), Rejection.UNKNOWN_SIGNER),
        (lambda e: replace(e, signer=1), Rejection.BAD_PROOF),
        (lambda e: replace(e, view=1), Rejection.BAD_PROOF),
        (lambda e: replace(e, kind=EvidenceKind.TWO_FINAL), Rejection.BAD_PROOF),
        (lambda e: replace(e, votes=None), Rejection.MALFORMED),
        (lambda e: replace(e, votes=(e.votes[0], e.votes[0])), Rejection.BAD_PROOF),
        (lambda e: replace(e, votes=(e.votes[0], replace(e.votes[1], signature=bytes(64)))), Rejection.BAD_SIGNATURE),
    ],
)
def test_nothing_else_convicts(chain: TestChain, change: object, reason: Rejection) -> None:
    body = Report(make_key("asker").public, change(convict(chain, "v0")))
    assert refuse(chain, body).reason is reason
    built = chain.build([encode(chain.sign("asker", body))])
    assert built.block.body == ()
    assert built.invalid != ()


def test_votes_for_another_chain_convict_nobody(chain: TestChain) -> None:
    elsewhere = start_chain(make_genesis(validators=NAMES, balance=1), ALL)
    assert refuse(chain, Report(make_key("asker").public, convict(elsewhere, "v0", view=1))).reason is (
        Rejection.BAD_SIGNATURE
    )


def test_a_validator_is_convicted_once_whatever_else_it_did() -> None:
    chain = start_ten()
    first, second = convict(chain, "v0"), convict(chain, "v0", EvidenceKind.TWO_FINAL, view=1)
    built = chain.build([encode(report(chain, "asker", each)) for each in (first, second, first)])
    assert len(built.block.body) == 1
    chain.take(built.block)
    for again in (first, second):
        assert refuse(chain, Report(make_key("other").public, again), "other").reason is Rejection.DUPLICATE


def test_an_offence_is_punished_until_both_its_heights_and_its_time_are_over() -> None:
    heights, time_ms = MINIMAL.evidence_max_heights, MINIMAL.evidence_max_ms
    for blocks, late_ms, is_punished in (
        (heights + 6, 50, True),  # quick blocks: its time is not over
        (heights - 8, 2 * time_ms, True),  # late blocks: its heights are not over
        (heights + 6, 2 * time_ms, False),
    ):
        chain = start_ten()
        evidence = convict(chain, "v0")
        chain.run(blocks)
        chain.step(after_ms=late_ms)
        if is_punished:
            chain.step(report(chain, "asker", evidence))
        else:
            refusal = refuse(chain, Report(make_key("asker").public, evidence))
            assert refusal.reason is Rejection.EXPIRED
            assert "within which an offence is punished" in str(refusal)


def test_reports_stand_before_job_transactions_and_those_before_account_transactions() -> None:
    chain = start_ten()
    job = chain.submit()
    commit = chain.commit(job, chain.members(job)[0], make_payload())
    signed = [chain.transfer("asker", "other", 1), commit, report(chain, "asker", convict(chain, "v0"))]
    built = chain.build([encode(each) for each in signed])
    assert built.block.body == tuple(encode(each) for each in reversed(signed))
    chain.fork().take(built.block)
    for body in permutations(built.block.body):
        if body == built.block.body:
            continue
        block = replace(built.block, body=body)
        with pytest.raises(InvalidBlock):
            check_block(chain.ledger, chain.header, block)


# --- what it costs (E6 to E8)


@pytest.mark.parametrize(
    "attack_ppm, part_ppm",
    [
        (0, 50_000),
        (16_666, 50_000),
        (16_667, 50_001),
        (100_000, 300_000),
        (333_333, 999_999),
        (333_334, 1_000_000),
        (1_000_000, 1_000_000),
    ],
)
def test_the_part_is_three_times_the_attack_s_share_at_least_a_twentieth(attack_ppm: int, part_ppm: int) -> None:
    assert compute_slash_ppm(MINIMAL, attack_ppm) == part_ppm


@pytest.mark.parametrize("offenders, part", [(1, 30), (2, 60), (3, 90), (4, 100), (5, 100)])
@pytest.mark.parametrize("is_at_once", [True, False])
def test_every_offender_of_a_window_loses_by_the_whole_attack(offenders: int, part: int, is_at_once: bool) -> None:
    chain = start_ten()
    proofs = [report(chain, "asker", convict(chain, name)) for name in NAMES[:offenders]]
    for signed in [proofs] if is_at_once else [[proof] for proof in proofs]:
        chain.step(*signed)
    assert {slashed(chain, name) for name in NAMES[:offenders]} == {part * UNIT}
    for name in NAMES[:offenders]:
        assert get_account(chain.ledger, make_key(name).public).bonded == STAKE - part * UNIT


def test_a_twentieth_goes_to_the_reporter_and_the_rest_is_burned() -> None:
    chain = start_ten()
    before, burned = get_account(chain.ledger, make_key("asker").public).balance, chain.ledger.chain.burned
    chain.step(report(chain, "asker", convict(chain, "v0")))
    assert get_account(chain.ledger, make_key("asker").public).balance == before + 30 * UNIT // 20
    assert chain.ledger.chain.burned == burned + 30 * UNIT - 30 * UNIT // 20
    chain.step(report(chain, "stranger", convict(chain, "v1")))  # both lose 60 now, and who completed the proof is paid
    assert get_account(chain.ledger, make_key("stranger").public).balance == 90 * UNIT // 20


@pytest.mark.parametrize("late, parts_ppm", [(0, (633_333, 633_333)), (1, (300_000, 333_333))])
def test_offences_count_together_until_the_window_is_over(late: int, parts_ppm: tuple[int, int]) -> None:
    """By then nine vote, and the second offender's share is a ninth."""
    chain = start_ten()
    chain.step(report(chain, "asker", convict(chain, "v0")))
    start_ms = chain.header.time_ms
    chain.run(WINDOW[0] - 1 + late)
    proof = report(chain, "asker", convict(chain, "v1"))
    chain.step(proof, after_ms=max(50, WINDOW[1] - (chain.header.time_ms - start_ms) + late))
    assert (slashed(chain, "v0"), slashed(chain, "v1")) == tuple(part * STAKE // 1_000_000 for part in parts_ppm)


def test_units_on_their_way_out_are_taken_first() -> None:
    chain, node = start_chain(TEN, ALL), make_key("v0").public
    chain.step(chain.sign("v0", Bond(node, 1, FOREVER, 20 * UNIT)))
    chain.step(chain.sign("v0", Unbond(node, 2, FOREVER, 20 * UNIT)))
    chain.step(report(chain, "asker", convict(chain, "v0")))
    conviction = get_conviction(chain.ledger, node)
    assert conviction is not None
    assert (conviction.stake, conviction.slashed) == (120 * UNIT, 36 * UNIT)
    assert list_unbonding(chain.ledger, node) == ()
    assert get_account(chain.ledger, node).bonded == 84 * UNIT


def test_what_open_jobs_hold_is_taken_too_and_the_jobs_still_settle() -> None:
    chain = start_ten()
    job = chain.submit(make_request(seats=5, fee=40 * UNIT))
    members = chain.members(job)
    for name in NAMES[:4]:
        chain.step(report(chain, "asker", convict(chain, name)))
    assert all(get_account(chain.ledger, make_key(name).public).bonded == 0 for name in NAMES[:4])
    silent = next(node for node in members if chain.names[node] in NAMES[:4])
    said = {node: make_payload() for node in members}
    chain.commit_all(job, said)
    chain.reveal_all(job, {node: payload for node, payload in said.items() if node != silent})
    chain.close_window(job)
    settlement = chain.view(job).settlement
    assert settlement is not None
    assert [(forfeit.node, forfeit.amount) for forfeit in settlement.forfeits] == [(silent, 0)]
    assert all(get_account(chain.ledger, entry.node).locked == 0 for entry in chain.genesis.validators)


@settings(max_examples=15)
@given(st.permutations(NAMES[:4]), st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_what_an_attack_costs_does_not_depend_on_the_order_of_its_reports(order: list[str], waits: list[int]) -> None:
    weights = {name: (1 + index) * 50 * UNIT for index, name in enumerate(NAMES)}
    genesis = replace(
        TEN,
        validators=tuple(
            replace(entry, stake=weight) for entry, weight in zip(TEN.validators, weights.values(), strict=True)
        ),
    )
    chain = start_chain(genesis, ALL)
    chain.step()
    for name, wait in zip(order, waits, strict=True):
        chain.run(wait)
        chain.step(report(chain, "asker", convict(chain, name)))
    attack_ppm = sum(weights[name] * 1_000_000 // sum(weights.values()) for name in order)
    assert {name: slashed(chain, name) for name in order} == {
        name: weights[name] * compute_slash_ppm(MINIMAL, attack_ppm) // 1_000_000 for name in order
    }


# --- afterwards (E5)


def test_a_convict_is_never_drawn_again_and_never_bonds_or_serves_again() -> None:
    chain, node = start_ten(), make_key("v0").public
    chain.step(report(chain, "asker", convict(chain, "v0")))
    model = make_request().model
    for _ in range(4):  # the list in force still names it, and it is passed over
        assert node not in chain.members(chain.submit(make_request(seats=5, fee=50_000)))
    assert refuse(chain, Bond(node, 1, FOREVER, 1), "v0").reason is Rejection.CONVICTED
    chain.step(chain.sign("v0", Withdraw(node, 1, FOREVER, model)))
    assert refuse(chain, Serve(node, 2, FOREVER, model), "v0").reason is Rejection.CONVICTED
    chain.run(2 * MINIMAL.epoch_heights)
    snapshot = get_candidates(chain.ledger, chain.ledger.chain.snapshot_height)
    assert snapshot is not None
    assert node not in {candidate.node for candidate in snapshot.candidates[model]}


def test_a_convict_that_goes_on_serving_is_in_no_snapshot() -> None:
    chain = start_chain(TEN, ALL)
    chain.step(report(chain, "asker", convict(chain, "v0", view=1)))
    chain.run(MINIMAL.epoch_heights)
    snapshot = get_candidates(chain.ledger, MINIMAL.epoch_heights)
    assert snapshot is not None
    nodes = {candidate.node for candidate in snapshot.candidates[make_request().model]}
    assert nodes == {make_key(name).public for name in NAMES[1:]}


def test_a_report_needs_no_account_and_pays_no_fee(chain: TestChain) -> None:
    evidence: Evidence = convict(chain, "v0")
    check_transaction(chain.ledger, chain.sign("nobody", Report(make_key("nobody").public, evidence)))
    later = chain.fork()
    later.names[make_key("nobody").public] = "nobody"
    later.step(report(later, "nobody", evidence))
    account = get_account(later.ledger, make_key("nobody").public)
    assert (account.balance, account.nonce) == (30 * UNIT // 20, 0)
