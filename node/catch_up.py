"""Catching up with a verified FinalCert: ranges from one peer after the other, verified, executed and stored as they come.

A claimed height is a hint; the target is a certificate that ordering has verified. A range ends in a block with its own FinalCert,
so one quorum's signatures cover all of it. What is wrong is charged to the peer that sent it, and another peer is asked next.
"""

from collections.abc import Sequence
from typing import Final

from node.chain import Chain, FinalizedBlock
from node.errands import Errands
from node.events import FetchFailed, RangeFetched
from node.network import Network
from node.ordering import Ordering
from node.telemetry import Level, Telemetry
from node.wire import BlockRange
from protocol.block import Block, Header, compute_header_hash
from protocol.errors import InvalidBlock, InvalidMessage, Rejection
from protocol.ordering import events
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.ordering.state import Context
from protocol.ordering.votes import check_quorum_cert
from protocol.units import Hash, NodeId


class CatchUp:
    """At most one catch-up under way; owned by the engine."""

    def __init__(
        self, chain: Chain, ordering: Ordering, errands: Errands, network: Network, telemetry: Telemetry
    ) -> None:
        self._chain: Final = chain
        self._ordering: Final = ordering
        self._errands: Final = errands
        self._network: Final = network
        self._telemetry: Final = telemetry
        self._asked: NodeId | None = None
        self._failed: set[NodeId] = set()
        self._finalized: list[FinalizedBlock] = []
        self.target: QuorumCert | None = None

    @property
    def is_running(self) -> bool:
        """Whether blocks are missing that are known to be final."""
        return self.target is not None

    def start(self, target: QuorumCert) -> None:
        """Go for this certificate's block; a later target replaces an earlier one."""
        if self.target is None:
            self._telemetry.emit(
                Level.INFO, "catch_up_started", height=self._chain.final.header.height, target_view=target.view
            )
        self.target = target
        self._ask()

    def retry(self) -> None:
        """Ask again where nobody could be asked; all who failed get another chance."""
        if self.target is not None and self._asked is None:
            self._failed.clear()
            self._ask()

    def take(self, event: RangeFetched | FetchFailed) -> None:
        """Work through an answer and ask for what is still missing."""
        self._asked = None
        if self.target is None:
            return
        if isinstance(event, FetchFailed):
            self._failed.add(event.peer)
        elif self._apply(event.peer, event.range):
            self._failed.discard(event.peer)
        else:
            self._failed.add(event.peer)
        self._ask()

    def take_finalized(self) -> tuple[FinalizedBlock, ...]:
        """The blocks that became final by catching up since the last call."""
        finalized, self._finalized = tuple(self._finalized), []
        return finalized

    def _ask(self) -> None:
        if self.target is None or self._asked is not None:
            return
        peer = next((peer for peer in sorted(self._network.connected()) if peer not in self._failed), None)
        if peer is not None:
            self._asked = peer
            self._errands.fetch_range(self._chain.final.header.height + 1, peer)

    def _apply(self, peer: NodeId, answer: BlockRange) -> bool:
        """Whether the range was good. What was final before it stays final, whatever the rest of the range is worth."""
        final = self._chain.final
        try:
            linked, cert = check_range(answer, self._ordering.state.context, final.header, final.hash)
            for block, block_hash in linked:
                if self._chain.get_executed(block_hash) is None:
                    self._chain.check(block, frozenset[bytes]())
        except (InvalidMessage, InvalidBlock) as error:
            self._errands.charge(peer, error.reason.value, str(error))
            return False
        hashes = [block_hash for _, block_hash in linked]
        self._finalized.extend(self._chain.finalize(hashes, cert, self._ordering.wal_position))
        self._chain.store()
        if self.target is not None and self._chain.final.header.view >= self.target.view:
            self._finish(cert)
        return True

    def _finish(self, cert: QuorumCert) -> None:
        final = self._chain.final
        self._telemetry.emit(Level.INFO, "catch_up_done", height=final.header.height, view=final.header.view)
        self.target = None
        self._failed.clear()
        self._ordering.feed(events.Synced(self._ordering.now_ms(), cert, final.header))


def check_range(
    answer: BlockRange, context: Context, final: Header, final_hash: Hash
) -> tuple[Sequence[tuple[Block, Hash]], QuorumCert]:
    """The blocks of a range with their hashes, linked to the finalized tip, and the certificate that makes the last one final.

    Raises: InvalidMessage(OUT_OF_RANGE | BAD_HEIGHT | BAD_PARENT | NO_QUORUM | BAD_SIGNATURE | …).
    """
    cert = answer.final_cert
    if not answer.blocks or cert is None:
        raise InvalidMessage(
            Rejection.OUT_OF_RANGE, f"blocks from height {final.height + 1}: expected some with a FinalCert, got none"
        )
    linked: list[tuple[Block, Hash]] = []
    parent_hash = final_hash
    for height, block in enumerate(answer.blocks, final.height + 1):
        if block.header.height != height:
            raise InvalidMessage(
                Rejection.BAD_HEIGHT, f"block range: expected height {height}, got {block.header.height}"
            )
        if block.header.parent_hash != parent_hash:
            raise InvalidMessage(
                Rejection.BAD_PARENT, f"block range: height {height} does not extend {parent_hash.hex()[:12]}"
            )
        parent_hash = compute_header_hash(block.header)
        linked.append((block, parent_hash))
    if cert.kind is not VoteKind.FINAL or cert.block_hash != parent_hash:
        raise InvalidMessage(
            Rejection.NO_QUORUM, f"block range: expected a FinalCert of {parent_hash.hex()[:12]} at its end"
        )
    check_quorum_cert(cert, context.chain, context.epoch, context.validators, context.verify)
    return linked, cert
