from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from protocol.block import compute_header_hash
from protocol.certificate import check_certificate
from protocol.certificate_build import build_certificate
from protocol.certificate_format import Certificate, decode_certificate, encode_certificate
from protocol.certificate_headers import HeaderChain, compress_headers, expand_headers
from protocol.chain_file import encode_chain_file
from protocol.codec import encode
from protocol.errors import InvalidCertificate, InvalidTrust, Rejection
from protocol.jobs.agreement import Decision
from protocol.ledger.entries import settlement_key
from protocol.params import UNIT
from protocol.trust import RootKind, Trust, trust_genesis, trust_header, walk_steps
from protocol.validators import compute_validator_set_hash
from tests.protocol.builders import TestChain, make_genesis, make_hash, start_chain
from tests.protocol.certificates import (
    collect_parts,
    list_steps,
    make_chain_file,
    make_final,
    right,
    trust_block,
)
from tests.protocol.changing import EPOCH, FIRST, certify_changing, find_place, settled, waits_over_the_change

if TYPE_CHECKING:
    from protocol.block import Header
    from protocol.jobs.settlement import Settlement
    from protocol.ledger.draft import Ledger


def certify(epoch: int | None = None, place: int = 0) -> tuple[bytes, TestChain, Settlement]:
    """A certificate: by default of a job that waits for its beacon over a change of the validators."""
    return certify_changing(*(find_place(waits_over_the_change) if epoch is None else (epoch, place)))


def refuse(encoded: bytes, trust: Trust, chain_file: bytes | None = None) -> Rejection:
    with pytest.raises((InvalidCertificate, InvalidTrust)) as caught:
        check_certificate(encoded, trust, chain_file)
    assert str(caught.value)
    return caught.value.reason


def get_header(chain: TestChain, height: int) -> Header:
    return next(block.header for block in chain.blocks if block.header.height == height)


def walk(chain: TestChain) -> Trust:
    return walk_steps(trust_genesis(chain.genesis), list_steps(chain))


def test_the_chain_of_these_tests_changes_its_validators() -> None:
    chain = certify()[1]
    epochs = [step.header.epoch for step in list_steps(chain)]
    assert epochs == [1, 3]
    assert [len(step.validators.members) for step in list_steps(chain)] == [8, 6]


# --- wherever a job meets the ends of epochs


@pytest.mark.parametrize("place", range(1, EPOCH + 1))
def test_a_certificate_is_checked_wherever_its_job_stands_in_its_epochs(place: int) -> None:
    for epoch in (2, 3, 4):  # before, over and after the change at the end of epoch 3
        encoded, chain, settlement = certify(epoch, place)
        report = check_certificate(encoded, trust_genesis(chain.genesis), make_chain_file(chain))
        assert (report.decision, report.job, report.text) == (Decision.ACCEPTED, settlement.job, "81")
        final_epoch = (settlement.settle_height - 1) // EPOCH
        assert report.trust.final_epoch == final_epoch
        assert report.trust.steps == sum(step.header.epoch < final_epoch for step in list_steps(chain))
        assert report.final_weight_ppm == 1_000_000


def test_some_of_these_jobs_wait_for_their_beacon_over_an_epochs_end_and_settle_in_the_next() -> None:
    crossing = [settled(epoch, place)[1] for epoch in (2, 3, 4) for place in range(1, EPOCH + 1)]
    assert any((each.submit_height - 1) // EPOCH < (each.maturity_height - 2) // EPOCH for each in crossing)  # inside
    assert any(each.maturity_height % EPOCH == 1 for each in crossing)  # the beacon's own block begins an epoch
    assert any(each.settle_height % EPOCH == 0 for each in crossing)
    assert any(each.maturity_height // EPOCH < each.settle_height // EPOCH for each in crossing)


def test_without_the_steps_the_changed_set_is_missed() -> None:
    encoded, chain, _ = certify()
    root = trust_genesis(chain.genesis)
    assert refuse(encoded, root) is Rejection.MISSING_STEPS
    assert refuse(encoded, root, encode_chain_file(root.chain, list_steps(chain)[:1])) is Rejection.MISSING_STEPS
    assert refuse(encoded, root, encode_chain_file(root.chain, list_steps(chain)[1:])) is Rejection.MISSING_STEPS


def test_a_broken_chain_file_is_refused_before_the_certificate_is_judged() -> None:
    encoded, chain, _ = certify()
    chain_file = bytearray(make_chain_file(chain))
    chain_file[-1] ^= 1
    with pytest.raises(InvalidTrust):
        check_certificate(encoded, chain.genesis, bytes(chain_file))


def test_changed_bytes_of_a_certificate_over_an_epochs_end_are_refused() -> None:
    encoded, chain, _ = certify()
    trust = walk(chain)
    assert check_certificate(encoded, trust).trust.steps == 2
    for position in range(0, len(encoded), 5):
        changed = bytearray(encoded)
        changed[position] ^= 1 << position % 8
        with pytest.raises(InvalidCertificate):
            check_certificate(bytes(changed), trust)


# --- headers over an epoch's end


def alter_headers(headers: HeaderChain, **changes: object) -> HeaderChain:
    return replace(headers, **changes)


def test_headers_over_epochs_expand_to_what_they_were() -> None:
    chain = certify()[1]
    headers = [block.header for block in chain.blocks]
    params, chain_id = chain.genesis.params, chain.ledger.constants.chain_id
    for first in range(len(headers) - EPOCH):
        part = headers[first : first + EPOCH]
        assert expand_headers(compress_headers(part), chain_id, params) == tuple(part)


def test_seeds_and_sets_of_waiting_headers_are_bound_by_their_hashes() -> None:  # C6
    encoded, chain, _ = certify()
    waiting, trust = decode_certificate(encoded).waiting, walk(chain)
    assert len(waiting.valset_hashes) == 3
    first, second, third = waiting.valset_hashes
    for changes, reason in (
        ({"leader_seed": make_hash("other")}, Rejection.BAD_BEACON),
        ({"valset_hashes": (second, second, third)}, Rejection.BAD_BEACON),
        ({"valset_hashes": (first, first, third)}, Rejection.BAD_BEACON),
        ({"valset_hashes": (first, second, first)}, Rejection.BAD_BEACON),
        ({"valset_hashes": (first, second)}, Rejection.BAD_HEIGHT),
        ({"height": 0}, Rejection.BAD_HEIGHT),
        ({"height": 2**63 - 1}, Rejection.BAD_BEACON),
    ):
        changed = encode_certificate(replace(decode_certificate(encoded), waiting=alter_headers(waiting, **changes)))
        assert refuse(changed, trust) is reason


# --- finality


def ends_an_epoch(settlement: Settlement) -> bool:
    return settlement.settle_height % EPOCH == 0


def begins_an_epoch(settlement: Settlement) -> bool:
    return settlement.settle_height % EPOCH == 1


def at_boundary() -> tuple[TestChain, Settlement, Ledger]:
    """A job that settles with an epoch's last block."""
    return settled(*find_place(ends_an_epoch))


def test_an_epochs_last_block_may_be_made_final_by_votes_of_a_later_view() -> None:  # C14
    chain, settlement, ledger = at_boundary()
    parts = collect_parts(chain, ledger, settlement)
    header, trust = parts.settled[0], walk(chain)
    for view, is_valid in (
        (header.view, True),
        (header.view + 1, True),
        (header.view + 9, True),
        (header.view - 1, False),
    ):
        final = make_final(chain, header, view=view)
        certificate = decode_certificate(build_certificate(parts))
        encoded = encode_certificate(replace(certificate, final_view=view, signatures=final.signatures))
        if is_valid:
            assert check_certificate(encoded, trust).settle_height == header.height
        else:
            assert refuse(encoded, trust) is Rejection.OUT_OF_RANGE
    stale = encode_certificate(replace(decode_certificate(build_certificate(parts)), final_view=header.view + 1))
    assert refuse(stale, trust) is Rejection.BAD_SIGNATURE


def test_any_other_block_is_final_by_votes_of_its_own_view_alone() -> None:  # C14
    chain, settlement, ledger = settled(*find_place(begins_an_epoch))
    parts = collect_parts(chain, ledger, settlement)
    header = parts.settled[0]
    for view in (header.view - 1, header.view + 1):
        final = make_final(chain, header, view=view)
        certificate = decode_certificate(build_certificate(parts))
        encoded = encode_certificate(replace(certificate, final_view=view, signatures=final.signatures))
        assert refuse(encoded, walk(chain)) is Rejection.OUT_OF_RANGE


def test_no_headers_lead_out_of_the_epoch_of_the_settlement() -> None:  # C14
    chain, settlement, ledger = at_boundary()
    chain = chain.fork()
    chain.step()
    encoded = build_certificate(collect_parts(chain, ledger, settlement, blocks_later=1))
    assert refuse(encoded, walk(chain)) is Rejection.BAD_HEIGHT


# --- a quorum that lies


def sign_state(chain: TestChain, certificate: Certificate, settled: tuple[Header, ...], signer_set: bytes) -> bytes:
    """The certificate with these headers, made final by all of the set with this hash."""
    chain = chain.fork()
    header = settled[-1]
    chain.sets[header.valset_hash] = chain.sets[signer_set]
    final = make_final(chain, header)
    return encode_certificate(
        replace(
            certificate,
            settled=compress_headers(settled),
            final_view=final.view,
            signers=final.signers,
            signatures=final.signatures,
        )
    )


def stays_in_epoch_4(settlement: Settlement) -> bool:
    return 4 * EPOCH < settlement.submit_height < settlement.settle_height <= 5 * EPOCH


def usurp(epoch: int) -> tuple[bytes, TestChain]:
    """A certificate whose block says that the first set still votes, and is signed by it."""
    encoded, chain, settlement = certify(*(find_place(stays_in_epoch_4) if epoch == 4 else (epoch, 1)))
    first_set = compute_validator_set_hash(trust_genesis(chain.genesis).eras[0].validators)
    true = get_header(chain, settlement.settle_height)
    header = replace(true, valset_hash=first_set, next_valset_hash=first_set)
    return sign_state(chain, decode_certificate(encoded), (header,), first_set), chain


def test_a_set_that_has_left_can_sign_nothing_for_who_has_the_steps() -> None:  # C16
    for epoch, reason in ((4, Rejection.BAD_VALIDATORS), (6, Rejection.MISSING_STEPS)):
        encoded, chain = usurp(epoch)
        assert refuse(encoded, walk(chain)) is reason
        root = trust_at(chain, 3 * EPOCH + 1)
        assert refuse(encoded, walk_steps(root, list_steps(chain))) is reason


def test_who_lacks_the_steps_is_told_what_he_takes_on_trust() -> None:
    """The set of the genesis still has the weight to mislead somebody who knows of no other: it is said so."""
    chain = start_chain(make_genesis(), (*FIRST, "asker", "other"))
    chain.run(3 * EPOCH)
    settlement = chain.settle(answers=lambda _: right())
    encoded = build_certificate(collect_parts(chain, chain.ledger, settlement))
    report = check_certificate(encoded, chain.genesis)
    assert report.trust.certain_epoch == 1
    assert any("did not change after epoch 1" in line for line in report.assumed)
    direct = trust_header(chain.genesis, trust_block(chain, chain.header))
    assert not any("did not change" in line for line in check_certificate(encoded, direct).assumed)


def test_two_leader_schedules_for_an_epoch_are_one_too_many() -> None:  # C6
    encoded, chain, settlement = certify(5, 2)
    header = replace(get_header(chain, settlement.settle_height), leader_seed=make_hash("other"))
    forged = sign_state(chain, decode_certificate(encoded), (header,), header.valset_hash)
    assert refuse(forged, walk(chain)) is Rejection.BAD_BEACON


def test_the_first_epochs_seed_is_that_of_the_genesis() -> None:  # C6
    chain = start_chain(make_genesis(), (*FIRST, "asker", "other"))
    settlement = chain.settle(answers=lambda _: right())
    certificate = decode_certificate(build_certificate(collect_parts(chain, chain.ledger, settlement)))
    waiting = replace(certificate.waiting, leader_seed=make_hash("other"))
    headers = expand_headers(waiting, certificate.chain_id, chain.genesis.params)
    lied = replace(settlement, maturity_parent=compute_header_hash(headers[-1]))
    tree = chain.ledger.tree.update({settlement_key(lied.job): encode(lied)})
    header = replace(get_header(chain, settlement.settle_height), state_root=tree.root)
    proof = tree.prove_inclusion(settlement_key(lied.job))
    forged = replace(certificate, settlement=lied, settlement_proof=proof, waiting=waiting)
    encoded = sign_state(chain, forged, (header,), header.valset_hash)
    with pytest.raises(InvalidCertificate, match="two leader schedules for epoch 0"):
        check_certificate(encoded, chain.genesis)


# --- roots


def trust_at(chain: TestChain, height: int) -> Trust:
    return trust_header(chain.genesis, trust_block(chain, get_header(chain, height)))


def test_a_trusted_header_of_the_certificates_epoch_needs_no_steps() -> None:  # C17
    encoded, chain, settlement = certify(5, 2)
    report = check_certificate(encoded, trust_at(chain, 5 * EPOCH + 1))
    assert (report.trust.root, report.trust.root_height, report.trust.steps) == (RootKind.HEADER, 5 * EPOCH + 1, 0)
    assert not report.trust.is_direct
    assert settlement.submit_height > 5 * EPOCH


def test_a_trusted_header_of_an_earlier_epoch_needs_the_steps_from_there() -> None:
    encoded, chain, _ = certify(5, 2)
    root = trust_at(chain, 3 * EPOCH + 1)
    assert refuse(encoded, root) is Rejection.MISSING_STEPS
    for steps in (list_steps(chain), list_steps(chain)[1:]):
        assert check_certificate(encoded, root, encode_chain_file(root.chain, steps)).trust.steps == 1


def test_a_certificate_of_before_the_trusted_header_is_not_judged_by_it() -> None:
    encoded = certify(3, 1)[0]
    later = settled(5, 2)[0]
    for height in (4 * EPOCH + 1, 5 * EPOCH + 1):
        assert refuse(encoded, trust_at(later, height), make_chain_file(later)) is Rejection.BEFORE_TRUST
    assert check_certificate(encoded, trust_at(later, 4 * EPOCH)).decision is Decision.ACCEPTED


def test_a_request_that_waited_before_the_trusted_header_needs_the_table_of_then() -> None:  # C18
    encoded, chain, settlement = certify()
    root = trust_at(chain, (settlement.settle_height - 1) // EPOCH * EPOCH + 1)
    assert refuse(encoded, root) is Rejection.BEFORE_TRUST
    assert check_certificate(encoded, root, make_chain_file(chain)).decision is Decision.ACCEPTED


def test_the_block_that_is_trusted_makes_no_other_block_of_its_height_true() -> None:  # C18
    encoded, chain, settlement = certify(5, 2)
    header = replace(get_header(chain, settlement.settle_height), tx_root=make_hash("other"))
    forged = sign_state(chain, decode_certificate(encoded), (header,), header.valset_hash)
    assert check_certificate(forged, walk(chain)).decision is Decision.ACCEPTED  # who signs two blocks fools a stranger
    assert refuse(forged, trust_at(chain, header.height)) is Rejection.BAD_PARENT


# --- age


def test_trust_is_good_for_as_long_as_evidence_counts() -> None:  # C19
    encoded, chain, _ = certify()
    trust = walk(chain)
    period_ms = chain.genesis.params.evidence_max_ms
    for age_ms, is_stale in ((period_ms, False), (period_ms + 1, True)):
        report = check_certificate(encoded, trust, now_ms=chain.genesis.time_ms + age_ms)
        assert (report.trust.age_ms, report.trust.period_ms, report.trust.is_stale) == (age_ms, period_ms, is_stale)
        assert any("too old to punish" in line for line in report.assumed) == is_stale
        assert (f"quorate checkpoint --height {report.trust.final_height}" in report.trust.advice) == is_stale


def test_a_clock_that_is_slow_makes_trust_no_younger_than_the_certificate() -> None:
    chain = start_chain(make_genesis(), (*FIRST, "asker", "other"))
    chain.step(after_ms=chain.genesis.params.evidence_max_ms)
    settlement = chain.settle(answers=lambda _: right())
    encoded = build_certificate(collect_parts(chain, chain.ledger, settlement))
    assert check_certificate(encoded, chain.genesis, now_ms=0).trust.is_stale


def test_the_certificates_own_block_is_trusted_at_any_age() -> None:  # C19
    encoded, chain, settlement = certify()
    root = trust_at(chain, settlement.settle_height)
    report = check_certificate(encoded, root, make_chain_file(chain), 2**53)
    assert (report.trust.is_direct, report.trust.is_stale, report.trust.advice) == (True, False, "")
    beside = trust_at(chain, settlement.settle_height - 1)
    assert check_certificate(encoded, beside, make_chain_file(chain), 2**53).trust.is_stale


def test_the_report_says_what_was_followed() -> None:
    encoded, chain, settlement = certify()
    report = check_certificate(encoded, walk(chain))
    assert any("2 changes of the set since the genesis" in line for line in report.recomputed)
    assert report.trust.final_height == settlement.settle_height
    assert report.trust.final_hash == compute_header_hash(get_header(chain, settlement.settle_height))


def test_a_chain_file_of_another_chain_is_refused() -> None:
    encoded, chain, _ = certify()
    other = encode_chain_file(trust_genesis(make_genesis(stake=200 * UNIT)).chain, ())
    assert refuse(encoded, trust_genesis(chain.genesis), other) is Rejection.WRONG_CHAIN
