"""A node's machines put together from what is open already: its disk, clock, network and worker. Wiring only; run.py opens those."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import trio

from node.catch_up import CatchUp
from node.certificates import CertificateShelf
from node.chain import Chain, open_chain
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
from node.service import Service
from node.snapshots import SnapshotWriter
from node.storage import Storage
from node.telemetry import Level, Telemetry
from node.timers import Clock, Timers
from node.wal import OpenedWal
from protocol.block import compute_header_hash
from protocol.crypto import SigningKey, is_signature_valid
from protocol.genesis import Genesis, compute_validator_set
from protocol.jobs.beacon import Onion
from protocol.ledger.state import create_genesis
from protocol.ordering.events import Timer
from protocol.ordering.messages import QUORUM_CERT_CODEC, QuorumCert
from protocol.ordering.state import Context, SimplexState, Tip, make_state, make_tip
from protocol.params import compute_boundary
from protocol.units import ChainId, NodeId
from protocol.validators import index_of


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
    ordering, onions = _open_ordering(disk, chain, timers, mempool, errands, world.network.send)
    world.fetch_server.get_recent = lambda: ordering.state
    parts = EngineParts(
        node=disk.node,
        chain=chain,
        ordering=ordering,
        postbox=Postbox(
            disk.signing,
            mempool,
            ordering,
            world.network,
            disk.storage,
            timers,
            disk.telemetry,
            offences,
            chain.final.ledger,
        ),
        onions=onions,
        member=Member(disk.node, disk.chain_id, disk.storage),
        catch_up=CatchUp(
            chain, ordering, errands, world.network, disk.telemetry, _make_join(disk, world, errands, ordering)
        ),
        snapshots=SnapshotWriter(disk.storage.snapshots, disk.telemetry),
        errands=errands,
        offences=offences,
        network=world.network,
        generations=world.generations,
        timers=timers,
        telemetry=disk.telemetry,
    )
    engine = Engine(parts)
    service = Service(
        disk.genesis, engine, parts, disk.storage, shelf, world.events, world.addresses, disk.clock.now_ms()
    )
    return Assembled(engine, service, timers)


async def forward_timers(timers: Timers[Timer | Chore], events: trio.MemorySendChannel[NodeEvent]) -> None:
    """Every timer that is due becomes an event, until cancelled."""
    while True:
        await events.send(TimerDue(await timers.wait_due()))


def _make_join(disk: OpenDisk, world: OpenWorld, errands: Errands, ordering: Ordering) -> Join:
    context = ordering.state.context
    return Join(
        disk.join,
        disk.genesis,
        disk.storage.snapshots,
        errands,
        world.network,
        context,
        disk.telemetry,
        world.nursery,
        world.events,
    )


def _open_ordering(
    disk: OpenDisk,
    chain: Chain,
    timers: Timers[Timer | Chore],
    mempool: Mempool,
    errands: Errands,
    send: Callable[[bytes, bytes], bool],
) -> tuple[Ordering, Onions]:
    own = index_of(compute_validator_set(disk.genesis), disk.node)
    if own is not None and _is_wal_behind(disk):
        disk.telemetry.emit(
            Level.ERROR, "votes_wal_behind",
            text="votes.wal is missing or older than the chain: this node follows, but signs no votes; restore the newest votes.wal"
            " of this home, or leave the validator stopped",
        )  # fmt: skip
        own = None
    onions = Onions(disk.node, None if own is None else disk.load_onion)
    onions.start(chain.final.ledger)
    parts = OrderingParts(
        chain=chain,
        wal=disk.wal.wal,
        clock=disk.clock,
        timers=timers,
        telemetry=disk.telemetry,
        source=mempool,
        requests=errands,
        send=send,
        reveal=onions.reveal,
    )
    ordering = Ordering(parts, _make_state(disk, chain, own))
    ordering.replay(disk.wal.records)
    return ordering, onions


def _make_state(disk: OpenDisk, chain: Chain, own: int | None) -> SimplexState:
    header, (_, genesis) = chain.final.header, create_genesis(disk.genesis)
    context = Context(
        chain=disk.chain_id,
        epoch=0,
        seed=disk.genesis.seed,
        validators=compute_validator_set(disk.genesis),
        own=own,
        params=disk.genesis.params,
        signer=None if own is None else disk.signing,
        verify=is_signature_valid,
        start=make_tip(compute_header_hash(genesis), genesis),
        start_cert=None,
        boundary=compute_boundary(disk.genesis.params, 0),
    )
    tip = Tip(header.view, header.height, chain.final.hash, header.time_ms)
    return make_state(context, tip, _load_tip_cert(disk.storage, header.height), disk.clock.now_ms())


def _load_tip_cert(storage: Storage, height: int) -> QuorumCert | None:
    stored = storage.get_block(height)
    if stored is None or stored.certificate is None:
        return None
    return QUORUM_CERT_CODEC.decode(stored.certificate)


def _is_wal_behind(disk: OpenDisk) -> bool:
    """Whether the log may lack votes that this key has cast (rule R10: then it must not sign)."""
    wal = disk.wal.wal
    if disk.storage.bind_wal(wal.lineage, wal.position):
        return False
    wal.fork(disk.wal.records)
    return True


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
