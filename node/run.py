"""A node from its home directory to its end: opens everything, wires it together in one nursery, closes it again. Wiring only."""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

import trio

from node.catch_up import CatchUp
from node.certificates import CertificateShelf
from node.chain import Chain, open_chain
from node.config import Config, Setting, load_config
from node.disk import StorageFailure
from node.engine import Engine, EngineParts
from node.errands import Errands
from node.events import Chore, NodeEvent, TimerDue
from node.fetch_server import FetchServer
from node.genesis_file import read_genesis
from node.home import Home, find_home, hold_home, store_api_address
from node.http_server import load_http_config, open_http, serve_http
from node.inference import Inference, InferenceConfig, WorkerDown, build_worker_command
from node.jsonrpc import Context as RpcContext
from node.keys import NodeKey, load_key
from node.libp2p_network import open_network
from node.member import Member
from node.mempool import Mempool
from node.network import Limits, NetworkConfig, Topic, Verdict
from node.ordering import Ordering, OrderingParts
from node.postbox import Postbox
from node.rpc import REGISTRY
from node.service import Service
from node.storage import Storage, open_storage
from node.telemetry import Level, Telemetry, open_telemetry
from node.timers import Clock, Timers, read_clock
from node.version import get_version
from node.wal import OpenedWal, open_wal
from node.wire import MAX_FETCH_RESPONSE_BYTES, TOPIC_CERTIFICATES, TOPIC_TRANSACTIONS, decode_batch
from protocol.crypto import is_signature_valid
from protocol.errors import InvalidMessage
from protocol.genesis import Genesis, compute_chain_id, compute_validator_set
from protocol.jobs.beacon import Onion
from protocol.ledger.draft import Ledger
from protocol.ledger.entries import ONION_CODEC, onion_key
from protocol.ordering.events import Timer
from protocol.ordering.messages import QUORUM_CERT_CODEC, QuorumCert
from protocol.ordering.state import Context, SimplexState, Tip, make_state
from protocol.params import PROTOCOL_VERSION
from protocol.units import ChainId, Hash
from protocol.validators import index_of

CHANNEL_EVENTS: Final = (
    4_096  # what may wait for the engine; a full channel slows peers and clients down, and loses nothing
)
PAGE_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class OpenHome:
    """What a node reads and opens on its disk before it says anything to anybody."""

    home: Home
    config: Config
    key: NodeKey
    genesis: Genesis
    chain_id: ChainId
    storage: Storage
    wal: OpenedWal
    telemetry: Telemetry


def run_node(home: Path, overrides: Mapping[str, Setting], passphrase: bytes | None = None) -> int:
    """Run the node until SIGTERM or SIGINT; the exit code.

    Raises: Fault and StorageFailure where it cannot start, or must stop, saying what to do.
    """
    place = find_home(home)
    with ExitStack() as stack:
        stack.enter_context(hold_home(place))
        opened = _open_home(place, overrides, passphrase, stack)
        try:
            trio.run(_run, opened)
        except BaseExceptionGroup as group:
            raise _first_leaf(group) from group
    return 0


def _open_home(place: Home, overrides: Mapping[str, Setting], passphrase: bytes | None, stack: ExitStack) -> OpenHome:
    config = load_config(place.config, os.environ, overrides).config
    telemetry = open_telemetry(config.log.level)
    key = load_key(place.key, passphrase)
    genesis = read_genesis(place.genesis)
    chain_id = compute_chain_id(genesis)
    pages = config.storage.max_database_mib * (1024 * 1024 // PAGE_BYTES)
    storage = open_storage(place.database, chain_id, pages)
    stack.callback(storage.close)
    wal = open_wal(place.votes, chain_id)
    stack.callback(wal.wal.close)
    return OpenHome(place, config, key, genesis, chain_id, storage, wal, telemetry)


async def _run(opened: OpenHome) -> None:
    config = opened.config
    http_config = load_http_config(config.rpc.host, config.rpc.port, config.rpc.token_file)
    http = await open_http(http_config)
    clock = read_clock()
    chain = open_chain(opened.storage, opened.genesis)
    sender, inbound = trio.open_memory_channel[NodeEvent](CHANNEL_EVENTS)
    fetch_server = FetchServer(opened.storage)
    async with (
        open_network(_configure_network(opened, fetch_server), sender) as network,
        trio.open_nursery() as nursery,
    ):
        timers = Timers[Timer | Chore](clock)
        inference = _make_inference(config, clock, sender, opened.telemetry)
        errands = Errands(network, nursery, sender, opened.telemetry)
        mempool = Mempool(opened.chain_id, opened.genesis.params)
        ordering = _open_ordering(opened, chain, clock, timers, mempool, errands, network.send)
        fetch_server.get_recent = lambda: ordering.state
        shelf = CertificateShelf(opened.storage, opened.genesis, chain.final.ledger)
        parts = EngineParts(
            node=opened.key.node,
            chain=chain,
            ordering=ordering,
            postbox=Postbox(
                opened.key.signing,
                mempool,
                ordering,
                network,
                opened.storage,
                timers,
                opened.telemetry,
                chain.final.ledger,
            ),
            member=Member(opened.key.node, opened.chain_id, opened.storage),
            catch_up=CatchUp(chain, ordering, errands, network, opened.telemetry),
            errands=errands,
            shelf=shelf,
            network=network,
            inference=inference,
            timers=timers,
            telemetry=opened.telemetry,
        )
        engine = Engine(parts)
        addresses = {peer.node_id: peer.multiaddr for peer in config.network.peer_addresses}
        service = Service(opened.genesis, engine, parts, opened.storage, shelf, sender, addresses, clock.now_ms())
        nursery.start_soon(_forward_timers, timers, sender)
        if config.inference.models or config.inference.command:
            nursery.start_soon(inference.run)
        else:
            sender.send_nowait(
                WorkerDown("no model is configured (inference.models): this node votes, but answers no jobs")
            )
        nursery.start_soon(engine.run, inbound)
        nursery.start_soon(
            partial(
                serve_http,
                http,
                REGISTRY,
                RpcContext(service, clock.now_ms),
                http_config,
                report=partial(_report, opened.telemetry),
            )
        )
        store_api_address(opened.home, http.url)
        opened.telemetry.emit(
            Level.INFO, "node_started", node=opened.key.node, chain=opened.chain_id, rpc=http.url,
            p2p=" ".join(network.addresses), height=chain.final.header.height, version=get_version(),
        )  # fmt: skip
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for received in signals:
                opened.telemetry.emit(Level.INFO, "node_stopping", signal=signal.Signals(received).name)
                break
        nursery.cancel_scope.cancel()


def _open_ordering(
    opened: OpenHome,
    chain: Chain,
    clock: Clock,
    timers: Timers[Timer | Chore],
    mempool: Mempool,
    errands: Errands,
    send: Callable[[bytes, bytes], bool],
) -> Ordering:
    own = index_of(compute_validator_set(opened.genesis), opened.key.node)
    if own is not None and _is_wal_behind(opened):
        opened.telemetry.emit(
            Level.ERROR, "votes_wal_behind",
            text="votes.wal is missing or older than the chain: this node follows, but signs no votes; restore the newest votes.wal"
            " of this home, or leave the validator stopped",
        )  # fmt: skip
        own = None
    onion = None if own is None else Onion(opened.key.onion_secret)
    parts = OrderingParts(
        chain=chain,
        wal=opened.wal.wal,
        clock=clock,
        timers=timers,
        telemetry=opened.telemetry,
        source=mempool,
        requests=errands,
        send=send,
        reveal=partial(_reveal, onion, opened.key.node),
    )
    ordering = Ordering(parts, _make_state(opened, chain, own, clock.now_ms()))
    ordering.replay(opened.wal.records)
    return ordering


def _make_state(opened: OpenHome, chain: Chain, own: int | None, now_ms: int) -> SimplexState:
    header = chain.final.header
    context = Context(
        chain=opened.chain_id,
        epoch=0,
        seed=opened.genesis.seed,
        validators=compute_validator_set(opened.genesis),
        own=own,
        params=opened.genesis.params,
        signer=None if own is None else opened.key.signing,
        verify=is_signature_valid,
    )
    tip = Tip(header.view, header.height, chain.final.hash, header.time_ms)
    return make_state(context, tip, _load_tip_cert(opened.storage, header.height), now_ms)


def _load_tip_cert(storage: Storage, height: int) -> QuorumCert | None:
    stored = storage.get_block(height)
    if stored is None or stored.certificate is None:
        return None
    return QUORUM_CERT_CODEC.decode(stored.certificate)


def _is_wal_behind(opened: OpenHome) -> bool:
    """Whether the log may lack votes that this key has cast (rule R10: then it must not sign)."""
    wal = opened.wal.wal
    if opened.storage.bind_wal(wal.lineage, wal.position):
        return False
    wal.fork(opened.wal.records)
    return True


def _reveal(onion: Onion | None, node: bytes, ledger: Ledger, gap: int) -> Hash | None:
    entry = ledger.entries.get(onion_key(node))
    if onion is None or entry is None:
        return None
    slot = ONION_CODEC.decode(entry).tip_slot + gap
    return onion.reveal(slot) if onion.has_slot(slot) else None


def _configure_network(opened: OpenHome, fetch_server: FetchServer) -> NetworkConfig:
    settings = opened.config.network
    return NetworkConfig(
        seed=opened.key.seed,
        chain_id=opened.chain_id,
        protocol_version=PROTOCOL_VERSION,
        software=f"quorate/{get_version()}",
        listen_host=settings.listen_host,
        listen_port=settings.listen_port,
        peers=tuple(peer for peer in settings.peer_addresses if peer.node_id != opened.key.node),
        topics=(Topic(TOPIC_TRANSACTIONS, _judge_batch), Topic(TOPIC_CERTIFICATES, _judge_cert)),
        fetch_handler=fetch_server.answer,
        limits=Limits(response_bytes=MAX_FETCH_RESPONSE_BYTES),
    )


def _judge_batch(_origin: bytes, encoded: bytes) -> Verdict:
    """Structure only: whether the ledger admits a transaction is no reason to blame who forwards it."""
    try:
        decode_batch(encoded)
    except InvalidMessage:
        return Verdict.REJECT
    return Verdict.ACCEPT


def _judge_cert(_origin: bytes, encoded: bytes) -> Verdict:
    try:
        QUORUM_CERT_CODEC.decode(encoded)
    except InvalidMessage:
        return Verdict.REJECT
    return Verdict.ACCEPT


def _make_inference(
    config: Config, clock: Clock, events: trio.MemorySendChannel[NodeEvent], telemetry: Telemetry
) -> Inference:
    settings = config.inference
    command = settings.command or build_worker_command(settings.models, settings.device)
    return Inference(
        InferenceConfig(command, settings.queue_size),
        clock,
        events.send,
        partial(_log_worker, telemetry),
    )


def _log_worker(telemetry: Telemetry, line: str) -> None:
    telemetry.emit(Level.DEBUG, "worker_log", line=line)


async def _forward_timers(timers: Timers[Timer | Chore], events: trio.MemorySendChannel[NodeEvent]) -> None:
    while True:
        await events.send(TimerDue(await timers.wait_due()))


def _report(telemetry: Telemetry, event: str, detail: str) -> None:
    telemetry.emit(Level.ERROR, event, detail=detail)


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
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
