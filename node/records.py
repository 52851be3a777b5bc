"""How the entries of votes.wal are written: one byte for the kind, canonical bytes behind it."""

from typing import Final

from node.disk import DamagedStorage
from protocol.block import BLOCK_CODEC, Block
from protocol.codec import Codec, encode
from protocol.errors import InvalidMessage
from protocol.ordering.events import Record
from protocol.ordering.messages import PROPOSAL_CODEC, QUORUM_CERT_CODEC, VOTE_CODEC, Proposal, QuorumCert, Vote
from protocol.units import View

_KIND_OF: Final[dict[type, int]] = {Vote: 1, Proposal: 2, Block: 3, QuorumCert: 4}
_CODEC_OF: Final[dict[int, Codec[Vote] | Codec[Proposal] | Codec[Block] | Codec[QuorumCert]]] = {
    1: VOTE_CODEC,
    2: PROPOSAL_CODEC,
    3: BLOCK_CODEC,
    4: QUORUM_CERT_CODEC,
}


def encode_record(record: Record) -> bytes:
    """The record as the log holds it."""
    return bytes((_KIND_OF[type(record)],)) + encode(record)


def decode_record(encoded: bytes) -> Record:
    """The record that these bytes hold.

    Raises: DamagedStorage: the log's checksums held, so another program wrote this.
    """
    codec = _CODEC_OF.get(encoded[0]) if encoded else None
    if codec is None:
        raise DamagedStorage(
            f"votes.wal: expected a record of kind 1 to 4, got {encoded[:1].hex() or 'nothing'}: run the version that wrote it"
        )
    try:
        return codec.decode(encoded[1:])
    except InvalidMessage as error:
        raise DamagedStorage(f"votes.wal: {error}: run the version that wrote it") from error


def view_of(record: Record) -> View:
    """The view a record belongs to; it is obsolete once a later view's block is final and stored."""
    match record:
        case Vote() | QuorumCert():
            return record.view
        case Proposal():
            return record.block.header.view
        case Block():
            return record.header.view
