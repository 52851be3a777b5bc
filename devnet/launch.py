"""A devnet's processes: started each in a session of its own, watched until all are ready, stopped, and nothing else stopped."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from devnet.devnet_file import DevnetFile, DevnetNode, load_devnet, store_devnet
from devnet.homes import ensure_ports, get_log, list_ports
from devnet.interruption import Interruption
from devnet.ports import is_port_free
from devnet.processes import ProcessMark, mark_child, stop_processes
from node.config import ENVIRONMENT_PREFIX
from node.disk import disk_fault
from node.faults import Exit, Fault, Trouble
from node.keys import PASSPHRASE_VARIABLE
from node.rpc_client import NodeClient
from node.rpc_types import NodeStatus, Nothing

READY_S: Final = 120.0  # five nodes on two idle cores take a fifth of it
LOOK_S: Final = 0.1
TAIL_LINES: Final = 15
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Running:
    """A devnet whose processes were started here: they are children of this process, and `devnet` names them."""

    directory: Path
    devnet: DevnetFile
    processes: tuple["subprocess.Popen[bytes]", ...]


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """What is started with a home's path as its last argument, and how long it may take to be ready. Units: seconds"""

    words: tuple[str, ...] = (sys.executable, "-P", "-m", "node.cli", "run", "--home")
    ready_s: float = READY_S


QUORATE_RUN: Final = NodeCommand()


class NodeFailed(Fault):
    """A node that ended before it was ready, or never became so; the devnet was stopped. `tail` is the end of its log."""

    def __init__(self, node: DevnetNode, what: str, exit_code: int, tail: Sequence[str]) -> None:
        known = {int(code) for code in Exit} - {Exit.OK}
        super().__init__(
            Trouble.INTERNAL,
            f"node {node.index} {what}; all nodes were stopped",
            cure=f"read its log: {get_log(node)}",
            exit_code=Exit(exit_code) if exit_code in known else Exit.INTERNAL,
        )
        self.tail = tuple(tail)


Report = Callable[[DevnetNode, str], None]


def start_devnet(
    directory: Path,
    devnet: DevnetFile,
    interruption: Interruption,
    report: Report,
    command: NodeCommand = QUORATE_RUN,
) -> Running:
    """The devnet with every node ready: the whole network answers. Otherwise nothing of it is left running.

    Raises: NodeFailed; Interrupted; StorageFailure.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        devnet = ensure_ports(directory, devnet)
        try:
            return _start_once(directory, devnet, interruption, report, command)
        except NodeFailed:
            # Between the look at a port and the node's use of it somebody else may have come; then, and only then, again.
            if attempt == _ATTEMPTS or all(is_port_free(port) for node in devnet.nodes for port in list_ports(node)):
                raise
    raise AssertionError("the last attempt neither started the devnet nor failed")


def wait_ready(running: Running, interruption: Interruption, report: Report, deadline_s: float) -> None:
    """Goes on once every node's checks hold: worker loaded, a block final, a quorum of peers that see it.

    Raises: NodeFailed; Interrupted.
    """
    waiting = {node.index: NodeClient(node.rpc) for node in running.devnet.nodes}
    deadline = time.monotonic() + deadline_s
    while waiting:
        for index in list(waiting):
            node, process = running.devnet.nodes[index], running.processes[index]
            if process.poll() is not None:
                raise NodeFailed(
                    node, f"ended with exit code {process.returncode}", process.returncode, read_tail(node)
                )
            why = _explain_unready(waiting[index])
            if time.monotonic() > deadline:
                raise NodeFailed(
                    node, f"was not ready after {deadline_s:.0f} s: {why}", Exit.NOT_READY, read_tail(node)
                )
            report(node, why)
            if not why:
                del waiting[index]
        if waiting:
            interruption.wait(LOOK_S)


def stop_running(running: Running) -> tuple[ProcessMark, ...]:
    """Those that had to be killed, after all that were started here have ended."""
    killed = stop_processes(running.devnet.marks)
    for process in running.processes:
        process.wait()
    store_devnet(running.directory, _without_processes(running.devnet))
    return killed


def stop_devnet(directory: Path) -> tuple[DevnetFile, tuple[ProcessMark, ...]]:
    """A devnet that somebody else may have started, as it was, and those of its processes that had to be killed.

    Raises: Fault(NOT_A_HOME); StorageFailure.
    """
    devnet = load_devnet(directory)
    killed = stop_processes(devnet.marks)
    store_devnet(directory, _without_processes(devnet))
    return devnet, killed


def read_tail(node: DevnetNode, count: int = TAIL_LINES) -> list[str]:
    """The last lines of a node's log."""
    try:
        with get_log(node).open("r", encoding="utf-8", errors="replace") as log:
            return [line.rstrip("\n") for line in deque(log, count)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise disk_fault(get_log(node), error) from error


def read_status(node: DevnetNode) -> NodeStatus | None:
    """What the node says of itself; None where nobody answers."""
    try:
        return NodeClient(node.rpc).call("node_status", Nothing(), NodeStatus)
    except Fault as fault:
        if fault.reason is Trouble.UNREACHABLE:
            return None
        raise


def build_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the nodes inherit: not the settings meant for the one node of whoever calls, which would give all the same port."""
    kept = f"{ENVIRONMENT_PREFIX}LOG__"
    return {
        name: value
        for name, value in environment.items()
        if name != PASSPHRASE_VARIABLE and (not name.startswith(ENVIRONMENT_PREFIX) or name.startswith(kept))
    }


def start_process(node: DevnetNode, command: Sequence[str], settings: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """A node's process, which writes to the node's log; `settings` are environment variables for it alone. Raises: StorageFailure."""
    with _open_log(node) as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**build_environment(os.environ), **settings},
            start_new_session=True,  # a terminal's Ctrl-C is for the launcher, which stops the nodes in its own order
        )


def _start_once(
    directory: Path, devnet: DevnetFile, interruption: Interruption, report: Report, command: NodeCommand
) -> Running:
    running = Running(directory, devnet, ())
    with ExitStack() as stack:
        stack.callback(lambda: stop_running(running))
        for node in devnet.nodes:
            interruption.check()
            running = _add_process(running, node, command.words)
        wait_ready(running, interruption, report, command.ready_s)
        stack.pop_all()
    return running


def _add_process(running: Running, node: DevnetNode, command: Sequence[str]) -> Running:
    """With one node more, written down at once: whatever becomes of this process, `down` finds that one."""
    process = start_process(node, [*command, node.home], {})
    mark = mark_child(process.pid)
    started = replace(node, pid=mark.pid, started=mark.started)
    nodes = tuple(started if other.index == node.index else other for other in running.devnet.nodes)
    added = Running(running.directory, replace(running.devnet, nodes=nodes), (*running.processes, process))
    store_devnet(running.directory, added.devnet)
    return added


@contextmanager
def _open_log(node: DevnetNode) -> Iterator[int]:
    path = get_log(node)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise disk_fault(path, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _explain_unready(client: NodeClient) -> str:
    """Why the node is not ready, or nothing where it is."""
    try:
        status = client.call("node_status", Nothing(), NodeStatus)
    except Fault as fault:
        if fault.reason is not Trouble.UNREACHABLE:
            raise
        return "starting"
    if status.readiness.status == "ready":
        return ""
    return next((f"{check.name}: {check.reason}" for check in status.readiness.checks if not check.ok), "not ready yet")


def _without_processes(devnet: DevnetFile) -> DevnetFile:
    return replace(devnet, nodes=tuple(replace(node, pid=None, started=None) for node in devnet.nodes))
