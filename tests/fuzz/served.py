"""A small final chain on a disk, with a snapshot: what this node serves, and what honest peers would answer it."""

from __future__ import annotations

import atexit
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from node.chain import open_chain
from node.snapshots import cut_chunks
from node.storage import open_storage
from protocol.block import compute_header_hash
from protocol.codec import encode
from protocol.crypto import is_signature_valid
from protocol.genesis import compute_validator_set
from protocol.models import compute_output_hash
from tests.protocol.builders import make_payload, start_chain
from tests.protocol.certificates import ANSWER, make_final
from tests.protocol.ordering.rig import make_context

if TYPE_CHECKING:
    from node.storage import Storage
    from protocol.block import Header
    from protocol.ledger.draft import Ledger
    from protocol.ordering.messages import QuorumCert
    from protocol.ordering.state import Context
    from protocol.units import Hash
    from tests.protocol.builders import TestChain

MEMORY = Path("/dev/shm")


@cache
def make_place() -> Path:
    """A directory for this process, in memory where the system has one."""
    place = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="quorate-fuzz-")
    atexit.register(place.cleanup)
    return Path(place.name)


@dataclass(frozen=True)
class Served:
    """The chain, its states by height, the FinalCert of every block, and the disk that it lies on."""

    chain: TestChain
    ledgers: tuple[Ledger, ...]
    headers: tuple[Header, ...]  # the genesis' first
    certs: tuple[QuorumCert, ...]  # of headers[1:]
    storage: Storage
    snapshot_height: int

    @property
    def snapshot(self) -> Ledger:
        """The state that the snapshot holds."""
        return self.ledgers[self.snapshot_height]

    def hash_at(self, height: int) -> Hash:
        """The hash of a block."""
        return compute_header_hash(self.headers[height])


@cache
def get_served() -> Served:
    """A chain of some more heights than a snapshot takes, with a job in it."""
    chain = start_chain()
    ledgers, headers = [chain.ledger], [chain.header]
    chain.settle(answers=lambda _: make_payload())
    chain.run(max(0, 2 * chain.genesis.params.epoch_heights + 2 - chain.header.height))
    replayed = start_chain()
    for block in chain.blocks:
        replayed.take(block)
        ledgers.append(replayed.ledger)
        headers.append(replayed.header)
    certs = tuple(make_final(chain, header) for header in headers[1:])
    storage = open_storage(make_place() / "chain.db", chain.ledger.constants.chain_id)
    atexit.register(storage.close)
    _store(storage, chain, headers, certs)
    height = chain.header.height // chain.genesis.params.epoch_heights * chain.genesis.params.epoch_heights
    for first, stop, encoded in cut_chunks(ledgers[height]):
        storage.snapshots.put_chunk(height, first, stop, encoded)
    storage.snapshots.complete(height)
    storage.store_output(compute_output_hash(ANSWER), encode(ANSWER), height)
    return Served(chain, tuple(ledgers), tuple(headers), certs, storage, height)


def _store(storage: Storage, chain: TestChain, headers: list[Header], certs: tuple[QuorumCert, ...]) -> None:
    stored = open_chain(storage, chain.genesis, lambda *_: ())
    for block, header, cert in zip(chain.blocks, headers[1:], certs, strict=True):
        stored.check(block, frozenset())
        stored.finalize([compute_header_hash(header)], cert, 0)
    stored.store()


def make_judge(served: Served, *, believes: bool) -> Context:
    """The ordering context of a node that follows this chain in its first epoch; `believes` every signature, or only true ones."""
    ledger = served.ledgers[0]
    own = make_context(None, ledger.constants.params, compute_validator_set(served.chain.genesis))
    verify = (lambda *_: True) if believes else is_signature_valid
    return replace(own, chain=ledger.constants.chain_id, seed=ledger.chain.leader_seed, verify=verify)
