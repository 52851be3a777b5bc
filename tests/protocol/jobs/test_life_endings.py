"""Whole jobs through blocks: every way a job ends, and what it leaves on accounts, records and the settlement (J3, J11 to J15, M3 to M6)."""

import pytest
from msgspec.structs import replace

from protocol.codec import encode
from protocol.digest import Digest, DigestFamily
from protocol.errors import InvalidTransaction, Rejection
from protocol.jobs.agreement import Decision
from protocol.jobs.committee import draw, draw_replacements
from protocol.jobs.reputation import NEW_RECORD, compute_reliability
from protocol.jobs.settlement import Phase, SeatEnd, Settlement, compute_reveal_set_hash, compute_sampling_seed
from protocol.ledger.entries import Account
from protocol.ledger.queries import GenerateDuty, RevealDuty, get_account, get_candidates, get_record, list_duties
from protocol.ledger.state import check_transaction
from protocol.params import MINIMAL
from protocol.transactions import (
    TRANSACTION_CODEC,
    AgreementRule,
    Commit,
    JobTransaction,
    Reveal,
    RevealPayload,
    compute_transaction_id,
)
from protocol.units import ZERO_HASH, JobId, NodeId
from tests.protocol.builders import (
    ABSTENTION,
    TestChain,
    make_genesis,
    make_hash,
    make_key,
    make_payload,
    make_request,
    make_synthetic_card,
    start_chain,
)

ASKER = make_key("asker").public
FEE = make_request().fee
RIGHT, WRONG = make_payload("81"), make_payload("18")


def settlement_of(chain: TestChain, job: JobId) -> Settlement:
    settlement = chain.view(job).settlement
    assert settlement is not None
    return settlement


def accounts_of(chain: TestChain, *nodes: NodeId) -> list[Account]:
    return [get_account(chain.ledger, node) for node in nodes]


# --- accepted


def test_a_majority_of_equal_answers_is_accepted_and_each_winning_seat_gets_its_part_of_the_fee() -> None:
    chain = start_chain()
    settlement = chain.settle(make_request(fee=30_001), lambda seat: WRONG if seat == 1 else RIGHT)
    members = [seat.holder for seat in settlement.seats]
    assert settlement.decision is Decision.ACCEPTED
    assert settlement.winner_hash == RIGHT.output_hash
    assert [seat.end for seat in settlement.seats] == [SeatEnd.WINNING, SeatEnd.OUTSIDE, SeatEnd.WINNING]
    assert {payment.node: payment.amount for payment in settlement.payments} == {members[0]: 10_000, members[2]: 10_000}
    assert (settlement.refund, settlement.burned) == (0, 10_001)
    assert settlement.agreement_ppm == 666_666


def test_disagreeing_costs_a_member_nothing_but_its_pay() -> None:
    chain = start_chain()
    settlement = chain.settle(answers=lambda seat: WRONG if seat == 1 else RIGHT)
    loser = settlement.seats[1].holder
    assert loser is not None
    account = get_account(chain.ledger, loser)
    assert (account.bonded, account.locked) == (chain.genesis.validators[0].stake, 0)
    assert compute_reliability(get_record(chain.ledger, loser)) > compute_reliability(NEW_RECORD)


def test_the_settlement_repeats_from_headers_and_the_snapshot() -> None:
    chain = start_chain()
    chain.run(3)
    settlement = chain.settle()
    headers = {block.header.height: block.header for block in chain.blocks}
    ripe, asked = headers[settlement.maturity_height], headers[settlement.submit_height]
    assert (settlement.maturity_view, settlement.maturity_parent) == (ripe.view, ripe.parent_hash)
    assert (settlement.beacon, settlement.candidates_root) == (ripe.beacon, asked.candidates_root)
    snapshot = get_candidates(chain.ledger, settlement.snapshot_height)
    assert snapshot is not None
    assert snapshot.root == settlement.candidates_root
    request = make_request()
    candidates = snapshot.candidates[request.model]
    repeated = draw(settlement.job, settlement.beacon, candidates, request.rule, 3, 3, lambda _: True)
    assert repeated.members == tuple(seat.drawn for seat in settlement.seats)
    bodies = [compute_transaction_id(each) for each in list_job_bodies(chain, settlement)]
    assert settlement.reveal_set == compute_reveal_set_hash(tuple(bodies))


def list_job_bodies(chain: TestChain, settlement: Settlement) -> list[JobTransaction]:
    """Every seat's commit and reveal, found in the blocks at the heights that the settlement names."""
    found: list[JobTransaction] = []
    for seat in settlement.seats:
        for height, kind in ((seat.commit_height, Commit), (seat.reveal_height, Reveal)):
            bodies = [TRANSACTION_CODEC.decode(encoded).body for encoded in chain.blocks[height - 1].body]
            found.extend(body for body in bodies if isinstance(body, kind) and body.member == seat.holder)
    return found


def test_duties_follow_the_phases() -> None:
    chain = start_chain()
    job = chain.submit()
    members = chain.members(job)
    (duty,) = list_duties(chain.ledger, members[0])
    assert isinstance(duty, GenerateDuty)
    assert duty.seed == compute_sampling_seed(settlement_beacon(chain, job), job)
    assert duty.request.prompt == make_request().prompt
    assert chain.due(job) == tuple(sorted(members))
    chain.commit_all(job, dict.fromkeys(members[:1], RIGHT))
    assert chain.due(job) == tuple(sorted(members[1:]))
    chain.commit_all(job, dict.fromkeys(members[1:], RIGHT))
    (duty,) = list_duties(chain.ledger, members[0])
    assert isinstance(duty, RevealDuty)
    assert duty.closed_height == chain.header.height
    chain.reveal_all(job, dict.fromkeys(members, RIGHT))
    assert chain.due(job) == ()


def settlement_beacon(chain: TestChain, job: JobId) -> bytes:
    beacon = chain.view(job).beacon
    assert beacon is not None
    return beacon


def test_a_reveal_is_invalid_in_the_block_that_closes_the_commits() -> None:
    chain = start_chain()
    job = chain.submit()
    members = chain.members(job)
    commits = [chain.commit(job, node, RIGHT) for node in members]
    early = chain.reveal(job, members[0], RIGHT)
    with pytest.raises(InvalidTransaction) as refusal:
        check_transaction(chain.ledger, early)
    assert refusal.value.reason is Rejection.TOO_EARLY
    built = chain.build([encode(each) for each in (*commits, early)])
    assert len(built.block.body) == len(commits)
    assert built.invalid == ()
    chain.take(built.block)
    check_transaction(chain.ledger, early)


# --- no agreement


def test_enough_answers_without_agreement_are_inconclusive_and_share_half_the_fee() -> None:
    chain = start_chain()
    before = get_account(chain.ledger, ASKER).balance
    settlement = chain.settle(make_request(fee=30_001), lambda seat: make_payload(f"answer {seat}"))
    assert settlement.decision is Decision.INCONCLUSIVE
    assert settlement.winner_hash == ZERO_HASH
    assert [payment.amount for payment in settlement.payments] == [5_000] * 3
    assert (settlement.refund, settlement.burned) == (15_001, 0)
    assert get_account(chain.ledger, ASKER).balance == before - MINIMAL.base_fee - 15_000
    assert [seat.end for seat in settlement.seats] == [SeatEnd.OUTSIDE] * 3


def test_an_inconclusive_job_costs_no_member_anything() -> None:
    chain = start_chain()
    settlement = chain.settle(answers=lambda seat: make_payload(f"answer {seat}"))
    for seat in settlement.seats:
        assert seat.holder is not None
        assert get_account(chain.ledger, seat.holder).bonded == chain.genesis.validators[0].stake
        assert compute_reliability(get_record(chain.ledger, seat.holder)) > compute_reliability(NEW_RECORD)


def test_abstentions_answer_nothing_and_are_paid_nothing() -> None:
    chain = start_chain()
    settlement = chain.settle(
        make_request(seats=5, fee=50_000), lambda seat: ABSTENTION if seat < 2 else make_payload(str(seat))
    )
    assert settlement.decision is Decision.INCONCLUSIVE
    ends = [SeatEnd.ABSTAINED] * 2 + [SeatEnd.OUTSIDE] * 3
    assert [seat.end for seat in settlement.seats] == ends
    assert [payment.amount for payment in settlement.payments] == [8_333] * 3
    assert settlement.burned == 1


def test_too_many_abstentions_fail_the_job_and_move_nobody_s_reliability() -> None:
    chain = start_chain()
    settlement = chain.settle(answers=lambda seat: ABSTENTION if seat < 2 else RIGHT)
    assert settlement.decision is Decision.FAILED
    assert [payment.amount for payment in settlement.payments] == [3_000]
    assert settlement.refund == FEE - 3_000
    for seat in settlement.seats:
        assert seat.holder is not None
        assert get_record(chain.ledger, seat.holder) == NEW_RECORD


# --- failed


def test_too_few_commits_fail_the_job_and_burn_the_tenth() -> None:
    chain = start_chain(make_genesis(validators=("v0", "v1", "v2")))
    job = chain.submit()
    first = chain.members(job)[0]
    chain.commit_all(job, {first: RIGHT})
    chain.close_window(job)
    settlement = settlement_of(chain, job)
    assert settlement.decision is Decision.FAILED
    assert [seat.end for seat in settlement.seats] == [SeatEnd.UNASKED, SeatEnd.ABSENT, SeatEnd.ABSENT]
    assert (settlement.payments, settlement.refund, settlement.burned) == ((), FEE - 3_000, 3_000)
    assert settlement.forfeits == ()
    assert get_record(chain.ledger, first) == NEW_RECORD


def test_reveals_that_are_no_majority_fail_the_job_and_share_the_tenth() -> None:
    chain = start_chain()
    job = chain.submit()
    members = chain.members(job)
    chain.commit_all(job, dict.fromkeys(members, RIGHT))
    chain.reveal_all(job, {members[1]: RIGHT})
    chain.close_window(job)
    settlement = settlement_of(chain, job)
    assert settlement.decision is Decision.FAILED
    assert [(payment.node, payment.amount) for payment in settlement.payments] == [(members[1], 3_000)]
    assert {payment.node for payment in settlement.forfeits} == {members[0], members[2]}
    assert get_record(chain.ledger, members[1]) == NEW_RECORD


def test_a_commit_without_a_reveal_forfeits_two_fees_of_the_bond() -> None:
    chain = start_chain()
    job = chain.submit()
    members = chain.members(job)
    stake = chain.genesis.validators[0].stake
    assert {get_account(chain.ledger, node).locked for node in members} == {2 * FEE}
    chain.commit_all(job, dict.fromkeys(members, RIGHT))
    chain.reveal_all(job, dict.fromkeys(members[:2], RIGHT))
    chain.close_window(job)
    settlement = settlement_of(chain, job)
    assert settlement.decision is Decision.ACCEPTED
    assert [seat.end for seat in settlement.seats] == [SeatEnd.WINNING, SeatEnd.WINNING, SeatEnd.SILENT]
    assert [(payment.node, payment.amount) for payment in settlement.forfeits] == [(members[2], 2 * FEE)]
    assert [account.bonded for account in accounts_of(chain, *members)] == [stake, stake, stake - 2 * FEE]
    assert all(account.locked == 0 for account in accounts_of(chain, *chain.names))
    assert get_record(chain.ledger, members[2]).integrity_good == NEW_RECORD.integrity_good
    assert compute_reliability(get_record(chain.ledger, members[2])) < compute_reliability(NEW_RECORD)


# --- no-shows and replacements


def test_a_no_show_is_replaced_at_half_the_window_and_loses_reliability_only() -> None:
    chain = start_chain()
    job = chain.submit()
    members = chain.members(job)
    missing = members[1]
    before = get_account(chain.ledger, missing)
    chain.commit_all(job, {members[0]: RIGHT, members[2]: RIGHT})
    chain.close_window(job, half=True)
    taker = chain.view(job).seats[1].taker
    assert taker is not None
    assert taker not in members
    chain.commit_all(job, {taker: RIGHT})
    chain.reveal_all(job, dict.fromkeys((members[0], members[2], taker), RIGHT))
    settlement = settlement_of(chain, job)
    assert settlement.decision is Decision.ACCEPTED
    assert (settlement.seats[1].drawn, settlement.seats[1].taker) == (missing, taker)
    assert missing not in {payment.node for payment in settlement.payments}
    after = get_account(chain.ledger, missing)
    assert (after.bonded, after.locked) == (before.bonded, 0)
    worse, better = get_record(chain.ledger, missing), get_record(chain.ledger, taker)
    assert compute_reliability(worse) < compute_reliability(NEW_RECORD) < compute_reliability(better)


def test_an_accepted_job_moves_reliability_however_many_were_missing() -> None:
    chain = start_chain()
    job = chain.submit(make_request(seats=5, fee=50_000))
    members = chain.members(job)
    chain.commit_all(job, dict.fromkeys(members[:3], RIGHT))
    chain.close_window(job)
    chain.reveal_all(job, dict.fromkeys(members[:3], RIGHT))
    assert settlement_of(chain, job).decision is Decision.ACCEPTED
    for index, node in enumerate(members):
        has_served = compute_reliability(get_record(chain.ledger, node)) > compute_reliability(NEW_RECORD)
        assert has_served == (index < 3)


def test_takers_are_the_next_of_the_same_draw() -> None:
    chain = start_chain()
    job = chain.submit()
    chain.commit_all(job, {chain.members(job)[0]: RIGHT})
    snapshot = get_candidates(chain.ledger, 0)
    assert snapshot is not None
    request = make_request()
    shape = (job, settlement_beacon(chain, job), snapshot.candidates[request.model], request.rule, 3, 3)
    chain.close_window(job, half=True)
    rest = draw_replacements(draw(*shape, lambda _: True), *shape, lambda _: True, 1)
    assert chain.view(job).seats[1].taker == rest.members[0]


def test_an_absent_seat_stays_in_the_denominator() -> None:
    chain = start_chain(make_genesis(validators=("v0", "v1", "v2")))
    job = chain.submit()
    members = chain.members(job)
    chain.commit_all(job, dict.fromkeys(members[:2], RIGHT))
    chain.close_window(job)
    chain.reveal_all(job, dict.fromkeys(members[:2], RIGHT))
    settlement = settlement_of(chain, job)
    assert settlement.decision is Decision.ACCEPTED
    assert settlement.agreement_ppm == 666_666
    assert [seat.end for seat in settlement.seats] == [SeatEnd.WINNING, SeatEnd.WINNING, SeatEnd.ABSENT]
    assert settlement.burned == FEE - 2 * (FEE // 3)


def test_a_candidate_whose_free_bond_is_held_elsewhere_is_skipped_and_named() -> None:
    stake = MINIMAL.min_bond
    chain = start_chain(
        make_genesis(stake=stake, validators=tuple(f"v{index}" for index in range(7))),
        names=[*(f"v{index}" for index in range(7)), "asker"],
    )
    first = chain.submit(make_request(fee=stake // 3))
    busy = {node for node in chain.names if get_account(chain.ledger, node).locked}
    second = chain.submit(make_request(fee=stake // 3))
    drawn = set(chain.members(second))
    assert len(busy) == 4  # three seats and one standby
    assert drawn.isdisjoint(busy)
    assert chain.view(first).phase is Phase.COMMITTING
    said = dict.fromkeys(chain.members(second), RIGHT)
    chain.commit_all(second, said)
    chain.reveal_all(second, said)
    assert set(settlement_of(chain, second).skipped) <= busy


# --- tolerance, through blocks


@pytest.mark.parametrize(
    "distances, decision, ends",
    [
        ((0, 10, 20), Decision.ACCEPTED, (SeatEnd.WINNING,) * 3),  # the middle one's ball holds all
        ((0, 10, 30), Decision.ACCEPTED, (SeatEnd.WINNING, SeatEnd.WINNING, SeatEnd.OUTSIDE)),
        ((0, 11, 22), Decision.INCONCLUSIVE, (SeatEnd.OUTSIDE,) * 3),
    ],
)
def test_digests_within_the_tolerance_agree(
    distances: tuple[int, ...], decision: Decision, ends: tuple[SeatEnd, ...]
) -> None:
    card = make_synthetic_card(10)
    chain = start_chain(make_genesis(cards=(card,)))

    def answer(seat: int) -> RevealPayload:
        bits = ((1 << distances[seat]) - 1).to_bytes(8, "big")
        digest = Digest(DigestFamily.SYNTHETIC64, bits)
        return replace(make_payload(), output_hash=make_hash(f"image {seat}"), digest=digest)

    settlement = chain.settle(make_request(card), answer)
    assert settlement.decision is decision
    assert tuple(seat.end for seat in settlement.seats) == ends


# --- reliability and the draw


def test_a_node_that_misses_seats_is_drawn_less() -> None:
    chain = start_chain()
    lazy = make_key("v0").public
    for _ in range(6):
        job = chain.submit()
        said = {node: RIGHT for node in chain.members(job) if node != lazy}
        chain.commit_all(job, said)
        if lazy in chain.members(job):
            chain.close_window(job, half=True)
            takers = [node for node in chain.due(job) if node != lazy]
            chain.commit_all(job, dict.fromkeys(takers, RIGHT))
            said |= dict.fromkeys(takers, RIGHT)
        chain.reveal_all(job, said)
    chain.run(MINIMAL.epoch_heights)
    snapshot = get_candidates(chain.ledger, chain.ledger.chain.snapshot_height)
    assert snapshot is not None
    candidates = snapshot.candidates[make_request().model]
    weights = {candidate.node: candidate.weight_reputation for candidate in candidates}
    assert weights[lazy] < min(weight for node, weight in weights.items() if node != lazy)
    assert {candidate.weight_stake for candidate in candidates} == {chain.genesis.validators[0].stake}
    held = dict.fromkeys(weights, 0)
    for number in range(300):
        drawn = draw(make_hash(f"job {number}"), ZERO_HASH, candidates, AgreementRule.REPUTATION, 3, 3, lambda _: True)
        for node in drawn.members:
            assert node is not None
            held[node] += 1
    assert held[lazy] < min(count for node, count in held.items() if node != lazy)


def test_who_missed_more_than_half_of_its_last_seats_is_left_out_for_a_period_and_comes_back() -> None:
    genesis = make_genesis(params=replace(MINIMAL, missed_seats_window=2))
    chain = start_chain(genesis)
    lazy = make_key("v0").public
    while get_record(chain.ledger, lazy).suspended_height == 0:
        job = chain.submit(make_request(seats=5, fee=50_000))  # everybody holds a seat
        said = {node: RIGHT for node in chain.members(job) if node != lazy}
        chain.commit_all(job, said)
        chain.close_window(job)
        chain.reveal_all(job, said)
    until = get_record(chain.ledger, lazy).suspended_height
    assert chain.ledger.chain.snapshot_height + MINIMAL.epoch_heights > chain.header.height  # still a candidate
    with pytest.raises(InvalidTransaction) as refusal:
        check_transaction(chain.ledger, chain.ask(make_request(seats=5, fee=50_000)))
    assert "there are 4" in str(refusal.value)

    def is_candidate() -> bool:
        snapshot = get_candidates(chain.ledger, chain.ledger.chain.snapshot_height)
        assert snapshot is not None
        return any(candidate.node == lazy for candidate in snapshot.candidates[make_request().model])

    chain.run(MINIMAL.epoch_heights - chain.header.height % MINIMAL.epoch_heights)
    assert not is_candidate()
    job = chain.submit()
    assert lazy not in chain.members(job)
    chain.run(2 * MINIMAL.epoch_heights, after_ms=MINIMAL.suspension_ms)
    assert chain.header.height > until
    assert is_candidate()
