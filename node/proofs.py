"""What proves fetched blocks and snapshots: every check of something that a peer sent to a node that is behind (rules S1 and S2)."""

from collections.abc import Sequence

from node.wire import SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNK_CODEC, BlockRange, Manifest, SnapshotChunk
from protocol.block import Block, Header, compute_header_hash, compute_transactions_root
from protocol.errors import InvalidMessage, Rejection
from protocol.merkle_range import check_range as check_entries
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.ordering.state import Context
from protocol.ordering.votes import check_quorum_cert
from protocol.params import compute_boundary
from protocol.trust import Trust, check_final, find_validators
from protocol.units import Hash, Height


def check_range(
    answer: BlockRange, context: Context, final: Header, final_hash: Hash
) -> tuple[Sequence[tuple[Block, Hash]], QuorumCert]:
    """The blocks of a range with their hashes, linked to the finalized tip, and the certificate that makes them final.

    It is the last block's, or that of the last of the headers that follow it: who makes a block final makes all below it final.

    Raises: InvalidMessage(OUT_OF_RANGE | BAD_HEIGHT | BAD_PARENT | BAD_BODY | NO_QUORUM | BAD_SIGNATURE | …).
    """
    cert = answer.final_cert
    if not answer.blocks or cert is None:
        raise InvalidMessage(
            Rejection.OUT_OF_RANGE,
            f"blocks from height {final.height + 1}: expected some with a FinalCert, got one alone",
        )
    headers = (*(block.header for block in answer.blocks), *answer.links)
    if headers[-1].height > context.boundary:
        raise InvalidMessage(
            Rejection.OUT_OF_RANGE,
            f"blocks up to height {headers[-1].height}: expected none above the end of epoch {context.epoch}, height {context.boundary}",
        )
    hashes = link_headers(headers, final, final_hash)
    _check_end(cert, hashes[-1])
    for block in answer.blocks:
        _check_body(block)
    check_quorum_cert(cert, context.chain, context.epoch, context.validators, context.verify)
    return list(zip(answer.blocks, hashes, strict=False)), cert


def link_headers(headers: Sequence[Header], final: Header, final_hash: Hash) -> list[Hash]:
    """The hashes of headers that follow the finalized tip, each the next one's parent.

    Raises: InvalidMessage(BAD_HEIGHT | BAD_PARENT).
    """
    hashes: list[Hash] = []
    parent_hash = final_hash
    for height, header in enumerate(headers, final.height + 1):
        if header.height != height:
            raise InvalidMessage(Rejection.BAD_HEIGHT, f"block range: expected height {height}, got {header.height}")
        if header.parent_hash != parent_hash:
            raise InvalidMessage(
                Rejection.BAD_PARENT, f"block range: height {height} does not extend {parent_hash.hex()[:12]}"
            )
        parent_hash = compute_header_hash(header)
        hashes.append(parent_hash)
    return hashes


def check_manifest(manifest: Manifest, trust: Trust) -> tuple[Block, Hash] | None:
    """The block that a manifest proves final, an epoch's last one, with its hash; None where the peer has no snapshot.

    `trust` has walked the changes of the validator set that the same peer tells.
    Raises: InvalidMessage(OUT_OF_RANGE | WRONG_CHAIN | MISSING_STEPS | BAD_VALIDATORS | BAD_BODY | NO_QUORUM | BAD_SIGNATURE | …).
    """
    block, cert = manifest.block, manifest.final_cert
    if block is None:
        return None
    header = block.header
    boundary = compute_boundary(trust.params, header.epoch)
    if cert is None or header.height != boundary:
        raise InvalidMessage(
            Rejection.OUT_OF_RANGE,
            f"snapshot: expected the last block of epoch {header.epoch}, height {boundary}, with a FinalCert, got height {header.height}",
        )
    if header.chain_id != trust.chain:
        raise InvalidMessage(Rejection.WRONG_CHAIN, f"snapshot: it is of chain {header.chain_id.hex()[:12]}")
    validators = find_validators(trust, header.epoch, header.valset_hash)
    check_final(trust, header, cert, validators, "snapshot")
    _check_body(block)
    return block, compute_header_hash(header)


def check_chunk(encoded: bytes, header: Header, first: int) -> SnapshotChunk | None:
    """The chunk of this header's state that begins with the entry `first`; None where the peer does not have it.

    A chunk has one length, so that nobody can hand out a state entry by entry. Raises: InvalidMessage.
    """
    chunk = SNAPSHOT_CHUNK_CODEC.decode(encoded)
    if chunk.proof is None:
        return None
    what = f"snapshot of height {header.height}"
    if chunk.proof.first != first:
        raise InvalidMessage(Rejection.OUT_OF_RANGE, f"{what}: expected the entry {first}, got {chunk.proof.first}")
    if not check_entries(header.state_root, chunk.entries, chunk.proof):
        raise InvalidMessage(
            Rejection.BAD_PROOF, f"{what}: the chunk at entry {first} is not under the header's state root"
        )
    sizes = [len(key) + len(value) for key, value in chunk.entries]
    is_last = first + len(sizes) == chunk.proof.count
    if sum(sizes[:-1]) >= SNAPSHOT_CHUNK_BYTES or not (is_last or sum(sizes) >= SNAPSHOT_CHUNK_BYTES):
        raise InvalidMessage(
            Rejection.TOO_LARGE if sum(sizes) > SNAPSHOT_CHUNK_BYTES else Rejection.OUT_OF_RANGE,
            f"{what}: expected a chunk of {SNAPSHOT_CHUNK_BYTES} bytes at entry {first}, got {sum(sizes)}",
        )
    return chunk


def get_height(block: Block | None) -> Height:
    """A block's height; 0 for none."""
    return 0 if block is None else block.header.height


def _check_end(cert: QuorumCert, block_hash: Hash) -> None:
    if cert.kind is not VoteKind.FINAL or cert.block_hash != block_hash:
        raise InvalidMessage(Rejection.NO_QUORUM, f"expected a FinalCert of {block_hash.hex()[:12]} at the end")


def _check_body(block: Block) -> None:
    if compute_transactions_root(block.body) != block.header.tx_root:
        raise InvalidMessage(
            Rejection.BAD_BODY, f"blocks: height {block.header.height} has another body than its header says"
        )
