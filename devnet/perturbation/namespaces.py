"""A network namespace for each node, all on one switch: taking a port of the switch down is pulling the cable.

A node's RPC stays on the loopback address inside its namespace; whoever calls it does so from a thread that went in.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devnet.devnet_file import DevnetNode
from devnet.homes import list_ports
from devnet.perturbation.links import HOST_VARIABLE, PEERS_VARIABLE, Links
from node.faults import Fault, Trouble

SUBNET: Final = "10.213.78"  # seen by nobody outside these namespaces
_CLONE_NEWNET: Final = 0x40000000
_NAMESPACES: Final = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The open links."""

    switch: str
    names: tuple[str, ...]
    nodes: tuple[DevnetNode, ...]

    def get_prefix(self, index: int) -> tuple[str, ...]:
        """`ip netns exec` becomes what it starts: the process id is the node's."""
        return ("ip", "netns", "exec", self.names[index])

    def get_environment(self, index: int) -> Mapping[str, str]:
        """Everybody at an address of the switch, on the port that devnet.json says."""
        peers = [
            f"{peer.node}@{_address(peer.index)}:{list_ports(peer)[1]}" for peer in self.nodes if peer.index != index
        ]
        return {HOST_VARIABLE: _address(index), PEERS_VARIABLE: ",".join(peers)}

    def enter(self, index: int) -> None:
        """Into the namespace of this name."""
        enter_namespace(self.names[index])

    def cut(self, index: int) -> None:
        """The switch's port goes down; the node's own end stays up and hears nothing."""
        run_ip("-n", self.switch, "link", "set", _port(index), "down")

    def heal(self, index: int) -> None:
        """The port comes back."""
        run_ip("-n", self.switch, "link", "set", _port(index), "up")


@contextmanager
def open_namespaces(nodes: Sequence[DevnetNode]) -> Iterator[Links]:
    """Links through namespaces of this process's own names. Raises: Fault(PERMISSION)."""
    names = tuple(f"quorate-{os.getpid()}-{node.index}" for node in nodes)
    switch = f"quorate-{os.getpid()}-switch"
    with ExitStack() as stack:
        try:
            for name in (switch, *names):
                stack.enter_context(made_namespace(name))
                run_ip("-n", name, "link", "set", "lo", "up")
            run_ip("-n", switch, "link", "add", "switch", "type", "bridge")
            run_ip("-n", switch, "link", "set", "switch", "up")
            for index, name in enumerate(names):
                _plug_in(switch, name, index)
        except subprocess.CalledProcessError as error:
            raise Fault(
                Trouble.PERMISSION,
                f"expected a network namespace for each node, but `{' '.join(map(str, error.cmd))}` says {str(error.stderr).strip()}",
                cure="give --isolation proxies",
            ) from error
        yield Namespaces(switch, names, tuple(nodes))


def _plug_in(switch: str, name: str, index: int) -> None:
    port = _port(index)
    run_ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
    run_ip("-n", switch, "link", "set", port, "master", "switch", "up")
    run_ip("-n", name, "addr", "add", f"{_address(index)}/24", "dev", "eth0")
    run_ip("-n", name, "link", "set", "eth0", "up")


def _port(index: int) -> str:
    return f"port{index}"


def _address(index: int) -> str:
    return f"{SUBNET}.{index + 1}"


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


def enter_namespace(name: str) -> None:
    """Brings the calling thread, and the sockets that it opens, into a namespace for good. Python has os.setns from 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (_NAMESPACES / name).open("rb") as place:
        if libc.setns(place.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}")
