"""A ledger from a stranger's snapshot (rule S3): nothing is believed but a header that a quorum made final."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from protocol.block import Header
from protocol.codec import Message
from protocol.errors import InvalidMessage, Rejection
from protocol.genesis import Genesis
from protocol.jobs.reputation import RECORD_CODEC
from protocol.jobs.settlement import JOB_CODEC, SETTLEMENT_CODEC
from protocol.ledger import entries as kinds
from protocol.ledger.draft import Ledger, assemble_ledger
from protocol.ledger.entries import CHAIN_CODEC, CHAIN_KEY, Kind
from protocol.merkle import compute_root

ENTRY_DECODERS: Final[Mapping[int, Callable[[bytes], Message]]] = MappingProxyType(
    {
        Kind.CHAIN: CHAIN_CODEC.decode,
        Kind.ACCOUNT: kinds.ACCOUNT_CODEC.decode,
        Kind.ONION: kinds.ONION_CODEC.decode,
        Kind.CARD: kinds.CARD_CODEC.decode,
        Kind.SERVE: kinds.SERVING_CODEC.decode,
        Kind.RECORD: RECORD_CODEC.decode,
        Kind.SNAPSHOT: kinds.SNAPSHOT_CODEC.decode,
        Kind.CANDIDATES: kinds.CANDIDATES_CODEC.decode,
        Kind.OPEN_JOB: JOB_CODEC.decode,
        Kind.CLOSED_JOB: JOB_CODEC.decode,
        Kind.SETTLEMENT: SETTLEMENT_CODEC.decode,
        Kind.NAME: kinds.NAMED_CODEC.decode,
        Kind.UNBONDING: kinds.UNBONDING_CODEC.decode,
        Kind.MILESTONES: kinds.MILESTONES_CODEC.decode,
        Kind.CONVICTION: kinds.CONVICTION_CODEC.decode,
        Kind.VALIDATORS: kinds.VALIDATORS_CODEC.decode,
        Kind.ATTENDANCE: kinds.ATTENDANCE_CODEC.decode,
    }
)
"""What reads the values under the keys of each kind."""


def ledger_from_snapshot(genesis: Genesis, entries: Sequence[tuple[bytes, bytes]], header: Header) -> Ledger:
    """The ledger after this header's block, if these are all its entries.

    Raises: InvalidMessage(MALFORMED | NOT_CANONICAL | BAD_ROOT | BAD_HEIGHT).
    """
    what = f"snapshot of height {header.height}"
    if not all(left[0] < right[0] for left, right in pairwise(entries)):
        raise InvalidMessage(Rejection.MALFORMED, f"{what}: expected keys that ascend")
    root = compute_root(entries)
    if root != header.state_root:
        raise InvalidMessage(
            Rejection.BAD_ROOT, f"{what}: expected the state root {header.state_root.hex()[:12]}, got {root.hex()[:12]}"
        )
    state = dict(entries)
    _check_values(entries, what)
    if CHAIN_KEY not in state:
        raise InvalidMessage(Rejection.MALFORMED, f"{what}: it has no chain entry")
    chain = CHAIN_CODEC.decode(state[CHAIN_KEY])
    if (chain.height, chain.view) != (header.height, header.view):
        raise InvalidMessage(
            Rejection.BAD_HEIGHT, f"{what}: its chain entry is of height {chain.height} and view {chain.view}"
        )
    ledger = assemble_ledger(genesis, state)
    held = sum(ledger.worth.values())
    if held != chain.minted:
        raise InvalidMessage(
            Rejection.BAD_ROOT, f"{what}: its entries hold {held} micro-units, but {chain.minted} were minted"
        )
    return ledger


def _check_values(entries: Sequence[tuple[bytes, bytes]], what: str) -> None:
    """Whether every entry is of a kind that there is, and says what that kind does: later readers take it for granted."""
    for key, value in entries:
        decode = ENTRY_DECODERS.get(key[0])
        if decode is None:
            raise InvalidMessage(Rejection.MALFORMED, f"{what}: there are no entries of kind {key[0]}")
        decode(value)
