"""How far a key has signed, as a file that moves with it from one home to another: what EIP-3076 is to Ethereum's validators.

The file holds one watermark. A home that takes it in never signs at or below it; a home that knows better refuses it. What moves is a bound,
not the votes: whoever runs the key in both homes at once has none, whatever the file says.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from node.disk import replace_file
from node.faults import Fault, Trouble
from node.records import Place
from node.rpc_types import Hex32
from node.stored import LogState
from node.vote_log import VoteLog
from protocol.units import MAX_UINT, ChainId, NodeId

MAX_PROTECTION_BYTES: Final = 64 * 1024
FORMAT: Final = "quorate-protection"
VERSION: Final = "1"

Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_UINT)]


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file is, and of which chain."""

    interchange_format: str
    interchange_format_version: str
    chain_id: Hex32


class Watermark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a key may have signed."""

    epoch: Number
    view: Number


class Protected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key."""

    node: Hex32
    watermark: Watermark


class ProtectionFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; `data` has one entry a key, and a home has one key."""

    metadata: Metadata
    data: Annotated[tuple[Protected, ...], msgspec.Meta(min_length=1, max_length=256)]


def export_protection(path: Path, node: NodeId, chain: ChainId, place: Place) -> None:
    """Write how far this key has signed. Raises: StorageFailure."""
    metadata = Metadata(FORMAT, VERSION, chain.hex())
    content = ProtectionFile(metadata, (Protected(node.hex(), Watermark(*place)),))
    replace_file(path, msgspec.json.format(msgspec.json.encode(content)) + b"\n", mode=0o600)


def read_protection(path: Path, node: NodeId, chain: ChainId) -> Place:
    """How far a key has signed, by a file. Raises: Fault(NO_SUCH_FILE | BAD_PROTECTION)."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PROTECTION_BYTES + 1)
    except OSError as error:
        raise Fault(Trouble.NO_SUCH_FILE, f"{path} cannot be read: {error.strerror or error}") from error
    try:
        found = msgspec.json.decode(content, type=ProtectionFile)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors, too
        raise Fault(Trouble.BAD_PROTECTION, f"{path} is no protection file: {error}") from error
    return _find_place(path, found, node, chain)


def _find_place(path: Path, found: ProtectionFile, node: NodeId, chain: ChainId) -> Place:
    metadata = found.metadata
    if (metadata.interchange_format, metadata.interchange_format_version) != (FORMAT, VERSION):
        told = f"{metadata.interchange_format[:40]!r}, version {metadata.interchange_format_version[:10]!r}"
        raise Fault(Trouble.BAD_PROTECTION, f"{path}: expected the format {FORMAT!r}, version {VERSION!r}, got {told}")
    if metadata.chain_id.lower() != chain.hex():
        raise Fault(
            Trouble.BAD_PROTECTION,
            f"{path} is for the chain {metadata.chain_id[:16].lower()}, this home belongs to {chain.hex()[:16]}",
        )
    places = [(entry.watermark.epoch, entry.watermark.view) for entry in found.data if entry.node.lower() == node.hex()]
    if not places:
        raise Fault(
            Trouble.BAD_PROTECTION, f"{path} says nothing of this home's key, {node.hex()[:16]}: it is another key's"
        )
    return max(places)


def check_complete(log: VoteLog, state: LogState) -> None:
    """Accept a log that knows how far its key has signed. Raises: Fault(VOTES_LOST)."""
    is_lost = log.permission is not None and log.permission.epoch is None
    if is_lost or state is LogState.BEHIND:
        raise Fault(
            Trouble.VOTES_LOST,
            "this home has lost votes: it does not know how far its key has signed",
            cure="start the node here, and wait until `quorate status` says that it signs again",
        )


def import_protection(log: VoteLog, place: Place) -> bool:
    """Whether the home's bound was raised: never to sign at or below this place. Equal is no change.

    Raises: Fault(BAD_PROTECTION) where this home knows of a later signature; StorageFailure.
    """
    if place < log.horizon:
        raise Fault(
            Trouble.BAD_PROTECTION,
            f"the file's watermark is epoch {place[0]}, view {place[1]}, but this home has signed up to epoch {log.horizon[0]},"
            f" view {log.horizon[1]}: it is not lowered",
            cure="nothing is to be done: this home is protected further than the file says",
        )
    if place == log.watermark:
        return False
    log.raise_watermark(place)
    return True
