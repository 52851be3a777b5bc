"""A simulated process's disk: a log that loses what was not synced, and final blocks that are stored at the end of a turn.

So a crash can come when votes of a new epoch are durable and sent, and the block that it starts on is not stored yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from protocol.block import Block, compute_header_hash
from protocol.ordering.justification import is_again
from protocol.ordering.messages import Proposal, QuorumCert, Vote
from protocol.ordering.state import Tip, make_tip

if TYPE_CHECKING:
    from random import Random

    from protocol.ordering.events import Record
    from protocol.units import Hash

End: TypeAlias = tuple[Tip, QuorumCert]


class Disk:
    """What survives a process, and what does not."""

    keeps_wal = True

    def __init__(self, genesis: Tip) -> None:
        self.genesis = genesis
        self.wal: list[Record] = []
        self.synced = 0
        self.durable: set[Record] = set()
        self.bodies: set[Hash] = set()  # of blocks in the durable part of the log
        self.blocks: list[Block] = []  # the final chain by height - 1
        self.tip = genesis
        self.tip_cert: QuorumCert | None = None
        self.ends: list[End] = []  # final boundaries with their certificates, by epoch
        self.stored: tuple[int, int, QuorumCert | None] = (
            0,
            0,
            None,
        )  # how many blocks and ends, and the last certificate

    @property
    def epoch_start(self) -> tuple[Tip, QuorumCert | None]:
        """What the epoch of the next block starts on."""
        return self.ends[-1] if self.ends else (self.genesis, None)

    def sync(self) -> None:
        """What is in the log survives from now on."""
        for record in self.wal[self.synced :]:
            self.durable.add(record)
            self.bodies.update(hashes_of_body(record))
        self.synced = len(self.wal)

    def keep_final(self, blocks: list[Block], cert: QuorumCert, boundary: int) -> None:
        """These blocks are final; they are stored later."""
        self.blocks.extend(blocks)
        header = self.blocks[-1].header
        self.tip, self.tip_cert = make_tip(cert.block_hash, header), cert
        assert header.height == len(self.blocks) <= boundary, header
        if header.height == boundary:
            self.ends.append((self.tip, cert))

    def store(self) -> None:
        """Stores what is final; records of the log that it makes obsolete go."""
        if self.stored[0] == len(self.blocks):
            return
        self.stored = len(self.blocks), len(self.ends), self.tip_cert
        header, is_end = self.blocks[-1].header, bool(self.ends) and self.ends[-1][0] == self.tip
        kept = [not is_obsolete(record, header.epoch, header.view, is_end=is_end) for record in self.wal]
        self.synced = sum(kept[: self.synced])
        self.wal = [record for record, is_kept in zip(self.wal, kept, strict=True) if is_kept]
        self.durable = set(self.wal[: self.synced])

    def lose(self, random: Random) -> None:
        """A crash: of what was not synced only a part is in the log, and what was not stored is gone."""
        self.wal = self.wal[: random.randint(self.synced, len(self.wal))] if self.keeps_wal else []
        self.synced = len(self.wal)
        self.durable = set(self.wal)
        self.bodies = {block_hash for record in self.wal for block_hash in hashes_of_body(record)}
        blocks, ends, self.tip_cert = self.stored
        self.blocks, self.ends = self.blocks[:blocks], self.ends[:ends]
        last = self.blocks[-1].header if self.blocks else None
        self.tip = self.genesis if last is None else make_tip(compute_header_hash(last), last)

    def find_end(self, epoch: int) -> End | None:
        """How far this node has blocks of an epoch, with the certificate of the last one."""
        if epoch < len(self.ends):
            return self.ends[epoch]
        if epoch > len(self.ends) or self.tip_cert is None or self.tip == self.epoch_start[0]:
            return None
        return self.tip, self.tip_cert


def place_of(record: Record) -> tuple[int, int]:
    """The epoch and the view that a record of the log is about."""
    match record:
        case Vote() | QuorumCert():
            return record.epoch, record.view
        case Proposal():
            return record.block.header.epoch, record.view
        case Block():
            return record.header.epoch, record.header.view


def is_obsolete(record: Record, epoch: int, view: int, *, is_end: bool) -> bool:
    """Whether a record says nothing any more, once a block of this place is stored."""
    place = place_of(record)
    return place <= (epoch, view) or (is_end and place[0] == epoch)


def hashes_of_body(record: Record) -> tuple[Hash, ...]:
    """The block that a record of the log would bring back, if any."""
    if isinstance(record, Block):
        return (compute_header_hash(record.header),)
    if isinstance(record, Proposal) and not is_again(record):
        return (compute_header_hash(record.block.header),)
    return ()
