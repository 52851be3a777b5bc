"""A job's way through its phases: pure functions from a job and what happened to the job after it.

It decides when phases end, who takes over a seat, and how a job ends. Who may be drawn and what anybody is paid is the ledger's
part; which answer wins is agreement.py's. Rules J1.. are in protocol/README.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from protocol.digest import DIGEST_BYTES
from protocol.errors import InvalidTransaction, Rejection
from protocol.jobs.agreement import Answer
from protocol.jobs.settlement import Drawn, Entry, Job, Phase, Seat, SeatEnd
from protocol.models import ModelCard
from protocol.params import Params
from protocol.transactions import Commit, Reveal, RevealPayload, Submit, compute_commitment
from protocol.units import ZERO_HASH, ChainId, Hash, Height, JobId, Milliseconds, NodeId

_DEFAULT_COMMIT_MS: Final = 10_000  # a model that loads from disk at its first question still makes it
_DEFAULT_REVEAL_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows a submitter may choose, both ends included. Units: ms."""

    least_commit_ms: Milliseconds
    least_reveal_ms: Milliseconds
    most_ms: Milliseconds


def compute_windows(params: Params, card: ModelCard, max_tokens: int) -> Windows:
    """The limits of both windows: the least commit window holds the card's allowance for every token asked for (J2)."""
    return Windows(params.min_window_ms + max_tokens * card.token_ms, params.min_window_ms, params.max_window_ms)


def compute_default_windows(params: Params, card: ModelCard, max_tokens: int) -> tuple[Milliseconds, Milliseconds]:
    """(commit, reveal) windows for a submitter with no wish of its own, inside the limits wherever any are."""
    windows = compute_windows(params, card, max_tokens)
    commit_ms = max(windows.least_commit_ms, _DEFAULT_COMMIT_MS + max_tokens * card.token_ms)
    return min(commit_ms, windows.most_ms), min(max(windows.least_reveal_ms, _DEFAULT_REVEAL_MS), windows.most_ms)


def create_job(
    job: JobId, submit: Submit, height: Height, time_ms: Milliseconds, snapshot_height: Height, candidates_root: Hash
) -> Job:
    """A job as Submit leaves it: waiting for a beacon that nobody could know at `height` (J1)."""
    return Job(
        job=job,
        requester=submit.sender,
        request=submit.job,
        submit_height=height,
        snapshot_height=snapshot_height,
        candidates_root=candidates_root,
        phase=Phase.SUBMITTED,
        draw=None,
        phase_height=height,
        phase_ms=time_ms,
        window_ms=0,
        halved=False,
        seats=(),
        entries=(),
    )


def start_committing(job: Job, drawn: Drawn, seats: tuple[NodeId | None, ...], time_ms: Milliseconds) -> Job:
    """The job with its committee: the commit window runs from the block of the draw (J4)."""
    assert job.phase is Phase.SUBMITTED, job.phase
    assert len(seats) == job.request.seats, (len(seats), job.request.seats)
    return replace(
        job,
        phase=Phase.COMMITTING,
        draw=drawn,
        phase_height=drawn.height,
        phase_ms=time_ms,
        window_ms=job.request.commit_ms,
        seats=tuple(Seat(node, None) for node in seats),
    )


def list_bonded_nodes(job: Job) -> tuple[NodeId, ...]:
    """Whose bond the job holds: everybody it drew, standbys included, ascending."""
    assert job.draw is not None
    drawn = {seat.drawn for seat in job.seats if seat.drawn is not None}
    return tuple(sorted(drawn | set(job.draw.standbys)))


def find_entry(job: Job, member: NodeId | None) -> Entry | None:
    """What a member has put on the ledger for this job."""
    return next((entry for entry in job.entries if entry.member == member), None)


def list_seats(job: Job, member: NodeId) -> tuple[int, ...]:
    """The indexes of the seats that a node holds now."""
    return tuple(index for index, seat in enumerate(job.seats) if seat.holder == member)


# --- what members send


def apply_commit(job: Job, commit: Commit, transaction_id: Hash, height: Height) -> Job:
    """The job with a member's commitment. Raises: InvalidTransaction."""
    _check_phase(job, Phase.COMMITTING, "Commit")  # J5
    _check_member(job, commit.member)
    if find_entry(job, commit.member) is not None:
        raise InvalidTransaction(
            Rejection.DUPLICATE,
            f"{commit.member.hex()[:12]} has committed to job {job.job.hex()[:12]} already: one Commit counts for all its seats",
        )
    entry = Entry(commit.member, commit.commitment, transaction_id, height, None, ZERO_HASH, 0)
    return replace(job, entries=(*job.entries, entry))


def apply_reveal(
    job: Job, reveal: Reveal, transaction_id: Hash, height: Height, chain: ChainId, card: ModelCard
) -> Job:
    """The job with a member's answer. Raises: InvalidTransaction."""
    _check_phase(job, Phase.REVEALING, "Reveal")  # J8: so none is valid up to the block that closed the commits
    _check_member(job, reveal.member)
    entry = find_entry(job, reveal.member)
    if entry is None:
        raise InvalidTransaction(
            Rejection.WRONG_PHASE,
            f"{reveal.member.hex()[:12]} never committed to job {job.job.hex()[:12]}: there is nothing to open",
        )
    if entry.reveal is not None:
        raise InvalidTransaction(
            Rejection.DUPLICATE, f"{reveal.member.hex()[:12]} has revealed for job {job.job.hex()[:12]} already"
        )
    if compute_commitment(chain, job.job, reveal.member, reveal.payload, reveal.salt) != entry.commitment:  # J9
        raise InvalidTransaction(
            Rejection.COMMITMENT_MISMATCH,
            f"the reveal of {reveal.member.hex()[:12]} does not open its commitment {entry.commitment.hex()[:12]}: send the payload and salt it was made from",
        )
    check_payload(reveal.payload, card)
    revealed = replace(entry, reveal=reveal.payload, reveal_id=transaction_id, reveal_height=height)
    return replace(job, entries=tuple(revealed if other is entry else other for other in job.entries))


def check_payload(payload: RevealPayload, card: ModelCard) -> None:
    """Accept an answer whose digest is of the card's family, or an abstention that carries nothing (J10).

    Raises: InvalidTransaction(MALFORMED).
    """
    if payload.abstained:
        if payload.output_hash != ZERO_HASH or payload.digest is not None:
            raise InvalidTransaction(Rejection.MALFORMED, "an abstention carries a zero output hash and no digest")
        return
    if payload.output_hash == ZERO_HASH:
        raise InvalidTransaction(
            Rejection.MALFORMED, "an answer needs its output hash: without one it is an abstention and must say so"
        )
    if payload.digest is None:
        raise InvalidTransaction(
            Rejection.MALFORMED, f"an answer needs a digest of family {card.family.name}, as its model's card says"
        )
    expected, got = (card.family, DIGEST_BYTES[card.family]), (payload.digest.family, len(payload.digest.bits))
    if expected != got:
        raise InvalidTransaction(
            Rejection.MALFORMED,
            f"the model's card wants a digest of {expected[1]} bytes of family {expected[0].name}, got {got[1]} of {got[0].name}",
        )


def _check_phase(job: Job, wanted: Phase, name: str) -> None:
    if job.phase is wanted:
        return
    early = job.phase < wanted
    raise InvalidTransaction(
        Rejection.TOO_EARLY if early else Rejection.WRONG_PHASE,
        f"a {name} for job {job.job.hex()[:12]} is valid while {wanted.name.lower()}, but the job is {'still' if early else 'already'} {job.phase.name.lower()}",
    )


def _check_member(job: Job, node: NodeId) -> None:
    if not list_seats(job, node):
        raise InvalidTransaction(
            Rejection.NOT_A_MEMBER,
            f"{node.hex()[:12]} holds no seat of job {job.job.hex()[:12]}: only its members may send this",
        )


# --- time


def step_job(job: Job, params: Params, height: Height, time_ms: Milliseconds) -> tuple[Job, bool]:
    """The job after a block's job transactions, and whether it has ended and is to be settled (J6, J7, J11)."""
    if job.phase is Phase.SUBMITTED:
        return job, False
    if job.phase is Phase.COMMITTING:
        job = _take_over(job, params, height, time_ms)  # first, also where one late block is past the whole window
    if list_due(job) and not _is_over(job, params.min_phase_heights, job.window_ms, height, time_ms):
        return job, False
    return _close_commits(job, height, time_ms) if job.phase is Phase.COMMITTING else (job, True)


def list_due(job: Job) -> tuple[NodeId, ...]:
    """Who still owes something in the running window, by seat: a Commit, or a Reveal of what was committed."""
    holders = dict.fromkeys(seat.holder for seat in job.seats if seat.holder is not None)
    if job.phase is Phase.COMMITTING:
        committed = {entry.member for entry in job.entries}
        return tuple(node for node in holders if node not in committed)
    if job.phase is Phase.REVEALING:
        return tuple(entry.member for entry in job.entries if entry.reveal is None and entry.member in holders)
    return ()


def get_deadline_ms(job: Job) -> Milliseconds | None:
    """When the clock next moves this job: the half window where it is still to come, or the window's end. None: it waits for no clock."""
    if job.phase is Phase.COMMITTING and not job.halved:
        return job.phase_ms + job.window_ms // 2
    return job.phase_ms + job.window_ms if job.phase in {Phase.COMMITTING, Phase.REVEALING} else None


def _is_over(job: Job, heights: int, window_ms: Milliseconds, height: Height, time_ms: Milliseconds) -> bool:
    return time_ms >= job.phase_ms + window_ms and height >= job.phase_height + heights  # J6: time and heights


def _close_commits(job: Job, height: Height, time_ms: Milliseconds) -> tuple[Job, bool]:
    committed = {entry.member for entry in job.entries}
    if 2 * sum(seat.holder in committed for seat in job.seats) <= len(job.seats):
        return job, True  # J12: no reveals could be more than the threshold any more
    return replace(
        job, phase=Phase.REVEALING, phase_height=height, phase_ms=time_ms, window_ms=job.request.reveal_ms
    ), False


def _take_over(job: Job, params: Params, height: Height, time_ms: Milliseconds) -> Job:
    """J7: at half the window, once, at most floor(n/3) missing seats go to the next drawn, who get a whole window."""
    if (
        job.halved
        or not list_due(job)
        or not _is_over(job, params.min_phase_heights // 2, job.window_ms // 2, height, time_ms)
    ):
        return job
    assert job.draw is not None
    due = set(list_due(job))
    missing = [index for index, seat in enumerate(job.seats) if seat.holder in due]
    takers = dict(zip(missing[: len(job.seats) // 3], job.draw.standbys, strict=False))
    if not takers:
        return replace(job, halved=True)
    seats = tuple(replace(seat, taker=takers.get(index)) for index, seat in enumerate(job.seats))
    return replace(job, halved=True, seats=seats, phase_height=height, phase_ms=time_ms)


# --- the end


def compute_seat_ends(job: Job, winning_seats: frozenset[int]) -> tuple[SeatEnd, ...]:
    """What became of each seat."""
    return tuple(_compute_seat_end(job, seat, index in winning_seats) for index, seat in enumerate(job.seats))


def _compute_seat_end(job: Job, seat: Seat, is_winning: bool) -> SeatEnd:
    entry = find_entry(job, seat.holder)
    if seat.holder is None:
        return SeatEnd.EMPTY
    if entry is None:
        return SeatEnd.ABSENT
    if entry.reveal is None:
        return SeatEnd.SILENT if job.phase is Phase.REVEALING else SeatEnd.UNASKED
    if entry.reveal.abstained:
        return SeatEnd.ABSTAINED
    return SeatEnd.WINNING if is_winning else SeatEnd.OUTSIDE


def list_answers(job: Job) -> Iterator[Answer]:
    """The answer of every seat whose holder revealed and did not abstain."""
    for index, seat in enumerate(job.seats):
        entry = find_entry(job, seat.holder)
        if entry is not None and entry.reveal is not None and not entry.reveal.abstained:
            yield Answer(index, entry.member, entry.reveal.output_hash, entry.reveal.digest)


def list_transaction_ids(job: Job) -> tuple[Hash, ...]:
    """The ids that `compute_reveal_set_hash` binds, in its order."""
    ids: list[Hash] = []
    for holder in dict.fromkeys(seat.holder for seat in job.seats):
        entry = find_entry(job, holder)
        if entry is not None:
            ids.append(entry.commit_id)
            ids.extend((entry.reveal_id,) if entry.reveal is not None else ())
    return tuple(ids)
