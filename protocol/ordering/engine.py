"""The boundary between ordering and what is ordered: an engine decides which block comes next, an app knows what a block means.

Both are exchangeable. The node gives events to the engine, performs its effects, and turns those about blocks into calls of the app
(ABCI's PrepareProposal, ProcessProposal, FinalizeBlock; see the specification's chapter "Ordering").
"""

from typing import ClassVar, Final, Protocol

from protocol.block import Block
from protocol.ordering.context import Context
from protocol.ordering.effects import BuildBlock, Effect
from protocol.ordering.events import Event
from protocol.ordering.messages import QuorumCert
from protocol.ordering.simplex import step
from protocol.ordering.state import SimplexState
from protocol.units import Hash, Milliseconds


class App(Protocol):
    """What an engine's effects ask of the application. It executes blocks side by side until one of them becomes final."""

    def build(self, request: BuildBlock, context: Context, now_ms: Milliseconds) -> Block | None:
        """PrepareProposal: an executed block on the request's parent, or None where this node cannot lead the view."""
        ...

    def check(self, block: Block) -> bool:
        """ProcessProposal and execution, on a parent that is executed: a function of the block and its parent's state alone."""
        ...

    def finalize(self, block_hashes: tuple[Hash, ...], cert: QuorumCert) -> None:
        """FinalizeBlock: these executed blocks are the ledger's next, for ever."""
        ...

    def start_epoch(self, cert: QuorumCert) -> Context:
        """Who votes on the blocks behind the boundary that this certificate made final."""
        ...


class Engine(Protocol):
    """A pure machine: what happened in, what is to be done out."""

    name: ClassVar[str]  # what the configuration calls it

    def step(self, state: SimplexState, event: Event) -> tuple[SimplexState, tuple[Effect, ...]]:
        """The state after an event, and what is to be done, in order."""
        ...


class Simplex:
    """Many validators, fewer than a third of the weight Byzantine: S-Simplex."""

    name: ClassVar[str] = "simplex"

    def step(self, state: SimplexState, event: Event) -> tuple[SimplexState, tuple[Effect, ...]]:
        """See Engine."""
        return step(state, event)


SIMPLEX: Final[Engine] = Simplex()
