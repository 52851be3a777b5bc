"""What a stranger can check offline: a certificate against the genesis or a header it trusts, with nothing else at hand.

The quorum's signatures make one state root true; the settlement is under it; from the settlement and what the members signed
everything that arithmetic can decide is computed again. What only the ledger's execution can know is named as attested. Cheap checks
come first, signatures last. Source: rules C1-C19.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol.block import Header
from protocol.certificate_chain import check_finality, check_maturity, find_signers, open_settled
from protocol.certificate_format import Certificate, Opened, Unopened, decode_certificate, list_holders, repeat_draw
from protocol.certificate_headers import refuse
from protocol.certificate_report import (
    ATTESTED,
    LEADER_SEED,
    ONE_OPERATOR,
    OUTPUT_RECOMPUTED,
    RECOMPUTED,
    CertificateReport,
    MemberRow,
    list_assumed,
    list_walked,
    report_trust,
)
from protocol.chain_file import follow_chain_file
from protocol.codec import encode
from protocol.crypto import SignatureDomain, is_signature_valid, signing_bytes
from protocol.errors import InvalidCertificate, Rejection
from protocol.genesis import Genesis
from protocol.jobs.agreement import Agreement, Answer, Decision, decide
from protocol.jobs.capture import compute_binomial_ppb
from protocol.jobs.committee import DrawReplay, Interval, compute_location, compute_seat_cap, get_interval
from protocol.jobs.settlement import Payment, SeatEnd, SettledSeat, Settlement, compute_reveal_set_hash
from protocol.ledger.entries import settlement_key
from protocol.ledger.pay import compute_bond_at_risk, compute_shares
from protocol.merkle import check_inclusion
from protocol.models import ModelCard, TextOutput, compute_model_id, compute_output_hash
from protocol.transactions import (
    Commit,
    Reveal,
    Transaction,
    author_of,
    compute_commitment,
    compute_transaction_id,
)
from protocol.trust import Trust, trust_genesis
from protocol.units import ChainId, Micro, Milliseconds, NodeId
from protocol.validators import ValidatorSet, compute_weight

_FIFTH_PPM: Final = 200_000
_THIRD_PPM: Final = 330_000
_PPM: Final = 1_000_000
_THIN: Final = (1, 3)  # of the validators' stake


@dataclass(frozen=True, slots=True)
class _Case:
    """What the checks share. `validators` are those of the epoch of the settled headers."""

    certificate: Certificate
    trust: Trust
    genesis: Genesis
    chain: ChainId
    validators: ValidatorSet
    card: ModelCard
    settled: tuple[Header, ...]
    holdings: tuple[tuple[NodeId, Opened | Unopened | None], ...]


def check_certificate(
    encoded: bytes, trust: Genesis | Trust, chain: bytes | None = None, now_ms: Milliseconds = 0
) -> CertificateReport:
    """What a valid certificate says, to somebody who trusts this genesis, or this header; `chain` is a chain file that leads on from there.

    `now_ms` judges how old the trust is: no younger than the certificate's own block makes it.
    Raises: InvalidCertificate, InvalidTrust with the reason and a sentence.
    """
    certificate = decode_certificate(encoded)
    root = trust if isinstance(trust, Trust) else trust_genesis(trust)
    case = _open(certificate, root if chain is None else follow_chain_file(root, chain))
    _check_request(case)
    _check_settlement(case)
    check_maturity(certificate, case.trust, case.settled[0])
    candidates_stake = _check_draw(case)
    _check_reveals(case)
    agreement = _check_agreement(case)
    _check_ends(case, agreement)
    _check_pay(case)
    _check_output(case)
    _check_signatures(case)
    check_finality(certificate, case.trust, case.settled[-1], case.validators)
    return _report(case, agreement, candidates_stake, now_ms)


def _open(certificate: Certificate, trust: Trust) -> _Case:
    chain, genesis = trust.chain, trust.genesis
    if certificate.chain_id != chain:  # C2
        raise InvalidCertificate(
            Rejection.WRONG_CHAIN,
            f"this certificate is of chain {certificate.chain_id.hex()[:12]}, the genesis given is of {chain.hex()[:12]}: use its own genesis file",
        )
    model = certificate.submit.job.model
    known = {compute_model_id(card): card for card in genesis.models}
    card = known.get(model) if certificate.card is None else certificate.card
    if card is None or compute_model_id(card) != model or (certificate.card is not None and model in known):  # C3
        refuse(Rejection.UNKNOWN_MODEL, f"lacks the card of model {model.hex()[:12]}, or carries a needless one")
    holders = list_holders(certificate.settlement)
    if len(holders) != len(certificate.members):
        refuse(
            Rejection.BAD_PROOF, f"has the doings of {len(certificate.members)} members, but {len(holders)} held seats"
        )
    settled = open_settled(certificate, trust)
    holdings = tuple(zip(holders, certificate.members, strict=True))
    return _Case(certificate, trust, genesis, chain, find_signers(trust, settled[-1]), card, settled, holdings)


def _check_request(case: _Case) -> None:
    submit, settlement = case.certificate.submit, case.certificate.settlement
    job = compute_transaction_id(submit)
    if job != settlement.job:  # C4
        refuse(Rejection.BAD_PROOF, f"settles job {settlement.job.hex()[:12]}, but its request is job {job.hex()[:12]}")
    if len(settlement.seats) != submit.job.seats:
        refuse(Rejection.BAD_PROOF, f"settles {len(settlement.seats)} seats, but {submit.job.seats} were asked for")


def _check_settlement(case: _Case) -> None:
    settlement, block = case.certificate.settlement, case.settled[0]
    if block.height != settlement.settle_height:
        refuse(
            Rejection.BAD_PROOF,
            f"settles at height {settlement.settle_height}, but its first header is at {block.height}",
        )
    key = settlement_key(settlement.job)
    if not check_inclusion(block.state_root, key, encode(settlement), case.certificate.settlement_proof):  # C5
        refuse(Rejection.BAD_PROOF, f"has a settlement that is not under the state root of block {block.height}")


def _check_draw(case: _Case) -> Micro:
    """C7: seats and takers follow from the beacon; the paths are exactly those of the nodes it hit. The stake of all candidates."""
    certificate, settlement = case.certificate, case.certificate.settlement
    request, paths = certificate.submit.job, certificate.candidates
    locations = [compute_location(path) for path in paths]
    roots = {location.root for location in locations}
    if len(roots) != 1:
        refuse(Rejection.BAD_PROOF, f"has candidate paths to {len(roots)} different roots instead of one")
    if not check_inclusion(settlement.candidates_root, request.model, roots.pop(), certificate.model_proof):
        refuse(Rejection.BAD_PROOF, "has candidates that are not under the settlement's candidates root")
    found = [get_interval(place, path.candidate, request.rule) for place, path in zip(locations, paths, strict=True)]
    intervals: tuple[int, list[Interval]] = (found[0][0], [interval for _, interval in found])
    cap = compute_seat_cap(request.seats, case.genesis.params.seat_cap_divisor)
    touched = repeat_draw(DrawReplay(settlement.job, settlement.beacon, cap, intervals), settlement)
    if touched != tuple(path.candidate.node for path in paths):
        refuse(Rejection.BAD_DRAW, "has paths of other candidates than those that the draw hit, or in another order")
    return locations[0].total[0]


def _check_reveals(case: _Case) -> None:
    """C8: commitments opened, and the set of commits and reveals complete."""
    ids = tuple(compute_transaction_id(body) for body, _ in _list_transactions(case))
    if compute_reveal_set_hash(ids) != case.certificate.settlement.reveal_set:
        refuse(Rejection.COMMITMENT_MISMATCH, "has other commits and reveals than the ones that were settled")


def _list_transactions(case: _Case) -> list[tuple[Transaction, bytes]]:
    """Every member's commit and reveal with its signature, in the settlement's order. An opened commitment is computed, not read."""
    job, found = case.certificate.settlement.job, list[tuple[Transaction, bytes]]()
    for node, held in case.holdings:
        match held:
            case None:
                continue
            case Unopened():
                found.append((Commit(node, job, held.commitment), held.commit_signature))
            case Opened():
                commitment = compute_commitment(case.chain, job, node, held.payload, held.salt)
                found.append((Commit(node, job, commitment), held.commit_signature))
                found.append((Reveal(node, job, held.payload, held.salt), held.reveal_signature))
    return found


def _check_agreement(case: _Case) -> Agreement:
    """C9: decision, winner and figures follow from the reveals."""
    settlement, held = case.certificate.settlement, dict(case.holdings)
    answers = [
        Answer(index, seat.holder, member.payload.output_hash, member.payload.digest)
        for index, seat in enumerate(settlement.seats)
        if seat.holder is not None and isinstance(member := held[seat.holder], Opened) and not member.payload.abstained
    ]
    agreement = decide(answers, case.card.tolerance_bits, len(settlement.seats), settlement.beacon)
    expected = (agreement.decision, agreement.winner_hash, agreement.agreement_ppm, agreement.entropy_millibits)
    got = (settlement.decision, settlement.winner_hash, settlement.agreement_ppm, settlement.entropy_millibits)
    if got != expected:  # C9
        refuse(
            Rejection.BAD_DECISION,
            f"was settled as {got[0].name.lower()}, but its reveals give {expected[0].name.lower()}, or other figures",
        )
    return agreement


def _check_ends(case: _Case, agreement: Agreement) -> None:
    """C10: how every seat ended, and in which order its holder acted."""
    settlement, held = case.certificate.settlement, dict(case.holdings)
    committed = sum(seat.holder is not None and held[seat.holder] is not None for seat in settlement.seats)
    was_revealing = 2 * committed > len(settlement.seats)
    for index, seat in enumerate(settlement.seats):
        end = _compute_end(seat, held, is_winning=index in agreement.winning_seats, was_revealing=was_revealing)
        if end is not seat.end:
            refuse(
                Rejection.BAD_DECISION,
                f"has seat {index} end as {seat.end.name.lower()}, but it was {end.name.lower()}",
            )
        if not _is_in_order(settlement, seat, None if seat.holder is None else held[seat.holder]):
            refuse(
                Rejection.BAD_DECISION,
                f"has seat {index} commit at {seat.commit_height}, reveal at {seat.reveal_height}",
            )


def _is_in_order(settlement: Settlement, seat: SettledSeat, held: Opened | Unopened | None) -> bool:
    """Whether commit and reveal lie between draw and settlement, one after the other; 0 where there was none."""
    drawn, commit, reveal, end = (
        settlement.maturity_height,
        seat.commit_height,
        seat.reveal_height,
        settlement.settle_height,
    )
    match held:
        case None:
            return commit == reveal == 0
        case Unopened():
            return drawn < commit <= end and reveal == 0
        case Opened():
            return drawn < commit < reveal <= end


def _compute_end(
    seat: SettledSeat, held: dict[NodeId, Opened | Unopened | None], *, is_winning: bool, was_revealing: bool
) -> SeatEnd:
    if seat.holder is None:
        return SeatEnd.EMPTY
    match held[seat.holder]:
        case None:
            return SeatEnd.ABSENT
        case Unopened():
            return SeatEnd.SILENT if was_revealing else SeatEnd.UNASKED
        case Opened(payload=payload):
            if payload.abstained:
                return SeatEnd.ABSTAINED
            return SeatEnd.WINNING if is_winning else SeatEnd.OUTSIDE


def _check_pay(case: _Case) -> None:
    settlement, request = case.certificate.settlement, case.certificate.submit.job
    accepted = settlement.decision is Decision.ACCEPTED
    paying = {SeatEnd.WINNING} if accepted else {SeatEnd.OUTSIDE, SeatEnd.WINNING}
    counts = Counter(seat.holder for seat in settlement.seats if seat.end in paying and seat.holder is not None)
    shares = compute_shares(request, case.genesis.params, settlement.decision, counts.total())
    payments = tuple(Payment(node, shares.seat * counts[node]) for node in sorted(counts)) if shares.seat else ()
    if (settlement.payments, settlement.refund, settlement.burned) != (payments, shares.refund, shares.burned):  # C11
        refuse(Rejection.BAD_DECISION, f"divides the fee of {request.fee} otherwise than the rules of pay do")
    silent = {seat.holder for seat in settlement.seats if seat.end is SeatEnd.SILENT and seat.holder is not None}
    most = compute_bond_at_risk(request, case.genesis.params)
    if [each.node for each in settlement.forfeits] != sorted(silent) or any(
        each.amount > most for each in settlement.forfeits
    ):
        refuse(Rejection.BAD_DECISION, "lets other members forfeit than those that committed and did not reveal")


def _check_output(case: _Case) -> None:
    output, settlement = case.certificate.output, case.certificate.settlement
    if output is None:
        return
    if settlement.decision is not Decision.ACCEPTED:
        refuse(Rejection.BAD_OUTPUT, f"has an answer attached, but the job was {settlement.decision.name.lower()}")
    if compute_output_hash(output) != settlement.winner_hash:  # C12
        refuse(Rejection.BAD_OUTPUT, "has an answer attached that is not the winning one")


def _check_signatures(case: _Case) -> None:
    certificate = case.certificate
    for body, signature in ((certificate.submit, certificate.submit_signature), *_list_transactions(case)):
        message = signing_bytes(SignatureDomain.TRANSACTION, case.chain, encode(body))
        if not is_signature_valid(author_of(body), message, signature):  # C13
            refuse(
                Rejection.BAD_SIGNATURE, f"has a {type(body).__name__} that {author_of(body).hex()[:12]} did not sign"
            )


# --- the report


def _report(case: _Case, agreement: Agreement, candidates_stake: Micro, now_ms: Milliseconds) -> CertificateReport:
    certificate, settlement, request = case.certificate, case.certificate.settlement, case.certificate.submit.job
    output, total = certificate.output, case.validators.total_weight
    seats, needed = request.seats, request.seats // 2 + 1
    share_ppm = candidates_stake * _PPM // total
    trusted = report_trust(case.trust, case.settled, now_ms)
    return CertificateReport(
        decision=settlement.decision,
        text=output.text if isinstance(output, TextOutput) else None,
        output=output,
        job=settlement.job,
        rule=request.rule,
        prompt=request.prompt,
        card=case.card,
        requester=certificate.submit.sender,
        fee=request.fee,
        winner_hash=settlement.winner_hash,
        agreement_ppm=settlement.agreement_ppm,
        entropy_millibits=settlement.entropy_millibits,
        members=_list_rows(settlement.seats, dict(case.holdings), agreement),
        settle_height=settlement.settle_height,
        settle_ms=case.settled[0].time_ms,
        final_weight_ppm=compute_weight(case.validators, certificate.signers) * _PPM // total,
        capture_ppb=(
            compute_binomial_ppb(seats, needed, _FIFTH_PPM),
            compute_binomial_ppb(seats, needed, _THIRD_PPM),
        ),
        candidate_share_ppm=share_ppm,
        is_thin=candidates_stake * _THIN[1] < total * _THIN[0],
        recomputed=(*RECOMPUTED, *list_walked(trusted), *(() if output is None else (OUTPUT_RECOMPUTED,))),
        attested=(
            *ATTESTED,
            *((LEADER_SEED,) if trusted.final_epoch else ()),
            *((ONE_OPERATOR,) if len(case.validators.members) == 1 else ()),
        ),
        assumed=list_assumed(trusted),
        trust=trusted,
    )


def _list_rows(
    seats: Sequence[SettledSeat], held: dict[NodeId, Opened | Unopened | None], agreement: Agreement
) -> tuple[MemberRow, ...]:
    distances = dict(agreement.distances)
    rows: list[MemberRow] = []
    for index, seat in enumerate(seats):
        member = None if seat.holder is None else held[seat.holder]
        shown = member.payload.output_hash if isinstance(member, Opened) and not member.payload.abstained else None
        replaced = None if seat.taker is None else seat.drawn
        is_inside = seat.end is SeatEnd.WINNING
        rows.append(MemberRow(index, seat.holder, replaced, seat.end, shown, distances.get(index), is_inside))
    return tuple(rows)
