"""The write-ahead log's entries as bytes: one byte for the kind, then the canonical form."""

from typing import Final

from protocol.block import BLOCK_CODEC, Block
from protocol.codec import Codec, encode
from protocol.errors import InvalidMessage, Rejection
from protocol.ordering.events import Record
from protocol.ordering.messages import PROPOSAL_CODEC, QUORUM_CERT_CODEC, VOTE_CODEC, Proposal, QuorumCert, Vote

_KINDS: Final[tuple[type[Record], ...]] = (Vote, Proposal, Block, QuorumCert)
_CODECS: Final[tuple[Codec[Vote] | Codec[Proposal] | Codec[Block] | Codec[QuorumCert], ...]] = (
    VOTE_CODEC,
    PROPOSAL_CODEC,
    BLOCK_CODEC,
    QUORUM_CERT_CODEC,
)


def encode_record(record: Record) -> bytes:
    """The bytes that a log keeps of a record."""
    return bytes((_KINDS.index(type(record)),)) + encode(record)


def decode_record(encoded: bytes) -> Record:
    """The record that a log kept.

    Raises: InvalidMessage(MALFORMED | NEWER_VERSION | TOO_LARGE | NOT_CANONICAL).
    """
    if not encoded:
        raise InvalidMessage(Rejection.MALFORMED, "record: expected a kind, got no bytes")
    if encoded[0] >= len(_CODECS):
        raise InvalidMessage(Rejection.NEWER_VERSION, f"record: kind {encoded[0]} is unknown; use a newer version")
    return _CODECS[encoded[0]].decode(encoded[1:])
