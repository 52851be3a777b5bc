"""A certificate out of what a node holds once a job's settlement is final."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocol.block import Header
from protocol.certificate_format import (
    Certificate,
    Opened,
    Unopened,
    encode_certificate,
    list_holders,
    repeat_draw,
)
from protocol.certificate_headers import compress_headers
from protocol.genesis import Genesis
from protocol.jobs.committee import (
    Candidate,
    CandidatePath,
    DrawReplay,
    build_candidates_tree,
    compute_seat_cap,
    list_intervals,
    prove_candidate,
)
from protocol.jobs.settlement import SETTLEMENT_CODEC, Settlement
from protocol.merkle import InclusionProof
from protocol.models import ModelCard, Output
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.transactions import Commit, JobRequest, Reveal, SignedTransaction, Submit
from protocol.units import ModelId, NodeId


@dataclass(frozen=True, slots=True)
class CertificateParts:
    """Everything a certificate is made of. `transactions` may hold more than this job's commits and reveals."""

    genesis: Genesis
    submit: SignedTransaction
    card: ModelCard
    waiting: Sequence[Header]  # from the submit's height h to the beacon's h', both included
    candidates: Mapping[ModelId, Sequence[Candidate]]  # of the snapshot in force at h, every model's
    transactions: Sequence[SignedTransaction]
    settled: Sequence[Header]  # from the settlement's block to the one that `final` is for, both included
    settlement: bytes  # the state entry under the first of them
    settlement_proof: InclusionProof
    final: QuorumCert


def build_certificate(parts: CertificateParts, output: Output | None = None) -> bytes:
    """The certificate's bytes; `output` is attached. The parts are the node's own: what does not fit together is a fault of ours."""
    body, settlement = parts.submit.body, SETTLEMENT_CODEC.decode(parts.settlement)
    assert isinstance(body, Submit), type(body)
    assert parts.final.kind is VoteKind.FINAL, parts.final.kind
    assert len(parts.waiting) == settlement.maturity_height - settlement.submit_height + 1, len(parts.waiting)
    return encode_certificate(
        Certificate(
            chain_id=parts.settled[0].chain_id,
            submit=body,
            submit_signature=parts.submit.signature,
            card=None if parts.card in parts.genesis.models else parts.card,
            settlement=settlement,
            settlement_proof=parts.settlement_proof,
            waiting=compress_headers(parts.waiting[:-1]),
            maturity_reveal=parts.waiting[-1].beacon_reveal,
            model_proof=build_candidates_tree(parts.candidates).prove_inclusion(body.job.model),
            candidates=_list_paths(parts, body.job, settlement),
            members=_list_members(parts.transactions, settlement),
            settled=compress_headers(parts.settled),
            final_view=parts.final.view,
            signers=parts.final.signers,
            signatures=parts.final.signatures,
            output=output,
        )
    )


def _list_paths(parts: CertificateParts, request: JobRequest, settlement: Settlement) -> tuple[CandidatePath, ...]:
    candidates = parts.candidates[request.model]
    cap = compute_seat_cap(request.seats, parts.genesis.params.seat_cap_divisor)
    weights = list_intervals(candidates, request.rule)
    replay = DrawReplay(settlement.job, settlement.beacon, cap, weights)
    places = {candidate.node: index for index, candidate in enumerate(candidates)}
    return tuple(prove_candidate(candidates, places[node]) for node in repeat_draw(replay, settlement))


def _list_members(
    transactions: Sequence[SignedTransaction], settlement: Settlement
) -> tuple[Opened | Unopened | None, ...]:
    commits: dict[NodeId, SignedTransaction] = {}
    reveals: dict[NodeId, SignedTransaction] = {}
    for signed in transactions:
        match signed.body:
            case Commit() as body if body.job == settlement.job:
                commits[body.member] = signed
            case Reveal() as body if body.job == settlement.job:
                reveals[body.member] = signed
            case _:
                continue
    return tuple(_join(commits.get(node), reveals.get(node)) for node in list_holders(settlement))


def _join(commit: SignedTransaction | None, reveal: SignedTransaction | None) -> Opened | Unopened | None:
    if commit is None:
        return None
    assert isinstance(commit.body, Commit)
    if reveal is None:
        return Unopened(commit.signature, commit.body.commitment)
    assert isinstance(reveal.body, Reveal)
    return Opened(commit.signature, reveal.body.payload, reveal.body.salt, reveal.signature)
