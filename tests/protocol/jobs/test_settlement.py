"""The records of a job: the largest there can be still fit their limits, so that no job can make a state unreadable."""

from protocol.codec import encode
from protocol.digest import Digest, DigestFamily
from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import (
    JOB_CODEC,
    MAX_SKIPPED,
    SETTLEMENT_CODEC,
    Drawn,
    Entry,
    Job,
    Payment,
    Phase,
    Seat,
    SeatEnd,
    SettledSeat,
    Settlement,
    compute_reveal_set_hash,
)
from protocol.models import MAX_PROMPT_BYTES
from protocol.transactions import MAX_SEATS, RevealPayload
from protocol.units import MAX_UINT
from tests.protocol.builders import make_hash, make_request

HASH = make_hash("x")
PAYLOAD = RevealPayload(False, HASH, Digest(DigestFamily.TEXT_MINHASH256, HASH), HASH, 1_000_000)
MEMBERS = MAX_SEATS + MAX_SEATS // 3


def test_the_largest_job_fits_its_limit() -> None:
    job = Job(
        job=HASH,
        requester=HASH,
        request=make_request(prompt=b"x" * MAX_PROMPT_BYTES, seats=MAX_SEATS, fee=MAX_UINT),
        submit_height=MAX_UINT,
        snapshot_height=MAX_UINT,
        candidates_root=HASH,
        phase=Phase.REVEALING,
        draw=Drawn(MAX_UINT, MAX_UINT, HASH, HASH, HASH, (HASH,) * MAX_SKIPPED, (HASH,) * MAX_SEATS),
        phase_height=MAX_UINT,
        phase_ms=MAX_UINT,
        window_ms=MAX_UINT,
        halved=True,
        seats=(Seat(HASH, HASH),) * MAX_SEATS,
        entries=(Entry(HASH, HASH, HASH, MAX_UINT, PAYLOAD, HASH, MAX_UINT),) * MEMBERS,
    )
    assert JOB_CODEC.decode(encode(job)) == job


def test_the_largest_settlement_fits_its_limit() -> None:
    settlement = Settlement(
        job=HASH,
        submit_height=MAX_UINT,
        snapshot_height=MAX_UINT,
        candidates_root=HASH,
        maturity_height=MAX_UINT,
        maturity_view=MAX_UINT,
        maturity_parent=HASH,
        beacon=HASH,
        seats=(SettledSeat(HASH, HASH, SeatEnd.UNASKED, MAX_UINT, MAX_UINT),) * MAX_SEATS,
        skipped=(HASH,) * MAX_SKIPPED,
        decision=Decision.ACCEPTED,
        winner_hash=HASH,
        agreement_ppm=1_000_000,
        entropy_millibits=MAX_UINT,
        reveal_set=HASH,
        payments=(Payment(HASH, MAX_UINT),) * MEMBERS,
        forfeits=(Payment(HASH, MAX_UINT),) * MEMBERS,
        refund=MAX_UINT,
        burned=MAX_UINT,
        settle_height=MAX_UINT,
    )
    assert SETTLEMENT_CODEC.decode(encode(settlement)) == settlement


def test_the_reveal_set_binds_count_order_and_every_id() -> None:
    a, b = make_hash("a"), make_hash("b")
    sets = [(), (a,), (b,), (a, b), (b, a), (a, a), (a, b, b)]
    assert len({compute_reveal_set_hash(ids) for ids in sets}) == len(sets)
