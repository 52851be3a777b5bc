"""What the simulated network orders: the interface an application offers, and a small hash chain that keeps it honest."""

from __future__ import annotations

from typing import Protocol

from protocol.block import Block, Header, compute_header_hash, compute_transactions_root
from protocol.crypto import HashDomain, compute_hash
from protocol.ordering.effects import BuildBlock
from protocol.ordering.state import Tip
from protocol.units import ZERO_HASH, ChainId, Hash


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

    def forget(self) -> None:
        """A crash: everything but what is final and the pool's transactions is lost."""
        ...

    def submit(self, transaction: bytes) -> None:
        """A transaction has come to this node."""
        ...

    def has_work(self) -> bool:
        """Whether some transaction is not final yet."""
        ...


class HashChain:
    """A state that is the hash of all transactions so far, so that any difference in order or content shows in the root."""

    def __init__(self, chain: ChainId, genesis_ms: int) -> None:
        self.chain = chain
        self.genesis = Tip(0, 0, compute_hash(HashDomain.GENESIS, chain), genesis_ms)
        self.final_hash: Hash = self.genesis.block_hash
        self.roots: dict[Hash, Hash] = {self.final_hash: ZERO_HASH}
        self.blocks: dict[Hash, Block] = {}
        self.pool: dict[bytes, None] = {}

    def build(self, request: BuildBlock, now_ms: int) -> Block | None:
        included = self._list_unfinal(request.parent_hash)
        body = tuple(transaction for transaction in self.pool if transaction not in included)[:8]
        root = compute_transactions_root(body)
        header = Header(
            chain_id=self.chain,
            epoch=0,
            leader_seed=ZERO_HASH,
            view=request.view,
            height=request.height,
            parent_view=request.parent_view,
            parent_hash=request.parent_hash,
            tx_root=root,
            state_root=compute_hash(HashDomain.NODE, self.roots[request.parent_hash], root),
            valset_hash=ZERO_HASH,
            next_valset_hash=ZERO_HASH,
            candidates_root=ZERO_HASH,
            beacon_reveal=ZERO_HASH,
            beacon=ZERO_HASH,
            time_ms=max(now_ms, request.not_before_ms),
        )
        block = Block(header, body)
        self._keep(compute_header_hash(header), block)
        return block

    def check(self, block_hash: Hash, block: Block) -> bool:
        header = block.header
        expected = compute_hash(HashDomain.NODE, self.roots[header.parent_hash], header.tx_root)
        if header.state_root != expected:
            return False
        self._keep(block_hash, block)
        return True

    def commit(self, block_hashes: tuple[Hash, ...]) -> None:
        for block_hash in block_hashes:
            block = self.blocks[block_hash]
            assert block.header.parent_hash == self.final_hash, block.header
            self.final_hash = block_hash
            for transaction in block.body:
                self.pool.pop(transaction, None)
        view = self.blocks[self.final_hash].header.view
        self.blocks = {key: block for key, block in self.blocks.items() if block.header.view > view}
        self.roots = {key: self.roots[key] for key in (self.final_hash, *self.blocks)}

    def forget(self) -> None:
        self.roots = {self.final_hash: self.roots[self.final_hash]}
        self.blocks = {}

    def submit(self, transaction: bytes) -> None:
        self.pool[transaction] = None

    def has_work(self) -> bool:
        return bool(self.pool)

    def _keep(self, block_hash: Hash, block: Block) -> None:
        self.roots[block_hash] = block.header.state_root
        self.blocks[block_hash] = block

    def _list_unfinal(self, parent_hash: Hash) -> set[bytes]:
        """The transactions of a block and its ancestors above the final tip."""
        included: set[bytes] = set()
        while (block := self.blocks.get(parent_hash)) is not None:
            included.update(block.body)
            parent_hash = block.header.parent_hash
        return included
