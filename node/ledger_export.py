"""A state in lines that people and programs read: one JSON object an entry, in the order of the keys, behind one that names the state."""

import json
from collections.abc import Callable, Iterator
from typing import Final

from node.genesis_file import describe
from protocol.block import Header
from protocol.codec import Message
from protocol.jobs.reputation import RECORD_CODEC
from protocol.jobs.settlement import JOB_CODEC, SETTLEMENT_CODEC
from protocol.ledger import entries
from protocol.ledger.draft import Ledger
from protocol.ledger.entries import Kind
from protocol.units import Hash

_DECODERS: Final[dict[int, Callable[[bytes], Message]]] = {
    Kind.CHAIN: entries.CHAIN_CODEC.decode,
    Kind.ACCOUNT: entries.ACCOUNT_CODEC.decode,
    Kind.ONION: entries.ONION_CODEC.decode,
    Kind.CARD: entries.CARD_CODEC.decode,
    Kind.SERVE: entries.SERVING_CODEC.decode,
    Kind.RECORD: RECORD_CODEC.decode,
    Kind.SNAPSHOT: entries.SNAPSHOT_CODEC.decode,
    Kind.CANDIDATES: entries.CANDIDATES_CODEC.decode,
    Kind.OPEN_JOB: JOB_CODEC.decode,
    Kind.CLOSED_JOB: JOB_CODEC.decode,
    Kind.SETTLEMENT: SETTLEMENT_CODEC.decode,
    Kind.NAME: entries.NAMED_CODEC.decode,
    Kind.UNBONDING: entries.UNBONDING_CODEC.decode,
    Kind.MILESTONES: entries.MILESTONES_CODEC.decode,
    Kind.CONVICTION: entries.CONVICTION_CODEC.decode,
    Kind.VALIDATORS: entries.VALIDATORS_CODEC.decode,
    Kind.ATTENDANCE: entries.ATTENDANCE_CODEC.decode,
}


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
    decode = _DECODERS.get(key[0])
    kind = Kind(key[0]).name.lower().replace("_", "-") if key[0] in set(Kind) else str(key[0])
    shown = value.hex() if decode is None else describe(decode(value))
    return {"kind": kind, "key": key.hex(), "value": shown}
