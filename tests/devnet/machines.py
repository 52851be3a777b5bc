"""Machines for tests: a directory and an address each, told apart by loopback addresses or by network namespaces on one switch."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from devnet.perturbation.namespaces import enter_namespace, run_ip
from node.faults import Fault, Trouble
from node.home import Home, load_api_address
from node.rpc_client import NodeClient
from node.rpc_types import BlockParams, BlockResult, NodeStatus, Nothing
from tests.devnet.processes import COMMAND, Done

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

R = TypeVar("R", bound=msgspec.Struct)

SUBNET = "10.213.77"


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """Somebody's machine. Nothing goes from one to another but over the network, and by `send`."""

    root: Path
    address: str
    namespace: str | None = None
    inside: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    clients: list[NodeClient] = field(default_factory=list)

    def quorate(self, *arguments: str, timeout_s: float = 60) -> Done:
        """One command, typed here and run to its end."""
        done = subprocess.run(
            [*self._prefix, *COMMAND, *arguments],
            cwd=self.root, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def running(self) -> Iterator[None]:
        """`quorate run` on the home of this machine, ended with the block; its log is in `log`."""
        with (self.root / "log").open("ab") as log:
            process = subprocess.Popen(
                [*self._prefix, *COMMAND, "run", "--home", "home"],
                cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(timeout=30) == 0, (self.root / "log").read_text()[-2000:]

    def send(self, name: str, other: Machine) -> None:
        """A file, carried from here to there by whatever means people have."""
        shutil.copy(self.root / name, other.root / name)

    def call(self, method: str, params: msgspec.Struct, result: type[R]) -> R:
        """A call of this machine's own node, from a thread that is inside its namespace."""
        return self.inside.submit(self._call, method, params, result).result(timeout=60)

    def read_status(self) -> NodeStatus:
        return self.call("node_status", Nothing(), NodeStatus)

    def read_block(self, height: int) -> BlockResult:
        return self.call("block_get", BlockParams(height), BlockResult)

    def is_ready(self) -> bool:
        try:
            return self.read_status().readiness.status == "ready"
        except Fault as fault:
            if fault.reason in {Trouble.UNREACHABLE, Trouble.NO_NODE_RUNNING}:
                return False
            raise

    @property
    def _prefix(self) -> Sequence[str]:
        return () if self.namespace is None else ("ip", "netns", "exec", self.namespace)

    def _call(self, method: str, params: msgspec.Struct, result: type[R]) -> R:
        if not self.clients:
            token = self.root / "token"
            url = load_api_address(Home(self.root / "home"))
            self.clients.append(NodeClient(url, token.read_text().strip() if token.exists() else None))
        return self.clients[0].call(method, params, result)


def make_machines(root: Path, addresses: Sequence[str], namespaces: Sequence[str] = ()) -> tuple[Machine, ...]:
    """Machines with empty directories."""
    machines: list[Machine] = []
    for index, address in enumerate(addresses):
        place = root / f"machine-{index + 1}"
        place.mkdir()
        if namespaces:
            name = namespaces[index]
            inside = ThreadPoolExecutor(1, initializer=enter_namespace, initargs=(name,))
            machines.append(Machine(place, address, name, inside))
        else:
            machines.append(Machine(place, address))
    return tuple(machines)


@dataclass(frozen=True, slots=True)
class Switch:
    """What connects the machines; each hangs on a port."""

    namespace: str

    def cut(self, port: int) -> None:
        """Takes the link away, without a word to either side."""
        run_ip("-n", self.namespace, "link", "set", f"port{port}", "down")

    def heal(self, port: int) -> None:
        """Puts the link back."""
        run_ip("-n", self.namespace, "link", "set", f"port{port}", "up")


@contextmanager
def connected(root: Path, count: int) -> Iterator[tuple[Switch, tuple[Machine, ...]]]:
    """So many machines in network namespaces of their own, on one switch; all of it is gone after the block."""
    names = [f"quorate-{os.getpid()}-{index + 1}" for index in range(count)]
    switch = f"quorate-{os.getpid()}-switch"
    with ExitStack() as stack:
        for name in (switch, *names):
            run_ip("netns", "add", name)
            stack.callback(run_ip, "netns", "del", name)
            run_ip("-n", name, "link", "set", "lo", "up")
        run_ip("-n", switch, "link", "add", "switch", "type", "bridge")
        run_ip("-n", switch, "link", "set", "switch", "up")
        for index, name in enumerate(names):
            port = f"port{index + 1}"
            run_ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            run_ip("-n", switch, "link", "set", port, "master", "switch", "up")
            run_ip("-n", name, "addr", "add", f"{SUBNET}.{index + 1}/24", "dev", "eth0")
            run_ip("-n", name, "link", "set", "eth0", "up")
        yield Switch(switch), make_machines(root, [f"{SUBNET}.{index + 1}" for index in range(count)], names)
