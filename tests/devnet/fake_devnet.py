"""A devnet's file for tests that start no real node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from devnet.devnet_file import DevnetFile, DevnetNode, store_devnet
from devnet.homes import Plan, Worker, create_devnet, get_log
from devnet.ports import LOOPBACK, find_free_ports
from devnet.processes import mark_process

if TYPE_CHECKING:
    from pathlib import Path

CHEAT = Worker("small-model", ("cheating-worker", "--model", "x"))


def make_plan(nodes: int = 2, cheater: int | None = None) -> Plan:
    return Plan(nodes, ("arith-s",), {} if cheater is None else {cheater: CHEAT})


def make_devnet(directory: Path, nodes: int = 2, cheater: int | None = None) -> DevnetFile:
    directory.mkdir(exist_ok=True)
    return create_devnet(directory, make_plan(nodes, cheater), lambda: None)


def make_bare_devnet(directory: Path, nodes: int = 2) -> DevnetFile:
    """One without keys and configurations, for processes that need none."""
    ports = find_free_ports(2 * nodes)
    devnet = DevnetFile(
        "ab" * 32,
        str(directory / "genesis.json"),
        tuple(
            replace(
                make_node(index),
                home=str(directory / f"node-{index}"),
                rpc=f"http://{LOOPBACK}:{ports[2 * index]}",
                p2p=f"{index:064x}@{LOOPBACK}:{ports[2 * index + 1]}",
            )
            for index in range(nodes)
        ),
    )
    for node in devnet.nodes:
        get_log(node).parent.mkdir(parents=True)
    store_devnet(directory, devnet)
    return devnet


def make_node(index: int, pid: int | None = None) -> DevnetNode:
    mark = None if pid is None else mark_process(pid)
    return DevnetNode(
        index=index,
        node=f"{index:064x}",
        home=f"/nowhere/node-{index}",
        rpc=f"http://127.0.0.1:{1 + index}",
        p2p=f"{index:064x}@127.0.0.1:{100 + index}",
        pid=None if mark is None else mark.pid,
        started=None if mark is None else mark.started,
        cheat=None,
    )
