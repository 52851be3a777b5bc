"""What a valid certificate says, and in which words: what was computed again, and what is taken from the quorum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import SeatEnd
from protocol.models import ModelCard, Output
from protocol.transactions import AgreementRule
from protocol.units import Hash, Height, JobId, Micro, Milliseconds, NodeId

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
ONE_OPERATOR: Final = "one validator: the beacon was known to the operator"


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
