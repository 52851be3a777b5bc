"""What a job is while it lives and what is left of it: the records that the ledger's state holds and certificates prove.

It decides nothing: life.py moves a job from phase to phase, agreement.py decides, the ledger pays.
"""

from enum import IntEnum
from typing import Annotated, Final

from msgspec import Meta

from protocol.codec import Codec, Message
from protocol.crypto import HashDomain, compute_hash
from protocol.jobs.agreement import Decision
from protocol.transactions import MAX_SEATS, JobRequest, RevealPayload
from protocol.units import Hash, Height, JobId, Micro, Milliseconds, NodeId, PartsPerMillion, Uint, View

MAX_SKIPPED: Final = 4096  # as many nodes as may serve one model
MAX_JOB_BYTES: Final = (
    512 * 1024
)  # 135 members with their reveals, 4,096 skipped nodes and an 8 KiB prompt stay under half of it
MAX_SETTLEMENT_BYTES: Final = 256 * 1024
_MAX_MEMBERS: Final = MAX_SEATS + MAX_SEATS // 3


class Phase(IntEnum):
    """Where a job stands (rules J3 to J14)."""

    SUBMITTED = 0  # waiting for its beacon
    COMMITTING = 1
    REVEALING = 2
    SETTLED = 3


class Seat(Message, frozen=True):
    """One place in a committee. `drawn` is None where no candidate was left; `taker` took the seat over at half the window."""

    drawn: NodeId | None
    taker: NodeId | None

    @property
    def holder(self) -> NodeId | None:
        """Who owes the answer now."""
        return self.drawn if self.taker is None else self.taker


class Entry(Message, frozen=True):
    """What one member has put on the ledger for a job; it counts for every seat the member holds."""

    member: NodeId
    commitment: Hash
    commit_id: Hash
    commit_height: Height
    reveal: RevealPayload | None
    reveal_id: Hash  # zero until revealed
    reveal_height: Height  # 0 until revealed


class Drawn(Message, frozen=True):
    """What the beacon fixed for a job at its maturity height h'."""

    height: Height  # h'
    view: View
    parent_hash: Hash  # of block h'
    beacon: Hash  # R at h'
    seed: Hash  # of sampling: H(SEED, beacon, job)
    skipped: Annotated[
        tuple[NodeId, ...], Meta(max_length=MAX_SKIPPED)
    ]  # taken out of the draw: their free bond did not cover the job
    standbys: Annotated[
        tuple[NodeId, ...], Meta(max_length=MAX_SEATS)
    ]  # the list goes on: who takes over missing seats, in order


class Job(Message, frozen=True):
    """One job in the state, from Submit until its settlement is forgotten."""

    job: JobId
    requester: NodeId
    request: JobRequest
    submit_height: Height  # h
    snapshot_height: Height  # of the candidates in force at h
    candidates_root: Hash
    phase: Phase
    draw: Drawn | None
    phase_height: Height  # where the running window began
    phase_ms: Milliseconds
    window_ms: Milliseconds  # from phase_ms to the window's end
    halved: bool  # the half window was judged: seats are taken over once
    seats: Annotated[tuple[Seat, ...], Meta(max_length=MAX_SEATS)]
    entries: Annotated[tuple[Entry, ...], Meta(max_length=_MAX_MEMBERS)]  # in the order of their commits


class SeatEnd(IntEnum):
    """What became of a seat."""

    EMPTY = 0  # no candidate was left
    ABSENT = 1  # no commit
    SILENT = 2  # commit, but no reveal: a forfeit
    ABSTAINED = 3
    OUTSIDE = 4  # revealed, not in the winning set
    WINNING = 5
    UNASKED = 6  # committed, but the job ended before anybody could reveal


class SettledSeat(Message, frozen=True):
    """A seat as the settlement records it; heights are 0 where its holder never committed or revealed."""

    drawn: NodeId | None
    taker: NodeId | None
    end: SeatEnd
    commit_height: Height
    reveal_height: Height

    @property
    def holder(self) -> NodeId | None:
        """Who owed the answer at the end."""
        return self.drawn if self.taker is None else self.taker


class Payment(Message, frozen=True):
    """What one member gets out of the escrow, or loses of its bond."""

    node: NodeId
    amount: Micro


class Settlement(Message, frozen=True):
    """The ledger's own end of a job; a certificate proves that it is in the state."""

    job: JobId
    submit_height: Height
    snapshot_height: Height
    candidates_root: Hash
    maturity_height: Height
    maturity_view: View
    maturity_parent: Hash
    beacon: Hash
    seats: Annotated[tuple[SettledSeat, ...], Meta(max_length=MAX_SEATS)]
    skipped: Annotated[tuple[NodeId, ...], Meta(max_length=MAX_SKIPPED)]
    decision: Decision
    winner_hash: Hash  # zero where no answer won
    agreement_ppm: PartsPerMillion
    entropy_millibits: Uint
    reveal_set: Hash
    payments: Annotated[tuple[Payment, ...], Meta(max_length=_MAX_MEMBERS)]  # ascending by node
    forfeits: Annotated[tuple[Payment, ...], Meta(max_length=_MAX_MEMBERS)]  # burned from bonds; ascending by node
    refund: Micro  # back to the asker
    burned: Micro  # of the escrow
    settle_height: Height


JOB_CODEC: Final = Codec[Job](Job, MAX_JOB_BYTES)
SETTLEMENT_CODEC: Final = Codec[Settlement](Settlement, MAX_SETTLEMENT_BYTES)


def compute_reveal_set_hash(transaction_ids: tuple[Hash, ...]) -> Hash:
    """What a settlement binds: the count and the ids of every commit and reveal, by seat, a member's at its first seat.

    For each seat in order whose holder has not come before: the id of its Commit, then of its Reveal, as far as they exist.
    """
    return compute_hash(HashDomain.REVEAL_SET, len(transaction_ids).to_bytes(8, "big"), *transaction_ids)


def compute_sampling_seed(beacon: Hash, job: JobId) -> Hash:
    """The seed of a job's sampling, which nobody can choose: H(SEED, beacon, job)."""
    return compute_hash(HashDomain.SEED, beacon, job)
