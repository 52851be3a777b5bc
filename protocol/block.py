"""Headers and blocks: what ordering orders and the ledger executes. Neither knows the other; both know this."""

from typing import Annotated, Final

from msgspec import Meta

from protocol.codec import Codec, Message, encode
from protocol.crypto import HashDomain, compute_hash
from protocol.units import ChainId, Epoch, Hash, Height, Milliseconds, View

MAX_TRANSACTION_BYTES: Final = 16 * 1024
MAX_BLOCK_BYTES: Final = 512 * 1024
MAX_BLOCK_TRANSACTIONS: Final = 4096


class Header(Message, frozen=True):
    """A block's header. It holds no signatures, so its hash cannot be ground through them (rule F5)."""

    chain_id: ChainId
    epoch: Epoch
    leader_seed: Hash  # of the epoch's leader schedule: the beacon at the end of the one before
    view: View
    height: Height
    parent_view: View
    parent_hash: Hash
    tx_root: Hash
    state_root: Hash  # after this block
    valset_hash: Hash
    next_valset_hash: Hash
    candidates_root: Hash
    beacon_reveal: Hash
    beacon: Hash
    time_ms: Milliseconds


class Block(Message, frozen=True):
    """A header and the encoded signed transactions it commits to; ordering never looks into them."""

    header: Header
    body: Annotated[
        tuple[Annotated[bytes, Meta(max_length=MAX_TRANSACTION_BYTES)], ...], Meta(max_length=MAX_BLOCK_TRANSACTIONS)
    ]


BLOCK_CODEC: Final = Codec[Block](Block, MAX_BLOCK_BYTES)


def compute_header_hash(header: Header) -> Hash:
    """The block's name."""
    return compute_hash(HashDomain.BLOCK, encode(header))


def compute_transactions_root(body: tuple[bytes, ...]) -> Hash:
    """What a header's tx_root must be: the hash of the count and the hashes of the encoded transactions, in order."""
    leaves = (compute_hash(HashDomain.LEAF, encoded) for encoded in body)
    return compute_hash(HashDomain.TRANSACTION_LIST, len(body).to_bytes(8, "big"), *leaves)
