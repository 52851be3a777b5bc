"""What the interfaces (JSON-RPC, command line, web) may see of a running node, and what they may ask of it.

The engine alone owns state. Readers get the latest frozen snapshot, or read finalized blocks from storage; whatever changes
something goes to the engine as an event and is answered once the engine has judged it.
"""

from dataclasses import dataclass
from typing import Protocol

from protocol.block import Header
from protocol.genesis import Genesis
from protocol.ledger.draft import Ledger
from protocol.models import ModelCard, Output
from protocol.transactions import JobRequest, SignedTransaction
from protocol.trust import TrustedHeader
from protocol.units import ChainId, Epoch, Hash, Height, JobId, Micro, ModelId, NodeId, View


@dataclass(frozen=True, slots=True)
class PeerView:
    """One peer as this node sees it now. Units: rtt in milliseconds, last_seen in milliseconds since then."""

    node: NodeId
    address: str
    connected: bool
    rtt_ms: int | None
    last_seen_ms: int | None
    reason: str  # why it is not connected; empty where it is
    sees_me: bool  # it said, in its last status, that it is connected to this node
    height: Height  # what it claims to have finalized: a hint
    slowed: int = 0  # messages of it that had to wait since it was over its rate
    dropped: int = 0  # messages of it that were not read for that reason
    offences: int = 0  # what it did that no honest peer does, as far as the transport sees it


@dataclass(frozen=True, slots=True)
class WorkerView:
    """The inference worker as the node sees it."""

    ready: bool
    reason: str  # why it is not ready; empty where it is
    models: tuple[tuple[ModelId, str], ...]  # id and name of the loaded models
    queued: int


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """A consistent view of the node after its last finalized block."""

    node: NodeId
    chain_id: ChainId
    chain_name: str
    header: Header  # last finalized
    header_hash: Hash
    ledger: Ledger  # state after that block
    epoch: Epoch  # of the next block
    view: View  # current view of the ordering
    is_validator: bool  # it may sign in this epoch
    signs_from: (
        Epoch | None
    )  # the first epoch in which it may sign, if it is a validator then; None while that is not known
    sync_target: Height | None  # how far peers claim to be while this node catches up, None at the tip
    halted: str  # why ordering stopped for good; empty while it runs
    peers: tuple[PeerView, ...]
    worker: WorkerView
    mempool_transactions: int
    started_ms: int
    tick_ms: int  # when the engine's loop last turned
    finality_ms_recent: tuple[int, ...] = ()  # valid transaction received until its FinalCert here, oldest first
    generation_ms_recent: tuple[int, ...] = ()  # what this node's worker took for an answer, oldest first
    cpu_samples: tuple[tuple[str, int], ...] = ()  # by area: how often it was what the processor did
    disk_wait_ms: int = 0  # altogether


class NodeApi(Protocol):
    """The engine as the interfaces know it. All methods are for the trio thread that runs the node."""

    @property
    def genesis(self) -> Genesis:
        """The network's beginning."""
        ...

    def get_snapshot(self) -> NodeSnapshot:
        """The latest frozen snapshot; cheap."""
        ...

    async def submit_transaction(self, signed: SignedTransaction) -> Hash:
        """The id of a transaction that the mempool took and gossips.

        Raises: InvalidTransaction where the ledger or the mempool refuses it.
        """
        ...

    async def submit_job(self, job: JobRequest, request_id: str | None) -> tuple[JobId, bool]:
        """The id of a job signed and paid by this node's account, and whether an earlier request with this id had made it already.

        Raises: InvalidTransaction.
        """
        ...

    async def wait_block(self, above: Height) -> NodeSnapshot:
        """The snapshot once a block above this height is final (at once where one is)."""
        ...

    def get_block(self, height: Height) -> tuple[bytes, Hash] | None:
        """A finalized block's canonical bytes and hash, or None where this node has none at that height."""
        ...

    def find_transaction(self, transaction: Hash) -> Height | None:
        """The height of the final block that a transaction is in, or None where it is in none that this node holds."""
        ...

    async def fetch_output(self, output_hash: Hash, holders: tuple[NodeId, ...]) -> Output:
        """An output by its hash: from disk, or from any of the holders, checked against the hash.

        Raises: OutputUnavailable naming who was asked.
        """
        ...

    async def build_certificate(self, job: JobId) -> bytes:
        """The certificate of a settled job, with the winning output attached where one won and somebody still serves it.

        Raises: CertificateUnavailable with the reason (unknown job, not settled, not yet final, pruned).
        """
        ...

    def get_steps(self, from_epoch: Epoch) -> tuple[bytes, ...]:
        """The changes of the validator set at the end of this epoch and later ones, encoded: as many as one answer holds."""
        ...

    def get_trusted_header(self, height: Height | None) -> TrustedHeader | None:
        """A final block's header with the validators of its epoch, the last certified one's where no height is given; None without it."""
        ...

    def get_card(self, model: ModelId) -> ModelCard | None:
        """A registered model's card."""
        ...

    def get_balance(self) -> Micro:
        """The spendable balance of this node's account."""
        ...


class OutputUnavailable(Exception):
    """No holder served an output that matches its hash."""


class CertificateUnavailable(Exception):
    """There is no certificate to give, and the message says why."""
