"""What stays the same for a whole epoch, and the block that it starts on."""

from dataclasses import dataclass

from protocol.ordering.messages import QuorumCert
from protocol.ordering.signatures import Signer
from protocol.params import Params
from protocol.units import ChainId, Epoch, Hash, Height, Milliseconds, NodeId, View
from protocol.validators import ValidatorSet
from protocol.voting import Verify


@dataclass(frozen=True, slots=True)
class Tip:
    """The last finalized block, or the genesis with view 0."""

    view: View
    height: Height
    block_hash: Hash
    time_ms: Milliseconds


@dataclass(frozen=True, slots=True)
class Context:
    """One epoch as one node sees it. `own` is this node's index in the table, None for an observer, which follows but never
    signs; `signer` is present exactly where `own` is."""

    chain: ChainId
    epoch: Epoch
    seed: Hash  # of the leader schedule
    validators: ValidatorSet
    own: int | None
    params: Params
    signer: Signer | None
    verify: Verify
    start: Tip  # the final block that the epoch starts on: the genesis, or the boundary of the epoch before
    start_cert: QuorumCert | None  # the FinalCert of the start, by the epoch before; None for the genesis
    boundary: Height  # its last height
    floor: View = 0  # nothing up to this view is signed: it may have been, and be forgotten

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """Every other validator."""
        return tuple(member.node for index, member in enumerate(self.validators.members) if index != self.own)
