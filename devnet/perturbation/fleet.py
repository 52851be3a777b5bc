"""The validators' processes: started, killed, halted and ended one by one, and all of them gone in the end."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from msgspec.structs import replace

from devnet.devnet_file import DevnetFile, DevnetNode, store_devnet
from devnet.launch import QUORATE_RUN, start_process
from devnet.perturbation.links import Links
from devnet.processes import mark_child, stop_processes
from node.rpc_client import NodeClient

SKEW_VARIABLE: Final = "QUORATE__TESTING__CLOCK_SKEW_MS"
END_S: Final = 30.0
DESK_THREADS: Final = 3  # who looks, who pays, who asks for this and that

T = TypeVar("T")


class Fleet:
    """All nodes of a devnet, by index. What is started here is written down in devnet.json at once."""

    def __init__(self, directory: Path, devnet: DevnetFile, links: Links) -> None:
        self._directory: Final = directory
        self._devnet = devnet
        self._links: Final = links
        self._processes: Final[dict[int, subprocess.Popen[bytes]]] = {}
        self._expected: Final[set[int]] = set()  # who should be running
        self._halted: Final[set[int]] = set()
        self._desks: Final = [
            ThreadPoolExecutor(DESK_THREADS, f"desk-{node.index}", links.enter, (node.index,)) for node in devnet.nodes
        ]

    @property
    def nodes(self) -> tuple[DevnetNode, ...]:
        """The nodes, with their processes."""
        return self._devnet.nodes

    def start(self, index: int, skew_ms: int = 0) -> None:
        """This node's process, with the right clock or a wrong one."""
        node = self.nodes[index]
        settings = {**self._links.get_environment(index), **({SKEW_VARIABLE: str(skew_ms)} if skew_ms else {})}
        process = start_process(node, [*self._links.get_prefix(index), *QUORATE_RUN.words, node.home], settings)
        self._processes[index] = process
        self._expected.add(index)
        mark = mark_child(process.pid)
        started = replace(node, pid=mark.pid, started=mark.started)
        nodes = tuple(started if other.index == index else other for other in self.nodes)
        self._devnet = replace(self._devnet, nodes=nodes)
        store_devnet(self._directory, self._devnet)

    def kill(self, index: int) -> None:
        """SIGKILL: the node has no time for a word."""
        self._expected.discard(index)
        self._processes[index].kill()
        self._processes[index].wait(END_S)

    def end(self, index: int) -> int:
        """The exit code after SIGTERM; SIGKILL where that does nothing."""
        self._expected.discard(index)
        self._processes[index].terminate()
        try:
            return self._processes[index].wait(END_S)
        except subprocess.TimeoutExpired:
            self._processes[index].kill()
            return self._processes[index].wait(END_S)

    def pause(self, index: int) -> None:
        """SIGSTOP: the node stands still, its connections stay."""
        self._halted.add(index)
        self._processes[index].send_signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """SIGCONT."""
        self._processes[index].send_signal(signal.SIGCONT)
        self._halted.discard(index)

    def cut(self, index: int) -> None:
        """The node is disconnected from its peers."""
        self._links.cut(index)

    def heal(self, index: int) -> None:
        """The node is connected again."""
        self._links.heal(index)

    def take_ended(self) -> tuple[tuple[int, int], ...]:
        """Who has ended though nobody wanted it, with the exit code; each is told once."""
        ended = [
            (index, process.returncode)
            for index, process in self._processes.items()
            if index in self._expected and process.poll() is not None
        ]
        self._expected.difference_update(index for index, _ in ended)
        return tuple(ended)

    def submit(self, index: int, task: Callable[[NodeClient], T]) -> "Future[T]":
        """The task, run with a client of this node, in a thread from where its RPC can be reached."""
        url = self.nodes[index].rpc
        return self._desks[index].submit(lambda: task(NodeClient(url)))

    def stop(self) -> tuple[int, ...]:
        """Those that had to be killed, after all have ended."""
        for index in tuple(self._halted):
            self.resume(index)
        self._expected.clear()
        marks = {mark: index for index in self._processes if (mark := self.nodes[index].mark)}
        killed = stop_processes(tuple(marks), END_S)
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        nodes = tuple(replace(node, pid=None, started=None) for node in self.nodes)
        self._devnet = replace(self._devnet, nodes=nodes)
        store_devnet(self._directory, self._devnet)
        return tuple(marks[mark] for mark in killed)

    def close(self) -> None:
        """Ends the processes and the threads."""
        self.stop()
        for desk in self._desks:
            desk.shutdown(cancel_futures=True)


@contextmanager
def open_fleet(directory: Path, devnet: DevnetFile, links: Links) -> Iterator[Fleet]:
    """The fleet; nothing of it is left after the block."""
    fleet = Fleet(directory, devnet, links)
    try:
        yield fleet
    finally:
        fleet.close()
