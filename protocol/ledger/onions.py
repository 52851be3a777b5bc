"""The validators' hash onions in the state (rules L4, B6, B7): each block moves the slots, a renewal waits its time."""

from dataclasses import dataclass

from msgspec.structs import replace

from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.draft import Draft
from protocol.ledger.entries import ONION_CODEC, NextOnion, Onion, onion_key
from protocol.params import Params
from protocol.transactions import RenewOnion
from protocol.units import Hash, Height, NodeId
from protocol.validators import index_of


@dataclass(frozen=True, slots=True)
class Slots:
    """What a block used up: its proposer's reveal, and how many slots everybody had since the parent's view."""

    proposer: int
    reveal: Hash
    counts: tuple[tuple[int, int], ...]  # (validator index, slots)


def check_renewal(draft: Draft, body: RenewOnion) -> None:
    """Accept the next tip of a validator that has none waiting (B6). Raises: InvalidTransaction."""
    if index_of(draft.base.constants.validators, body.sender) is None:
        raise InvalidTransaction(
            Rejection.UNKNOWN_SIGNER, f"{body.sender.hex()[:12]} is no validator: only validators have a hash onion"
        )
    onion = _get(draft, body.sender)
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
    """Let the tip wait for its turn."""
    params = draft.base.constants.params
    onion = _get(draft, body.sender)
    draft.put(onion_key(body.sender), replace(onion, next=NextOnion(body.tip, compute_renewal_height(params, height))))


def compute_renewal_height(params: Params, height: Height) -> Height:
    """After which height a tip registered at this one is in force: in the snapshot period after the next.

    So a whole period of other leaders' reveals, which nobody knew, lies between the choice of a tip and its first use.
    """
    return (-(-height // params.epoch_heights) + 1) * params.epoch_heights


def move_onions(draft: Draft, slots: Slots, height: Height) -> None:
    """L4: every view since the parent's used up one slot of its leader; the proposer's reveal is its new tip."""
    members = draft.base.constants.validators.members
    for index, count in slots.counts:
        node = members[index].node
        onion = _get(draft, node)
        moved = replace(onion, slots=onion.slots + count)
        if index == slots.proposer:
            moved = replace(moved, tip=slots.reveal, tip_slot=moved.slots)
        draft.put(onion_key(node), moved)
    if height % draft.base.constants.params.epoch_heights == 0:
        for member in members:
            _renew(draft, member.node, height)


def _renew(draft: Draft, node: NodeId, height: Height) -> None:
    onion = _get(draft, node)
    if onion.next is not None and onion.next.height <= height:  # B7
        draft.put(onion_key(node), Onion(onion.next.tip, 0, 0, onion.renewals + 1, None))


def _get(draft: Draft, node: NodeId) -> Onion:
    onion = draft.get(onion_key(node), ONION_CODEC)
    assert onion is not None, node.hex()
    return onion
