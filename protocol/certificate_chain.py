"""What ties a certificate to its chain: whose votes make its block final, and when its beacon was ripe, over the ends of epochs too.

Whoever may vote is trust.py's to say. A header that a final block leads back to is as true as that block, so the set of an epoch before
the trusted header's is known by its hash alone. Source: rules C6, C14, C18.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.block import Header, compute_header_hash
from protocol.certificate_format import MAX_FINAL_HEADERS, Certificate
from protocol.certificate_headers import expand_headers, refuse
from protocol.errors import InvalidCertificate, InvalidMessage, Rejection
from protocol.jobs.beacon import compute_beacon, is_mature
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.params import compute_epoch
from protocol.trust import Trust, check_final, check_next, find_validators
from protocol.units import Epoch, Hash, NodeId
from protocol.validators import ValidatorSet, compute_leader


@dataclass(frozen=True, slots=True)
class _Terms:
    """Who votes and leads in one epoch."""

    epoch: Epoch
    seed: Hash
    validators: ValidatorSet


def open_settled(certificate: Certificate, trust: Trust) -> tuple[Header, ...]:
    """The headers from the settlement's block to the final one, all of one epoch: an epoch's last block has votes of its own."""
    if len(certificate.settled.cores) > MAX_FINAL_HEADERS:
        refuse(
            Rejection.TOO_LARGE,
            f"has {len(certificate.settled.cores)} headers to its final one, at most {MAX_FINAL_HEADERS}",
        )
    settled = expand_headers(certificate.settled, trust.chain, trust.params)
    if settled[0].epoch != settled[-1].epoch:
        refuse(Rejection.BAD_HEIGHT, f"has headers to its final one from epoch {settled[0].epoch} into the next")
    for header in settled:
        if header.height == trust.root.height and compute_header_hash(header) != trust.root.hash:  # C18
            refuse(Rejection.BAD_PARENT, f"has another block {header.height} than the trusted one")
    return settled


def find_signers(trust: Trust, header: Header) -> ValidatorSet:
    """The set whose votes make a block final.

    Raises: InvalidCertificate(MISSING_STEPS | BAD_VALIDATORS | BEFORE_TRUST).
    """
    try:
        validators = find_validators(trust, header.epoch, header.valset_hash)
        check_next(trust, header)
    except InvalidMessage as error:
        raise _cannot_judge(error, f"its block is {header.height}") from error
    return validators


def check_finality(certificate: Certificate, trust: Trust, last: Header, validators: ValidatorSet) -> None:
    """C14: more than two thirds of the weight of the block's own epoch."""
    cert = QuorumCert(
        VoteKind.FINAL,
        last.epoch,
        certificate.final_view,
        compute_header_hash(last),
        certificate.signers,
        certificate.signatures,
    )
    try:
        check_final(trust, last, cert, validators, f"block {last.height}")
    except InvalidMessage as error:
        raise InvalidCertificate(
            error.reason, f"this certificate's block is not shown to be final ({error}): ask another node for it"
        ) from error


def check_maturity(certificate: Certificate, trust: Trust, settled: Header) -> None:
    """C6: the settlement's beacon is R of the first ripe block after the request's."""
    settlement, params = certificate.settlement, trust.params
    waiting = expand_headers(certificate.waiting, trust.chain, params)
    if waiting[0].height != settlement.submit_height or waiting[-1].height + 1 != settlement.maturity_height:
        refuse(
            Rejection.BAD_BEACON,
            f"must carry the headers {settlement.submit_height} to {settlement.maturity_height - 1}",
        )
    if compute_header_hash(waiting[-1]) != settlement.maturity_parent:
        refuse(Rejection.BAD_BEACON, f"has headers that do not lead to block {settlement.maturity_height}")
    if waiting[0].candidates_root != settlement.candidates_root:
        refuse(
            Rejection.BAD_BEACON, f"draws from candidates that were not in force at block {settlement.submit_height}"
        )
    if compute_beacon(waiting[-1].beacon, certificate.maturity_reveal) != settlement.beacon:
        refuse(
            Rejection.BAD_BEACON, f"has a beacon that is not made from the reveal of block {settlement.maturity_height}"
        )
    if waiting[-1].view >= settlement.maturity_view:
        refuse(Rejection.BAD_BEACON, f"has views that do not ascend up to block {settlement.maturity_height}")
    _check_one_chain(trust, (*waiting, settled))
    views = (*(header.view for header in waiting[1:]), settlement.maturity_view)
    if not _is_first_ripe(trust, _list_terms(trust, waiting), views):
        refuse(
            Rejection.BAD_BEACON,
            f"draws at block {settlement.maturity_height}, which is not the first whose beacon is ripe",
        )


def _check_one_chain(trust: Trust, headers: Sequence[Header]) -> None:
    """Headers of one epoch have one seed and one set; the genesis gives the first epoch's seed."""
    known = {0: trust.genesis.seed}
    for header in headers:
        if known.setdefault(header.epoch, header.leader_seed) != header.leader_seed:
            refuse(Rejection.BAD_BEACON, f"has two leader schedules for epoch {header.epoch}")
    sets = {header.epoch: (header.valset_hash, header.next_valset_hash) for header in headers}
    if any(sets[header.epoch] != (header.valset_hash, header.next_valset_hash) for header in headers):
        refuse(
            Rejection.BAD_VALIDATORS,
            f"has two validator sets for an epoch, between blocks {headers[0].height} and {headers[-1].height}",
        )


def _is_first_ripe(trust: Trust, terms: Sequence[_Terms], views: Sequence[int]) -> bool:
    """Whether the last of these views' blocks, and none before, makes the beacon ripe: distinct leaders by the newest block's set."""
    leaders: list[NodeId] = []
    for each, view in zip(terms, views, strict=True):
        index = compute_leader(each.validators, trust.chain, each.epoch, each.seed, view)
        leaders.append(each.validators.members[index].node)
        if is_mature(each.validators, leaders, trust.params.beacon_max_blocks):
            return len(leaders) == len(views)
    return False


def _list_terms(trust: Trust, waiting: Sequence[Header]) -> list[_Terms]:
    """The terms of the blocks that follow these, each on the one before."""
    found: dict[Epoch, _Terms] = {}
    for parent in waiting:
        epoch = compute_epoch(trust.params, parent.height + 1)
        if epoch not in found:
            is_next = epoch != parent.epoch
            seed = parent.beacon if is_next else parent.leader_seed
            valset_hash = parent.next_valset_hash if is_next else parent.valset_hash
            found[epoch] = _Terms(epoch, seed, _find_table(trust, epoch, valset_hash))
    return [found[compute_epoch(trust.params, parent.height + 1)] for parent in waiting]


def _find_table(trust: Trust, epoch: Epoch, valset_hash: Hash) -> ValidatorSet:
    """The set of an epoch in which a request waited. The header that names it leads to the final block; one older than the root needs no more."""
    table = trust.tables.get(valset_hash)
    if epoch >= trust.root.epoch:
        try:
            return find_validators(trust, epoch, valset_hash)
        except InvalidMessage as error:
            raise _cannot_judge(error, f"its request waited in epoch {epoch}") from error
    if table is None:
        raise InvalidCertificate(
            Rejection.BEFORE_TRUST,
            f"this certificate cannot be judged: its request waited in epoch {epoch}, before the trusted header's, and the validators"
            " of that epoch are not at hand: give the chain file with --chain",
        )
    return table


def _cannot_judge(error: InvalidMessage, what: str) -> InvalidCertificate:
    return InvalidCertificate(error.reason, f"this certificate cannot be judged: {what}, and {error}")
