"""What lies in votes.wal as the node uses it: what ordering replays, and what the log says about its own completeness (rule R10).

Everything that names a signature of this node stays until it is obsolete, and the highest that was ever dropped is kept as a watermark:
so the log always knows how far this key has signed, whatever became of the chain beside it.
"""

from collections.abc import Sequence
from typing import Final

from node.records import Entry, Permission, Place, Watermark, decode_record, encode_record, place_of
from node.wal import VoteWal
from protocol.ordering.events import Record
from protocol.ordering.messages import Proposal, Vote
from protocol.units import Epoch

WAL_ROTATE_BYTES: Final = 4 * 1024 * 1024
NOWHERE: Final[Place] = (0, 0)  # nothing is ever signed in view 0


class VoteLog:
    """The open log of one node; owned by the engine."""

    def __init__(self, wal: VoteWal, encoded: Sequence[bytes]) -> None:
        self._wal: Final = wal
        self._kept: list[tuple[Record, bytes]] = []
        self._is_sync_due = False
        self.permission: Permission | None = None  # None: nobody ever decided
        self.watermark: Place = NOWHERE
        for raw in encoded:
            self._take(decode_record(raw), raw)

    @property
    def position(self) -> int:
        """How far the log has come; stored with every finalized block."""
        return self._wal.position

    @property
    def lineage(self) -> bytes:
        """Which log this is."""
        return self._wal.lineage

    @property
    def records(self) -> tuple[Record, ...]:
        """What ordering may have to be given back, in its order."""
        return tuple(record for record, _ in self._kept)

    @property
    def signed(self) -> Place:
        """The highest place at which this key has signed, as far as this log knows."""
        own = (place_of(record) for record, _ in self._kept if isinstance(record, Vote | Proposal))
        return max(own, default=NOWHERE)

    @property
    def horizon(self) -> Place:
        """The higher of what was signed and what may have been."""
        return max(self.signed, self.watermark)

    def append(self, entry: Entry, *, durable: bool) -> None:
        """Take an entry into the current turn; `sync` makes it durable, at the latest where this one wants it."""
        raw = encode_record(entry)
        self._take(entry, raw)
        self._wal.append((raw,))
        self._is_sync_due = self._is_sync_due or durable

    def sync(self) -> bool:
        """Whether anything had to be made durable; it is now.

        Raises: StorageFailure.
        """
        if not self._is_sync_due:
            return False
        self._wal.sync()
        self._is_sync_due = False
        return True

    def permit(self, epoch: Epoch | None) -> None:
        """Make durable from when on this log lets the node sign.

        Raises: StorageFailure.
        """
        self.append(Permission(epoch), durable=True)
        self.sync()

    def raise_watermark(self, place: Place) -> None:
        """Make durable that nothing at or below this place is to be signed.

        Raises: StorageFailure.
        """
        self.append(Watermark(*place), durable=True)
        self.sync()

    def forget(self, horizon: Place) -> None:
        """Drop what is obsolete up to this place, and the file's part of it once that is large.

        Raises: StorageFailure.
        """
        self._kept = [kept for kept in self._kept if self._outlives(kept[0], horizon)]
        if self._wal.size_bytes > WAL_ROTATE_BYTES:
            self._wal.rotate([encode_record(entry) for entry in self._list_own()] + [raw for _, raw in self._kept])

    def fork(self) -> None:
        """Go on as another log, which signs nothing until it is known when it may: this one has lost votes.

        Raises: StorageFailure.
        """
        self.permission = Permission(None)
        self._wal.fork([encode_record(entry) for entry in self._list_own()] + [raw for _, raw in self._kept])

    def _outlives(self, record: Record, horizon: Place) -> bool:
        place = place_of(record)
        if place > horizon:
            return True
        if isinstance(record, Vote | Proposal):
            self.watermark = max(self.watermark, place)
        return False

    def _list_own(self) -> list[Watermark | Permission]:
        own: list[Watermark | Permission] = []
        if self.watermark != NOWHERE:
            own.append(Watermark(*self.watermark))
        if self.permission is not None:
            own.append(self.permission)
        return own

    def _take(self, entry: Entry, raw: bytes) -> None:
        match entry:
            case Watermark(epoch=epoch, view=view):
                self.watermark = max(self.watermark, (epoch, view))
            case Permission():
                self.permission = entry
            case _:
                self._kept.append((entry, raw))
