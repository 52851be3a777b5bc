"""A node's machines put together from what is open already: its disk, clock, network and worker. Wiring only; run.py opens those."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import trio

from node.acquaintances import Acquaintances
from node.application import LedgerApp
from node.catch_up import CatchUp
from node.certificates import CertificateShelf
from node.chain import Chain, open_chain
from node.contexts import Contexts
from node.disk import StorageFailure
from node.engine import Engine, EngineParts
from node.errands import Errands
from node.events import Chore, NodeEvent, TimerDue
from node.fetch_server import FetchServer
from node.join import Join, JoinMode
from node.member import Generations, Member
from node.mempool import Mempool
from node.network import Network
from node.offences import Offences
from node.onions import Onions
from node.ordering import Ordering, OrderingParts
from node.postbox import Postbox
from node.recollection import find_recollection
from node.service import Service
from node.signing import Signing
from node.snapshots import SnapshotWriter
from node.storage import Storage
from node.stored import LogState
from node.telemetry import Telemetry
from node.timers import Clock, Timers
from node.vote_log import VoteLog
from node.wal import OpenedWal
from protocol.block import compute_header_hash
from protocol.crypto import SigningKey
from protocol.genesis import Genesis
from protocol.jobs.beacon import Onion
from protocol.ledger.epochs import get_epoch_terms
from protocol.ledger.state import create_genesis
from protocol.ordering.engine import SIMPLEX
from protocol.ordering.engine import Engine as OrderingEngine
from protocol.ordering.events import Timer
from protocol.ordering.messages import QUORUM_CERT_CODEC, QuorumCert
from protocol.ordering.state import Tip, make_state, make_tip
from protocol.units import ChainId, Height, NodeId


@dataclass(frozen=True, slots=True)
class OpenDisk:
    """What a node holds open before it says anything to anybody."""

    signing: SigningKey
    load_onion: Callable[[int], Onion]  # a validator's, by how often it was renewed; making it takes a moment
    genesis: Genesis
    chain_id: ChainId
    storage: Storage
    wal: OpenedWal
    telemetry: Telemetry
    clock: Clock
    join: JoinMode = JoinMode.AUTO
    engine: OrderingEngine = SIMPLEX

    @property
    def node(self) -> NodeId:
        """The node's name and account."""
        return self.signing.public


@dataclass(frozen=True, slots=True)
class OpenWorld:
    """Whom a node talks to, and the tasks that talk."""

    network: Network
    generations: Generations
    fetch_server: FetchServer
    nursery: trio.Nursery
    events: trio.MemorySendChannel[NodeEvent]
    addresses: Mapping[NodeId, str]


@dataclass(frozen=True, slots=True)
class Assembled:
    """A node ready to run."""

    engine: Engine
    service: Service
    timers: Timers[Timer | Chore]

    def start(self, world: OpenWorld, inbound: trio.MemoryReceiveChannel[NodeEvent]) -> None:
        """Let time and everything that happened reach the engine."""
        snapshots = self.service.parts.snapshots
        snapshots.offer_tip(self.service.parts.chain.final)
        world.nursery.start_soon(snapshots.run)
        world.nursery.start_soon(forward_timers, self.timers, world.events)
        world.nursery.start_soon(self.engine.run, inbound)


def assemble(disk: OpenDisk, world: OpenWorld) -> Assembled:
    """A node over an open disk and an open world; nothing runs yet.

    Raises: StorageFailure.
    """
    shelf = CertificateShelf(disk.storage, disk.genesis)
    chain = open_chain(disk.storage, disk.genesis, shelf.certify)
    timers = Timers[Timer | Chore](disk.clock)
    offences = Offences(disk.clock, disk.telemetry)
    errands = Errands(world.network, world.nursery, world.events, offences)
    mempool = Mempool(disk.chain_id, disk.genesis.params)
    log, signing = _open_signing(disk)
    onions = _open_onions(disk, chain)
    contexts = Contexts(disk.signing, signing)
    app = LedgerApp(chain, contexts, mempool, disk.telemetry, onions.reveal, lambda: log.position, [])
    ordering = _open_ordering(disk, world, app, log, timers, errands)
    ledger, telemetry = chain.final.ledger, disk.telemetry
    parts = EngineParts(
        node=disk.node,
        chain=chain,
        ordering=ordering,
        postbox=Postbox(
            disk.signing, mempool, ordering, world.network, disk.storage, timers, telemetry, offences, ledger
        ),
        onions=onions,
        member=Member(disk.node, disk.chain_id, disk.storage),
        catch_up=_make_catch_up(disk, world, chain, ordering, errands),
        snapshots=SnapshotWriter(disk.storage.snapshots, disk.telemetry),
        errands=errands,
        offences=offences,
        signing=signing,
        acquaintances=_open_acquaintances(disk, world, chain, ordering, errands),
        network=world.network,
        generations=world.generations,
        timers=timers,
        telemetry=disk.telemetry,
    )
    return _make_faces(disk, world, parts, shelf)


def _make_faces(disk: OpenDisk, world: OpenWorld, parts: EngineParts, shelf: CertificateShelf) -> Assembled:
    engine, now_ms = Engine(parts), disk.clock.now_ms()
    service = Service(disk.genesis, engine, parts, disk.storage, shelf, world.events, world.addresses, now_ms)
    return Assembled(engine, service, parts.timers)


def _open_acquaintances(
    disk: OpenDisk, world: OpenWorld, chain: Chain, ordering: Ordering, errands: Errands
) -> Acquaintances:
    """Whom this node knows; from here on peers are answered, too: there is something to answer from."""
    acquaintances = Acquaintances(disk.node, world.network, errands, world.addresses)
    world.fetch_server.get_recent = lambda: ordering.state
    world.fetch_server.list_addresses = acquaintances.list_known
    world.fetch_server.recollect = lambda node: find_recollection(
        node, ordering.state, chain.final.ledger, disk.storage
    )
    return acquaintances


async def forward_timers(timers: Timers[Timer | Chore], events: trio.MemorySendChannel[NodeEvent]) -> None:
    """Every timer that is due becomes an event, until cancelled."""
    while True:
        await events.send(TimerDue(await timers.wait_due()))


def _open_onions(disk: OpenDisk, chain: Chain) -> Onions:
    onions = Onions(disk.node, disk.load_onion)
    onions.start(chain.final.ledger)
    return onions


def _make_catch_up(disk: OpenDisk, world: OpenWorld, chain: Chain, ordering: Ordering, errands: Errands) -> CatchUp:
    join = Join(
        disk.join,
        disk.genesis,
        disk.storage,
        errands,
        world.network,
        lambda: ordering.state.context.peers,
        disk.telemetry,
        world.nursery,
        world.events,
    )
    return CatchUp(chain, ordering, errands, world.network, disk.telemetry, join)


def _open_signing(disk: OpenDisk) -> tuple[VoteLog, Signing]:
    """The vote log, and from when on it lets this node sign (rule R10)."""
    storage, wal = disk.storage, disk.wal.wal
    log = VoteLog(wal, disk.wal.records)
    state = storage.log.bind(wal.lineage, wal.position)
    if state is LogState.BEHIND:
        log.fork()
        storage.log.rebind(wal.lineage, wal.position)
    return log, Signing(disk.node, disk.chain_id, log, state, storage.log.trust, disk.telemetry)


def _open_ordering(
    disk: OpenDisk, world: OpenWorld, app: LedgerApp, log: VoteLog, timers: Timers[Timer | Chore], errands: Errands
) -> Ordering:
    chain, contexts = app.chain, app.contexts
    parts = OrderingParts(
        chain=chain,
        app=app,
        engine=disk.engine,
        log=log,
        contexts=contexts,
        clock=disk.clock,
        timers=timers,
        telemetry=disk.telemetry,
        requests=errands,
        send=world.network.send,
    )
    final = chain.final
    start, start_cert = _load_tip(disk, get_epoch_terms(final.ledger).start_height)
    tip, tip_cert = _load_tip(disk, final.header.height)
    context = contexts.make(final.ledger, start, start_cert)
    ordering = Ordering(parts, make_state(context, tip, tip_cert, disk.clock.now_ms()))
    ordering.replay()
    return ordering


def _load_tip(disk: OpenDisk, height: Height) -> tuple[Tip, QuorumCert | None]:
    """A final block that ordering may start on, and its FinalCert: the tip, or what its epoch starts on (a boundary, or the genesis)."""
    stored = disk.storage.get_block(height)
    if stored is None:
        assert height == 0, height  # a chain that was joined begins with a boundary
        header = create_genesis(disk.genesis)[1]
        return make_tip(compute_header_hash(header), header), None
    cert = None if stored.certificate is None else QUORUM_CERT_CODEC.decode(stored.certificate)
    return make_tip(stored.hash, stored.decode().header), cert


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the node: the disk's before any other, otherwise the first."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if isinstance(leaf, StorageFailure)), leaves[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for member in group.exceptions:
        leaves.extend(
            _leaves(cast("BaseExceptionGroup[BaseException]", member))
            if isinstance(member, BaseExceptionGroup)
            else [member]
        )
    return leaves
