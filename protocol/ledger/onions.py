"""The validators' hash onions in the state (rules L4, B6, B7): each block moves the slots, a renewal waits its time.

An onion's entry stays for ever, as an account does: its count of renewals keeps a node that left and came back from revealing a
layer that everybody knows.
"""

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.accounts import get_account
from protocol.ledger.draft import Draft
from protocol.ledger.entries import ONION_CODEC, Kind, NextOnion, Onion, onion_key
from protocol.params import Params
from protocol.transactions import RenewOnion
from protocol.units import ZERO_HASH, Hash, Height, NodeId

_NONE_YET: Final = Onion(ZERO_HASH, 0, 0, 0, None)


@dataclass(frozen=True, slots=True)
class Slots:
    """What a block used up: its proposer's reveal, and how many slots everybody had since the parent's view."""

    proposer: NodeId
    reveal: Hash
    counts: tuple[tuple[NodeId, int], ...]


def check_renewal(draft: Draft, body: RenewOnion) -> None:
    """Accept the next tip of a node that may vote and has none waiting (B6). Raises: InvalidTransaction."""
    bonded, least = get_account(draft, body.sender).bonded, draft.base.constants.params.min_bond
    if bonded < least:
        raise InvalidTransaction(
            Rejection.NOT_BONDED,
            f"a hash onion is for who may vote, with a bond of {least} micro-units, and {body.sender.hex()[:12]} has {bonded}: bond first",
        )
    onion = draft.get(onion_key(body.sender), ONION_CODEC) or _NONE_YET
    expected = onion.renewals + 1
    if body.renewal < expected or (body.renewal == expected and onion.next is not None):
        raise InvalidTransaction(
            Rejection.DUPLICATE, f"renewal {body.renewal} of {body.sender.hex()[:12]}'s onion is registered already"
        )
    if body.renewal > expected:
        raise InvalidTransaction(
            Rejection.TOO_EARLY,
            f"the next renewal of {body.sender.hex()[:12]}'s onion is number {expected}, got {body.renewal}: wait until the one before it is in force",
        )


def register_renewal(draft: Draft, body: RenewOnion, height: Height) -> None:
    """Let the tip wait for its turn; a newcomer's first is its renewal 1."""
    params = draft.base.constants.params
    onion = draft.get(onion_key(body.sender), ONION_CODEC) or _NONE_YET
    draft.put(onion_key(body.sender), replace(onion, next=NextOnion(body.tip, compute_renewal_height(params, height))))


def compute_renewal_height(params: Params, height: Height) -> Height:
    """After which height a tip registered at this one is in force: in the epoch after the next.

    So a whole epoch of other leaders' reveals, which nobody knew, lies between the choice of a tip and its first use.
    """
    return (-(-height // params.epoch_heights) + 1) * params.epoch_heights


def is_onion_ready(draft: Draft, node: NodeId, height: Height) -> bool:
    """Whether a node has an onion that is in force after this height."""
    onion = draft.get(onion_key(node), ONION_CODEC)
    if onion is None:
        return False
    return onion.tip != ZERO_HASH or (onion.next is not None and onion.next.height <= height)


def list_onion_nodes(draft: Draft) -> list[NodeId]:
    """Who has ever registered an onion, ascending."""
    return [key[1:] for key in draft.list_keys(bytes((Kind.ONION,)))]


def move_onions(draft: Draft, slots: Slots, height: Height) -> None:
    """L4: every view since the parent's used up one slot of its leader; the proposer's reveal is its new tip."""
    for node, count in slots.counts:
        onion = _get(draft, node)
        moved = replace(onion, slots=onion.slots + count)
        if node == slots.proposer:
            moved = replace(moved, tip=slots.reveal, tip_slot=moved.slots)
        draft.put(onion_key(node), moved)
    if height % draft.base.constants.params.epoch_heights == 0:
        for node in list_onion_nodes(draft):
            _renew(draft, node, height)


def _renew(draft: Draft, node: NodeId, height: Height) -> None:
    onion = _get(draft, node)
    if onion.next is not None and onion.next.height <= height:  # B7
        draft.put(onion_key(node), Onion(onion.next.tip, 0, 0, onion.renewals + 1, None))


def _get(draft: Draft, node: NodeId) -> Onion:
    onion = draft.get(onion_key(node), ONION_CODEC)
    assert onion is not None, node.hex()
    return onion
