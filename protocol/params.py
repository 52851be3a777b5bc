"""The constants that consensus depends on: part of the genesis, hashed into the chain id, never read from a node's configuration.

[J]: a judgement, to be revised by measurement; [M]: measured; [S]: simulated or computed.
"""

from typing import Annotated, Final

from msgspec import Meta
from msgspec.structs import replace

from protocol.codec import Message
from protocol.units import Epoch, Height, Micro, Milliseconds, PartsPerMillion, Uint

PROTOCOL_VERSION: Final = 1
UNIT: Final = 1_000_000  # micro-units in one unit of value


class Params(Message, frozen=True):
    """One network's constants."""

    # Time and pace
    pace_ms: Milliseconds  # least distance of two header times: a block is no clock tick an attacker can speed up
    clock_drift_ms: Milliseconds  # how far a header's time may be ahead of a node's clock before it waits
    idle_interval_ms: Milliseconds  # an empty block this often without work, so that time and liveness are visible
    base_delay_ms: Annotated[int, Meta(ge=1)]  # D0 of rule R8
    max_delay_ms: Annotated[int, Meta(ge=1)]  # cap of rule R8
    # Epochs and beacon (rules V, B, D, L9)
    epoch_heights: Annotated[int, Meta(ge=8, le=2**20)]  # candidates are frozen and validators change this often
    beacon_max_blocks: Annotated[int, Meta(ge=1, le=256)]  # maturity at the latest after this many blocks
    onion_max_gap: Annotated[int, Meta(ge=1, le=65_536)]  # hashes one reveal may skip
    # Jobs (rules J)
    min_phase_heights: Annotated[
        int, Meta(ge=0, le=256)
    ]  # a window closes no earlier than this many blocks: 16 quick empty blocks are a censor's price
    min_window_ms: Milliseconds
    max_window_ms: Milliseconds
    max_open_jobs: Annotated[int, Meta(ge=1, le=4096)]
    min_seat_fee: Micro  # a job pays at least this for each seat
    seat_cap_divisor: Annotated[int, Meta(ge=1, le=101)]  # a node holds at most max(1, floor(n / this)) seats
    failed_share_ppm: PartsPerMillion  # part of a failed job's fee that those who revealed share
    inconclusive_share_ppm: PartsPerMillion  # part of an inconclusive job's fee that the revealers share
    forfeit_fees: Annotated[
        int, Meta(ge=0, le=100)
    ]  # fees lost by a commit without reveal: more than toggling a job to inconclusive gains
    retention_epochs: Annotated[int, Meta(ge=1, le=64)]  # settled jobs stay in the state for this many snapshot periods
    # Records (rules P)
    missed_seats_window: Annotated[int, Meta(ge=1, le=63)]
    suspension_ms: (
        Milliseconds  # besides one snapshot period, how long who missed more than half of the window is not drawn
    )
    # Money
    base_fee: Micro
    min_bond: Micro
    # Stake and evidence (rules U, E): a time is over when both its milliseconds and its heights are
    unbonding_ms: Milliseconds  # at least the evidence's age, so that nobody can leave before the proof comes
    unbonding_heights: Annotated[
        int, Meta(ge=1, le=2**32)
    ]  # at least that age and two epochs, for which whoever leaves may still vote
    evidence_max_ms: Milliseconds  # how old an offence may be
    evidence_max_heights: Annotated[int, Meta(ge=1, le=2**32)]
    slash_window_ms: Milliseconds  # offences this close together count as one attack
    slash_window_heights: Annotated[int, Meta(ge=1, le=2**32)]
    min_slash_ppm: PartsPerMillion  # of an offender's stake, however small it is
    slash_factor: Annotated[
        int, Meta(ge=1, le=100)
    ]  # times the attack's share of the voting weight: 3 takes all from a third
    reporter_share_ppm: PartsPerMillion  # of what is slashed; the rest is burned
    # Absence (rules V7 to V10)
    missed_slots_window: Annotated[int, Meta(ge=1, le=63)]  # who lets more than half of so many slots pass is jailed
    jail_ms: Milliseconds  # at least so long: nobody waits for it meanwhile
    jail_window_ms: Milliseconds  # within which
    jail_share_ppm: PartsPerMillion  # at most so much of the voting weight is jailed
    # Wire
    nonce_gap: Annotated[int, Meta(ge=1, le=1024)]
    max_sender_transactions: Annotated[int, Meta(ge=1, le=4096)]
    max_mempool_bytes: Uint
    view_window_ahead: Annotated[int, Meta(ge=1, le=64)]
    view_window_behind: Annotated[int, Meta(ge=1, le=64)]
    max_null_certs: Annotated[
        int, Meta(ge=1, le=1024)
    ]  # carried in one justification: with more skipped views in a row than this nobody could propose
    resend_interval_ms: Milliseconds  # least time between two standstill resends (rule R9)
    resend_budget_bytes: Uint  # a second


_DAY_MS: Final = 24 * 3_600_000

INTERNET: Final = Params(
    pace_ms=50, clock_drift_ms=500, idle_interval_ms=2_000, base_delay_ms=500, max_delay_ms=30_000,
    epoch_heights=256, beacon_max_blocks=16, onion_max_gap=65_536,
    min_phase_heights=16, min_window_ms=5_000, max_window_ms=3_600_000, max_open_jobs=256, min_seat_fee=1_000,
    seat_cap_divisor=3, failed_share_ppm=100_000, inconclusive_share_ppm=500_000, forfeit_fees=2, retention_epochs=2,
    missed_seats_window=20, suspension_ms=3_600_000,
    base_fee=1_000, min_bond=10 * UNIT,
    unbonding_ms=14 * _DAY_MS, unbonding_heights=1_024, evidence_max_ms=7 * _DAY_MS, evidence_max_heights=512,
    slash_window_ms=7 * _DAY_MS, slash_window_heights=512,
    min_slash_ppm=50_000, slash_factor=3, reporter_share_ppm=50_000,
    missed_slots_window=60, jail_ms=600_000, jail_window_ms=_DAY_MS, jail_share_ppm=100_000,
    nonce_gap=16, max_sender_transactions=64, max_mempool_bytes=16 * 1024 * 1024,
    view_window_ahead=8, view_window_behind=8, max_null_certs=1_024, resend_interval_ms=2_000, resend_budget_bytes=256 * 1024,
)  # fmt: skip

DEVNET: Final = replace(
    INTERNET,
    base_delay_ms=100,  # loopback: a hop is a millisecond, the rest is a busy machine [J]
    epoch_heights=32,  # so that Serve and Bond act within a minute
    min_window_ms=1_000,
    suspension_ms=60_000,
    # minutes: a network for an afternoon, on which leaving and being convicted can both be watched [J]
    unbonding_ms=600_000,
    unbonding_heights=128,
    evidence_max_ms=300_000,
    evidence_max_heights=64,
    slash_window_ms=300_000,
    slash_window_heights=64,
    missed_slots_window=10,
    jail_ms=60_000,
    jail_window_ms=300_000,
)

MINIMAL: Final = replace(
    DEVNET,
    epoch_heights=8,
    min_phase_heights=4,
    beacon_max_blocks=4,
    min_window_ms=200,
    retention_epochs=1,
    suspension_ms=1_000,
    unbonding_ms=4_000,
    unbonding_heights=48,
    evidence_max_ms=3_200,
    evidence_max_heights=32,
    slash_window_ms=3_200,
    slash_window_heights=32,
    missed_slots_window=4,
    jail_ms=1_000,
    jail_window_ms=3_200,
)
"""For tests: the same code with small sizes."""


def compute_epoch(params: Params, height: Height) -> Epoch:
    """The epoch that a height belongs to; the genesis counts to epoch 0, which starts on it."""
    return max(0, height - 1) // params.epoch_heights


def compute_boundary(params: Params, epoch: Epoch) -> Height:
    """The last height of an epoch."""
    return (epoch + 1) * params.epoch_heights
