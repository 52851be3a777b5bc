"""The parameters and results of every RPC method, as they travel: hashes and ids in hex, bytes in base64, money in micro-units."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.models import MAX_BEAMS, MAX_OUTPUT_TOKENS, MAX_TEMPERATURE_PPM
from protocol.transactions import MAX_SEATS
from protocol.units import MAX_UINT

Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}\Z", description="32 bytes in hex")]
Amount = Annotated[int, Meta(ge=0, le=MAX_UINT, description="micro-units")]
Duration = Annotated[int, Meta(ge=0, le=MAX_UINT, description="milliseconds")]
RuleName = Literal["majority", "reputation"]
StopName = Literal["end", "length", "context"]
SigningName = Literal["no", "yes", "asking", "waiting"]
"""no: it has no vote in this epoch; asking: it waits for what others remember of its votes; waiting: its votes were lost, for a later epoch."""
StatusName = Literal["open", "accepted", "failed", "inconclusive"]

MAX_WAIT_MS = 30_000


class FaultDetail(msgspec.Struct, frozen=True):
    """What a program needs to decide what to do next, and a person to mend it."""

    reason: str
    retryable: bool
    cure: str


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class SettingsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to generate; max_tokens defaults to 64, or half the context where that is less."""

    kind: Literal["greedy", "beam", "sample"] = "greedy"
    beams: Annotated[int, Meta(ge=1, le=MAX_BEAMS)] = 1
    temperature_ppm: Annotated[int, Meta(ge=0, le=MAX_TEMPERATURE_PPM)] = 0
    top_p_ppm: Annotated[int, Meta(ge=0, le=1_000_000)] = 1_000_000
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)] | None = None


class JobSubmitParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, signed and paid by the node's own account; a request_id makes a repeat harmless."""

    model: Annotated[str, Meta(min_length=1, max_length=64, description="a model's name or id")]
    prompt: str
    rule: RuleName = "majority"
    # Any small integer is well-formed; the ledger says which numbers of seats it takes.
    seats: Annotated[int, Meta(ge=-MAX_UINT, le=MAX_UINT, description=f"odd, at most {MAX_SEATS}")] = 3
    settings: SettingsParams = SettingsParams()
    commit_ms: Duration | None = None
    reveal_ms: Duration | None = None
    fee: Amount | None = None
    max_fee: Amount | None = None
    request_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class JobSubmitted(msgspec.Struct, frozen=True):
    """The job, and what it may cost at most; `repeated` where this request_id had made it before."""

    job: str
    repeated: bool
    fee: int
    base_fee: int
    commit_ms: int
    reveal_ms: int


class JobParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One job."""

    job: Hex32


class JobWaitParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answered once the job is settled, its progress is no longer `seen`, or the time is over."""

    job: Hex32
    timeout_ms: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)] = MAX_WAIT_MS
    seen: Annotated[str, Meta(max_length=128)] | None = None


class SeatState(msgspec.Struct, frozen=True):
    """One seat; `inside`, by the agreement rule, and digest_distance, in bits to the winner's, are null until there is a decision."""

    seat: int
    node: str | None
    replaced: bool
    state: Literal["waiting", "committed", "revealed", "abstained", "silent", "absent", "empty"]
    inside: bool | None
    output_hash: str | None
    digest_distance: int | None


class CaptureState(msgspec.Struct, frozen=True):
    """The chance that bad nodes hold a winning part of the seats, if they hold this share of the candidates' weight."""

    bad_share_ppm: int
    chance_ppb: int | None  # exact for this snapshot; null where it is too large to count
    binomial_ppb: int


class JobState(msgspec.Struct, frozen=True):
    """A job as the last final block has it. `cost` is what the asker paid in the end, base fee included; null while it is open."""

    job: str
    status: StatusName
    phase: Literal["submitted", "committing", "revealing", "settled"]
    progress: str
    model: str
    model_name: str
    prompt: str
    rule: RuleName
    requester: str
    fee: int
    cost: int | None
    submit_height: int
    maturity_height: int | None
    settle_height: int | None
    window_ends_ms: int | None
    agreement_ppm: int | None
    entropy_millibits: int | None
    output_hash: str | None
    seats: tuple[SeatState, ...]
    candidates: int
    candidate_share_ppm: int
    capture: CaptureState | None


class JobList(msgspec.Struct, frozen=True):
    """Jobs that the ledger still holds, newest first."""

    jobs: tuple[JobState, ...]
    more: bool


class JobListParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest jobs; `mine` leaves out those that other accounts asked."""

    limit: Annotated[int, Meta(ge=1, le=256)] = 32
    mine: bool = False


class CertificateResult(msgspec.Struct, frozen=True):
    """A settled job's certificate, as a file holds it."""

    job: str
    certificate: bytes


class OutputParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An output of a job: the winning one, or the one with this hash."""

    job: Hex32
    output_hash: Hex32 | None = None


class Picture(msgspec.Struct, frozen=True):
    """Pixels, row by row, a byte a channel: 1 channel is grey, 3 are red, green and blue."""

    width: int
    height: int
    channels: int
    pixels: bytes


class OutputResult(msgspec.Struct, frozen=True):
    """An output whose hash was checked: text, tokens and why they stopped, or a picture; what it is not is null."""

    output_hash: str
    model: str
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    stop: StopName | None = None
    picture: Picture | None = None


class AccountParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account; without a node, this node's own."""

    node: Hex32 | None = None


class UnbondingState(msgspec.Struct, frozen=True):
    """An amount on its way back from a bond: it arrives with the first block that has reached both this height and this time."""

    amount: int
    height: int
    time_ms: int


class AccountResult(msgspec.Struct, frozen=True):
    """What an account owns: balance to spend, bonded stake, the part of it that open jobs hold, its last nonce, and its vote.

    `weight` is its vote in the running epoch, `next_weight` in the next one. `onion`: whether it may become a validator.
    """

    node: str
    balance: int
    bonded: int
    locked: int
    nonce: int
    unbonding: tuple[UnbondingState, ...] = ()
    weight: int = 0
    next_weight: int = 0
    onion: Literal["none", "waiting", "in_force"] = "none"
    missed_slots: int = 0  # of its last turns as leader
    jailed_until_ms: int | None = None  # for absence; from then on `quorate unjail` ends it
    convicted: bool = False


class BlockParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A final block; without a height, the last."""

    height: Annotated[int, Meta(ge=0, le=MAX_UINT)] | None = None


class BlockTransaction(msgspec.Struct, frozen=True):
    """One transaction of a block: its id, its kind and its author."""

    id: str
    kind: str
    author: str


class BlockResult(msgspec.Struct, frozen=True):
    """A final block: its header in words, its transactions by id, and its canonical bytes."""

    height: int
    hash: str
    parent_hash: str
    epoch: int
    view: int
    time_ms: int
    state_root: str
    candidates_root: str
    beacon: str
    transactions: tuple[BlockTransaction, ...]
    block: bytes


class TransactionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed transaction in its canonical encoding."""

    transaction: bytes


class TransactionResult(msgspec.Struct, frozen=True):
    """The id by which the ledger knows it."""

    transaction: str


class TransactionWaitParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answered once the transaction is in a final block, or the time is over."""

    transaction: Hex32
    timeout_ms: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)] = MAX_WAIT_MS


class TransactionState(msgspec.Struct, frozen=True):
    """A transaction and the final block that it is in; null while it is in none that this node holds."""

    transaction: str
    height: int | None


class Check(msgspec.Struct, frozen=True):
    """One condition of being ready; reason and cure are empty where it holds."""

    name: str
    ok: bool
    reason: str
    cure: str


class Readiness(msgspec.Struct, frozen=True):
    """Whether the node can serve: `syncing` where it only has to catch up."""

    status: Literal["ready", "syncing", "not_ready"]
    checks: tuple[Check, ...]


class WorkerState(msgspec.Struct, frozen=True):
    """The inference worker."""

    ready: bool
    reason: str
    models: tuple[str, ...]
    queued: int


class NodeStatus(msgspec.Struct, frozen=True):
    """The node after its last final block. Units: *_ms in milliseconds, times since the epoch."""

    node: str
    version: str
    chain_id: str
    chain_name: str
    height: int
    block_hash: str
    block_time_ms: int
    state_root: str
    epoch: int
    epoch_end: int  # the last height of this epoch
    view: int
    is_validator: bool  # it votes in this epoch
    weight: int  # its vote in this epoch, whether it signs or not
    next_weight: int  # its vote in the next one
    jailed_until_ms: int | None  # for absence; it is in no set that is computed before `quorate unjail`
    signing: SigningName
    signing_from: int | None  # the first epoch in which it signs, where that is known
    sync_target: int | None
    halted: str
    readiness: Readiness
    peers_connected: int
    peers_seeing_me: int
    validators: int
    balance: int
    open_jobs: int
    waiting_transactions: int
    worker: WorkerState
    started_ms: int
    uptime_ms: int
    rss_bytes: int
    finality_ms_recent: tuple[int, ...]
    generation_ms_recent: tuple[int, ...]
    cpu_samples: dict[str, int] = {}  # looks, one for each 50 ms of processor time, by area
    disk_wait_ms: int = 0  # altogether since the start


class PeerState(msgspec.Struct, frozen=True):
    """One peer as this node sees it; `height` is what it claims. `slowed` and `dropped` are messages of it over its rates."""

    node: str
    address: str
    connected: bool
    sees_me: bool
    rtt_ms: int | None
    last_seen_ms: int | None
    height: int
    reason: str
    slowed: int = 0
    dropped: int = 0
    offences: int = 0


class PeerList(msgspec.Struct, frozen=True):
    """All configured and connected peers."""

    peers: tuple[PeerState, ...]


class ModelState(msgspec.Struct, frozen=True):
    """A registered model and how many nodes may be drawn for it now."""

    model: str
    name: str
    dtype: str
    context_tokens: int
    token_ms: int
    tolerance_bits: int
    candidates: int


class ModelList(msgspec.Struct, frozen=True):
    """All registered models, by name."""

    models: tuple[ModelState, ...]
