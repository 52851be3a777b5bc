"""Randomness that nobody chooses: hash onions, the beacon they feed, and when it is ripe for a job.

Each validator commits to a chain of hashes by its tip; its s-th slot as leader reveals the s-th layer from the outside, so that it
can say one thing only or nothing. Source: rules B1-B5.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from protocol.crypto import HashDomain, compute_hash
from protocol.units import ChainId, Epoch, Hash, NodeId, View
from protocol.validators import ValidatorSet, compute_leader

ONION_LENGTH: Final = (
    2**20
)  # slots; about 0.6 s to build; at one slot in five and 50 ms a block, three days of full speed
CHECKPOINT_SPACING: Final = 1024  # 32 KiB of checkpoints for the full length, and at most this many hashes a reveal

_ONION: Final = bytes((HashDomain.ONION,))


def compute_onion_layer(inner: Hash, count: int) -> Hash:
    """The hash `count` layers outside an inner one: H(ONION, .) applied that often."""
    layer = inner
    for _ in range(count):
        layer = sha256(_ONION + layer).digest()
    return layer


class Onion:
    """A validator's own onion, with checkpoints so that any layer costs few hashes.

    The core is H(SEED, "onion", secret), so the secret itself is never revealed.
    Shapes: layer 0 is the core, layer `length` the tip; slot s (from 1) reveals layer `length - s`.
    """

    __slots__ = ("_checkpoints", "_spacing", "length", "tip")

    def __init__(self, secret: bytes, length: int = ONION_LENGTH, spacing: int = CHECKPOINT_SPACING) -> None:
        assert length >= 1 and spacing >= 1, (length, spacing)
        self._spacing = spacing
        self._checkpoints = [compute_hash(HashDomain.SEED, b"onion", secret)]
        for _ in range(length // spacing):
            self._checkpoints.append(compute_onion_layer(self._checkpoints[-1], spacing))
        self.length: Final = length
        self.tip: Final[Hash] = self._get_layer(length)

    def has_slot(self, slot: int) -> bool:
        """Whether a preimage is left for this slot; without one a leader cannot propose."""
        return 1 <= slot <= self.length

    def reveal(self, slot: int) -> Hash:
        """What a leader's block reveals in its slot-th slot."""
        assert self.has_slot(slot), (slot, self.length)
        return self._get_layer(self.length - slot)

    def _get_layer(self, index: int) -> Hash:
        return compute_onion_layer(self._checkpoints[index // self._spacing], index % self._spacing)


def is_reveal_valid(tip: Hash, reveal: Hash, gap: int, max_gap: int) -> bool:
    """Whether a reveal lies exactly `gap` layers inside the stored tip, one for each slot since."""
    return 1 <= gap <= max_gap and compute_onion_layer(reveal, gap) == tip  # B2


def compute_beacon(previous: Hash, reveal: Hash) -> Hash:
    """R_h from R_(h-1) and the reveal of block h."""
    return compute_hash(HashDomain.BEACON, previous, reveal)  # B3


def compute_slots(
    validators: ValidatorSet,
    chain: ChainId,
    epoch: Epoch,
    seed: Hash,
    leader_index: int,
    view_from_exclusive: View,
    view_to_inclusive: View,
) -> int:
    """How many of these views have this validator as leader: skipped views use their layer up too."""
    views = range(view_from_exclusive + 1, view_to_inclusive + 1)
    return sum(compute_leader(validators, chain, epoch, seed, view) == leader_index for view in views)  # B1


def is_mature(validators: ValidatorSet, leaders: Sequence[NodeId], max_blocks: int) -> bool:
    """Whether the beacon after these blocks, led by these nodes since the job's height, serves for its draw.

    Ripe once the *distinct* leaders weigh more than a third, so that one of them is honest, or after `max_blocks` blocks. Leaders
    of the epoch before weigh what the newest block's set gives them: nothing where they have left it.
    """
    if not leaders:
        return False
    if len(leaders) >= max_blocks:  # B5
        return True
    distinct = set(leaders)
    weight = sum(member.weight for member in validators.members if member.node in distinct)
    return 3 * weight > validators.total_weight  # B4
