"""A state in lines that people and programs read: one JSON object an entry, in the order of the keys, behind one that names the state."""

import json
from collections.abc import Iterator

from node.genesis_file import describe
from protocol.block import Header
from protocol.ledger.draft import Ledger
from protocol.ledger.entries import Kind
from protocol.ledger.foreign import ENTRY_DECODERS
from protocol.units import Hash


def export_lines(ledger: Ledger, header: Header, header_hash: Hash) -> Iterator[str]:
    """The lines of a state; the first says of which block it is, with the root that all entries hash to."""
    head = {
        "chain_id": header.chain_id,
        "height": header.height,
        "hash": header_hash,
        "time_ms": header.time_ms,
        "state_root": ledger.state_root,
        "entries": len(ledger.entries),
    }
    yield json.dumps({name: describe(value) for name, value in head.items()})
    for key in ledger.tree.keys:
        yield json.dumps(_describe_entry(key, ledger.entries[key]), ensure_ascii=False)


def _describe_entry(key: bytes, value: bytes) -> dict[str, object]:
    """An entry by its key in hexadecimal; a kind that is not known here is shown as bytes."""
    decode = ENTRY_DECODERS.get(key[0])
    kind = Kind(key[0]).name.lower().replace("_", "-") if key[0] in set(Kind) else str(key[0])
    shown = value.hex() if decode is None else describe(decode(value))
    return {"kind": kind, "key": key.hex(), "value": shown}
