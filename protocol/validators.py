"""Who votes, with what weight, and whose turn it is. Shared by ordering and the ledger."""

from collections.abc import Iterable
from typing import Annotated, Final

from msgspec import Meta

from protocol.codec import Message, encode
from protocol.crypto import HashDomain, compute_hash, compute_stream
from protocol.units import ChainId, Epoch, Hash, NodeId, View

MAX_VALIDATORS: Final = 100  # votes go to everybody: 2 n^2 messages a block


class Validator(Message, frozen=True):
    """One voter: its key and its frozen weight (bonded stake at the snapshot)."""

    node: NodeId
    weight: Annotated[int, Meta(ge=1, le=2**53)]


class ValidatorSet(Message, frozen=True):
    """The frozen table of one epoch; a validator is named by its index in it."""

    members: Annotated[tuple[Validator, ...], Meta(min_length=1, max_length=MAX_VALIDATORS)]

    @property
    def total_weight(self) -> int:
        """The sum of all weights, W."""
        return sum(member.weight for member in self.members)


def compute_validator_set_hash(validators: ValidatorSet) -> Hash:
    """What a header carries as valset_hash."""
    return compute_hash(HashDomain.VALIDATOR_SET, encode(validators))


def compute_weight(validators: ValidatorSet, indexes: Iterable[int]) -> int:
    """The weight of a set of distinct validator indexes."""
    return sum(validators.members[index].weight for index in indexes)


def is_quorum(validators: ValidatorSet, indexes: Iterable[int]) -> bool:
    """Whether these distinct indexes weigh strictly more than two thirds: 3 w(S) > 2 W."""
    return 3 * compute_weight(validators, indexes) > 2 * validators.total_weight


def compute_leader(validators: ValidatorSet, chain: ChainId, epoch: Epoch, seed: Hash, view: View) -> int:
    """The index of the leader of a view: a draw proportional to weight from SHAKE256(chain, epoch, seed, view).

    128 bits taken modulo the total weight (below 2^60): the bias is under 2^-68, and every node computes the same.
    """
    stream = compute_stream(HashDomain.LEADER, 16, chain, epoch.to_bytes(8, "big"), seed, view.to_bytes(8, "big"))
    ticket = int.from_bytes(stream, "big") % validators.total_weight
    for index, member in enumerate(validators.members):
        if ticket < member.weight:
            return index
        ticket -= member.weight
    raise AssertionError((ticket, validators.total_weight))


def index_of(validators: ValidatorSet, node: NodeId) -> int | None:
    """The index of a node in the table, or None where it does not vote."""
    for index, member in enumerate(validators.members):
        if member.node == node:
            return index
    return None


def find_weight(validators: ValidatorSet, node: NodeId) -> int:
    """A node's weight in the table; 0 where it does not vote."""
    return sum(member.weight for member in validators.members if member.node == node)
