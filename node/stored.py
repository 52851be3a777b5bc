"""What lies in chain.db, as the rest of the node sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocol.block import BLOCK_CODEC, Block
from protocol.codec import encode
from protocol.units import Epoch, Hash, Height, JobId, View

_BLOCK_ARRAY: Final = b"\x92"  # msgpack: an array of two, the header and the body


class LogState(Enum):
    """What chain.db knows of the vote log beside it."""

    COMPLETE = "complete"  # it has been here since the first block, or has said since when, and is no older copy
    UNKNOWN = (
        "unknown"  # it was there when the database was made: it may be new, too, or all that is left of an older home
    )
    BEHIND = "behind"  # it is another log, or an older copy


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A final block as it lies on the disk and goes over the wire: encoded."""

    height: Height
    hash: Hash
    epoch: Epoch
    view: View
    header: bytes
    body: bytes
    certificate: bytes | None  # a FinalCert for exactly this block; a block without one is final through a later one

    @property
    def encoded(self) -> bytes:
        """The canonical bytes of the `Block`."""
        return _BLOCK_ARRAY + self.header + self.body

    def decode(self) -> Block:
        """The block itself."""
        return BLOCK_CODEC.decode(self.encoded)


@dataclass(frozen=True, slots=True)
class BlockCommit:
    """Everything that one final block changes on the disk."""

    block: StoredBlock
    transactions: tuple[Hash, ...]  # ids, in the body's order
    changed: Mapping[bytes, bytes | None]  # state entries after the block; None: no longer there
    submitted: tuple[JobId, ...]
    settled: tuple[JobId, ...]
    wal_position: int  # VoteWal.position when this was committed: a log that is behind it is an old copy
    step: bytes | None = None  # the encoded ChainStep, where another validator set follows on this block


@dataclass(frozen=True, slots=True)
class FinalPoint:
    """The newest final block; height 0 is the genesis."""

    height: Height
    hash: Hash


@dataclass(frozen=True, slots=True)
class TransactionPlace:
    """Where a final transaction is."""

    height: Height
    position: int


@dataclass(frozen=True, slots=True)
class JobPlace:
    """Between which blocks a job ran; settled is None while it is open."""

    job: JobId
    submitted: Height
    settled: Height | None


@dataclass(frozen=True, slots=True)
class InstalledSnapshot:
    """What a chain begins with that is joined from a snapshot: a final block, and the state after it."""

    block: StoredBlock
    transactions: tuple[Hash, ...]  # ids, in the body's order
    state: Mapping[bytes, bytes]
    jobs: tuple[JobPlace, ...]  # those that the state still knows
    wal_position: int
    step: bytes | None = None  # as in a BlockCommit; those of the epochs before were kept as they came


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """What a request id stands for: the job, and the encoded signed transaction, to be sent again after a crash."""

    job: JobId
    transaction: bytes


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A member's own answer to a job, kept from before its Commit until it can be revealed."""

    job: JobId
    payload: bytes
    salt: bytes
    output: bytes


def encode_stored_block(block: Block, hash_: Hash, certificate: bytes | None) -> StoredBlock:
    """A block in the form that is stored; `hash_` is its header's, `certificate` the encoded FinalCert for it."""
    header = block.header
    return StoredBlock(header.height, hash_, header.epoch, header.view, encode(header), encode(block.body), certificate)
