"""A validator's own hash onions: which one it reveals on a state, and when the next must be registered (rules B1, B6, B7).

All are derived from the node's key and counted by their renewals, so nothing about them is stored. Making one takes a third of a
second of the engine's time, once in the hundreds of thousands of slots that it lasts.
"""

from collections.abc import Callable
from typing import Final

from protocol.jobs.beacon import Onion, is_reveal_valid
from protocol.ledger.draft import Ledger
from protocol.ledger.epochs import find_validators, get_epoch
from protocol.ledger.queries import get_onion
from protocol.units import ZERO_HASH, Hash, Height, NodeId
from protocol.validators import index_of


class Onions:
    """The onions of one node; owned by the engine. Without a `load` (an observer) there are none."""

    def __init__(self, node: NodeId, load: Callable[[int], Onion] | None) -> None:
        self._node: Final = node
        self._load: Final = load
        self._made: dict[int, Onion] = {}
        self._asked_height: Height = -1  # of the snapshot in force when a renewal was last due

    def start(self, ledger: Ledger) -> None:
        """Make the onion in force on this state, before anything waits for it."""
        stored = get_onion(ledger, self._node)
        if stored is not None:
            self._get(stored.renewals if stored.tip != ZERO_HASH else stored.renewals + 1)

    def reveal(self, ledger: Ledger, gap: int) -> Hash | None:
        """The layer `gap` slots after this node's last on this state; None where it has none that others would accept."""
        stored = get_onion(ledger, self._node)
        onion = None if stored is None else self._get(stored.renewals)
        if stored is None or onion is None or not onion.has_slot(stored.tip_slot + gap):
            return None
        reveal = onion.reveal(stored.tip_slot + gap)
        return reveal if is_reveal_valid(stored.tip, reveal, gap, ledger.constants.params.onion_max_gap) else None

    def find_renewal(self, final: Ledger) -> tuple[Hash, int] | None:
        """(the next tip, which renewal it is) where half of the onion in force is used up; said once in a snapshot period."""
        stored = get_onion(final, self._node)
        if stored is None or not self._is_needed(final):
            return None
        self.start(final)  # a newcomer's is made long before its first turn
        onion = self._get(stored.renewals) if stored.tip != ZERO_HASH else None
        if onion is None or stored.next is not None or 2 * stored.slots < onion.length:
            return None
        if self._asked_height == final.chain.snapshot_height:
            return None
        self._asked_height = final.chain.snapshot_height
        renewal = stored.renewals + 1
        following = self._get(renewal)
        return None if following is None else (following.tip, renewal)

    def _is_needed(self, final: Ledger) -> bool:
        """Whether this node votes, or will in the next epoch; who left needs no onion until it comes back."""
        epoch = get_epoch(final)
        sets = (find_validators(final, each) for each in (epoch, epoch + 1))
        return any(validators is not None and index_of(validators, self._node) is not None for validators in sets)

    def _get(self, renewals: int) -> Onion | None:
        if self._load is None:
            return None
        if renewals not in self._made:
            # The one in force and the next: a block of another branch may still be built on the one before.
            self._made = {number: onion for number, onion in self._made.items() if abs(number - renewals) == 1}
            self._made[renewals] = self._load(renewals)
        return self._made[renewals]
