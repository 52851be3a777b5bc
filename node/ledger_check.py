"""The whole chain on a stopped node's disk, judged again (rule S5): every hash, link, body, certificate and state.

Nothing is believed but the genesis. A chain that was joined has no states below its lowest snapshot: of the blocks there everything but
the state is judged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.block_scan import find_block_fault
from node.chain import Executed
from node.database import REFETCH, open_database
from node.disk import DamagedStorage
from node.faults import Fault, Trouble
from node.proofs import check_chunk
from node.storage import Storage
from node.stored import StoredBlock
from protocol.block import Block, Header, compute_header_hash
from protocol.errors import InvalidBlock, InvalidMessage, Rejection
from protocol.genesis import Genesis, compute_chain_id
from protocol.ledger.draft import Ledger
from protocol.ledger.foreign import ledger_from_snapshot
from protocol.ledger.state import check_block, create_genesis
from protocol.ordering.messages import QUORUM_CERT_CODEC
from protocol.params import compute_boundary
from protocol.trust import STEP_CODEC, Trust, check_final, find_validators, trust_genesis, walk_steps
from protocol.units import MAX_UINT, ChainId, Hash, Height

_BATCH: Final = 64
_BATCH_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Checked:
    """How far the check has come: a block that is whole, and the state after it where that is known."""

    height: Height
    final_height: Height
    base_height: Height
    proven_height: Height  # the highest block that a certificate on this disk proves final, itself or through its hash
    state_from: Height  # from here on states were judged
    certificates: int
    ledger: Ledger | None


class _AllVerified:
    """Transactions in blocks that a quorum made final: their signatures were judged by it."""

    def __contains__(self, _encoded: object) -> bool:
        return True


def open_ledger(path: Path, genesis: Genesis) -> Storage:
    """The database of a stopped node, whatever lies in it.

    Raises: Fault(NO_SUCH_FILE | DAMAGED_LEDGER); StorageFailure; WrongChain.
    """
    if not path.is_file():
        raise Fault(Trouble.NO_SUCH_FILE, f"{path}: there is no chain yet", cure="run the node first: `quorate run`")
    try:
        return Storage(path, open_database(path, compute_chain_id(genesis), 0))
    except DamagedStorage as error:
        raise Fault(Trouble.DAMAGED_LEDGER, str(error), cure=REFETCH) from error


def load_final_state(storage: Storage, genesis: Genesis) -> tuple[Ledger, Header]:
    """The state on the disk, which is that of the newest final block.

    Raises: Fault(DAMAGED_LEDGER) naming the height.
    """
    final = storage.get_final()
    height = 0 if final is None else final.height
    stored = storage.get_block(height)
    header = create_genesis(genesis)[1] if stored is None else _decode(stored).header
    try:
        return ledger_from_snapshot(genesis, sorted(storage.load_state().items()), header), header
    except InvalidMessage as error:
        raise _damage(height, str(error)) from error


def check_ledger(storage: Storage, genesis: Genesis) -> Iterator[Checked]:
    """Every block in turn, the last one with its whole state.

    Raises: Fault(DAMAGED_LEDGER) naming the height.
    """
    try:
        yield from _check_blocks(storage, genesis)
    except DamagedStorage as error:
        raise Fault(Trouble.DAMAGED_LEDGER, str(error), cure=REFETCH) from error


def _check_blocks(storage: Storage, genesis: Genesis) -> Iterator[Checked]:
    final, base = storage.get_final(), storage.base_height
    if final is None:
        raise _damage(0, "there is not even a genesis")
    state, trust = _find_first_state(storage, genesis), _load_trust(storage, genesis)
    state_from, chain_id = state.header.height, state.ledger.constants.chain_id
    previous = state if base == 1 else None
    known: Executed | None = previous
    proven = certificates = 0
    for stored in _list_blocks(storage, base, final.height):
        block, block_hash = _check_link(stored, chain_id, previous)
        _check_boundary(stored, block.header, trust)
        if stored.certificate is not None:
            _check_cert(stored, block.header, trust)
            proven, certificates = stored.height, certificates + 1
        if block_hash == state.hash:
            known = state
        elif known is not None:
            known = Executed(block.header, block_hash, _replay(known, block), None)
        previous = Executed(block.header, block_hash, state.ledger, None)
        ledger = None if known is None else known.ledger
        yield Checked(stored.height, final.height, base, proven, state_from, certificates, ledger)
    _check_end(storage, known or state, previous)
    yield Checked(final.height, final.height, base, proven, state_from, certificates, (known or state).ledger)


def _find_first_state(storage: Storage, genesis: Genesis) -> Executed:
    """The lowest state that is here: the genesis' own, or that of the oldest snapshot of a chain that was joined."""
    if storage.base_height == 1:
        ledger, header = create_genesis(genesis)
        return Executed(header, compute_header_hash(header), ledger, None)
    heights = storage.snapshots.list_heights()
    if not heights:
        raise _damage(storage.base_height, "the chain was joined, but no snapshot is left")
    height = heights[-1]
    stored = storage.get_block(height)
    if stored is None:
        raise _damage(height, "the block is missing")
    header = _decode(stored).header
    try:
        ledger = ledger_from_snapshot(genesis, _load_entries(storage, header), header)
    except InvalidMessage as error:
        raise _damage(height, str(error)) from error
    return Executed(header, stored.hash, ledger, None)


def _load_entries(storage: Storage, header: Header) -> list[tuple[bytes, bytes]]:
    entries: list[tuple[bytes, bytes]] = []
    count = 1
    for encoded in storage.snapshots.load_chunks(header.height):
        chunk = check_chunk(encoded, header, len(entries))
        if chunk is not None and chunk.proof is not None:
            entries.extend(chunk.entries)
            count = chunk.proof.count
    if count != len(entries):
        raise InvalidMessage(Rejection.OUT_OF_RANGE, f"expected {count} entries, got {len(entries)}")
    return entries


def _list_blocks(storage: Storage, base: Height, final: Height) -> Iterator[StoredBlock]:
    height = base
    while height <= final:
        batch = storage.get_range(height, min(height + _BATCH - 1, final), _BATCH_BYTES)
        if not batch:
            raise _damage(height, "the block is missing")
        for stored in batch:
            if stored.height != height:
                raise _damage(height, "the block is missing")
            yield stored
            height += 1


def _check_link(stored: StoredBlock, chain: ChainId, previous: Executed | None) -> tuple[Block, Hash]:
    fault = find_block_fault(stored, chain, stored.height, stored.hash)
    if fault:
        raise _damage(stored.height, fault)
    block = _decode(stored)
    if (stored.epoch, stored.view) != (block.header.epoch, block.header.view):
        raise _damage(stored.height, "epoch and view beside it are not its header's")
    if previous is not None and block.header.parent_hash != previous.hash:
        raise _damage(stored.height, f"it does not follow block {stored.height - 1}")
    return block, stored.hash


def _load_trust(storage: Storage, genesis: Genesis) -> Trust:
    """Who votes in which epoch, by every change of the validator set that is kept here, from the genesis on."""
    try:
        steps = [STEP_CODEC.decode(step) for step in storage.get_steps(0, MAX_UINT)]
        return walk_steps(trust_genesis(genesis), steps)
    except InvalidMessage as error:
        raise _damage(0, f"the changes of its validator set prove nothing: {error}") from error


def _check_boundary(stored: StoredBlock, header: Header, trust: Trust) -> None:
    """An epoch's last block has a FinalCert of its own, and the set that follows it is kept."""
    if header.height != compute_boundary(trust.params, header.epoch):
        return
    if stored.certificate is None:
        raise _damage(stored.height, f"the last block of epoch {header.epoch} has no FinalCert")
    try:
        find_validators(trust, header.epoch + 1, header.next_valset_hash)
    except InvalidMessage as error:
        raise _damage(stored.height, f"the validator set that follows is not kept: {error}") from error


def _check_cert(stored: StoredBlock, header: Header, trust: Trust) -> None:
    try:
        cert = QUORUM_CERT_CODEC.decode(stored.certificate or b"")
        validators = find_validators(trust, header.epoch, header.valset_hash)
        check_final(trust, header, cert, validators, f"block {header.height}")
    except InvalidMessage as error:
        raise _damage(stored.height, f"its FinalCert proves nothing: {error}") from error


def _replay(parent: Executed, block: Block) -> Ledger:
    try:
        return check_block(parent.ledger, parent.header, block, verified=_AllVerified())
    except InvalidBlock as error:
        raise _damage(block.header.height, f"executed again it is refused: {error}") from error


def _check_end(storage: Storage, known: Executed, last: Executed | None) -> None:
    """The state on the disk is the one that the blocks lead to."""
    final = storage.get_final()
    tip = known if last is None else last
    if final is None or (final.height, final.hash) != (tip.header.height, tip.hash):
        raise _damage(tip.header.height, "it is not the block that is noted as the final one")
    _compare(known.header.height, storage.load_state(), known.ledger.entries)
    for height in storage.snapshots.list_heights():
        stored = storage.get_block(height)
        if stored is None:
            raise _damage(height, "the block of its snapshot is missing")
        header = _decode(stored).header
        try:
            _load_entries(storage, header)
        except InvalidMessage as error:
            raise _damage(height, f"its snapshot is damaged: {error}") from error


def _compare(height: Height, found: Mapping[bytes, bytes], expected: Mapping[bytes, bytes]) -> None:
    wrong = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    if wrong:
        what = "missing" if wrong[0] not in found else "too many" if wrong[0] not in expected else "changed"
        raise _damage(
            height, f"{len(wrong)} entries of the state are not what its block says; {wrong[0].hex()} is {what}"
        )


def _decode(stored: StoredBlock) -> Block:
    try:
        return stored.decode()
    except InvalidMessage as error:
        raise _damage(stored.height, str(error)) from error


def _damage(height: Height, what: str) -> Fault:
    return Fault(Trouble.DAMAGED_LEDGER, f"height {height}: {what}", cure=REFETCH)
