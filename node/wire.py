"""What nodes say to each other beside votes: frames on the direct streams, gossip batches, fetch requests and their answers.

A frame on a direct stream is one byte that names the kind and the canonical bytes of the message behind it. Every kind has its
own size limit, checked before anything is decoded.
"""

from enum import IntEnum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from protocol.block import MAX_BLOCK_BYTES, MAX_TRANSACTION_BYTES, Block, Header
from protocol.codec import Codec, Message, encode
from protocol.errors import InvalidMessage, Rejection
from protocol.merkle_range import RangeProof
from protocol.ordering.messages import PROPOSAL_CODEC, QUORUM_CERT_CODEC, VOTE_CODEC, Proposal, QuorumCert, Vote
from protocol.trust import ChainStep
from protocol.units import Epoch, Hash, Height, NodeId, View
from protocol.validators import MAX_VALIDATORS

MAX_BATCH_BYTES: Final = 32 * 1024
MAX_FETCH_REQUEST_BYTES: Final = 256
MAX_RANGE_BLOCKS: Final = 64
MAX_RANGE_LINKS: Final = 1_024  # headers; so many blocks in a row of which none has a FinalCert are hours without one
MAX_HEADER_BYTES: Final = 448
MAX_FETCH_RESPONSE_BYTES: Final = MAX_BLOCK_BYTES + 32 * 1024 + MAX_RANGE_LINKS * MAX_HEADER_BYTES
OUTPUT_CHUNK_BYTES: Final = 256 * 1024
SNAPSHOT_CHUNK_BYTES: Final = 256 * 1024  # of keys and values: the entry that reaches it is a chunk's last one
MAX_STATE_VALUE_BYTES: Final = 512 * 1024
MAX_CHUNK_ENTRIES: Final = (
    8 * 1024
)  # no entry of a state has less than 32 bytes; a small one takes many times its size in memory
MAX_ADDRESS_CHARS: Final = 128
MAX_CHAIN_BYTES: Final = 512 * 1024
MAX_CHAIN_STEPS: Final = 1_024  # small sets change in a few hundred bytes

TOPIC_TRANSACTIONS: Final = "transactions"
TOPIC_CERTIFICATES: Final = "final-certificates"


class TransactionBatch(Message, frozen=True):
    """Encoded signed transactions, not yet looked into."""

    transactions: Annotated[tuple[Annotated[bytes, Meta(max_length=MAX_TRANSACTION_BYTES)], ...], Meta(max_length=1024)]


class Status(Message, frozen=True):
    """What a node says of itself, once a second: heights are hints until a certificate proves them."""

    final_height: Height
    final_hash: Hash
    base_height: Height  # the lowest block it still serves
    epoch: Epoch  # of the next block
    view: View
    sees: Annotated[tuple[NodeId, ...], Meta(max_length=256)]
    listens: Annotated[str, Meta(max_length=MAX_ADDRESS_CHARS)] = ""  # a multiaddr; its host may be "everywhere"


Frame: TypeAlias = Proposal | Vote | QuorumCert | TransactionBatch | Status


class FrameKind(IntEnum):
    """First byte of a frame on a direct stream."""

    PROPOSAL = 1
    VOTE = 2
    CERT = 3
    TRANSACTIONS = 4
    STATUS = 5


BATCH_CODEC: Final = Codec[TransactionBatch](TransactionBatch, MAX_BATCH_BYTES + MAX_TRANSACTION_BYTES)
STATUS_CODEC: Final = Codec[Status](Status, 16 * 1024)

_KIND_OF: Final[dict[type, FrameKind]] = {
    Proposal: FrameKind.PROPOSAL,
    Vote: FrameKind.VOTE,
    QuorumCert: FrameKind.CERT,
    TransactionBatch: FrameKind.TRANSACTIONS,
    Status: FrameKind.STATUS,
}
_CODEC_OF: Final[
    dict[int, Codec[Proposal] | Codec[Vote] | Codec[QuorumCert] | Codec[TransactionBatch] | Codec[Status]]
] = {
    FrameKind.PROPOSAL: PROPOSAL_CODEC,
    FrameKind.VOTE: VOTE_CODEC,
    FrameKind.CERT: QUORUM_CERT_CODEC,
    FrameKind.TRANSACTIONS: BATCH_CODEC,
    FrameKind.STATUS: STATUS_CODEC,
}


def encode_frame(message: Frame) -> bytes:
    """A message as it travels on a direct stream."""
    return bytes((_KIND_OF[type(message)],)) + encode(message)


def decode_frame(frame: bytes) -> Frame:
    """The message in a frame.

    Raises: InvalidMessage.
    """
    codec = _CODEC_OF.get(frame[0]) if frame else None
    if codec is None:
        raise InvalidMessage(Rejection.MALFORMED, f"frame: expected kind 1 to 5, got {frame[:1].hex() or 'nothing'}")
    return codec.decode(frame[1:])


def decode_batch(encoded: bytes) -> TransactionBatch:
    """A gossiped batch.

    Raises: InvalidMessage.
    """
    return BATCH_CODEC.decode(encoded)


class FetchBlocks(Message, frozen=True, tag=1):
    """Finalized blocks from a height upwards, as many as fit, and what proves them final."""

    start: Height


class FetchBody(Message, frozen=True, tag=2):
    """One block, final or not, by its hash."""

    block_hash: Hash


class FetchCert(Message, frozen=True, tag=3):
    """The certificates of a view that let it be left: NotarCert, NullCert or FinalCert; of an epoch that is over, its boundary's FinalCert."""

    epoch: Epoch
    view: View


class FetchOutput(Message, frozen=True, tag=4):
    """A chunk of an output's canonical bytes."""

    output_hash: Hash
    offset: Annotated[int, Meta(ge=0, le=2**31)]


class FetchSnapshot(Message, frozen=True, tag=5):
    """What proves the newest snapshot that the peer serves."""


class FetchSnapshotChunk(Message, frozen=True, tag=6):
    """The chunk of a snapshot that begins with the entry of this index."""

    height: Height
    first: Annotated[int, Meta(ge=0, le=2**40)]


class FetchChain(Message, frozen=True, tag=7):
    """The changes of the validator set at the end of this epoch and later ones."""

    from_epoch: Annotated[int, Meta(ge=0, le=2**62)]


class FetchRecollection(Message, frozen=True, tag=8):
    """What the peer remembers of the asker's own signatures (rule R10)."""


class FetchAddresses(Message, frozen=True, tag=9):
    """Where validators listen, as far as the peer knows."""


FetchRequest: TypeAlias = (
    FetchBlocks
    | FetchBody
    | FetchCert
    | FetchOutput
    | FetchSnapshot
    | FetchSnapshotChunk
    | FetchChain
    | FetchRecollection
    | FetchAddresses
)


class BlockRange(Message, frozen=True):
    """Consecutive finalized blocks, the headers behind them up to a block with a FinalCert (none where the last block has one), and it.

    No blocks and no certificate where there are none; `base_height`, the lowest block that this node has, then says whether it ever will.
    """

    blocks: Annotated[tuple[Block, ...], Meta(max_length=MAX_RANGE_BLOCKS)]
    links: Annotated[tuple[Header, ...], Meta(max_length=MAX_RANGE_LINKS)]
    final_cert: QuorumCert | None
    base_height: Height = 1


class Manifest(Message, frozen=True):
    """The block whose state a snapshot is, an epoch's last one, and its FinalCert. None where there is no snapshot."""

    block: Block | None
    final_cert: QuorumCert | None


class Chain(Message, frozen=True):
    """Changes of the validator set, ascending, as many as fit; none where none is left."""

    steps: Annotated[tuple[ChainStep, ...], Meta(max_length=MAX_CHAIN_STEPS)]


Key: TypeAlias = Annotated[bytes, Meta(min_length=1, max_length=256)]
Value: TypeAlias = Annotated[bytes, Meta(max_length=MAX_STATE_VALUE_BYTES)]


class SnapshotChunk(Message, frozen=True):
    """Consecutive entries of a state and the proof that they are. No proof where this node has no such chunk."""

    entries: Annotated[tuple[tuple[Key, Value], ...], Meta(max_length=MAX_CHUNK_ENTRIES)]
    proof: RangeProof | None


class Body(Message, frozen=True):
    """One block, or None where this node does not hold it."""

    block: Block | None


class Certs(Message, frozen=True):
    """The certificates held for a view."""

    certs: Annotated[tuple[QuorumCert, ...], Meta(max_length=3)]


class Recollection(Message, frozen=True):
    """The epoch that a node is in, and the newest vote of the asker that it remembers."""

    epoch: Epoch
    vote: Vote | None


class Addresses(Message, frozen=True):
    """Where validators of the running epoch and the next one listen: hints, until one answers there with its key."""

    known: Annotated[
        tuple[tuple[NodeId, Annotated[str, Meta(max_length=MAX_ADDRESS_CHARS)]], ...],
        Meta(max_length=2 * MAX_VALIDATORS),
    ]


class OutputChunk(Message, frozen=True):
    """Bytes of an output from an offset on; total is 0 where this node does not hold it."""

    total: Annotated[int, Meta(ge=0, le=2**31)]
    chunk: Annotated[bytes, Meta(max_length=OUTPUT_CHUNK_BYTES)]


FETCH_REQUEST_CODEC: Final = Codec[FetchRequest](FetchRequest, MAX_FETCH_REQUEST_BYTES)
BLOCK_RANGE_CODEC: Final = Codec[BlockRange](BlockRange, MAX_FETCH_RESPONSE_BYTES)
BODY_CODEC: Final = Codec[Body](Body, MAX_FETCH_RESPONSE_BYTES)
CERTS_CODEC: Final = Codec[Certs](Certs, MAX_FETCH_RESPONSE_BYTES)
OUTPUT_CHUNK_CODEC: Final = Codec[OutputChunk](OutputChunk, OUTPUT_CHUNK_BYTES + 64)
RECOLLECTION_CODEC: Final = Codec[Recollection](Recollection, 512)
CHAIN_CODEC: Final = Codec[Chain](Chain, MAX_FETCH_RESPONSE_BYTES)
ADDRESSES_CODEC: Final = Codec[Addresses](Addresses, 64 * 1024)
MANIFEST_CODEC: Final = Codec[Manifest](Manifest, MAX_FETCH_RESPONSE_BYTES)
SNAPSHOT_CHUNK_CODEC: Final = Codec[SnapshotChunk](SnapshotChunk, MAX_FETCH_RESPONSE_BYTES)
