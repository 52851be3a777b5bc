"""What connects the validators, and can be taken away from one of them: what a way of doing it must offer, and which way there is."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from devnet.devnet_file import DevnetNode
from node.faults import Fault, Trouble

PEERS_VARIABLE: Final = "QUORATE__NETWORK__PEERS"
HOST_VARIABLE: Final = "QUORATE__NETWORK__LISTEN_HOST"


class Isolation(Enum):
    """How a node is disconnected."""

    AUTO = "auto"
    NAMESPACES = "namespaces"
    PROXIES = "proxies"


class Links(Protocol):
    """The network between the nodes, by node index."""

    def get_prefix(self, index: int, /) -> tuple[str, ...]:
        """What comes before the command that starts this node."""
        ...

    def get_environment(self, index: int, /) -> Mapping[str, str]:
        """The settings with which this node finds its peers, and they it."""
        ...

    def enter(self, index: int, /) -> None:
        """Brings the calling thread, for good, to where this node's RPC can be reached."""
        ...

    def cut(self, index: int, /) -> None:
        """From now on nothing gets from this node to a peer, or the other way; neither side is told."""
        ...

    def heal(self, index: int, /) -> None:
        """Puts the link back."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """How nodes are disconnected in this run, and why so."""

    isolation: Isolation
    reason: str


def choose_isolation(wished: Isolation) -> Choice:
    """Namespaces where this user may make them, otherwise proxies. Raises: Fault where what is wished for can't be had."""
    if wished is Isolation.PROXIES:
        return Choice(wished, "as asked")
    obstacle = explain_no_namespaces()
    if not obstacle:
        return Choice(Isolation.NAMESPACES, "a network namespace for each node, on one switch")
    if wished is Isolation.NAMESPACES:
        raise Fault(
            Trouble.PERMISSION,
            f"expected to be allowed network namespaces, but {obstacle}",
            cure="run it as root, or give --isolation proxies",
        )
    return Choice(Isolation.PROXIES, f"no network namespaces: {obstacle}")


def open_links(isolation: Isolation, nodes: Sequence[DevnetNode]) -> AbstractContextManager[Links]:
    """The links between the nodes, gone after the block. Raises: Fault."""
    from devnet.perturbation.namespaces import open_namespaces
    from devnet.perturbation.proxies import open_proxies

    return open_namespaces(nodes) if isolation is Isolation.NAMESPACES else open_proxies(nodes)


def explain_no_namespaces() -> str:
    """Why no network namespaces can be made here; empty where they can."""
    if shutil.which("ip") is None:
        return "there is no `ip` command (package iproute2)"
    name = f"quorate-{os.getpid()}-try"
    try:
        with made_namespace(name):
            run_ip("-n", name, "link", "add", "switch", "type", "bridge")
            run_ip("-n", name, "link", "add", "port1", "type", "veth", "peer", "name", "port2")
            run_ip("netns", "exec", name, "true")
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(map(str, error.cmd))}` says {str(error.stderr).strip() or error.returncode}"
    return ""


@contextmanager
def made_namespace(name: str) -> Iterator[str]:
    """A network namespace, gone after the block."""
    run_ip("netns", "add", name)
    with ExitStack() as stack:
        stack.callback(run_ip, "netns", "del", name)
        yield name


def run_ip(*arguments: str) -> None:
    """One `ip` command. Raises: CalledProcessError."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)
