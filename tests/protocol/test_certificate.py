from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.block import compute_header_hash
from protocol.certificate import check_certificate
from protocol.certificate_build import CertificateParts, build_certificate
from protocol.certificate_format import (
    Certificate,
    Unopened,
    attach_output,
    decode_certificate,
    encode_certificate,
)
from protocol.certificate_headers import compress_headers, expand_headers
from protocol.certificate_report import ONE_OPERATOR, OUTPUT_RECOMPUTED
from protocol.codec import encode
from protocol.errors import InvalidCertificate, Rejection
from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import Payment, Phase, SeatEnd, Settlement
from protocol.ledger.entries import settlement_key
from protocol.models import StopReason, TextOutput, compute_model_id
from protocol.ordering.messages import VoteKind
from protocol.params import MINIMAL, UNIT
from protocol.transactions import AgreementRule, RegisterModel, Serve, compute_transaction_id
from protocol.voting import vote_signing_bytes
from tests.protocol.builders import (
    ABSTENTION,
    TestChain,
    make_card,
    make_genesis,
    make_hash,
    make_key,
    make_payload,
    make_request,
    start_chain,
)
from tests.protocol.certificates import ANSWER, certify, certify_settled, collect_parts, make_final, right

if TYPE_CHECKING:
    from collections.abc import Callable


def refuse(encoded: bytes, chain: TestChain) -> Rejection:
    with pytest.raises(InvalidCertificate) as caught:
        check_certificate(encoded, chain.genesis)
    assert str(caught.value)
    return caught.value.reason


@cache
def accepted() -> tuple[bytes, TestChain, Settlement]:
    """Five seats of which one lies, and a prompt of 256 bytes."""
    request = make_request(seats=5, fee=50_003, prompt=b"What is 23 + 58? ".ljust(256, b"."))
    return certify(lambda seat: make_payload("wrong") if seat == 1 else right(), request)


def test_a_certificate_says_what_was_asked_answered_and_by_whom() -> None:
    encoded, chain, settlement = accepted()
    report = check_certificate(encoded, chain.genesis)
    assert (report.decision, report.text, report.output) == (Decision.ACCEPTED, "81", ANSWER)
    assert (report.job, report.rule, report.fee) == (settlement.job, AgreementRule.MAJORITY, 50_003)
    assert report.prompt.startswith(b"What is 23 + 58?")
    assert report.requester == make_key("asker").public
    assert [row.inside for row in report.members] == [True, False, True, True, True]
    assert [row.end for row in report.members] == [SeatEnd.WINNING, SeatEnd.OUTSIDE, *[SeatEnd.WINNING] * 3]
    assert report.members[1].output_hash == make_payload("wrong").output_hash
    assert report.members[0].distance == 0 and (report.members[1].distance or 0) > 0
    assert {row.node for row in report.members} == {entry.node for entry in chain.genesis.validators}
    assert (report.agreement_ppm, report.entropy_millibits) == (800_000, 721)
    assert (report.final_weight_ppm, report.candidate_share_ppm, report.is_thin) == (1_000_000, 1_000_000, False)
    assert report.capture_ppb == (57_920_000, 204_963_085)
    assert OUTPUT_RECOMPUTED in report.recomputed and ONE_OPERATOR not in report.attested


def test_it_is_small() -> None:
    encoded, _, _ = accepted()
    assert len(attach_output(encoded, None)) <= 8 * 1024


def test_it_stays_small_when_the_beacon_takes_its_longest() -> None:
    encoded, _, _ = accepted()
    certificate = decode_certificate(encoded)
    longest = replace(certificate.waiting, cores=certificate.waiting.cores[:1] * 16)
    assert len(encode_certificate(replace(certificate, waiting=longest, output=None))) <= 8 * 1024


def test_every_changed_byte_is_refused() -> None:
    encoded, chain, _ = accepted()
    for position in range(len(encoded)):
        changed = bytearray(encoded)
        changed[position] ^= 1 << position % 8
        with pytest.raises(InvalidCertificate):
            check_certificate(bytes(changed), chain.genesis)


def test_every_truncation_and_any_addition_is_refused() -> None:
    encoded, chain, _ = accepted()
    for length in range(0, len(encoded), 7):
        with pytest.raises(InvalidCertificate):
            check_certificate(encoded[:length], chain.genesis)
    assert refuse(encoded + b"\x00", chain) is Rejection.MALFORMED


def test_a_newer_format_is_told_from_a_broken_file() -> None:  # C1
    encoded, chain, _ = accepted()
    assert refuse(encoded[:3] + b"\x02" + encoded[4:], chain) is Rejection.NEWER_VERSION
    assert refuse(encoded[:3] + b"\xff", chain) is Rejection.NEWER_VERSION
    assert refuse(encoded[:3] + b"\x00" + encoded[4:], chain) is Rejection.MALFORMED
    assert refuse(encoded[:3], chain) is Rejection.MALFORMED
    assert refuse(b"", chain) is Rejection.MALFORMED
    assert refuse(b'{"name": "genesis"}', chain) is Rejection.MALFORMED
    assert refuse(encoded[:4] + bytes(4 * 1024 * 1024), chain) is Rejection.TOO_LARGE


def test_another_chain_is_named() -> None:  # C2
    encoded, chain, _ = accepted()
    other = replace(chain.genesis, name="other")
    with pytest.raises(InvalidCertificate) as caught:
        check_certificate(encoded, other)
    assert caught.value.reason is Rejection.WRONG_CHAIN
    moved = encode_certificate(
        replace(decode_certificate(encoded), chain_id=start_chain(other).ledger.constants.chain_id)
    )
    with pytest.raises(InvalidCertificate) as caught:
        check_certificate(moved, other)  # claims the other chain, but nothing in it leads there
    assert caught.value.reason is not Rejection.WRONG_CHAIN


def list_places(value: object, place: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Where anything stands in nested lists."""
    inner = enumerate(value) if isinstance(value, list) else ()
    return [place, *(each for index, item in inner for each in list_places(item, (*place, index)))]


def swap(value: object, place: tuple[int, ...], other: object) -> object:
    """The nested lists with another value at a place."""
    if not place or not isinstance(value, list):
        return other
    return [swap(item, place[1:], other) if index == place[0] else item for index, item in enumerate(value)]


@given(st.data())
@settings(max_examples=400)
def test_no_structure_makes_the_check_fail_otherwise_than_by_refusing(data: st.DataObject) -> None:
    encoded, chain, _ = accepted()
    raw = msgspec.msgpack.decode(encoded[4:])
    others = st.sampled_from(
        [0, 1, 7, 2**53, 2**63 - 1, None, True, b"", bytes(32), bytes(64), b"\xff" * 64, [], [None], "x"]
    )
    changed = raw
    for _ in range(data.draw(st.integers(1, 2))):
        changed = swap(changed, data.draw(st.sampled_from(list_places(changed))), data.draw(others))
    file = encoded[:4] + msgspec.msgpack.encode(changed)
    if file in {encoded, attach_output(encoded, None)}:
        return
    with pytest.raises(InvalidCertificate):
        check_certificate(file, chain.genesis)


# --- every kind of job


def test_without_the_output_attached_the_rest_still_holds() -> None:
    encoded, chain, settlement = accepted()
    report = check_certificate(attach_output(encoded, None), chain.genesis)
    assert (report.text, report.winner_hash) == (None, settlement.winner_hash)
    assert OUTPUT_RECOMPUTED not in report.recomputed


def test_an_inconclusive_job_has_a_certificate_without_an_answer() -> None:
    encoded, chain, _ = certify(lambda seat: make_payload(f"answer {seat}"), output=None)
    report = check_certificate(encoded, chain.genesis)
    assert (report.decision, report.text) == (Decision.INCONCLUSIVE, None)
    assert not any(row.inside for row in report.members)


def test_a_failed_job_of_which_nobody_committed() -> None:
    chain = start_chain()
    job = chain.submit()
    chain.close_window(job, half=True)
    while chain.view(job).settlement is None:
        chain.close_window(job)
    encoded, settlement = certify_settled(chain, job)
    report = check_certificate(encoded, chain.genesis)
    assert report.decision is Decision.FAILED
    assert {row.end for row in report.members} == {SeatEnd.ABSENT}
    assert [row.replaced for row in report.members] == [
        None if seat.taker is None else seat.drawn for seat in settlement.seats
    ]


def test_a_failed_job_whose_commits_nobody_could_open() -> None:
    chain = start_chain()
    job = chain.submit(make_request(seats=5, fee=50_000))
    chain.commit_all(job, dict.fromkeys(chain.members(job)[:2], right()))
    while chain.view(job).settlement is None:
        chain.close_window(job)
    encoded, _ = certify_settled(chain, job)
    ends = [row.end for row in check_certificate(encoded, chain.genesis).members]
    assert ends.count(SeatEnd.UNASKED) == 2


def test_abstentions_silence_and_a_taken_over_seat_are_shown() -> None:
    chain = start_chain(
        make_genesis(tuple(f"v{index}" for index in range(7))), [*(f"v{index}" for index in range(7)), "asker", "other"]
    )
    job = chain.submit(make_request(seats=5, fee=50_000))
    first = chain.members(job)
    said = dict.fromkeys(first[1:], right()) | {first[1]: ABSTENTION}
    chain.commit_all(job, said)
    chain.close_window(job, half=True)
    taker = chain.members(job)[0]
    assert taker not in first
    chain.commit_all(job, {taker: right()})
    revealing = {node: payload for node, payload in {**said, taker: right()}.items() if node != first[2]}
    chain.reveal_all(job, revealing)
    while chain.view(job).settlement is None:
        chain.close_window(job)
    encoded, settlement = certify_settled(chain, job, ANSWER)
    report = check_certificate(encoded, chain.genesis)
    assert [row.end for row in report.members] == [
        SeatEnd.WINNING,
        SeatEnd.ABSTAINED,
        SeatEnd.SILENT,
        *[SeatEnd.WINNING] * 2,
    ]
    assert (report.members[0].node, report.members[0].replaced) == (taker, first[0])
    assert [each.node for each in settlement.forfeits] == [first[2]]
    assert isinstance(decode_certificate(encoded).members[2], Unopened)
    for position in range(0, len(encoded), 3):
        changed = bytearray(encoded)
        changed[position] ^= 1 << position % 8
        with pytest.raises(InvalidCertificate):
            check_certificate(bytes(changed), chain.genesis)


def test_seats_left_empty_are_proved_by_everybody_being_taken_out() -> None:
    names = tuple(f"v{index}" for index in range(6))
    chain = start_chain(make_genesis(names), [*names, "asker", "other"])
    fee = 30 * UNIT  # two fees at risk: a stake of 100 units covers one such job, so the second finds two free nodes
    asked = [chain.ask(make_request(fee=fee), sender=sender) for sender in ("asker", "other")]
    chain.step(*asked)
    jobs = sorted(compute_transaction_id(signed.body) for signed in asked)
    while chain.view(jobs[1]).phase is Phase.SUBMITTED:
        chain.step()
    job = min(jobs, key=lambda each: len(chain.members(each)))
    said = dict.fromkeys(chain.members(job), right())
    chain.commit_all(job, said)
    chain.reveal_all(job, said)
    encoded, settlement = certify_settled(chain, job, ANSWER)
    report = check_certificate(encoded, chain.genesis)
    assert report.decision is Decision.ACCEPTED
    assert sorted(row.end for row in report.members) == [SeatEnd.EMPTY, SeatEnd.WINNING, SeatEnd.WINNING]
    assert len(settlement.skipped) == 4 == len(decode_certificate(encoded).candidates) - 2


def test_a_node_may_hold_several_seats_and_acts_once() -> None:
    encoded, chain, settlement = certify(request=make_request(seats=9, fee=90_000, rule=AgreementRule.REPUTATION))
    report = check_certificate(encoded, chain.genesis)
    holders = [row.node for row in report.members]
    assert len(set(holders)) < 9 and report.rule is AgreementRule.REPUTATION
    assert len(decode_certificate(encoded).members) == len(set(holders))
    assert settlement.agreement_ppm == 1_000_000


def test_a_model_registered_later_brings_its_card() -> None:
    chain, card = start_chain(), make_card("later")
    chain.step(chain.sign("v0", RegisterModel(make_key("v0").public, chain.next_nonce("v0"), 2**40, card)))
    model = compute_model_id(card)
    chain.step(
        *(
            chain.sign(name, Serve(make_key(name).public, chain.next_nonce(name), 2**40, model))
            for name in ("v0", "v1", "v2")
        )
    )
    chain.run(chain.genesis.params.epoch_heights)
    encoded, _, _ = certify(lambda _: make_payload(), make_request(card), chain, None)
    report = check_certificate(encoded, chain.genesis)
    assert (report.card, report.candidate_share_ppm, report.is_thin) == (card, 600_000, False)
    certificate = decode_certificate(encoded)
    assert refuse(encode_certificate(replace(certificate, card=None)), chain) is Rejection.UNKNOWN_MODEL
    assert refuse(encode_certificate(replace(certificate, card=make_card())), chain) is Rejection.UNKNOWN_MODEL


def test_a_card_that_the_genesis_has_is_not_carried_twice() -> None:
    encoded, chain, _ = accepted()
    needless = replace(decode_certificate(encoded), card=make_card())
    assert refuse(encode_certificate(needless), chain) is Rejection.UNKNOWN_MODEL


def test_a_lone_operator_is_named() -> None:
    chain = start_chain(make_genesis(("v0",)), ("v0", "asker", "other"))
    encoded, _, _ = certify(request=make_request(seats=1, fee=10_000), chain=chain)
    assert ONE_OPERATOR in check_certificate(encoded, chain.genesis).attested


def test_few_candidates_are_called_a_thin_set() -> None:
    names = tuple(f"v{index}" for index in range(10))
    genesis = make_genesis(names, serves=lambda name: (make_card(),) if name in names[:3] else ())
    encoded, chain, _ = certify(chain=start_chain(genesis, [*names, "asker", "other"]))
    report = check_certificate(encoded, chain.genesis)
    assert (report.candidate_share_ppm, report.is_thin) == (300_000, True)


# --- finality


def test_more_than_two_thirds_must_have_voted() -> None:  # C14
    settled = accepted()[1:]
    chain, settlement = settled
    for signers, is_enough in (((0, 1, 2), False), ((0, 1, 2, 3), True), ((1, 2, 3, 4), True), ((), False)):
        encoded = build_certificate(collect_parts(chain, chain.ledger, settlement, signers=signers))
        if is_enough:
            assert check_certificate(encoded, chain.genesis).final_weight_ppm == 800_000
        else:
            assert refuse(encoded, chain) is Rejection.NO_QUORUM


def test_a_later_block_may_be_the_first_final_one() -> None:
    params = replace(MINIMAL, epoch_heights=32, unbonding_heights=96)  # a certificate's last headers are of one epoch
    _, chain, settlement = certify(chain=start_chain(make_genesis(params=params)))
    at_settlement = chain.ledger
    chain.run(3)
    encoded = build_certificate(collect_parts(chain, at_settlement, settlement, blocks_later=3))
    assert check_certificate(encoded, chain.genesis).settle_height == settlement.settle_height
    certificate = decode_certificate(encoded)
    cut = replace(certificate.settled, cores=certificate.settled.cores[:-1])
    assert refuse(encode_certificate(replace(certificate, settled=cut)), chain) is Rejection.OUT_OF_RANGE
    renamed = replace(certificate, settled=cut, final_view=cut.cores[-1].view)
    assert refuse(encode_certificate(renamed), chain) is Rejection.BAD_SIGNATURE


def test_votes_of_another_kind_make_nothing_final() -> None:  # C14
    chain, settlement = accepted()[1:]
    parts = collect_parts(chain, chain.ledger, settlement)
    header = parts.settled[0]
    message = vote_signing_bytes(VoteKind.NOTAR, header.chain_id, 0, header.view, compute_header_hash(header))
    signatures = tuple(make_key(chain.names[entry.node]).sign(message) for entry in chain.genesis.validators)
    certificate = decode_certificate(build_certificate(parts))
    assert refuse(encode_certificate(replace(certificate, signatures=signatures)), chain) is Rejection.BAD_SIGNATURE


def test_signers_are_known_distinct_and_in_order() -> None:  # C14
    encoded, chain, _ = accepted()
    certificate = decode_certificate(encoded)
    for signers, reason in (
        ((0, 0, 2, 3, 4), Rejection.MALFORMED),
        ((1, 0, 2, 3, 4), Rejection.MALFORMED),
        ((0, 1, 2, 3, 5), Rejection.UNKNOWN_SIGNER),
        ((0, 1, 2, 3), Rejection.MALFORMED),
    ):
        assert refuse(encode_certificate(replace(certificate, signers=signers)), chain) is reason


def test_headers_expand_to_what_they_were() -> None:
    chain = accepted()[1]
    headers = [block.header for block in chain.blocks]
    chain_id = chain.ledger.constants.chain_id
    assert expand_headers(compress_headers(headers), chain_id, chain.genesis.params) == tuple(headers)


# --- a quorum that lies: it signs a block whose state holds another settlement than the ledger's rules give


def forge(change: Callable[[Settlement], Settlement]) -> tuple[bytes, TestChain]:
    encoded, chain, settlement = accepted()
    parts = collect_parts(chain, chain.ledger, settlement)
    return _sign_state(parts, chain, change(settlement), decode_certificate(encoded)), chain


def _sign_state(parts: CertificateParts, chain: TestChain, forged: Settlement, honest: Certificate) -> bytes:
    key = settlement_key(forged.job)
    tree = chain.ledger.tree.update({key: encode(forged)})
    header = replace(parts.settled[0], state_root=tree.root)
    final = make_final(chain, header)
    return encode_certificate(
        replace(
            honest,
            settlement=forged,
            settlement_proof=tree.prove_inclusion(key),
            settled=compress_headers([header]),
            signers=final.signers,
            signatures=final.signatures,
        )
    )


def _swap_seats(settlement: Settlement) -> Settlement:
    first, second, *rest = settlement.seats
    return replace(settlement, seats=(replace(first, drawn=second.drawn), replace(second, drawn=first.drawn), *rest))


def _end_seat(settlement: Settlement, index: int, end: SeatEnd) -> Settlement:
    seats = list(settlement.seats)
    seats[index] = replace(seats[index], end=end)
    return replace(settlement, seats=tuple(seats))


def _pay_first_more(settlement: Settlement) -> Settlement:
    first, *rest = settlement.payments
    return replace(settlement, payments=(replace(first, amount=first.amount + 1), *rest))


def test_a_forged_block_with_the_true_settlement_is_valid() -> None:
    encoded, chain = forge(lambda settlement: settlement)
    assert check_certificate(encoded, chain.genesis).decision is Decision.ACCEPTED


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda s: replace(s, job=make_hash("other")), Rejection.BAD_PROOF),
        (lambda s: replace(s, settle_height=s.settle_height + 1), Rejection.BAD_PROOF),
        (lambda s: replace(s, submit_height=s.submit_height - 1), Rejection.BAD_BEACON),
        (lambda s: replace(s, maturity_height=s.maturity_height + 1), Rejection.BAD_BEACON),
        (lambda s: replace(s, maturity_view=s.maturity_view - 1), Rejection.BAD_BEACON),
        (lambda s: replace(s, maturity_parent=make_hash("other")), Rejection.BAD_BEACON),
        (lambda s: replace(s, beacon=make_hash("other")), Rejection.BAD_BEACON),
        (lambda s: replace(s, candidates_root=make_hash("other")), Rejection.BAD_BEACON),
        (_swap_seats, Rejection.BAD_DRAW),
        (lambda s: replace(s, seats=s.seats[:-1]), Rejection.BAD_PROOF),
        (lambda s: replace(s, skipped=(s.seats[0].drawn,)), Rejection.BAD_DRAW),
        (lambda s: replace(s, reveal_set=make_hash("other")), Rejection.COMMITMENT_MISMATCH),
        (lambda s: replace(s, decision=Decision.INCONCLUSIVE), Rejection.BAD_DECISION),
        (lambda s: replace(s, decision=Decision.CHOSEN), Rejection.BAD_DECISION),
        (lambda s: replace(s, winner_hash=make_payload("wrong").output_hash), Rejection.BAD_DECISION),
        (lambda s: replace(s, agreement_ppm=1_000_000), Rejection.BAD_DECISION),
        (lambda s: replace(s, entropy_millibits=0), Rejection.BAD_DECISION),
        (lambda s: _end_seat(s, 1, SeatEnd.WINNING), Rejection.BAD_DECISION),
        (lambda s: _end_seat(s, 0, SeatEnd.ABSENT), Rejection.BAD_DECISION),
        (lambda s: replace(s, seats=(replace(s.seats[0], commit_height=0), *s.seats[1:])), Rejection.BAD_DECISION),
        (lambda s: replace(s, seats=(replace(s.seats[0], reveal_height=99), *s.seats[1:])), Rejection.BAD_DECISION),
        (_pay_first_more, Rejection.BAD_DECISION),
        (lambda s: replace(s, refund=1, burned=s.burned - 1), Rejection.BAD_DECISION),
        (lambda s: replace(s, forfeits=(Payment(s.payments[0].node, 1),)), Rejection.BAD_DECISION),
    ],
)
def test_no_quorum_can_certify_what_arithmetic_denies(
    change: Callable[[Settlement], Settlement], reason: Rejection
) -> None:
    encoded, chain = forge(change)
    assert refuse(encoded, chain) is reason


# --- parts that do not belong together


def alter(**changes: object) -> tuple[bytes, TestChain]:
    encoded, chain, _ = accepted()
    return encode_certificate(replace(decode_certificate(encoded), **changes)), chain


def test_an_answer_that_did_not_win_is_no_output() -> None:  # C12
    encoded, chain = alter(output=TextOutput(ANSWER.model, (56, 49), "82", StopReason.END))
    assert refuse(encoded, chain) is Rejection.BAD_OUTPUT


def test_a_job_without_an_answer_has_no_output() -> None:  # C12
    encoded, chain, _ = certify(lambda seat: make_payload(f"answer {seat}"), output=None)
    assert refuse(attach_output(encoded, ANSWER), chain) is Rejection.BAD_OUTPUT


def test_a_member_left_out_is_missed() -> None:  # C8
    members = decode_certificate(accepted()[0]).members
    assert refuse(*alter(members=(None, *members[1:]))) is Rejection.COMMITMENT_MISMATCH
    assert refuse(*alter(members=members[1:])) is Rejection.BAD_PROOF
    assert refuse(*alter(members=(*members, None))) is Rejection.BAD_PROOF
    assert refuse(*alter(members=(members[1], members[0], *members[2:]))) is Rejection.COMMITMENT_MISMATCH


def test_the_paths_are_those_of_the_draw_and_no_others() -> None:  # C7
    paths = decode_certificate(accepted()[0]).candidates
    assert refuse(*alter(candidates=())) is Rejection.BAD_PROOF
    assert refuse(*alter(candidates=paths[1:])) is Rejection.BAD_DRAW
    assert refuse(*alter(candidates=(*paths, paths[0]))) is Rejection.BAD_DRAW
    assert refuse(*alter(candidates=(paths[1], paths[0], *paths[2:]))) is Rejection.BAD_DRAW
    heavier = replace(paths[0], candidate=replace(paths[0].candidate, weight_stake=2**53))
    assert refuse(*alter(candidates=(heavier, *paths[1:]))) is Rejection.BAD_PROOF


def test_a_request_signed_by_somebody_else_is_refused() -> None:  # C13
    assert refuse(*alter(submit_signature=bytes(64))) is Rejection.BAD_SIGNATURE


def test_a_request_altered_after_signing_is_another_job() -> None:  # C4
    submit = decode_certificate(accepted()[0]).submit
    assert refuse(*alter(submit=replace(submit, valid_until=7))) is Rejection.BAD_PROOF


def test_a_ripe_beacon_is_the_first_ripe_one() -> None:  # C6
    waiting = decode_certificate(accepted()[0]).waiting
    assert refuse(*alter(waiting=replace(waiting, cores=waiting.cores[:-1]))) is Rejection.BAD_BEACON
    assert refuse(*alter(waiting=replace(waiting, cores=(*waiting.cores, waiting.cores[-1])))) is Rejection.BAD_BEACON
