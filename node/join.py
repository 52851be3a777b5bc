"""Joining a chain from a snapshot of its state instead of from all of its blocks (rules S2 to S4).

The newest snapshot that any peer proves final is chosen: by the FinalCert of its block, an epoch's last one, and by the changes of the
validator set that lead from the genesis' to that epoch's. Its chunks are fetched one after the other and kept as they come, so that a
restart goes on where it was. Every chunk is proven alone, so whoever sent a wrong one is known at once and nobody else pays for it. A
peer that is silent is passed after a moment, and one that proves a snapshot of which it then gives nothing is asked for no other.
"""

from collections.abc import Callable, Collection, Sequence
from enum import Enum
from functools import partial
from typing import Final

import trio

from node.errands import PATIENCE_S, Errands
from node.events import NodeEvent, SnapshotFetched, SnapshotMissing
from node.network import FetchError, Network
from node.proofs import check_chunk, check_manifest
from node.storage import Storage
from node.telemetry import Level, Telemetry
from node.wire import (
    CHAIN_CODEC,
    MANIFEST_CODEC,
    SNAPSHOT_CHUNK_CODEC,
    FetchChain,
    FetchSnapshot,
    FetchSnapshotChunk,
    Manifest,
)
from protocol.block import Block
from protocol.codec import encode
from protocol.errors import InvalidMessage
from protocol.genesis import Genesis
from protocol.ledger.draft import Ledger
from protocol.ledger.foreign import ledger_from_snapshot
from protocol.trust import STEP_CODEC, Trust, trust_genesis, walk_steps
from protocol.units import Height, NodeId

AUTO_JOIN_BLOCKS: Final = 4_096  # some minutes of executing blocks; below that a newcomer rather has them all
MAX_ASKED: Final = 8  # peers at a time
MAX_ROUNDS: Final = 4  # snapshots tried before blocks are asked for instead
WHOLE_TIMEOUT_S: Final = 5.0
MAX_TRUST_BYTES: Final = 1024 * 1024 * 1024  # no limit: what is kept was proven
GATHERING_S: Final = 1.0  # a new node hears of the chain from its first peer, before the others are connected


class JoinMode(Enum):
    """When a node begins from a snapshot. One that every peer leaves without the next blocks does, unless it never does."""

    AUTO = "auto"  # an empty home, and a snapshot AUTO_JOIN_BLOCKS ahead
    ALWAYS = "always"  # an empty home
    NEVER = "never"


class Join:
    """At most one snapshot being fetched; owned by the engine's CatchUp, at work in a task of its own."""

    def __init__(
        self,
        mode: JoinMode,
        genesis: Genesis,
        storage: Storage,
        errands: Errands,
        network: Network,
        list_validators: Callable[[], Sequence[NodeId]],
        telemetry: Telemetry,
        nursery: trio.Nursery,
        events: trio.MemorySendChannel[NodeEvent],
    ) -> None:
        self._mode: Final = mode
        self._genesis: Final = genesis
        self._storage: Final = storage
        self._store: Final = storage.snapshots
        self._errands: Final = errands
        self._network: Final = network
        self._list_validators: Final = list_validators
        self._telemetry: Final = telemetry
        self._nursery: Final = nursery
        self._events: Final = events
        self._trust: Trust | None = None  # as far as changes of the validator set are here
        self._refused: set[NodeId] = set()  # proved a snapshot and gave nothing of it, or lied
        self._tried: set[bool] = set()  # stranded, or only new, since the last retry
        self.is_running = False

    def is_due(self, height: Height, *, is_stranded: bool) -> bool:
        """Whether a node at this height should ask for a snapshot. `is_stranded`: nobody has its next block any more."""
        if self.is_running or is_stranded in self._tried or self._mode is JoinMode.NEVER:
            return False
        return is_stranded or height == 0

    def retry(self) -> None:
        """What was tried in vain may be tried again."""
        self._tried.clear()

    def start(self, height: Height, *, is_stranded: bool) -> None:
        """Fetch a snapshot above this height; a SnapshotFetched or a SnapshotMissing follows."""
        is_far_only = not is_stranded and self._mode is JoinMode.AUTO and self._store.get_joining() is None
        self.is_running = True
        self._tried.add(is_stranded)
        least = height + (AUTO_JOIN_BLOCKS if is_far_only else 1)
        self._nursery.start_soon(self._run, least, 0 if is_stranded else GATHERING_S)

    def load(self, block: Block) -> Ledger:
        """The ledger of the fetched snapshot.

        Raises: InvalidMessage, DamagedStorage where the disk gives back something else than was written.
        """
        chunks = self._store.load_chunks(block.header.height)
        entries = [entry for encoded in chunks for entry in SNAPSHOT_CHUNK_CODEC.decode(encoded).entries]
        return ledger_from_snapshot(self._genesis, entries, block.header)

    def give_up(self) -> None:
        """Forget what was fetched."""
        self._store.end_joining()

    async def _run(self, least: Height, delay_s: float) -> None:
        await trio.sleep(delay_s)
        manifest = await self._fetch(least)
        self.is_running = False
        if manifest is None:
            self._telemetry.emit(Level.INFO, "snapshot_missing", least=least, peers=len(self._network.connected()))
        await self._events.send(SnapshotMissing() if manifest is None else SnapshotFetched(manifest))

    async def _fetch(self, least: Height) -> Manifest | None:
        kept = self._store.get_joining()
        manifest = None if kept is None else MANIFEST_CODEC.decode(kept)
        givers: frozenset[NodeId] = frozenset()
        self._refused.clear()
        for _ in range(MAX_ROUNDS):
            if manifest is None:
                manifest, givers = await self._find_newest()
            block = None if manifest is None else manifest.block
            if manifest is None or block is None or block.header.height < least:
                return None
            self._store.begin_joining(encode(manifest))
            if await self._fetch_chunks(block, givers):
                return manifest
            self._store.end_joining()
            manifest = None
        return None

    async def _find_newest(self) -> tuple[Manifest | None, frozenset[NodeId]]:
        """The highest snapshot that a peer proves, and who does; who has not answered a moment after the first is not waited for."""
        found: dict[NodeId, Manifest] = {}
        with trio.move_on_after(WHOLE_TIMEOUT_S) as limit:
            async with trio.open_nursery() as nursery:

                async def ask(peer: NodeId) -> None:
                    manifest = await self._ask_manifest(peer)
                    if manifest is not None:
                        found[peer] = manifest
                        limit.deadline = min(limit.deadline, trio.current_time() + PATIENCE_S)

                for peer in self._list_peers(()):
                    nursery.start_soon(ask, peer)
        newest = max(found.values(), key=_height_of, default=None)
        if newest is None:
            return None, frozenset()
        return newest, frozenset(peer for peer, given in found.items() if _height_of(given) == _height_of(newest))

    async def _ask_manifest(self, peer: NodeId) -> Manifest | None:
        try:
            manifest = MANIFEST_CODEC.decode(await self._errands.ask(peer, FetchSnapshot()))
            if manifest.block is None:
                return None
            trust = await self._walk(peer)
            return manifest if check_manifest(manifest, trust) is not None else None
        except FetchError as error:
            self._telemetry.emit(Level.DEBUG, "snapshot_refused", peer=peer, reason=str(error))
            return None  # another one may answer
        except InvalidMessage as error:
            self._errands.charge(peer, error.reason.value, str(error))
            self._refused.add(peer)
            return None

    async def _walk(self, peer: NodeId) -> Trust:
        """The validator sets as far as this peer's steps, and those that are here, lead.

        Every round brings a step that a quorum signed, or is the last. Raises: FetchError, InvalidMessage.
        """
        trust = self._load_trust()
        while True:
            answer = CHAIN_CODEC.decode(await self._errands.ask(peer, FetchChain(trust.eras[-1].epoch)))
            trust = self._load_trust()  # another peer may have told more meanwhile
            news = [step for step in answer.steps if step.header.epoch >= trust.eras[-1].epoch]
            if not news:
                return trust
            trust = self._trust = walk_steps(trust, news)
            for step in news:
                self._storage.add_step(step.header.epoch, encode(step))

    def _load_trust(self) -> Trust:
        if self._trust is None:
            stored = self._storage.get_steps(0, MAX_TRUST_BYTES)
            self._trust = walk_steps(trust_genesis(self._genesis), [STEP_CODEC.decode(step) for step in stored])
        return self._trust

    async def _fetch_chunks(self, block: Block, givers: frozenset[NodeId]) -> bool:
        """Whether every chunk is here now. Who served the last one is asked first for the next."""
        height, header = block.header.height, block.header
        first, count = self._store.get_stop(height), None
        server: NodeId | None = None
        while count is None or first < count:
            if first and count is None:
                count = self._read_count(height)
                continue
            peers = self._list_peers(givers if server is None else (server,))
            judge = partial(check_chunk, header=header, first=first)
            found = await self._errands.ask_in_turn(peers, FetchSnapshotChunk(height, first), judge)
            if found is None:
                if server is None:
                    self._refused |= givers
                return False
            server, chunk = found
            assert chunk.proof is not None, first
            stop, count = first + len(chunk.entries), chunk.proof.count
            self._store.put_chunk(height, first, stop, encode(chunk))
            self._telemetry.emit(Level.DEBUG, "snapshot_chunk", height=height, entries=stop, of=count, peer=server)
            first = stop
        return True

    def _read_count(self, height: Height) -> int:
        """How many entries the snapshot has whose first chunks are here already."""
        proof = SNAPSHOT_CHUNK_CODEC.decode(next(self._store.load_chunks(height))).proof
        assert proof is not None, height
        return proof.count

    def _list_peers(self, preferred: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Whom to ask, in this order: the preferred, validators, others."""
        connected = self._network.connected()
        ordered = sorted(
            dict.fromkeys((*self._list_validators(), *sorted(connected))), key=lambda peer: peer not in preferred
        )
        refused, is_muted = self._refused, self._errands.offences.is_muted
        able = [peer for peer in ordered if peer in connected and peer not in refused and not is_muted(peer)]
        return tuple(able[:MAX_ASKED])


def _height_of(manifest: Manifest) -> Height:
    return 0 if manifest.block is None else manifest.block.header.height
