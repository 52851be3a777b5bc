"""The application's side of ordering: executed blocks above the finalized tip, and the tip itself, in memory and on disk.

Ordering asks for blocks to be built, checked and finalized; everything here is a call into the pure ledger and one storage
transaction for each finalized block.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from node.disk import DamagedStorage
from node.storage import Storage
from node.stored import BlockCommit, InstalledSnapshot, JobPlace, encode_stored_block
from protocol.block import Block, Header, compute_header_hash
from protocol.codec import encode
from protocol.genesis import Genesis
from protocol.jobs.settlement import JOB_CODEC, SETTLEMENT_CODEC
from protocol.ledger.draft import Ledger, changed_entries, ledger_from_entries, list_keys
from protocol.ledger.entries import Kind
from protocol.ledger.epochs import get_validators
from protocol.ledger.state import BuildContext, BuiltBlock, build_block, check_block, create_genesis
from protocol.ordering.messages import QuorumCert
from protocol.params import compute_boundary
from protocol.transactions import TRANSACTION_CODEC, Submit, Transaction, compute_transaction_id
from protocol.trust import make_step
from protocol.units import Hash, Height, JobId


@dataclass(frozen=True, slots=True)
class Executed:
    """A block's header, its hash, and the state after it."""

    header: Header
    hash: Hash
    ledger: Ledger
    block: Block | None  # None for the finalized tip: its body is on disk


@dataclass(frozen=True, slots=True)
class FinalizedBlock:
    """What became final, for those who act on it."""

    header: Header
    hash: Hash
    ledger: Ledger
    transactions: tuple[tuple[Hash, Transaction], ...]
    settled: tuple[JobId, ...]
    cert: QuorumCert | None  # of this very block


LoadBlock: TypeAlias = Callable[[Height], Block]
Certify: TypeAlias = Callable[[Sequence[FinalizedBlock], Ledger, LoadBlock], Sequence[tuple[JobId, bytes]]]
"""The certificates of jobs that became certain with these blocks, which follow on this state: a crash may not come between a settlement and its certificate."""


class Chain:
    """The finalized tip and what is executed above it; owned by the engine."""

    def __init__(self, storage: Storage, tip: Executed, certify: Certify) -> None:
        self._storage = storage
        self._certify = certify
        self._unstored: list[FinalizedBlock] = []
        self._stored_ledger = tip.ledger
        self._executed: dict[Hash, Executed] = {tip.hash: tip}
        self._commits: list[BlockCommit] = []
        self.final = tip

    def get_executed(self, block_hash: Hash) -> Executed | None:
        """An executed block at or above the finalized tip."""
        return self._executed.get(block_hash)

    def has_unfinal_transactions(self, executed: Executed) -> bool:
        """Whether this block, or one between it and the finalized tip, has transactions."""
        while executed.hash != self.final.hash:
            if executed.block is None or executed.header.parent_hash not in self._executed:
                return False  # another branch than the finalized one
            if executed.block.body:
                return True
            executed = self._executed[executed.header.parent_hash]
        return False

    def build(self, parent: Hash, context: BuildContext, verified: Container[bytes]) -> BuiltBlock:
        """A block on an executed parent; it is executed itself from now on."""
        base = self._executed[parent]
        built = build_block(base.ledger, base.header, context, verified=verified)
        self._put(built.block, built.ledger)
        return built

    def check(self, block: Block, verified: Container[bytes]) -> None:
        """Execute a block on its executed parent.

        Raises: InvalidBlock.
        """
        base = self._executed[block.header.parent_hash]
        self._put(block, check_block(base.ledger, base.header, block, verified=verified))

    def finalize(self, block_hashes: Sequence[Hash], cert: QuorumCert, wal_position: int) -> tuple[FinalizedBlock, ...]:
        """Move the tip; the blocks reach the disk with the next `store`."""
        finalized: list[FinalizedBlock] = []
        for block_hash in block_hashes:
            executed = self._executed[block_hash]
            assert executed.header.parent_hash == self.final.hash, (executed.header.height, self.final.header.height)
            own_cert = cert if block_hash == cert.block_hash else None
            finalized.append(self._finalize_one(executed, own_cert, wal_position))
        height = self.final.header.height
        kept = {key: entry for key, entry in self._executed.items() if entry.header.height > height}
        self._executed = {**kept, self.final.hash: self.final}
        return tuple(finalized)

    def adopt(self, block: Block, ledger: Ledger, cert: QuorumCert, wal_position: int) -> FinalizedBlock:
        """Begin anew with a final block and the state after it, whose snapshot is on the disk; nothing below it is here any more.

        Raises: StorageFailure.
        """
        block_hash = compute_header_hash(block.header)
        assert cert.block_hash == block_hash, block.header.height
        transactions = _name_transactions(block)
        stored = encode_stored_block(block, block_hash, encode(cert))
        ids = tuple(transaction for transaction, _ in transactions)
        jobs = _list_jobs(ledger)
        self.final = Executed(block.header, block_hash, ledger, None)
        step = _encode_step(self.final, cert)
        self._storage.install_snapshot(InstalledSnapshot(stored, ids, ledger.entries, jobs, wal_position, step))
        self._commits, self._unstored, self._stored_ledger = [], [], ledger
        self._executed = {block_hash: self.final}
        return FinalizedBlock(block.header, block_hash, ledger, transactions, (), cert)

    @property
    def base_height(self) -> Height:
        """The lowest block that is here, or will be."""
        return self._storage.base_height

    def store(self) -> bool:
        """Whether anything waited to be stored; it is durable now.

        Raises: StorageFailure.
        """
        if not self._commits:
            return False
        certificates = self._certify(self._unstored, self._stored_ledger, self._load_block)
        commits, self._commits, self._unstored = self._commits, [], []
        self._storage.commit_blocks(commits, certificates)
        self._stored_ledger = self.final.ledger
        return True

    def _load_block(self, height: Height) -> Block:
        """A final block, stored or about to be."""
        first = self._commits[0].block.height
        stored = self._commits[height - first].block if height >= first else self._storage.get_block(height)
        assert stored is not None, height
        return stored.decode()

    def _put(self, block: Block, ledger: Ledger) -> None:
        block_hash = compute_header_hash(block.header)
        self._executed[block_hash] = Executed(block.header, block_hash, ledger, block)

    def _finalize_one(self, executed: Executed, cert: QuorumCert | None, wal_position: int) -> FinalizedBlock:
        block = executed.block
        assert block is not None, executed.header.height
        transactions = _name_transactions(block)
        changed = changed_entries(executed.ledger)
        settled = list_settled(executed.ledger)
        self._commits.append(
            BlockCommit(
                block=encode_stored_block(block, executed.hash, None if cert is None else encode(cert)),
                transactions=tuple(transaction for transaction, _ in transactions),
                changed=changed,
                submitted=tuple(transaction for transaction, body in transactions if isinstance(body, Submit)),
                settled=settled,
                wal_position=wal_position,
                step=None if cert is None else _encode_step(executed, cert),
            )
        )
        self.final = Executed(executed.header, executed.hash, executed.ledger, None)
        finalized = FinalizedBlock(executed.header, executed.hash, executed.ledger, transactions, settled, cert)
        self._unstored.append(finalized)
        return finalized


def _encode_step(executed: Executed, cert: QuorumCert) -> bytes | None:
    """The change of the validator set on this block, where it is its epoch's last one and another set follows."""
    header, ledger = executed.header, executed.ledger
    params = ledger.constants.params
    if header.next_valset_hash == header.valset_hash or header.height != compute_boundary(params, header.epoch):
        return None
    step = make_step(header, cert, get_validators(ledger, header.epoch + 1), params)
    return None if step is None else encode(step)


def _name_transactions(block: Block) -> tuple[tuple[Hash, Transaction], ...]:
    bodies = [TRANSACTION_CODEC.decode(encoded).body for encoded in block.body]
    return tuple((compute_transaction_id(body), body) for body in bodies)


def _list_jobs(ledger: Ledger) -> tuple[JobPlace, ...]:
    """Between which blocks the jobs ran that this state still knows."""
    opened = [JOB_CODEC.decode(ledger.entries[key]) for key in list_keys(ledger, bytes((Kind.OPEN_JOB,)))]
    settled = [SETTLEMENT_CODEC.decode(ledger.entries[key]) for key in list_keys(ledger, bytes((Kind.SETTLEMENT,)))]
    return (
        *(JobPlace(job.job, job.submit_height, None) for job in opened),
        *(JobPlace(each.job, each.submit_height, each.settle_height) for each in settled),
    )


def list_settled(ledger: Ledger) -> tuple[JobId, ...]:
    """The jobs that the block behind this state settled."""
    kind = Kind.SETTLEMENT
    return tuple(key[1:] for key, value in changed_entries(ledger).items() if key[0] == kind and value is not None)


def open_chain(storage: Storage, genesis: Genesis, certify: Certify) -> Chain:
    """The chain as it lies on disk; a new database gets the genesis.

    Raises: DamagedStorage where state and header disagree; InvalidGenesis.
    """
    final = storage.get_final()
    ledger, header = create_genesis(genesis)
    if final is None:
        storage.store_genesis(compute_header_hash(header), ledger.entries)
    elif final.height > 0:
        ledger = ledger_from_entries(genesis, storage.load_state())
        header = _read_header(storage, final.height)
    if ledger.state_root != header.state_root:
        raise DamagedStorage(
            f"chain.db: the state at height {header.height} has root {ledger.state_root.hex()[:12]}, expected"
            f" {header.state_root.hex()[:12]}: move the data folder away and let the node fetch the chain again"
        )
    return Chain(storage, Executed(header, compute_header_hash(header), ledger, None), certify)


def _read_header(storage: Storage, height: Height) -> Header:
    stored = storage.get_block(height)
    assert stored is not None, height  # storage checked its newest blocks when it was opened
    return stored.decode().header
