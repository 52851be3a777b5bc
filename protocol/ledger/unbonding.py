"""Units on their way out of a bond (rules U1 to U4): at risk until both their time and their height have come."""

from typing import Final

from msgspec.structs import replace

from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.accounts import compute_free_bond, credit, get_account
from protocol.ledger.draft import Draft
from protocol.ledger.entries import UNBONDING_CODEC, Kind, Unbonding, account_key, unbonding_key
from protocol.transactions import Unbond
from protocol.units import Height, Micro, Milliseconds, NodeId

MAX_NODE_UNBONDINGS: Final = 16  # at a time: entries cost every node memory, whatever their amount


def check_unbond(draft: Draft, body: Unbond, height: Height) -> None:
    """Accept what leaves a bond that is still enough (U1). Raises: InvalidTransaction."""
    account = get_account(draft, body.sender)
    name = body.sender.hex()[:12]
    if body.amount > account.bonded:
        raise InvalidTransaction(
            Rejection.NOT_BONDED, f"{name} has bonded {account.bonded} micro-units, {body.amount} cannot be taken back"
        )
    if body.amount > compute_free_bond(account):
        raise InvalidTransaction(
            Rejection.BUSY,
            f"open jobs hold {account.locked} of the {account.bonded} micro-units that {name} has bonded: take back at most {compute_free_bond(account)}, or wait until they have settled",
        )
    _check_rest(draft, account.bonded - body.amount)
    key = unbonding_key(height + draft.base.constants.params.unbonding_heights, body.sender)
    waiting = len(list_unbonding_keys(draft, body.sender))
    if waiting >= MAX_NODE_UNBONDINGS and not draft.has(key):
        raise InvalidTransaction(
            Rejection.BUSY, f"{waiting} amounts of {name} are on their way out already: wait until one has arrived"
        )


def _check_rest(draft: Draft, rest: Micro) -> None:
    least = draft.base.constants.params.min_bond
    if 0 < rest < least:
        raise InvalidTransaction(
            Rejection.NOT_BONDED,
            f"{rest} micro-units would stay bonded, the least bond is {least}: take back less, or everything",
        )


def start_unbonding(draft: Draft, body: Unbond, height: Height, time_ms: Milliseconds) -> None:
    """Move from the free bond to what waits (U2)."""
    params, account = draft.base.constants.params, get_account(draft, body.sender)
    assert compute_free_bond(account) >= body.amount, (account, body.amount)
    draft.put(account_key(body.sender), replace(account, bonded=account.bonded - body.amount))
    key = unbonding_key(height + params.unbonding_heights, body.sender)
    waiting = draft.get(key, UNBONDING_CODEC)
    amount = body.amount if waiting is None else waiting.amount + body.amount
    draft.put(key, Unbonding(amount, time_ms + params.unbonding_ms))


def release_unbonded(draft: Draft, height: Height, time_ms: Milliseconds) -> None:
    """Pay out what has waited long enough, by time and by height (U3)."""
    for key in draft.list_keys(bytes((Kind.UNBONDING,))):
        if int.from_bytes(key[1:9], "big") > height:
            return
        waiting = _get(draft, key)
        if waiting.release_ms <= time_ms:
            draft.remove(key)
            credit(draft, key[9:], waiting.amount)


def list_unbonding_keys(draft: Draft, node: NodeId) -> list[bytes]:
    """Where a node's units wait, the first to be released first."""
    return [key for key in draft.list_keys(bytes((Kind.UNBONDING,))) if key[9:] == node]


def sum_unbonding(draft: Draft, node: NodeId) -> Micro:
    """All that waits for a node."""
    return sum(_get(draft, key).amount for key in list_unbonding_keys(draft, node))


def take_unbonding(draft: Draft, node: NodeId, amount: Micro) -> Micro:
    """Take out of what waits for a node, the first to be released first; what was found, at most the amount. The caller keeps the sum."""
    left = amount
    for key in list_unbonding_keys(draft, node):
        waiting = _get(draft, key)
        taken = min(left, waiting.amount)
        left -= taken
        if taken == waiting.amount:
            draft.remove(key)
        elif taken:
            draft.put(key, replace(waiting, amount=waiting.amount - taken))
    return amount - left


def _get(draft: Draft, key: bytes) -> Unbonding:
    waiting = draft.get(key, UNBONDING_CODEC)
    assert waiting is not None, key.hex()
    return waiting
