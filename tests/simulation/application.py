"""What the simulated network orders: the interface an application offers, and a small hash chain that keeps it honest."""

from __future__ import annotations

from typing import Protocol

from protocol.block import Block, Header, compute_header_hash, compute_transactions_root
from protocol.crypto import HashDomain, compute_hash
from protocol.ordering.effects import BuildBlock
from protocol.ordering.state import Tip
from protocol.units import ZERO_HASH, ChainId, Hash
from tests.simulation.stakes import Founding, State, Terms, apply, found, get_terms


class Application(Protocol):
    """One node's application. It knows the state behind the genesis, and behind every block that it built or that passed `check`."""

    @property
    def genesis(self) -> Tip:
        """The block of view 0."""
        ...

    def build(self, request: BuildBlock, now_ms: int) -> Block | None:
        """A block on a parent whose state is known; None where this node cannot build now."""
        ...

    def check(self, block_hash: Hash, block: Block) -> bool:
        """Whether the block is valid on its parent, whose state is known."""
        ...

    def commit(self, block_hashes: tuple[Hash, ...]) -> None:
        """These blocks, oldest first, are final."""
        ...

    def get_terms(self) -> Terms:
        """The epoch of the block behind the last final one."""
        ...

    def store(self) -> None:
        """What is final is durable from now on."""
        ...

    def forget(self) -> None:
        """A crash: everything but what is stored and the pool's transactions is lost."""
        ...

    def submit(self, transaction: bytes) -> None:
        """A transaction has come to this node."""
        ...

    def has_work(self) -> bool:
        """Whether some transaction is not final yet."""
        ...


class HashChain:
    """A state that is the hash of all transactions so far, and who votes by it."""

    def __init__(self, chain: ChainId, genesis_ms: int, founding: Founding) -> None:
        self.chain = chain
        self.founding = founding
        self.genesis = make_genesis(chain, genesis_ms)
        self.final_hash: Hash = self.genesis.block_hash
        self.stored_hash: Hash = self.final_hash
        self.states: dict[Hash, State] = {self.final_hash: found(founding)}
        self.blocks: dict[Hash, Block] = {}
        self.pool: dict[bytes, None] = {}
        self.unstored: list[Block] = []

    def build(self, request: BuildBlock, now_ms: int) -> Block | None:
        included = self._list_unfinal(request.parent_hash)
        body = tuple(transaction for transaction in self.pool if transaction not in included)[:8]
        block = self.make_block(request, max(now_ms, request.not_before_ms), body)
        self._keep(compute_header_hash(block.header), block)
        return block

    def make_block(self, request: BuildBlock, time_ms: int, body: tuple[bytes, ...]) -> Block:
        """A valid block with this body."""
        before, root = self.states[request.parent_hash], compute_transactions_root(body)
        header = Header(
            chain_id=self.chain,
            epoch=before.height // self.founding.epoch_heights,
            leader_seed=before.seed,
            view=request.view,
            height=request.height,
            parent_view=request.parent_view,
            parent_hash=request.parent_hash,
            tx_root=root,
            state_root=compute_hash(HashDomain.NODE, before.root, root),
            valset_hash=before.hashes[0],
            next_valset_hash=before.hashes[1],
            candidates_root=ZERO_HASH,
            beacon_reveal=ZERO_HASH,
            beacon=ZERO_HASH,
            time_ms=time_ms,
        )
        return Block(header, body)

    def check(self, block_hash: Hash, block: Block) -> bool:
        header = block.header
        request = BuildBlock(header.view, header.height, header.parent_view, header.parent_hash, header.time_ms)
        if self.make_block(request, header.time_ms, block.body).header != header:
            return False
        self._keep(block_hash, block)
        return True

    def commit(self, block_hashes: tuple[Hash, ...]) -> None:
        for block_hash in block_hashes:
            block = self.blocks[block_hash]
            assert block.header.parent_hash == self.final_hash, block.header
            self.final_hash = block_hash
            self.unstored.append(block)

    def get_terms(self) -> Terms:
        return get_terms(self.founding, self.states[self.final_hash])

    def store(self) -> None:
        if not self.unstored:
            return
        for transaction in (transaction for block in self.unstored for transaction in block.body):
            self.pool.pop(transaction, None)
        view = self.unstored[-1].header.view
        self.stored_hash, self.unstored = self.final_hash, []
        self.blocks = {key: block for key, block in self.blocks.items() if block.header.view > view}
        self.states = {key: self.states[key] for key in (self.final_hash, *self.blocks)}

    def forget(self) -> None:
        self.final_hash, self.unstored = self.stored_hash, []
        self.states = {self.final_hash: self.states[self.final_hash]}
        self.blocks = {}

    def submit(self, transaction: bytes) -> None:
        self.pool[transaction] = None

    def has_work(self) -> bool:
        return bool(self.pool)

    def _keep(self, block_hash: Hash, block: Block) -> None:
        before = self.states[block.header.parent_hash]
        self.states[block_hash] = apply(self.founding, before, block.header.tx_root, block.body)
        self.blocks[block_hash] = block

    def _list_unfinal(self, parent_hash: Hash) -> set[bytes]:
        """The transactions of a block and its ancestors above what is stored."""
        included: set[bytes] = set()
        while (block := self.blocks.get(parent_hash)) is not None:
            included.update(block.body)
            parent_hash = block.header.parent_hash
        return included


def make_genesis(chain: ChainId, genesis_ms: int) -> Tip:
    """The block of view 0."""
    return Tip(0, 0, compute_hash(HashDomain.GENESIS, chain), genesis_ms)
