"""Several whole nodes in one simulated time: real disks, ledgers and signatures; a network in memory and answers from a function.

For tests with the `autojump_clock`: nothing here waits in real time.
"""

from __future__ import annotations

import io
import json
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from node.assembly import Assembled, OpenDisk, OpenWorld, assemble, first_leaf
from node.disk import SYSTEM_DISK, DiskCalls, StorageFailure
from node.events import NodeEvent
from node.fetch_server import FetchServer
from node.inference import InferenceDone, InferenceFailed, InferenceRequest
from node.join import JoinMode
from node.storage import open_storage
from node.telemetry import Level, Telemetry
from node.wal import open_wal
from protocol.digest import Digest, DigestFamily
from protocol.genesis import Genesis, compute_chain_id
from protocol.ledger.epochs import get_epoch, get_validators
from protocol.ledger.queries import JobView, get_account, get_job
from protocol.models import StopReason, TextOutput
from protocol.ordering.engine import SIMPLEX, Engine
from protocol.params import UNIT
from protocol.transactions import AccountTransaction, Bond, RenewOnion, sign_transaction
from protocol.validators import index_of
from tests.node.fake_network import FakeNetwork, Hub, Port
from tests.protocol.builders import ONION_LAYERS, START_MS, make_genesis, make_hash, make_key, make_onion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from node.storage import Storage
    from protocol.jobs.beacon import Onion
    from protocol.ledger.draft import Ledger
    from protocol.units import Epoch, Height, JobId, NodeId

CHANNEL_EVENTS: Final = 4096
PATIENCE_S: Final = 120  # of simulated time

Answer: TypeAlias = "Callable[[InferenceRequest], str | None]"
"""The text of an answer; None: the engine fails."""


def answer_honestly(request: InferenceRequest) -> str:
    """What every honest node answers."""
    return request.prompt.upper()


def answer_wrongly(request: InferenceRequest) -> str:
    """A cheater's answer."""
    return f"wrong {request.prompt}"


def fail(_request: InferenceRequest) -> None:
    """An engine error."""


@dataclass(frozen=True, slots=True)
class TrioClock:
    """The node's clock over trio's simulated one."""

    def now_ms(self) -> int:
        return START_MS + round(trio.current_time() * 1000)

    def now_us(self) -> int:
        return round(trio.current_time() * 1_000_000)


@dataclass(slots=True)
class FakeGenerations:
    """Answers after a fixed time, by a function of the request."""

    events: trio.MemorySendChannel[NodeEvent]
    nursery: trio.Nursery
    answer: Answer
    is_mute: bool = False
    delay_s: float = 0.02
    most_waiting: int = 16
    waiting: int = 0
    refused: int = 0
    asked: list[JobId] = field(default_factory=list)

    @property
    def queued(self) -> int:
        return self.waiting

    @property
    def room(self) -> int:
        return self.most_waiting - self.waiting

    def submit(self, request: InferenceRequest) -> None:
        self.asked.append(request.request_id)
        self.refused += self.room <= 0
        self.waiting += 1
        self.nursery.start_soon(self._answer, request)

    async def _answer(self, request: InferenceRequest) -> None:
        await trio.sleep(self.delay_s)
        self.waiting -= 1
        if self.is_mute:
            return
        text = self.answer(request)
        if text is None:
            await self.events.send(InferenceFailed(request.request_id, "the engine failed"))
            return
        await self.events.send(make_answer(request, text))


def make_answer(request: InferenceRequest, text: str) -> InferenceDone:
    """The event of an answer with this text."""
    output = TextOutput(request.model, tuple(text.encode()), text, StopReason.END)
    digest = Digest(DigestFamily.TEXT_MINHASH256, make_hash(text))
    return InferenceDone(request.request_id, output, digest, 20)


@dataclass(slots=True)
class LiveNode:
    """One node: its directory stays, its process comes and goes."""

    name: str
    home: Path
    genesis: Genesis
    hub: Hub
    answer: Answer = answer_honestly
    is_mute: bool = False
    max_pages: int = 0
    onion_layers: int = ONION_LAYERS
    disk: DiskCalls = SYSTEM_DISK
    join: JoinMode = JoinMode.AUTO
    engine: Engine = SIMPLEX
    log: io.StringIO = field(default_factory=io.StringIO)
    error: BaseException | None = None
    _node: Assembled | None = None
    _events: trio.MemorySendChannel[NodeEvent] | None = None
    _scope: trio.CancelScope | None = None
    _stopped: trio.Event = field(default_factory=trio.Event)
    generations: FakeGenerations | None = None

    @property
    def id(self) -> NodeId:
        return make_key(self.name).public

    def load_onion(self, renewals: int) -> Onion:
        """This node's onion after so many renewals."""
        return make_onion(f"{self.name} {renewals}" if renewals else self.name, self.onion_layers)

    @property
    def node(self) -> Assembled:
        assert self._node is not None, f"{self.name} does not run"
        return self._node

    @property
    def parts(self):
        return self.node.engine._parts

    @property
    def service(self):
        return self.node.service

    @property
    def height(self) -> Height:
        return self.parts.chain.final.header.height

    @property
    def ledger(self) -> Ledger:
        return self.parts.chain.final.ledger

    def push(self, event: NodeEvent) -> None:
        """Let an event reach the engine now."""
        assert self._events is not None
        self._events.send_nowait(event)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """A whole life: opens, runs until it is stopped or fails, closes."""
        self.error, self._stopped = None, trio.Event()
        try:
            with ExitStack() as stack:
                await self._run_open(stack, task_status)
        except* StorageFailure as group:
            self.error = first_leaf(group)
        finally:
            self._node = None
            self._stopped.set()

    async def _run_open(self, stack: ExitStack, task_status: trio.TaskStatus[None]) -> None:
        chain_id = compute_chain_id(self.genesis)
        self.home.mkdir(exist_ok=True)
        storage = open_storage(self.home / "chain.db", chain_id, self.max_pages)
        stack.callback(storage.close)
        wal = open_wal(self.home / "votes.wal", chain_id, self.disk)
        stack.callback(wal.wal.close)
        disk = OpenDisk(
            signing=make_key(self.name),
            load_onion=self.load_onion,
            genesis=self.genesis,
            chain_id=chain_id,
            storage=storage,
            wal=wal,
            telemetry=Telemetry(self.log, Level.DEBUG),
            clock=TrioClock(),
            join=self.join,
            engine=self.engine,
        )
        self._events, inbound = trio.open_memory_channel[NodeEvent](CHANNEL_EVENTS)
        server = FetchServer(storage)
        network = self.hub.join(self.id, Port(self._events, server.answer))
        stack.callback(self.hub.leave, self.id)
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            self.generations = FakeGenerations(self._events, nursery, self.answer, self.is_mute)
            world = OpenWorld(network, self.generations, server, nursery, self._events, {})
            self._node = assemble(disk, world)
            self._node.start(world, inbound)
            task_status.started()

    async def stop(self) -> None:
        """End the process as SIGTERM does, and wait for it."""
        assert self._scope is not None
        self._scope.cancel()
        await self._stopped.wait()

    async def wait_end(self) -> None:
        """Until the process has ended by itself."""
        with trio.fail_after(PATIENCE_S):
            await self._stopped.wait()

    async def wait_height(self, height: Height) -> None:
        """Until this block is final here."""
        with trio.fail_after(PATIENCE_S):
            await self.service.wait_block(height - 1)

    async def wait_settled(self, job: JobId) -> JobView:
        """The job once it has settled here."""
        with trio.fail_after(PATIENCE_S):
            while True:
                view = get_job(self.ledger, job)
                if view is not None and view.settlement is not None:
                    return view
                await self.node.engine.wait_finalized()

    async def wait_certificate(self, job: JobId) -> bytes:
        """The job's certificate, which stays when the ledger has forgotten the job."""
        with trio.fail_after(PATIENCE_S):
            while self.service.shelf.get(job) is None:
                await self.node.engine.wait_finalized()
            return await self.service.build_certificate(job)

    async def send(self, kind: Callable[..., AccountTransaction], *more: object) -> None:
        """A transaction of this node's own account, once it is final here."""
        nonce = get_account(self.ledger, self.id).nonce + 1
        body = kind(self.id, nonce, self.height + 1_000, *more)
        await self.service.submit_transaction(
            sign_transaction(make_key(self.name), self.ledger.constants.chain_id, body)
        )
        with trio.fail_after(PATIENCE_S):
            while get_account(self.ledger, self.id).nonce < nonce:
                await self.node.engine.wait_finalized()

    async def become_validator(self, units: int = 100) -> None:
        """Bond and register the first hash onion."""
        await self.send(Bond, units * UNIT)
        await self.send(RenewOnion, self.load_onion(1).tip, 1)

    def find_index(self, epoch: Epoch) -> int | None:
        """This node's place in the validator set of an epoch, by its own state."""
        return index_of(get_validators(self.ledger, epoch), self.id)

    @property
    def epoch(self) -> Epoch:
        """The epoch of the next block."""
        return get_epoch(self.ledger)

    @property
    def storage(self) -> Storage:
        return self.service.storage

    def list_events(self, name: str) -> list[dict[str, object]]:
        """What the node logged under this name."""
        lines = (json.loads(line) for line in self.log.getvalue().splitlines())
        return [line for line in lines if line["event"] == name]

    def count_charges(self) -> dict[str, list[str]]:
        """The reasons by charged peer (hex)."""
        charged: dict[str, list[str]] = {}
        for line in self.list_events("peer_charged"):
            charged.setdefault(str(line["peer"]), []).append(str(line["reason"]))
        return charged


@dataclass(slots=True)
class World:
    """All nodes and what lies between them."""

    nodes: list[LiveNode]
    hub: Hub
    nursery: trio.Nursery

    async def start(self, *nodes: LiveNode) -> None:
        """Let these nodes run."""
        for node in nodes:
            await self.nursery.start(node.run)

    async def restart(self, node: LiveNode) -> None:
        """Close a node and open it again on the same directory."""
        await node.stop()
        await self.start(node)

    async def wait_height(self, height: Height, nodes: Sequence[LiveNode] | None = None) -> None:
        """Until this block is final on all (running) nodes."""
        for node in self.nodes if nodes is None else nodes:
            await node.wait_height(height)


@asynccontextmanager
async def open_world(
    path: Path, count: int = 4, genesis: Genesis | None = None, running: int | None = None
) -> AsyncIterator[World]:
    """A network of validators v0, v1, …, the first `running` of which run; all are closed at the end."""
    names = [f"v{index}" for index in range(count)]
    genesis = genesis or make_genesis(names)
    hub = Hub()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        nodes = [LiveNode(name, path / name, genesis, hub) for name in names]
        world = World(nodes, hub, nursery)
        await world.start(*nodes[: count if running is None else running])
        yield world
        nursery.cancel_scope.cancel()


__all__ = ["FakeNetwork", "LiveNode", "World", "answer_honestly", "answer_wrongly", "fail", "open_world"]
