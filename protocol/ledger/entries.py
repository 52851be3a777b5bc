"""The state's entries: sorted keys and canonical values. The keys are part of the protocol, since proofs lead to them.

A key is one kind byte and what names the entry inside its kind.
"""

from enum import IntEnum
from typing import Annotated, Final

from msgspec import Meta

from protocol.codec import Codec, Message
from protocol.evidence import EvidenceKind
from protocol.jobs.committee import Candidate
from protocol.jobs.settlement import MAX_SKIPPED
from protocol.models import ModelCard
from protocol.units import (
    Epoch,
    Hash,
    Height,
    JobId,
    Micro,
    Milliseconds,
    ModelId,
    NodeId,
    Nonce,
    PartsPerMillion,
    Uint,
    View,
)
from protocol.validators import MAX_VALIDATORS, ValidatorSet

MAX_LEADERS: Final = 256  # as many blocks as a beacon may take to ripen (params.beacon_max_blocks)
MAX_NODE_MODELS: Final = 64  # what one node may serve: as in a genesis
MAX_MODELS: Final = 4096
MAX_MODEL_NODES: Final = MAX_SKIPPED  # who may be drawn for one model


class Kind(IntEnum):
    """First byte of a key."""

    CHAIN = 1
    ACCOUNT = 2
    ONION = 3
    CARD = 4
    SERVE = 5
    RECORD = 6
    SNAPSHOT = 7
    CANDIDATES = 8
    OPEN_JOB = 9
    CLOSED_JOB = 10
    SETTLEMENT = 11
    NAME = 12
    UNBONDING = 13
    MILESTONES = 14
    CONVICTION = 15
    VALIDATORS = 16
    ATTENDANCE = 17


class Account(Message, frozen=True):
    """What a node owns and has used. The free bond is what is bonded beyond what is locked; a slash may leave none."""

    balance: Micro
    bonded: Micro
    locked: Micro  # part of the bond that open jobs could still cost
    nonce: Nonce  # of the last account transaction


class Unbonding(Message, frozen=True):
    """Units on their way from a bond to a balance; the key says which height they wait for."""

    amount: Micro
    release_ms: Milliseconds


class Milestone(Message, frozen=True):
    """A block by which everything of its view and of those before had happened."""

    height: Height
    view: View
    time_ms: Milliseconds


class Milestones(Message, frozen=True):
    """When views were, roughly, for as long as offences in them count: evidence names a view and no time."""

    milestones: Annotated[tuple[Milestone, ...], Meta(max_length=64)]  # ascending


class Conviction(Message, frozen=True):
    """What a validator was convicted of, and what it has cost it so far. While this stands, which is for ever, it is never drawn."""

    kind: EvidenceKind
    epoch: Epoch
    view: View
    height: Height
    time_ms: Milliseconds
    reporter: NodeId
    share_ppm: PartsPerMillion  # of the voting weight of its epoch
    stake: Micro  # bonded and unbonding when it was convicted
    slashed: Micro  # more may follow while the window lasts


class Jail(Message, frozen=True):
    """A validator's last jail: since when, and its share of the voting weight then, rounded up."""

    time_ms: Milliseconds
    share_ppm: PartsPerMillion
    is_over: bool  # by Unjail


class Attendance(Message, frozen=True):
    """What a validator made of its last slots as leader, newest in the lowest bit, 1 for one that it let pass."""

    recent: Uint
    jail: Jail | None


class Chain(Message, frozen=True):
    """What the next block continues from, and the two totals that conservation is judged against."""

    height: Height
    view: View
    time_ms: Milliseconds
    beacon: Hash
    leader_seed: Hash  # of the next block's epoch
    leaders: Annotated[tuple[NodeId, ...], Meta(max_length=MAX_LEADERS)]  # of the last blocks, newest last
    snapshot_height: Height  # of the candidates in force for the next block
    candidates_root: Hash
    minted: Micro
    burned: Micro


class NextOnion(Message, frozen=True):
    """The tip of the onion that follows, in force after a height."""

    tip: Hash
    height: Height


class Onion(Message, frozen=True):
    """A validator's hash onion: the last revealed hash, the slots it has had so far, and the slot of that reveal."""

    tip: Hash
    slots: Uint  # since this onion is in force, like the next
    tip_slot: Uint
    renewals: Uint  # how many onions came before
    next: NextOnion | None


class Serving(Message, frozen=True):
    """A node answers jobs for a model since a height."""

    since: Height


class Named(Message, frozen=True):
    """Which model has a name: the first that was registered with it."""

    model: ModelId


class Snapshot(Message, frozen=True):
    """The root of the candidates frozen at a height; they are in force for the heights after it, up to the next."""

    candidates_root: Hash


class Candidates(Message, frozen=True):
    """The nodes that may be drawn for one model, ascending by node id."""

    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=MAX_MODEL_NODES)]


VALIDATORS_CODEC: Final = Codec[ValidatorSet](ValidatorSet, 64 + 48 * MAX_VALIDATORS)
CARD_CODEC: Final = Codec[ModelCard](ModelCard, 1024)
ACCOUNT_CODEC: Final = Codec[Account](Account, 64)
UNBONDING_CODEC: Final = Codec[Unbonding](Unbonding, 32)
MILESTONES_CODEC: Final = Codec[Milestones](Milestones, 4096)
CONVICTION_CODEC: Final = Codec[Conviction](Conviction, 256)
ATTENDANCE_CODEC: Final = Codec[Attendance](Attendance, 64)
CHAIN_CODEC: Final = Codec[Chain](Chain, 256 + 34 * MAX_LEADERS)
ONION_CODEC: Final = Codec[Onion](Onion, 128)
SERVING_CODEC: Final = Codec[Serving](Serving, 16)
NAMED_CODEC: Final = Codec[Named](Named, 64)
SNAPSHOT_CODEC: Final = Codec[Snapshot](Snapshot, 64)
CANDIDATES_CODEC: Final = Codec[Candidates](Candidates, 1024 * 1024)

CHAIN_KEY: Final = bytes((Kind.CHAIN,))
MILESTONES_KEY: Final = bytes((Kind.MILESTONES,))


def account_key(node: NodeId) -> bytes:
    """Where a node's account is."""
    return bytes((Kind.ACCOUNT,)) + node


def unbonding_key(release_height: Height, node: NodeId) -> bytes:
    """Where what a node gets back at a height is: in the order of release."""
    return bytes((Kind.UNBONDING,)) + release_height.to_bytes(8, "big") + node


def conviction_key(node: NodeId) -> bytes:
    """Where it stands that a node broke a voting rule."""
    return bytes((Kind.CONVICTION,)) + node


def validators_key(epoch: Epoch) -> bytes:
    """Where the validator set is that is in force from an epoch on, until the next such key's."""
    return bytes((Kind.VALIDATORS,)) + epoch.to_bytes(8, "big")


def attendance_key(node: NodeId) -> bytes:
    """Where it stands how often a validator let its slots pass."""
    return bytes((Kind.ATTENDANCE,)) + node


def onion_key(node: NodeId) -> bytes:
    """Where a validator's onion is."""
    return bytes((Kind.ONION,)) + node


def card_key(model: ModelId) -> bytes:
    """Where a model's card is."""
    return bytes((Kind.CARD,)) + model


def name_key(name: str) -> bytes:
    """Where it stands which model has a name."""
    return bytes((Kind.NAME,)) + name.encode()


def serve_key(model: ModelId, node: NodeId) -> bytes:
    """Where it stands that a node serves a model."""
    return bytes((Kind.SERVE,)) + model + node


def record_key(node: NodeId) -> bytes:
    """Where a node's record (reliability, integrity) is."""
    return bytes((Kind.RECORD,)) + node


def snapshot_key(height: Height) -> bytes:
    """Where a snapshot's root is."""
    return bytes((Kind.SNAPSHOT,)) + height.to_bytes(8, "big")


def candidates_key(height: Height, model: ModelId) -> bytes:
    """Where a snapshot's candidates for a model are."""
    return bytes((Kind.CANDIDATES,)) + height.to_bytes(8, "big") + model


def open_job_key(job: JobId) -> bytes:
    """Where a job is until it settles."""
    return bytes((Kind.OPEN_JOB,)) + job


def closed_job_key(job: JobId) -> bytes:
    """Where a job is after it settled, with all its members' reveals."""
    return bytes((Kind.CLOSED_JOB,)) + job


def settlement_key(job: JobId) -> bytes:
    """Where a job's settlement is: the entry whose proof a certificate carries."""
    return bytes((Kind.SETTLEMENT,)) + job
