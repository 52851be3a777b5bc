"""What reaches the engine: everything that happens to a node, as frozen values in one bounded channel."""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import trio

from node.inference import InferenceEvent
from node.network import NetworkEvent
from node.wire import Addresses, BlockRange, Manifest, Recollection
from protocol.block import Block
from protocol.errors import Refusal
from protocol.ordering.events import Timer
from protocol.ordering.messages import QuorumCert
from protocol.transactions import JobRequest, SignedTransaction
from protocol.units import Hash, JobId, NodeId


class Chore(Enum):
    """What the node does by the clock, beside ordering."""

    GOSSIP = "gossip"  # a batch of transactions is due
    STATUS = "status"  # tell the peers where this node stands, repeat what may have been lost
    WINDOW = "window"  # a job's window ends: there may be work


@dataclass(frozen=True, slots=True)
class TimerDue:
    """A timer's time has come."""

    timer: Timer | Chore


@dataclass(frozen=True, slots=True)
class TransactionOffered:
    """A client's transaction; the reply channel gets its id, or why it was refused."""

    signed: SignedTransaction
    reply: trio.MemorySendChannel[Hash | Refusal]


@dataclass(frozen=True, slots=True)
class JobOffered:
    """A client's job, to be signed and paid by this node's account; the reply is the job, and whether an earlier request made it."""

    job: JobRequest
    request_id: str | None
    reply: trio.MemorySendChannel[tuple[JobId, bool] | Refusal]


@dataclass(frozen=True, slots=True)
class BlockFetched:
    """The answer to a FetchBlock."""

    peer: NodeId
    block: Block


@dataclass(frozen=True, slots=True)
class CertsFetched:
    """The answer to a FetchCerts."""

    peer: NodeId
    certs: tuple[QuorumCert, ...]


@dataclass(frozen=True, slots=True)
class RangeFetched:
    """The answer to a range request of the catch-up."""

    peer: NodeId
    range: BlockRange


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """None of these peers gave a usable range."""

    peers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class RecollectionFetched:
    """What a peer remembers of this node's signatures."""

    peer: NodeId
    recollection: Recollection


@dataclass(frozen=True, slots=True)
class AddressesFetched:
    """Where validators listen, by a peer's word."""

    peer: NodeId
    addresses: Addresses


@dataclass(frozen=True, slots=True)
class SnapshotFetched:
    """Every chunk of the snapshot that this manifest proves is on the disk."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class SnapshotMissing:
    """No peer gave a whole snapshot that is worth joining from."""


NodeEvent: TypeAlias = (
    NetworkEvent
    | InferenceEvent
    | TimerDue
    | TransactionOffered
    | JobOffered
    | BlockFetched
    | CertsFetched
    | RangeFetched
    | FetchFailed
    | RecollectionFetched
    | AddressesFetched
    | SnapshotFetched
    | SnapshotMissing
)
