"""How the entries of votes.wal are written: one byte for the kind, canonical bytes behind it.

Besides ordering's records the log holds two of the node's own: what may have been signed elsewhere, and from when this log lets the node sign.
"""

from typing import Final, TypeAlias

from node.disk import DamagedStorage
from protocol.block import BLOCK_CODEC, Block
from protocol.codec import Codec, Message, encode
from protocol.errors import InvalidMessage
from protocol.ordering.events import Record
from protocol.ordering.messages import PROPOSAL_CODEC, QUORUM_CERT_CODEC, VOTE_CODEC, Proposal, QuorumCert, Vote
from protocol.units import Epoch, View

Place: TypeAlias = tuple[Epoch, View]
"""When something was said: views go on across epochs, but a boundary is voted on under views that the next epoch uses, too."""


class Watermark(Message, frozen=True):
    """Nothing at or below this place is ever signed with this log: it may have been, by what is not in it."""

    epoch: Epoch
    view: View


class Permission(Message, frozen=True):
    """From which epoch on this log lets its node sign; None while that is not known: votes were lost, and peers have to say when (rule R10)."""

    epoch: Epoch | None


Entry: TypeAlias = Record | Watermark | Permission

_KIND_OF: Final[dict[type, int]] = {Vote: 1, Proposal: 2, Block: 3, QuorumCert: 4, Watermark: 5, Permission: 6}
_CODEC_OF: Final[
    dict[
        int,
        Codec[Vote] | Codec[Proposal] | Codec[Block] | Codec[QuorumCert] | Codec[Watermark] | Codec[Permission],
    ]
] = {
    1: VOTE_CODEC,
    2: PROPOSAL_CODEC,
    3: BLOCK_CODEC,
    4: QUORUM_CERT_CODEC,
    5: Codec[Watermark](Watermark, 64),
    6: Codec[Permission](Permission, 64),
}


def encode_record(record: Entry) -> bytes:
    """The record as the log holds it."""
    return bytes((_KIND_OF[type(record)],)) + encode(record)


def decode_record(encoded: bytes) -> Entry:
    """The record that these bytes hold.

    Raises: DamagedStorage: the log's checksums held, so another program wrote this.
    """
    codec = _CODEC_OF.get(encoded[0]) if encoded else None
    if codec is None:
        raise DamagedStorage(
            f"votes.wal: expected a record of kind 1 to 6, got {encoded[:1].hex() or 'nothing'}: run the version that wrote it"
        )
    try:
        return codec.decode(encoded[1:])
    except InvalidMessage as error:
        raise DamagedStorage(f"votes.wal: {error}: run the version that wrote it") from error


def place_of(record: Record) -> Place:
    """The place a record belongs to; it is obsolete once a later view's block, or its epoch's boundary, is final and stored."""
    match record:
        case Vote() | QuorumCert():
            return record.epoch, record.view
        case Proposal():
            return record.block.header.epoch, record.view
        case Block():
            return record.header.epoch, record.header.view
