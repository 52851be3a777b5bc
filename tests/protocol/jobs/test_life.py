"""A job's phases, step by step, without a ledger: when a window closes, who may send what, who takes a seat over (J2, J4 to J12)."""

import pytest
from msgspec.structs import replace

from protocol.errors import InvalidTransaction, Rejection
from protocol.jobs.life import (
    apply_commit,
    apply_reveal,
    check_payload,
    compute_default_windows,
    compute_windows,
    create_job,
    get_deadline_ms,
    list_bonded_nodes,
    list_due,
    list_transaction_ids,
    start_committing,
    step_job,
)
from protocol.jobs.settlement import Drawn, Job, Phase
from protocol.params import INTERNET, MINIMAL
from protocol.transactions import Commit, Reveal, RevealPayload, Submit, compute_commitment
from protocol.units import NodeId
from tests.protocol.builders import ABSTENTION, make_card, make_hash, make_payload, make_request, make_salt

CHAIN = make_hash("chain")
JOB = make_hash("job")
A, B, C, D, E = (make_hash(name) for name in "abcde")
START = 1_000_000
PARAMS = MINIMAL  # windows close 4 blocks after they open, half windows 2
HALF, FULL = make_request().commit_ms // 2, make_request().commit_ms


def make_job(*holders: NodeId | None, standbys: tuple[NodeId, ...] = (D,)) -> Job:
    """A job drawn at height 10 and time START."""
    request = make_request(seats=len(holders))
    submit = Submit(make_hash("asker"), 1, 100, request)
    job = create_job(JOB, submit, 8, START - 100, 0, make_hash("root"))
    drawn = Drawn(10, 12, make_hash("parent"), make_hash("beacon"), make_hash("seed"), (), standbys)
    return start_committing(job, drawn, holders, START)


def commit(job: Job, *members: NodeId, payload: RevealPayload | None = None, height: int = 11) -> Job:
    for member in members:
        said = payload or make_payload()
        commitment = compute_commitment(CHAIN, JOB, member, said, make_salt(JOB, member))
        job = apply_commit(job, Commit(member, JOB, commitment), make_hash(f"commit {member.hex()}"), height)
    return job


def reveal(job: Job, *members: NodeId, payload: RevealPayload | None = None, height: int = 13) -> Job:
    for member in members:
        body = Reveal(member, JOB, payload or make_payload(), make_salt(JOB, member))
        job = apply_reveal(job, body, make_hash(f"reveal {member.hex()}"), height, CHAIN, make_card())
    return job


def make_revealing(*committed: NodeId) -> Job:
    job, has_ended = step_job(commit(make_job(A, B, C), *committed), PARAMS, 14, START + 2 * FULL)
    job, has_ended = (job, has_ended) if job.phase is Phase.REVEALING else step_job(job, PARAMS, 99, START + 9 * FULL)
    assert job.phase is Phase.REVEALING
    assert not has_ended
    return job


# --- the commit window (J4 to J7)


def test_the_commit_window_closes_at_once_when_every_seat_has_committed() -> None:
    job, has_ended = step_job(commit(make_job(A, B, C), A, B, C), PARAMS, 11, START + 50)
    assert (job.phase, has_ended) == (Phase.REVEALING, False)
    assert (job.phase_height, job.phase_ms, job.window_ms) == (11, START + 50, job.request.reveal_ms)


def test_a_commit_counts_for_every_seat_its_member_holds() -> None:
    job, _ = step_job(commit(make_job(A, B, A), A, B), PARAMS, 11, START + 50)
    assert job.phase is Phase.REVEALING


@pytest.mark.parametrize("height, elapsed, is_over", [(13, FULL, False), (14, FULL - 1, False), (14, FULL, True)])
def test_a_window_needs_its_time_and_its_heights(height: int, elapsed: int, is_over: bool) -> None:
    job = replace(commit(make_job(A, B, C, standbys=()), A, B), halved=True)
    stepped, _ = step_job(job, PARAMS, height, START + elapsed)
    assert (stepped.phase is Phase.REVEALING) == is_over


@pytest.mark.parametrize("height, elapsed, is_taken", [(11, HALF, False), (12, HALF - 1, False), (12, HALF, True)])
def test_a_missing_seat_is_taken_over_at_half_the_window(height: int, elapsed: int, is_taken: bool) -> None:
    job, has_ended = step_job(commit(make_job(A, B, C), A, B), PARAMS, height, START + elapsed)
    assert not has_ended
    assert [seat.holder for seat in job.seats] == [A, B, D if is_taken else C]
    assert job.halved == is_taken


def test_a_taker_gets_a_whole_window_and_the_one_it_replaced_may_not_commit_any_more() -> None:
    job, _ = step_job(commit(make_job(A, B, C), A, B), PARAMS, 12, START + HALF)
    assert (job.phase_height, job.phase_ms, job.window_ms) == (12, START + HALF, FULL)
    assert get_deadline_ms(job) == START + HALF + FULL
    with pytest.raises(InvalidTransaction) as refusal:
        commit(job, C)
    assert refusal.value.reason is Rejection.NOT_A_MEMBER
    assert step_job(commit(job, D), PARAMS, 13, START + HALF + 50)[0].phase is Phase.REVEALING


def test_seats_are_taken_over_once_only() -> None:
    job, _ = step_job(commit(make_job(A, B, C, standbys=(D, E)), A, B), PARAMS, 12, START + HALF)
    job, has_ended = step_job(job, PARAMS, 14, START + HALF + HALF)
    assert (job.seats[2].holder, has_ended) == (D, False)
    job, _ = step_job(job, PARAMS, 16, START + HALF + FULL)
    assert job.phase is Phase.REVEALING
    assert job.seats[2].holder == D


def test_at_most_a_third_of_the_seats_is_taken_over_and_the_rest_keep_theirs() -> None:
    job, _ = step_job(commit(make_job(A, B, C, standbys=(D, E)), A), PARAMS, 12, START + HALF)
    assert [seat.taker for seat in job.seats] == [None, D, None]
    assert list_due(job) == (D, C)


def test_without_standbys_the_half_window_changes_nothing_but_is_over() -> None:
    before = commit(make_job(A, B, C, standbys=()), A, B)
    job, _ = step_job(before, PARAMS, 12, START + HALF)
    assert job == replace(before, halved=True)
    assert get_deadline_ms(job) == START + FULL


def test_one_late_block_past_the_whole_window_still_gives_missing_seats_away() -> None:
    job, has_ended = step_job(commit(make_job(A, B, C), A, B), PARAMS, 30, START + 5 * FULL)
    assert (job.seats[2].holder, job.phase, has_ended) == (D, Phase.COMMITTING, False)


def test_a_standby_who_has_committed_already_fills_the_seat_at_once() -> None:
    job, has_ended = step_job(commit(make_job(A, B, C, standbys=(A,)), A, B), PARAMS, 12, START + HALF)
    assert (job.phase, has_ended) == (Phase.REVEALING, False)


@pytest.mark.parametrize("committed, goes_on", [((A, B), True), ((A,), False), ((), False)])
def test_too_few_commits_end_the_job_before_anybody_reveals(committed: tuple[NodeId, ...], goes_on: bool) -> None:
    job = replace(commit(make_job(A, B, C, standbys=()), *committed), halved=True)
    stepped, has_ended = step_job(job, PARAMS, 14, START + FULL)
    assert has_ended != goes_on
    assert (stepped.phase is Phase.REVEALING) == goes_on


def test_a_committee_of_empty_seats_ends_at_once() -> None:
    assert step_job(make_job(None, None, None, standbys=()), PARAMS, 10, START)[1]


@pytest.mark.parametrize(
    "member, reason", [(E, Rejection.NOT_A_MEMBER), (D, Rejection.NOT_A_MEMBER), (A, Rejection.DUPLICATE)]
)
def test_who_may_not_commit(member: NodeId, reason: Rejection) -> None:
    with pytest.raises(InvalidTransaction) as refusal:
        commit(commit(make_job(A, B, C), A), member)
    assert refusal.value.reason is reason


def test_a_commit_is_refused_before_the_draw_and_after_the_window() -> None:
    early = create_job(JOB, Submit(A, 1, 9, make_request()), 8, START, 0, make_hash("root"))
    for job, reason in ((early, Rejection.TOO_EARLY), (make_revealing(A, B), Rejection.WRONG_PHASE)):
        with pytest.raises(InvalidTransaction) as refusal:
            commit(job, C)
        assert refusal.value.reason is reason


# --- the reveal window (J8 to J11)


def test_a_reveal_is_too_early_while_commits_are_open() -> None:
    with pytest.raises(InvalidTransaction) as refusal:
        reveal(commit(make_job(A, B, C), A), A)
    assert refusal.value.reason is Rejection.TOO_EARLY


def test_the_job_ends_at_once_when_all_who_committed_revealed() -> None:
    job = make_revealing(A, B)
    assert step_job(reveal(job, A), PARAMS, 15, job.phase_ms + 50) == (reveal(job, A), False)
    assert step_job(reveal(job, A, B), PARAMS, 15, job.phase_ms + 50)[1]


def test_the_reveal_window_ends_by_time_and_heights() -> None:
    job = make_revealing(A, B)
    end_ms = job.phase_ms + job.request.reveal_ms
    outcomes = [step_job(job, PARAMS, job.phase_height + up, end_ms - late)[1] for up, late in ((3, 0), (4, 1), (4, 0))]
    assert outcomes == [False, False, True]


@pytest.mark.parametrize(
    "member, payload, reason",
    [
        (C, None, Rejection.WRONG_PHASE),  # holds a seat, but has not committed
        (E, None, Rejection.NOT_A_MEMBER),
        (A, make_payload("82"), Rejection.COMMITMENT_MISMATCH),
    ],
)
def test_a_reveal_must_open_its_member_s_commitment(
    member: NodeId, payload: RevealPayload | None, reason: Rejection
) -> None:
    job = replace(commit(make_job(A, B, C, standbys=()), A, B), halved=True)
    job, _ = step_job(job, PARAMS, 14, START + FULL)
    with pytest.raises(InvalidTransaction) as refusal:
        reveal(job, member, payload=payload)
    assert refusal.value.reason is reason


def test_a_copied_commitment_opens_for_nobody_else() -> None:
    job = commit(make_job(A, B, C), A)
    job = apply_commit(job, Commit(B, JOB, job.entries[0].commitment), make_hash("copy"), 11)
    job, _ = step_job(commit(job, C), PARAMS, 11, START + 50)
    for salt in (make_salt(JOB, A), make_salt(JOB, B)):
        with pytest.raises(InvalidTransaction) as refusal:
            apply_reveal(job, Reveal(B, JOB, make_payload(), salt), make_hash("x"), 12, CHAIN, make_card())
        assert refusal.value.reason is Rejection.COMMITMENT_MISMATCH


def test_a_second_reveal_is_a_duplicate() -> None:
    with pytest.raises(InvalidTransaction) as refusal:
        reveal(reveal(make_revealing(A, B), A), A)
    assert refusal.value.reason is Rejection.DUPLICATE


@pytest.mark.parametrize(
    "payload, is_valid",
    [
        (make_payload(), True),
        (ABSTENTION, True),
        (replace(make_payload(), digest=None), False),
        (replace(make_payload(), output_hash=bytes(32)), False),
        (replace(ABSTENTION, output_hash=make_hash("x")), False),
        (replace(make_payload(), abstained=True), False),
        (replace(make_payload(), digest=replace(make_payload().digest, bits=bytes(8))), False),
    ],
)
def test_a_payload_is_an_answer_with_a_digest_or_an_empty_abstention(payload: RevealPayload, is_valid: bool) -> None:
    if is_valid:
        check_payload(payload, make_card())
        return
    with pytest.raises(InvalidTransaction) as refusal:
        check_payload(payload, make_card())
    assert refusal.value.reason is Rejection.MALFORMED


# --- what is read off a job


def test_the_reveal_set_names_transactions_by_seat_whatever_their_order_of_arrival() -> None:
    def arrive(*order: NodeId) -> tuple[bytes, ...]:
        job, _ = step_job(commit(make_job(A, B, A), *order), PARAMS, 11, START + 50)
        return list_transaction_ids(reveal(job, *order))

    expected = tuple(make_hash(f"{what} {node.hex()}") for node in (A, B) for what in ("commit", "reveal"))
    assert arrive(A, B) == arrive(B, A) == expected


def test_bonds_are_held_of_all_drawn_nodes_and_standbys_once_each() -> None:
    assert list_bonded_nodes(make_job(A, None, A, standbys=(D, A))) == tuple(sorted((A, D)))


def test_a_window_holds_the_card_s_allowance_for_every_token() -> None:
    windows = compute_windows(INTERNET, make_card(token_ms=50), 100)
    assert (windows.least_commit_ms, windows.least_reveal_ms, windows.most_ms) == (10_000, 5_000, 3_600_000)


@pytest.mark.parametrize("max_tokens", [1, 100, 32_000])
def test_default_windows_lie_inside_the_limits(max_tokens: int) -> None:
    card = make_card(token_ms=50)
    windows = compute_windows(INTERNET, card, max_tokens)
    commit_ms, reveal_ms = compute_default_windows(INTERNET, card, max_tokens)
    assert windows.least_commit_ms <= commit_ms <= windows.most_ms
    assert windows.least_reveal_ms <= reveal_ms <= windows.most_ms
