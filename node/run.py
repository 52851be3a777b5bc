"""A node from its home directory to its end: opens everything, wires it together in one nursery, closes it again. Wiring only."""

import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from node.assembly import OpenDisk, OpenWorld, assemble, first_leaf
from node.config import Config, Setting, load_config
from node.cpu_samples import sample_cpu
from node.events import NodeEvent
from node.fetch_server import FetchServer
from node.genesis_file import read_genesis
from node.home import Home, find_home, hold_home, store_api_address
from node.http_connections import ConnectionLimits
from node.http_server import HttpLimits, load_http_config, open_http, serve_http
from node.inference import Inference, InferenceConfig, WorkerDown, build_worker_command
from node.join import JoinMode
from node.jsonrpc import Context as RpcContext
from node.keys import NodeKey, load_key
from node.libp2p_open import open_network
from node.network import Limits, NetworkConfig, Topic, Verdict
from node.prompt_check import find_prompt_models
from node.rpc import REGISTRY
from node.storage import Storage, open_storage
from node.telemetry import Level, Telemetry, open_telemetry
from node.timers import Clock, read_clock
from node.version import get_version
from node.wal import OpenedWal, open_wal
from node.wire import MAX_FETCH_RESPONSE_BYTES, TOPIC_CERTIFICATES, TOPIC_TRANSACTIONS, decode_batch
from protocol.errors import InvalidMessage
from protocol.genesis import Genesis, compute_chain_id
from protocol.jobs.beacon import Onion
from protocol.ordering.engine import SIMPLEX, Engine
from protocol.ordering.messages import QUORUM_CERT_CODEC
from protocol.ordering.single_node import SINGLE_NODE
from protocol.params import PROTOCOL_VERSION
from protocol.units import ChainId

CHANNEL_EVENTS: Final = (
    4_096  # what may wait for the engine; a full channel slows peers and clients down, and loses nothing
)
PAGE_BYTES: Final = 4_096
ENGINES: Final[Mapping[str, Engine]] = {engine.name: engine for engine in (SIMPLEX, SINGLE_NODE)}


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
        stack.enter_context(sample_cpu(opened.telemetry.cpu_samples))
        try:
            trio.run(_run, opened)
        except BaseExceptionGroup as group:
            raise first_leaf(group) from group
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
    http_config = load_http_config(config.rpc.host, config.rpc.port, config.rpc.token_file, _limit_http(config))
    http = await open_http(http_config)
    disk = OpenDisk(
        signing=opened.key.signing,
        load_onion=lambda renewals: Onion(opened.key.derive_onion_secret(renewals)),
        genesis=opened.genesis,
        chain_id=opened.chain_id,
        storage=opened.storage,
        wal=opened.wal,
        telemetry=opened.telemetry,
        clock=read_clock(config.testing.clock_skew_ms),
        join=JoinMode(config.storage.join),
        engine=ENGINES[config.ordering.engine],
    )
    sender, inbound = trio.open_memory_channel[NodeEvent](CHANNEL_EVENTS)
    fetch_server = FetchServer(opened.storage)
    async with (
        open_network(_configure_network(opened, fetch_server), sender) as network,
        trio.open_nursery() as nursery,
    ):
        inference = _make_inference(config, disk.clock, sender, opened.telemetry)
        addresses = {peer.node_id: peer.multiaddr for peer in config.network.peer_addresses}
        world = OpenWorld(network, inference, fetch_server, nursery, sender, addresses)
        node = assemble(disk, world)
        if config.inference.models or config.inference.command:
            nursery.start_soon(inference.run)
        else:
            sender.send_nowait(WorkerDown("no model is configured (inference.models): this node answers no jobs"))
        node.start(world, inbound)
        nursery.start_soon(
            partial(
                serve_http,
                http,
                REGISTRY,
                RpcContext(node.service, disk.clock.now_ms, find_prompt_models(config.inference.models)),
                http_config,
                report=partial(_report, opened.telemetry),
            )
        )
        store_api_address(opened.home, http.url)
        opened.telemetry.emit(
            Level.INFO, "node_started", node=opened.key.node, chain=opened.chain_id, rpc=http.url,
            p2p=" ".join(network.addresses), height=node.service.get_snapshot().header.height, version=get_version(),
        )  # fmt: skip
        if config.testing.clock_skew_ms:
            opened.telemetry.emit(Level.WARNING, "testing_clock_skewed", by_ms=config.testing.clock_skew_ms)
        await _wait_signal(opened.telemetry)
        nursery.cancel_scope.cancel()


async def _wait_signal(telemetry: Telemetry) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for received in signals:
            telemetry.emit(Level.INFO, "node_stopping", signal=signal.Signals(received).name)
            return


def _limit_http(config: Config) -> HttpLimits:
    limits = HttpLimits()
    return HttpLimits(
        body_bytes=config.rpc.max_body_bytes,
        drained_bytes=max(limits.drained_bytes, config.rpc.max_body_bytes),
        connections=ConnectionLimits(connections=config.rpc.max_connections),
    )


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


def _report(telemetry: Telemetry, event: str, detail: str) -> None:
    telemetry.emit(Level.ERROR, event, detail=detail)
