"""What a node may ask of a state: views for interfaces, duties for members, proofs for certificates. Reads only."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.jobs.committee import Candidate
from protocol.jobs.life import find_entry, list_due, list_seats
from protocol.jobs.reputation import NEW_RECORD, RECORD_CODEC, Record
from protocol.jobs.settlement import JOB_CODEC, SETTLEMENT_CODEC, Job, Phase, SeatEnd, Settlement
from protocol.ledger.accounts import NOTHING
from protocol.ledger.attendance import compute_jail_end, count_missed, get_attendance, is_jailed
from protocol.ledger.draft import Draft, Ledger, list_keys
from protocol.ledger.entries import (
    ACCOUNT_CODEC,
    CANDIDATES_CODEC,
    CARD_CODEC,
    CONVICTION_CODEC,
    NAMED_CODEC,
    ONION_CODEC,
    SNAPSHOT_CODEC,
    UNBONDING_CODEC,
    Account,
    Conviction,
    Kind,
    Onion,
    Unbonding,
    account_key,
    card_key,
    closed_job_key,
    conviction_key,
    name_key,
    onion_key,
    open_job_key,
    record_key,
    serve_key,
    settlement_key,
    snapshot_key,
)
from protocol.ledger.epochs import get_epoch, get_validators
from protocol.merkle import InclusionProof
from protocol.models import ModelCard
from protocol.transactions import JobRequest, RevealPayload
from protocol.units import Hash, Height, JobId, Micro, Milliseconds, ModelId, NodeId
from protocol.validators import find_weight


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
    """Generate an answer and commit to it (Commit only once the draw is final: rule J4)."""

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
class Standing:
    """What a node is among the validators."""

    weight: Micro  # its vote in the next block's epoch; 0: none
    next_weight: Micro  # in the epoch after that
    missed_slots: int  # of its last slots as leader, as many as the window of the params has
    jailed_until_ms: Milliseconds | None  # from then on it may send an Unjail; None: it is not jailed


@dataclass(frozen=True, slots=True)
class CandidateSnapshot:
    """The candidates frozen at a height, by model, and the root that headers carry for them."""

    height: Height
    root: Hash
    candidates: Mapping[ModelId, tuple[Candidate, ...]]


def get_account(ledger: Ledger, node: NodeId) -> Account:
    """A node's account; one that nobody has paid into is empty."""
    encoded = ledger.entries.get(account_key(node))
    return NOTHING if encoded is None else ACCOUNT_CODEC.decode(encoded)


def list_unbonding(ledger: Ledger, node: NodeId) -> tuple[tuple[Height, Unbonding], ...]:
    """(the height each waits for, what a node gets back), the first to be released first."""
    keys = (key for key in list_keys(ledger, bytes((Kind.UNBONDING,))) if key[9:] == node)
    return tuple((int.from_bytes(key[1:9], "big"), UNBONDING_CODEC.decode(ledger.entries[key])) for key in keys)


def get_conviction(ledger: Ledger, node: NodeId) -> Conviction | None:
    """What a node was convicted of; None where it never broke a voting rule."""
    encoded = ledger.entries.get(conviction_key(node))
    return None if encoded is None else CONVICTION_CODEC.decode(encoded)


def get_onion(ledger: Ledger, node: NodeId) -> Onion | None:
    """A validator's hash onion; None for anybody else."""
    encoded = ledger.entries.get(onion_key(node))
    return None if encoded is None else ONION_CODEC.decode(encoded)


def get_standing(ledger: Ledger, node: NodeId) -> Standing:
    """Whether a node votes, will vote, or is jailed, and until when."""
    epoch, attendance = get_epoch(ledger), get_attendance(Draft(ledger), node)
    weights = [find_weight(get_validators(ledger, each), node) for each in (epoch, epoch + 1)]
    jail = attendance.jail if is_jailed(attendance) else None
    until_ms = None if jail is None else compute_jail_end(ledger.constants.params, jail)
    return Standing(weights[0], weights[1], count_missed(attendance), until_ms)


def get_record(ledger: Ledger, node: NodeId) -> Record:
    """A node's record; one that never held a seat has a new one."""
    encoded = ledger.entries.get(record_key(node))
    return NEW_RECORD if encoded is None else RECORD_CODEC.decode(encoded)


def list_models(ledger: Ledger) -> Mapping[ModelId, ModelCard]:
    """All registered models, ascending by id."""
    return {key[1:]: CARD_CODEC.decode(ledger.entries[key]) for key in list_keys(ledger, bytes((Kind.CARD,)))}


def find_model(ledger: Ledger, name: str) -> ModelId | None:
    """The model with this name."""
    encoded = ledger.entries.get(name_key(name))
    return None if encoded is None else NAMED_CODEC.decode(encoded).model


def list_served_models(ledger: Ledger, node: NodeId) -> tuple[ModelId, ...]:
    """The models that a node has announced to serve, ascending by id."""
    models = (key[1:] for key in list_keys(ledger, bytes((Kind.CARD,))))
    return tuple(model for model in models if serve_key(model, node) in ledger.entries)


def get_candidates(ledger: Ledger, snapshot_height: Height) -> CandidateSnapshot | None:
    """The snapshot of a height, None where the state holds it no longer: it is kept while current, previous or referred to by a job."""
    encoded = ledger.entries.get(snapshot_key(snapshot_height))
    if encoded is None:
        return None
    keys = list_keys(ledger, bytes((Kind.CANDIDATES,)) + snapshot_height.to_bytes(8, "big"))
    lists = {key[9:]: CANDIDATES_CODEC.decode(ledger.entries[key]).candidates for key in keys}
    return CandidateSnapshot(snapshot_height, SNAPSHOT_CODEC.decode(encoded).candidates_root, lists)


# --- jobs


def list_jobs(ledger: Ledger) -> tuple[JobId, ...]:
    """Every job the state still knows: the open ones, then the settled, each ascending by id."""
    kinds = (Kind.OPEN_JOB, Kind.CLOSED_JOB)
    return tuple(key[1:] for kind in kinds for key in list_keys(ledger, bytes((kind,))))


def get_job(ledger: Ledger, job: JobId) -> JobView | None:
    """A job, open or settled; None where it is unknown or forgotten."""
    found = _find_job(ledger, job)
    if found is None:
        return None
    settlement = get_settlement(ledger, job)
    return JobView(
        job=job,
        requester=found.requester,
        request=found.request,
        phase=found.phase,
        submit_height=found.submit_height,
        maturity_height=None if found.draw is None else found.draw.height,
        beacon=None if found.draw is None else found.draw.beacon,
        seed=None if found.draw is None else found.draw.seed,
        window_ends_ms=found.phase_ms + found.window_ms if _is_timed(found) else None,
        seats=tuple(_view_seat(found, settlement, index) for index in range(len(found.seats))),
        settlement=settlement,
    )


def get_settlement(ledger: Ledger, job: JobId) -> Settlement | None:
    """A job's settlement, None until it settles and after it is forgotten."""
    encoded = ledger.entries.get(settlement_key(job))
    return None if encoded is None else SETTLEMENT_CODEC.decode(encoded)


def prove_settlement(ledger: Ledger, job: JobId) -> tuple[bytes, InclusionProof] | None:
    """(the settlement's bytes, the proof that `settlement_key(job)` leads to them under this state's root)."""
    key = settlement_key(job)
    encoded = ledger.entries.get(key)
    return None if encoded is None else (encoded, ledger.tree.prove_inclusion(key))


def list_duties(ledger: Ledger, node: NodeId) -> tuple[GenerateDuty | RevealDuty, ...]:
    """What this node owes now, ascending by job."""
    duties: list[GenerateDuty | RevealDuty] = []
    for key in list_keys(ledger, bytes((Kind.OPEN_JOB,))):
        job = JOB_CODEC.decode(ledger.entries[key])
        if node in list_due(job):
            duties.append(_describe_duty(ledger, job, node))
    return tuple(duties)


def _describe_duty(ledger: Ledger, job: Job, node: NodeId) -> GenerateDuty | RevealDuty:
    until_ms = job.phase_ms + job.window_ms
    if job.phase is Phase.REVEALING:
        entry = find_entry(job, node)
        assert entry is not None, (job.job.hex(), node.hex())
        return RevealDuty(job.job, entry.commitment, job.phase_height, until_ms)
    assert job.draw is not None, job.job.hex()
    card = CARD_CODEC.decode(ledger.entries[card_key(job.request.model)])
    return GenerateDuty(job.job, job.request, card, job.draw.seed, job.phase_height, list_seats(job, node), until_ms)


def _find_job(ledger: Ledger, job: JobId) -> Job | None:
    encoded = ledger.entries.get(open_job_key(job)) or ledger.entries.get(closed_job_key(job))
    return None if encoded is None else JOB_CODEC.decode(encoded)


def _is_timed(job: Job) -> bool:
    return job.phase in {Phase.COMMITTING, Phase.REVEALING}


def _view_seat(job: Job, settlement: Settlement | None, index: int) -> SeatView:
    seat = job.seats[index]
    entry = find_entry(job, seat.holder)
    reveal = None if entry is None else entry.reveal
    return SeatView(
        drawn=seat.drawn,
        taker=seat.taker,
        member=seat.holder,
        committed=entry is not None,
        revealed=reveal is not None,
        reveal=reveal,
        commit_height=0 if entry is None else entry.commit_height,
        reveal_height=0 if entry is None else entry.reveal_height,
        end=None if settlement is None else settlement.seats[index].end,
    )
