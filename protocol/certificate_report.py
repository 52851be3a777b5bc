"""What a valid certificate says, and in which words: what was computed again, and what is taken from the quorum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol.block import Header, compute_header_hash
from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import SeatEnd
from protocol.models import ModelCard, Output
from protocol.transactions import AgreementRule
from protocol.trust import RootKind, Trust
from protocol.units import Epoch, Hash, Height, JobId, Micro, Milliseconds, NodeId

RECOMPUTED: Final = (
    "job: the id is the hash of the signed request",
    "settlement: under the state root of its block",
    "maturity: first block whose distinct leaders outweigh a third",
    "beacon: from its predecessor and the leader's reveal",
    "draw: every seat and taker, from the beacon and the candidates' sums",
    "commitments: opened by payload and salt",
    "reveals: complete, by the hash of all their ids",
    "agreement: decision, winner, entropy and every seat's end",
    "pay: every share of the fee",
    "signatures: the request's, every commit's and reveal's",
    "finality: votes of more than two thirds of the weight",
)
OUTPUT_RECOMPUTED: Final = "output: the answer has the winning hash"
ATTESTED: Final = (
    "the candidates' weights at the snapshot",
    "who was skipped for lack of free bond, and who was taken over at half the window",
    "that reveals before the beacon were the leaders' own onion layers",
    "that request, commits and reveals came in their blocks and windows",
)
LEADER_SEED: Final = "the seed of the epoch's leader schedule"  # of the first epoch it is the genesis'
ONE_OPERATOR: Final = "one validator: the beacon was known to the operator"


@dataclass(frozen=True, slots=True)
class TrustReport:
    """What a check rests on: a root, its age, and how far the steps from it reach.

    `is_direct`: the trusted header is one of the certificate's own, so that no signature's age matters. `is_stale`: the root is older
    than `period_ms`, so that its validators may have left with their stake, and `advice` says what to do. Units: heights and times
    of blocks; age_ms at the time of the check, at least at that of the final block.
    """

    root: RootKind
    root_height: Height
    root_hash: Hash
    root_ms: Milliseconds
    age_ms: Milliseconds
    period_ms: Milliseconds
    is_direct: bool
    is_stale: bool
    advice: str
    steps: int
    certain_epoch: Epoch
    final_epoch: Epoch
    final_height: Height
    final_hash: Hash


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One seat. `replaced` held it until half the window. Units: distance in bits, to the winner's digest, for the eye."""

    seat: int
    node: NodeId | None
    replaced: NodeId | None
    end: SeatEnd
    output_hash: Hash | None
    distance: int | None
    inside: bool


@dataclass(frozen=True, slots=True)
class CertificateReport:
    """A valid certificate's content. `text` is None where no answer won, the output is not attached, or it is a picture.

    `capture_ppb` is the binomial chance that a fifth, or a third, of the candidates' weight holds more than half of the seats;
    `candidate_share_ppm` is the candidates' stake against the validators', below a third of it the set is thin.
    """

    decision: Decision
    text: str | None
    output: Output | None
    job: JobId
    rule: AgreementRule
    prompt: bytes
    card: ModelCard
    requester: NodeId
    fee: Micro
    winner_hash: Hash
    agreement_ppm: int
    entropy_millibits: int
    members: tuple[MemberRow, ...]
    settle_height: Height
    settle_ms: Milliseconds
    final_weight_ppm: int
    capture_ppb: tuple[int, int]
    candidate_share_ppm: int
    is_thin: bool
    recomputed: tuple[str, ...]
    attested: tuple[str, ...]
    assumed: tuple[str, ...]
    trust: TrustReport


def report_trust(trust: Trust, settled: Sequence[Header], now_ms: Milliseconds) -> TrustReport:
    """What a check of these settled headers rested on."""
    root, final = trust.root, settled[-1]
    age_ms = max(now_ms, final.time_ms, root.time_ms) - root.time_ms
    is_direct = root.kind is RootKind.HEADER and settled[0].height <= root.height <= final.height
    is_stale = age_ms > trust.period_ms and not is_direct
    return TrustReport(
        root=root.kind,
        root_height=root.height,
        root_hash=root.hash,
        root_ms=root.time_ms,
        age_ms=age_ms,
        period_ms=trust.period_ms,
        is_direct=is_direct,
        is_stale=is_stale,
        advice=_advise(final.height) if is_stale else "",
        steps=sum(era.epoch <= final.epoch for era in trust.eras[1:]),
        certain_epoch=trust.certain_epoch,
        final_epoch=final.epoch,
        final_height=final.height,
        final_hash=compute_header_hash(final),
    )


def _advise(height: Height) -> str:
    return (
        f"compare block {height} with a node that you trust: `quorate checkpoint --height {height} --out trusted.qrt` there,"
        " and verify with --trusted trusted.qrt"
    )


def list_walked(trust: TrustReport) -> tuple[str, ...]:
    """What was recomputed of the validators that signed."""
    changes = "one change" if trust.steps == 1 else f"{trust.steps} changes"
    return (f"validators: {changes} of the set since the {trust.root.value}",) if trust.steps else ()


def list_assumed(trust: TrustReport) -> tuple[str, ...]:
    """What nobody can know who trusts only this root: no vote says it."""
    assumed: list[str] = []
    if trust.final_epoch > trust.certain_epoch and not trust.is_direct:
        assumed.append(f"that the validators did not change after epoch {trust.certain_epoch}: no step at hand says so")
    if trust.is_stale:
        assumed.append(
            f"that validators who could leave since the {trust.root.value} have not signed another past: it is too old to punish them"
        )
    return tuple(assumed)
