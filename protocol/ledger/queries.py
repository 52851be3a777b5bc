"""What a node may ask of a state: views for interfaces, duties for members, proofs for certificates. Reads only."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.jobs.committee import Candidate
from protocol.jobs.settlement import Phase, SeatEnd, Settlement
from protocol.ledger.draft import Ledger
from protocol.ledger.entries import Account
from protocol.merkle import InclusionProof
from protocol.models import ModelCard
from protocol.transactions import JobRequest, RevealPayload
from protocol.units import Hash, Height, JobId, Milliseconds, ModelId, NodeId


@dataclass(frozen=True, slots=True)
class SeatView:
    """One seat as interfaces show it; `end` is None until the job has settled."""

    drawn: NodeId | None
    taker: NodeId | None
    member: NodeId | None  # who owes the answer: taker or drawn
    committed: bool
    revealed: bool
    reveal: RevealPayload | None
    commit_height: Height
    reveal_height: Height
    end: SeatEnd | None


@dataclass(frozen=True, slots=True)
class JobView:
    """One job, open or settled and not yet forgotten."""

    job: JobId
    requester: NodeId
    request: JobRequest
    phase: Phase
    submit_height: Height
    maturity_height: Height | None
    beacon: Hash | None
    seed: Hash | None
    window_ends_ms: Milliseconds | None  # of the running window
    seats: tuple[SeatView, ...]
    settlement: Settlement | None


@dataclass(frozen=True, slots=True)
class GenerateDuty:
    """Generate an answer and commit to it (Commit only once the draw is final: protocol.md section 3)."""

    job: JobId
    request: JobRequest
    card: ModelCard
    seed: Hash
    drawn_height: Height
    seats: tuple[int, ...]
    until_ms: Milliseconds


@dataclass(frozen=True, slots=True)
class RevealDuty:
    """Open the commitment (only once the block at `closed_height` is final)."""

    job: JobId
    commitment: Hash
    closed_height: Height
    until_ms: Milliseconds


@dataclass(frozen=True, slots=True)
class CandidateSnapshot:
    """The candidates frozen at a height, by model, and the root that headers carry for them."""

    height: Height
    root: Hash
    candidates: Mapping[ModelId, tuple[Candidate, ...]]


def get_account(ledger: Ledger, node: NodeId) -> Account: ...


def get_job(ledger: Ledger, job: JobId) -> JobView | None: ...


def list_jobs(ledger: Ledger) -> tuple[JobId, ...]: ...


def list_duties(ledger: Ledger, node: NodeId) -> tuple[GenerateDuty | RevealDuty, ...]: ...


def get_settlement(ledger: Ledger, job: JobId) -> Settlement | None: ...


def prove_settlement(ledger: Ledger, job: JobId) -> tuple[bytes, InclusionProof] | None: ...


def list_models(ledger: Ledger) -> Mapping[ModelId, ModelCard]: ...


def get_candidates(ledger: Ledger, snapshot_height: Height) -> CandidateSnapshot | None: ...
