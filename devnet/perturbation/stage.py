"""A network under load: its validators ready, a watcher and a customer at each, and what they tell in the end."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from devnet.launch import LOOK_S, read_tail
from devnet.perturbation.checks import BlockSeen
from devnet.perturbation.fleet import Fleet
from devnet.perturbation.gather import read_chain
from devnet.perturbation.load import PURSES, Book, Customer, Habits
from devnet.perturbation.report import NodeEnd
from devnet.perturbation.sightings import Sightings
from node.commands.bench_load import Network, Purse, fund, make_purses, read_network
from node.faults import Exit, Fault, Trouble
from node.home import Home
from node.keys import load_key
from node.rpc_client import NodeClient
from node.rpc_types import NodeStatus, Nothing

READY_S: Final = 60.0
READY_S_A_NODE: Final = 15.0  # they start all at once, and there may be more of them than cores
WATCH_S: Final = 0.15  # between two looks at a node: what recovery times are exact to
WATCH_S_A_NODE: Final = 0.02  # looks cost processor time, which many nodes have less of
DRAIN_S: Final = 60.0
SETTLE_S: Final = 60.0
MOST_STARTS: Final = 3  # of a node that goes on ending by itself

Wait = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Load:
    """Units: transfers and jobs a second, over all nodes."""

    transfers_per_s: float
    jobs_per_s: float


class Stage:
    """What runs besides the nodes: watchers until the end, customers until the load ends."""

    def __init__(self, fleet: Fleet, report: Callable[[str], None]) -> None:
        self.fleet: Final = fleet
        self.sightings: Final = Sightings()
        self.in_trouble: Final[list[NodeEnd]] = []
        self._report: Final = report
        self._starts: Final = dict.fromkeys(range(len(fleet.nodes)), 1)
        self._end_load: Final = Event()
        self._give_up: Final = Event()
        self._end: Final = Event()
        self._watchers: Final[list[Future[None]]] = []
        self._customers: Final[list[Future[Book]]] = []

    def start_nodes(self, wait: Wait) -> None:
        """Goes on once every node is ready. Raises: Fault; whatever `wait` raises."""
        for node in self.fleet.nodes:
            self.fleet.start(node.index)
        waiting = {node.index for node in self.fleet.nodes}
        deadline = time.monotonic() + READY_S + READY_S_A_NODE * len(waiting)
        while waiting:
            for index in sorted(waiting):
                if self.fleet.submit(index, _is_ready).result():
                    waiting.discard(index)
                    self._report(f"{len(self.fleet.nodes) - len(waiting)} of {len(self.fleet.nodes)} nodes are ready")
            ended = self.fleet.take_ended()
            late = time.monotonic() > deadline
            if ended or late:
                raise self._explain_start(ended, min(waiting))
            wait(LOOK_S)

    def start_load(self, load: Load) -> None:
        """Watchers and customers at work; every customer's purses are full, in a final block. Raises: Fault."""
        nodes = len(self.fleet.nodes)
        pace_s = WATCH_S + WATCH_S_A_NODE * nodes
        for node in self.fleet.nodes:
            self._watchers.append(self.fleet.submit(node.index, self._make_watcher(node.index, pace_s)))
        network = self.fleet.submit(0, read_network).result()
        funded = [self.fleet.submit(node.index, _make_funding(Path(node.home), network)) for node in self.fleet.nodes]
        purses = [each.result() for each in funded]
        for index, own in enumerate(purses):
            habits = Habits(nodes / load.transfers_per_s, nodes / load.jobs_per_s, index / load.transfers_per_s)
            self._customers.append(self.fleet.submit(index, self._make_customer(index, network, own, habits)))

    def attend(self) -> None:
        """Tells who has ended by itself, and starts it again."""
        for index, code in self.fleet.take_ended():
            what = f"ended by itself with exit code {code}"
            self.in_trouble.append(NodeEnd(index, what, tuple(read_tail(self.fleet.nodes[index]))))
            self._report(f"node {index} {what}")
            self._starts[index] += 1
            if self._starts[index] <= MOST_STARTS:
                self.fleet.start(index)

    def end_load(self, wait: Wait) -> list[Book]:
        """What the customers did and were told, after what was under way has come to its end or had its time. Raises: whatever `wait` raises."""
        self._end_load.set()
        deadline = time.monotonic() + DRAIN_S
        while not all(customer.done() for customer in self._customers) and time.monotonic() < deadline:
            wait(LOOK_S)
        self._give_up.set()
        return [customer.result() for customer in self._customers]

    def settle(self, wait: Wait) -> dict[int, tuple[BlockSeen, ...]]:
        """The chains of all nodes that came to a common height, the others told as in trouble. Raises: Fault; whatever `wait` raises."""
        target = max((look.height for look in self.sightings.looks), default=0)
        deadline, began_s = time.monotonic() + SETTLE_S, time.monotonic()
        heights: dict[int, int] = {}
        while time.monotonic() < deadline:
            wait(LOOK_S)
            heights = {look.node: look.height for look in self.sightings.list_since(began_s)}
            if all(heights.get(node.index, -1) >= target for node in self.fleet.nodes):
                break
        there = [node.index for node in self.fleet.nodes if heights.get(node.index, -1) >= target]
        for node in self.fleet.nodes:
            if node.index not in there:
                what = f"is at height {heights.get(node.index)} and not at {target}, {SETTLE_S:.0f} s after the load"
                self.in_trouble.append(NodeEnd(node.index, what, tuple(read_tail(node))))
        reading = {index: self.fleet.submit(index, lambda client: read_chain(client, target)) for index in there}
        return {index: chain.result() for index, chain in reading.items()}

    def close(self) -> None:
        """Lets the threads end."""
        for event in (self._end_load, self._give_up, self._end):
            event.set()

    def _make_watcher(self, index: int, pace_s: float) -> Callable[[NodeClient], None]:
        def watch(client: NodeClient) -> None:
            while not self._end.wait(pace_s):
                began_s = time.monotonic()
                try:
                    status = client.call("node_status", Nothing(), NodeStatus)
                except Fault as fault:
                    if fault.reason in {Trouble.UNREACHABLE, Trouble.TOO_MANY_REQUESTS}:
                        continue
                    raise
                self.sightings.add(index, began_s, status)

        return watch

    def _make_customer(
        self, index: int, network: Network, purses: list[Purse], habits: Habits
    ) -> Callable[[NodeClient], Book]:
        return lambda client: Customer(index, client, network, purses, habits).run(self._end_load, self._give_up)

    def _explain_start(self, ended: tuple[tuple[int, int], ...], index: int) -> Fault:
        for node, code in ended:
            what = f"ended with exit code {code} before it was ready"
            self.in_trouble.append(NodeEnd(node, what, tuple(read_tail(self.fleet.nodes[node]))))
            return Fault(Trouble.INTERNAL, f"node {node} {what}", cure="read its log", exit_code=Exit.INTERNAL)
        return Fault(Trouble.TIMED_OUT, f"node {index} was not ready in time", exit_code=Exit.NOT_READY)


def _is_ready(client: NodeClient) -> bool:
    try:
        return client.call("node_status", Nothing(), NodeStatus).readiness.status == "ready"
    except Fault as fault:
        if fault.reason is Trouble.UNREACHABLE:
            return False
        raise


def _make_funding(home: Path, network: Network) -> Callable[[NodeClient], list[Purse]]:
    def pay(client: NodeClient) -> list[Purse]:
        purses = make_purses(PURSES)
        fund(client, network, load_key(Home(home).key, None).signing, purses)
        return purses

    return pay
