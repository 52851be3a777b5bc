"""A ledger from a stranger's snapshot (rule S3): nothing is believed but a header that a quorum made final."""

from collections.abc import Sequence
from itertools import pairwise

from protocol.block import Header
from protocol.errors import InvalidMessage, Rejection
from protocol.genesis import Genesis
from protocol.ledger.draft import Ledger, assemble_ledger
from protocol.ledger.entries import CHAIN_CODEC, CHAIN_KEY
from protocol.merkle import compute_root


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
