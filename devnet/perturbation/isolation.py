"""How nodes are disconnected in a run: by network namespaces where they are allowed, otherwise by proxies."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum

from devnet.devnet_file import DevnetNode
from devnet.perturbation.links import Links
from devnet.perturbation.namespaces import explain_no_namespaces, open_namespaces
from node.faults import Fault, Trouble


class Isolation(Enum):
    """How a node is disconnected."""

    AUTO = "auto"
    NAMESPACES = "namespaces"
    PROXIES = "proxies"


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
    from devnet.perturbation.proxies import open_proxies

    return open_namespaces(nodes) if isolation is Isolation.NAMESPACES else open_proxies(nodes)
