"""What the ordering machine wants done. The node performs effects in their order; they return nothing: results are events.

The order matters in one place: whatever a Persist with `durable` names is on disk before any later Broadcast or Send leaves
(rule R10). A node may perform the effects of several steps together with one fdatasync, as long as it holds all of their
messages back until then.
"""

from dataclasses import dataclass
from typing import TypeAlias

from protocol.block import Block
from protocol.errors import Rejection
from protocol.evidence import Evidence
from protocol.ordering.context import Tip
from protocol.ordering.events import Record, Timer
from protocol.ordering.messages import Proposal, QuorumCert, Vote
from protocol.units import Epoch, Hash, Height, Milliseconds, NodeId, View

OrderingMessage: TypeAlias = Proposal | Vote | QuorumCert


@dataclass(frozen=True, slots=True)
class Persist:
    """Append the record to the write-ahead log.

    `durable`: fdatasync before any later message leaves. Without it the record may be lost in a crash, but only together with
    everything appended after it: the log is one sequence.
    """

    record: Record
    durable: bool


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send the message to every other validator; what cannot be delivered is dropped (rule R9 repeats what matters)."""

    message: OrderingMessage


@dataclass(frozen=True, slots=True)
class Send:
    """Send the message to these validators only."""

    peers: tuple[NodeId, ...]
    message: OrderingMessage


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Give TimerFired(timer) at this time of the node's clock, instead of any earlier setting of the same timer."""

    timer: Timer
    at_ms: Milliseconds


@dataclass(frozen=True, slots=True)
class BuildBlock:
    """Let the application build a block on this parent, which it has executed; answer with BlockBuilt or BuildDeclined.

    The header's view, parent_view, parent_hash and height (parent's + 1) are as given; its time is the clock's, but not
    before `not_before_ms`. A block without transactions is fine. An answer that comes too late is ignored.
    """

    view: View
    height: Height
    parent_view: View
    parent_hash: Hash
    not_before_ms: Milliseconds


@dataclass(frozen=True, slots=True)
class CheckBlock:
    """Let the application execute the block on its parent's state, which it has; answer with BlockChecked."""

    block_hash: Hash
    block: Block


@dataclass(frozen=True, slots=True)
class Finalize:
    """Commit these blocks, oldest first; the first one's parent is the last finalized block, the certificate is the last one's.

    The application has executed all of them. Once the blocks and the certificate are stored, records of the write-ahead log are
    obsolete up to the last block's view, and all of its epoch where it is the epoch's boundary.
    """

    block_hashes: tuple[Hash, ...]
    cert: QuorumCert


@dataclass(frozen=True, slots=True)
class EndEpoch:
    """The epoch's last block is final; answer with EpochStarted. Until then the machine only keeps messages of the next epoch."""

    boundary: Tip
    cert: QuorumCert


@dataclass(frozen=True, slots=True)
class FetchBlock:
    """Get the block of this hash from one of these peers, another one on error; answer with BlockReceived.

    Giving up is allowed: rule R9 asks again.
    """

    block_hash: Hash
    peers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class FetchCerts:
    """Get whatever certificates these peers hold of these views (`SimplexState.get_certs`); each one comes as CertReceived.

    A peer that has left the epoch answers with the FinalCert of its boundary, whatever the views. Asking a few peers at once is
    fine, and so is giving up: rule R9 asks again.
    """

    epoch: Epoch
    views: tuple[View, ...]
    peers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Get, verify, execute and store every block up to the one that this verified FinalCert names; answer with Synced.

    Until then the machine finalizes nothing. Synced may name any verified FinalCert of this epoch above the old tip: where that is
    not far enough, a new CatchUp follows. The node keeps trying, with another peer on error.
    """

    target: QuorumCert


@dataclass(frozen=True, slots=True)
class EvidenceFound:
    """Keep this proof that a validator broke a rule."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """Charge this peer: what it sent cannot come from an honest node."""

    peer: NodeId
    reason: Rejection
    text: str


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop ordering for good, keep serving reads, show the text: finality was broken (rule R7), or this node's application
    disagrees with a quorum. The certificates prove it; the machine ignores every later event."""

    text: str
    certs: tuple[QuorumCert, ...]


Effect: TypeAlias = (
    Persist
    | Broadcast
    | Send
    | SetTimer
    | BuildBlock
    | CheckBlock
    | Finalize
    | EndEpoch
    | FetchBlock
    | FetchCerts
    | CatchUp
    | EvidenceFound
    | Misbehaviour
    | Halt
)
