"""What can happen to the ordering machine. Each event carries the node's clock; nothing else tells the machine the time.

A `peer` is the authenticated node that sent a message: it is charged for what is wrong with it, whoever signed it.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from protocol.block import Block, Header
from protocol.ordering.context import Context
from protocol.ordering.messages import Proposal, QuorumCert, Vote
from protocol.units import Hash, Milliseconds, NodeId, View

Record: TypeAlias = Vote | Proposal | Block | QuorumCert
"""One entry of the write-ahead log: an own vote, an own proposal, the body of an accepted block, a certificate."""


class Timer(Enum):
    """The machine's timers: one of each runs at most; setting one again replaces it."""

    PROPOSAL = "proposal"  # t_l of rule R1: no proposal yet
    CERTIFICATE = "certificate"  # t_a of rule R1: no certificate yet
    BUILD = "build"  # the leader's pace
    CLOCK = "clock"  # a header from the near future may be voted for now
    STANDSTILL = "standstill"  # rule R9


@dataclass(frozen=True, slots=True)
class Replayed:
    """The first event, exactly once: all records of the write-ahead log in their order (none at a first start)."""

    now_ms: Milliseconds
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class ProposalReceived:
    """A proposal came (decoded, nothing else checked)."""

    now_ms: Milliseconds
    peer: NodeId
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class VoteReceived:
    """A vote came (decoded, nothing else checked)."""

    now_ms: Milliseconds
    peer: NodeId
    vote: Vote


@dataclass(frozen=True, slots=True)
class CertReceived:
    """A certificate came, sent by itself or as the answer to a FetchCert (decoded, nothing else checked)."""

    now_ms: Milliseconds
    peer: NodeId
    cert: QuorumCert


@dataclass(frozen=True, slots=True)
class BlockReceived:
    """The answer to a FetchBlock came (decoded, nothing else checked)."""

    now_ms: Milliseconds
    peer: NodeId
    block: Block


@dataclass(frozen=True, slots=True)
class BlockBuilt:
    """The application built the block that a BuildBlock asked for; it has executed it, so no CheckBlock follows."""

    now_ms: Milliseconds
    block: Block


@dataclass(frozen=True, slots=True)
class BuildDeclined:
    """The application cannot build a block for this view (no beacon preimage, for instance): the leader steps back."""

    now_ms: Milliseconds
    view: View


@dataclass(frozen=True, slots=True)
class BlockChecked:
    """The application's verdict on a CheckBlock. A function of the block and its parent's state alone: never of the clock,
    nor of what this node happens to lack."""

    now_ms: Milliseconds
    block_hash: Hash
    valid: bool


@dataclass(frozen=True, slots=True)
class WorkChanged:
    """Whether there is work to order now: something that a leader proposes a block for at once.

    Transactions count until they are final, not until they are in some block: otherwise one whose block failed to become final
    would wait for the idle interval.
    """

    now_ms: Milliseconds
    pending: bool


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer's time came. Firing early, late or twice is harmless: the machine compares with its own deadline."""

    now_ms: Milliseconds
    timer: Timer


@dataclass(frozen=True, slots=True)
class Synced:
    """Catching up is done: every block up to the one this FinalCert names is verified, executed and stored. It is of this epoch."""

    now_ms: Milliseconds
    cert: QuorumCert
    header: Header


@dataclass(frozen=True, slots=True)
class EpochStarted:
    """The answer to EndEpoch: the context of the next epoch, which starts on the boundary."""

    now_ms: Milliseconds
    context: Context


@dataclass(frozen=True, slots=True)
class MaySign:
    """An observer is a validator from now on: the same epoch's context with `own`, `signer` and `floor`."""

    now_ms: Milliseconds
    context: Context


Event: TypeAlias = (
    Replayed
    | ProposalReceived
    | VoteReceived
    | CertReceived
    | BlockReceived
    | BlockBuilt
    | BuildDeclined
    | BlockChecked
    | WorkChanged
    | TimerFired
    | Synced
    | EpochStarted
    | MaySign
)
