"""Catching up with a verified FinalCert: ranges from one peer after the other, verified, executed and stored as they come.

A claimed height is a hint; the target is a certificate that ordering has verified. A range ends in a block with its own FinalCert, or
is tied to one by headers, so one quorum's signatures cover all of it. What is wrong is charged to the peer that sent it. Peers take
turns, validators first, so that one that is silent or slow costs its share and no more. Where blocks are too many, or gone, the chain
is joined from a snapshot first (join.py).

No certificate of a later epoch can be verified before this one's boundary is final. So a range ends there at the latest, ordering is told at
every boundary, and then the next range is asked for without a target, of peers that claim to be further; so it is where nothing
becomes final here while peers say that they are in a later epoch. A claim that is not true costs a request to who made it.
"""

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Final

from node.chain import Chain, FinalizedBlock
from node.errands import Errands
from node.events import FetchFailed, RangeFetched, SnapshotFetched, SnapshotMissing
from node.join import Join
from node.network import Network
from node.ordering import Ordering
from node.proofs import check_range
from node.telemetry import Level, Telemetry
from node.wire import BlockRange, Manifest, Status
from protocol.errors import InvalidBlock, InvalidMessage
from protocol.ordering import events
from protocol.ordering.messages import QuorumCert
from protocol.units import Height, Milliseconds, NodeId

MOST_ASKED: Final = 3  # the one whose turn it is, and who is asked beside it where it is slow


class CatchUp:
    """At most one catch-up under way; owned by the engine."""

    def __init__(
        self,
        chain: Chain,
        ordering: Ordering,
        errands: Errands,
        network: Network,
        telemetry: Telemetry,
        join: Join,
    ) -> None:
        self._chain: Final = chain
        self._ordering: Final = ordering
        self._errands: Final = errands
        self._network: Final = network
        self._telemetry: Final = telemetry
        self._join: Final = join
        self._asked: tuple[NodeId, ...] = ()
        self._tried: set[NodeId] = set()  # in this round
        self._failed: set[NodeId] = set()
        self._lacking: set[NodeId] = set()  # joined too late to have the next block
        self._finalized: list[FinalizedBlock] = []
        self._statuses: Mapping[NodeId, tuple[Milliseconds, Status]] = {}
        self._stuck_height: Height | None = None
        self._is_hinted = False
        self.target: QuorumCert | None = None

    @property
    def is_running(self) -> bool:
        """Whether blocks are missing that are known, or said by many, to be final."""
        return self.target is not None or self._is_hinted

    def start(self, target: QuorumCert) -> None:
        """Go for this certificate's block; a later target replaces an earlier one."""
        if self.target is None:
            self._telemetry.emit(
                Level.INFO, "catch_up_started", height=self._chain.final.header.height, target_view=target.view
            )
        self.target = target
        self._ask()

    def watch(self, statuses: Mapping[NodeId, tuple[Milliseconds, Status]]) -> None:
        """Look here for what peers say of themselves."""
        self._statuses = statuses

    def look_ahead(self) -> None:
        """Once a second: where nothing became final for one, and peers say that they are in a later epoch, see what they have."""
        height = self._chain.final.header.height
        if not self.is_running and self._stuck_height == height:
            self._follow_claims()
        self._stuck_height = height

    def retry(self) -> None:
        """Ask again where nobody could be asked; all who failed get another chance."""
        if self.is_running and not self._asked and not self._join.is_running:
            self._failed.clear()
            self._lacking.clear()
            self._join.retry()
            self._ask()

    def take(self, event: RangeFetched | FetchFailed | SnapshotFetched | SnapshotMissing) -> None:
        """Work through an answer and ask for what is still missing."""
        if isinstance(event, SnapshotFetched | SnapshotMissing):
            self._take_snapshot(event)
            return
        asked, self._asked = self._asked, ()
        if not self.is_running:
            return
        if isinstance(event, FetchFailed):
            self._failed.update(event.peers)
        else:
            self._failed.update(asked[: asked.index(event.peer)])  # who had nothing, or was too slow to wait for
            if not self._apply(event.peer, event.range):
                self._failed.add(event.peer)
        self._ask()

    def take_finalized(self) -> tuple[FinalizedBlock, ...]:
        """The blocks that became final by catching up since the last call."""
        finalized, self._finalized = tuple(self._finalized), []
        return finalized

    def _follow_claims(self) -> None:
        """Ask for what lies behind the final block, if anybody claims to have it."""
        self._is_hinted = bool(self._list_claimants())
        self._ask()

    def _list_claimants(self) -> frozenset[NodeId]:
        """Who says to be in a later epoch than this node."""
        epoch = self._ordering.state.context.epoch
        return frozenset(peer for peer, (_, status) in self._statuses.items() if status.epoch > epoch)

    def _ask(self) -> None:
        if not self.is_running or self._asked or self._join.is_running:
            return
        height = self._chain.final.header.height
        if self._join.is_due(height, is_stranded=False):
            self._join.start(height, is_stranded=False)
            return
        peers = tuple(islice(self._list_next(), MOST_ASKED))
        if not peers and self._tried:
            self._tried.clear()
            peers = tuple(islice(self._list_next(), MOST_ASKED))
        if peers:
            self._asked = peers
            self._tried.add(peers[0])
            self._errands.fetch_range(height + 1, peers)
        elif self._lacking and self._join.is_due(height, is_stranded=True):
            self._join.start(height, is_stranded=True)
        elif self.target is None:
            self._is_hinted = False  # whoever claimed to have more gave nothing; the next second they may claim again
            self._failed.clear()

    def _list_next(self) -> Iterator[NodeId]:
        """Who may be asked now: validators before strangers, nobody twice before everybody had its turn."""
        connected = self._network.connected()
        if self.target is None:
            connected &= self._list_claimants()
        validators = [peer for peer in self._ordering.state.context.peers if peer in connected]
        able = [peer for peer in validators if peer not in self._failed]
        strangers = () if able else sorted(connected.difference(validators))
        for peer in chain(able, strangers):
            if not (peer in self._tried or peer in self._failed or self._errands.offences.is_muted(peer)):
                yield peer

    def _apply(self, peer: NodeId, answer: BlockRange) -> bool:
        """Whether the range was good. What was final before it stays final, whatever the rest of the range is worth."""
        if not answer.blocks and answer.final_cert is None:
            if answer.base_height > self._chain.final.header.height + 1:
                self._lacking.add(peer)
            return False  # it has nothing for us: no fault of its own
        final = self._chain.final
        try:
            linked, cert = check_range(answer, self._ordering.state.context, final.header, final.hash)
        except InvalidMessage as error:
            self._errands.charge(peer, error.reason.value, str(error))
            return False
        try:
            for block, block_hash in linked:
                if self._chain.get_executed(block_hash) is None:
                    self._chain.check(block, frozenset[bytes]())
        except InvalidBlock as error:
            self._halt(error)
            return False
        if self.target is None:
            self.target = cert
        hashes = [block_hash for _, block_hash in linked]
        self._finalized.extend(self._chain.finalize(hashes, cert, self._ordering.wal_position))
        self._chain.store()
        self._finish_at_target(cert)
        return True

    def _take_snapshot(self, event: SnapshotFetched | SnapshotMissing) -> None:
        if isinstance(event, SnapshotFetched) and self.is_running:
            self._adopt(event.manifest)
        self._ask()

    def _adopt(self, manifest: Manifest) -> None:
        """Begin with the snapshot that this manifest proves; the blocks above it follow as ranges."""
        block, cert = manifest.block, manifest.final_cert
        assert block is not None and cert is not None, manifest
        try:
            ledger = self._join.load(block)
        except (
            InvalidMessage
        ) as error:  # every chunk was proven when it came: a disk that forgets, or a quorum that lies
            self._telemetry.emit(Level.ERROR, "snapshot_unusable", height=block.header.height, text=str(error))
            self._join.give_up()
            return
        self._finalized.append(self._chain.adopt(block, ledger, cert, self._ordering.wal_position))
        self._telemetry.emit(
            Level.INFO,
            "snapshot_joined",
            height=block.header.height,
            epoch=block.header.epoch,
            entries=len(ledger.entries),
        )
        self._ordering.restart(cert)
        self._finish()

    def _halt(self, error: InvalidBlock) -> None:
        """A quorum made final what this node's ledger refuses: no peer's fault, and nothing here may go on."""
        self._ordering.halted = f"a quorum made a block final that this node's application refuses: {error}"
        self._telemetry.emit(Level.ERROR, "ordering_halted", text=self._ordering.halted)
        self.target, self._is_hinted = None, False

    def _finish_at_target(self, cert: QuorumCert) -> None:
        final, target = self._chain.final, self.target
        assert target is not None
        own = next((known for known in (cert, target) if known.block_hash == final.hash), None)
        is_boundary = final.header.height == self._ordering.state.context.boundary
        if own is None or (final.header.view < target.view and not is_boundary):
            return  # more is missing, or the range ended between two certified blocks
        self._telemetry.emit(Level.INFO, "catch_up_done", height=final.header.height, view=final.header.view)
        self._ordering.feed(events.Synced(self._ordering.now_ms(), own, final.header))
        self._finish()

    def _finish(self) -> None:
        """The target is reached; behind a boundary, or a snapshot, there may be more, and who failed on the way is not asked again for it."""
        self.target = None
        self._lacking.clear()
        self._follow_claims()
        if not self.is_running:
            self._failed.clear()
            self._tried.clear()
