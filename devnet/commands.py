"""What the verbs of `quorate devnet` do and say: results on standard output, how it goes on standard error."""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

import msgspec

from devnet.adversaries import build_cheat_command, find_cheat
from devnet.devnet_file import DevnetFile, DevnetNode, has_devnet, load_devnet
from devnet.genesis import DEFAULT_MODEL, find_model
from devnet.homes import Plan, Worker, create_devnet, get_log, hold_directory, list_models
from devnet.interruption import Interrupted, Interruption, watch_signals
from devnet.launch import LOOK_S, NodeFailed, Running, read_status, start_devnet, stop_devnet, stop_running
from devnet.next_steps import name_command, print_next_steps
from devnet.wish import DEFAULT_NODES, Wish
from node.faults import Exit, Fault, Trouble
from node.render import clean, open_console, print_json, print_note, print_table, shorten
from node.rpc_types import NodeStatus
from protocol.params import UNIT


class NodeLine(msgspec.Struct, frozen=True):
    """A node as `status --json` shows it; `status` is null where nobody answers."""

    index: int
    node: str
    home: str
    rpc: str
    p2p: str
    pid: int | None
    cheat: str | None
    state: str
    status: NodeStatus | None


def run_up(directory: Path, wish: Wish, *, is_detached: bool, as_json: bool) -> int:
    """Starts a devnet; attached, stays until it ends or is asked to.

    Raises: Fault.
    """
    plan = build_plan(wish)
    with hold_directory(directory), watch_signals() as interruption:
        try:
            devnet = open_devnet(directory, wish, plan, interruption)
            running = start_devnet(directory, devnet, interruption, StartReport())
        except NodeFailed as failure:
            print_tail(failure)
            raise
        except Interrupted as asked:
            raise Fault(Trouble.INTERRUPTED, "stopped before the devnet was ready") from asked
        if as_json:
            print_json(running.devnet)
        else:
            print_next_steps(directory, running.devnet, is_detached=is_detached)
        return Exit.OK if is_detached else _attend(running, interruption)


def build_plan(wish: Wish) -> Plan:
    """A plan in which every cheat and model exists.

    Raises: Fault(USAGE | BAD_MODEL) naming those there are.
    """
    models = tuple(dict.fromkeys((DEFAULT_MODEL, *wish.models)))
    directories = [find_model(name) for name in models]
    nodes = DEFAULT_NODES if wish.nodes is None else wish.nodes
    cheats: Mapping[int, str] = wish.cheats or {}
    for index in cheats:
        if index >= nodes:
            raise Fault(
                Trouble.USAGE,
                f"expected --cheat for a node between 0 and {nodes - 1}, got {index}",
                cure="count from 0",
            )
    workers = {
        index: Worker(name, build_cheat_command(find_cheat(name), directories)) for index, name in cheats.items()
    }
    return Plan(nodes, models, workers)


def open_devnet(directory: Path, wish: Wish, plan: Plan, interruption: Interruption) -> DevnetFile:
    """The devnet that the directory holds, stopped, if it is what is wished for; otherwise a new one.

    Raises: Fault(HOME_LOCKED) where it runs; Fault(FILE_EXISTS) where it is another; Interrupted.
    """
    if not has_devnet(directory):
        print_note(f"making {plan.nodes} validators in {directory}")
        return create_devnet(directory, plan, interruption.check)
    devnet = load_devnet(directory)
    running = sum(node.is_up for node in devnet.nodes)
    if running:
        raise Fault(
            Trouble.HOME_LOCKED,
            f"the devnet in {directory} is running already: {running} of its {len(devnet.nodes)} nodes",
            cure=f"use it as it is, stop it with `quorate devnet down --home {directory}`, or choose another --home",
        )
    _check_same(directory, devnet, wish)
    print_note(f"starting the {len(devnet.nodes)} validators in {directory} again")
    return devnet


def _check_same(directory: Path, devnet: DevnetFile, wish: Wish) -> None:
    cheats = {node.index: node.cheat for node in devnet.nodes if node.cheat is not None}
    models = set(list_models(devnet))
    wanted = [
        ("--nodes", wish.nodes, len(devnet.nodes)),
        ("--cheat", wish.cheats, cheats),
        ("--model", (models | set(wish.models)) if wish.models else None, models),
    ]
    for option, wished, found in wanted:
        if wished is not None and wished != found:
            raise Fault(
                Trouble.FILE_EXISTS,
                f"{directory} holds a devnet that was made with another {option}: {found or 'none'}, not {wished}",
                cure="leave the option out, choose another --home DIR, or remove that directory",
            )


class StartReport:
    """A line for each node once it is ready, and for what keeps the others where that changes."""

    def __init__(self) -> None:
        self._began: Final = time.monotonic()
        self._last: Final[dict[int, str]] = {}

    def __call__(self, node: DevnetNode, why: str) -> None:
        """Says that a node is ready, where there is nothing that keeps it."""
        if self._last.get(node.index) == why:
            return
        self._last[node.index] = why
        if not why:
            seconds = time.monotonic() - self._began
            cheat = f"  cheats: {node.cheat}" if node.cheat else ""
            print_note(f"node {node.index}  {shorten(node.node)}  ready after {seconds:4.1f} s  {node.rpc}{cheat}")


def _attend(running: Running, interruption: Interruption) -> int:
    """Stays until all nodes have ended, or a signal asks for it; then stops what is left."""
    told: set[int] = set()
    try:
        while len(told) < len(running.processes):
            interruption.wait(LOOK_S)
            for node, process in zip(running.devnet.nodes, running.processes, strict=True):
                if node.index not in told and process.poll() is not None:
                    told.add(node.index)
                    print_note(f"node {node.index} ended with exit code {process.returncode}")
    except Interrupted:
        print_note("stopping …")
    finally:
        killed = stop_running(running)
    codes = [process.returncode for process in running.processes]
    if killed:
        print_note(f"{len(killed)} of the nodes did not end by themselves and were killed")
    print_note(
        f"all {len(codes)} nodes have ended; `{name_command()} devnet up --home {running.directory}` goes on from here"
    )
    return Exit.INTERNAL if killed else Exit.OK


def print_tail(failure: NodeFailed) -> None:
    """The end of the log of a node that failed."""
    for line in failure.tail:
        print_note(f"  | {line}")


def run_down(directory: Path, *, as_json: bool) -> int:
    """Stops a devnet's nodes.

    Raises: Fault(NOT_A_HOME).
    """
    before = [node.index for node in load_devnet(directory).nodes if node.is_up]
    devnet, killed = stop_devnet(directory)
    slow = [node.index for node in devnet.nodes if node.mark in killed]
    if as_json:
        print_json({"stopped": before, "killed": slow})
    else:
        print_note(
            f"stopped {len(before)} of {len(devnet.nodes)} nodes" + (f"; {slow} had to be killed" if slow else "")
        )
    return Exit.OK


def run_status(directory: Path, *, as_json: bool) -> int:
    """Shows each node, by what it answers itself.

    Raises: Fault(NOT_A_HOME).
    """
    devnet = load_devnet(directory)
    lines = [_look(node) for node in devnet.nodes]
    if as_json:
        print_json({"chain_id": devnet.chain_id, "genesis": devnet.genesis, "nodes": lines})
    else:
        columns = ("node", "state", "height", "view", "peers", "worker", "balance", "cheat")
        right = frozenset({"height", "view", "peers", "balance"})
        print_table(open_console(), columns, [_make_row(line, len(lines)) for line in lines], right=right)
    return Exit.OK if all(line.state == "ready" for line in lines) else Exit.NOT_READY


def _look(node: DevnetNode) -> NodeLine:
    status = read_status(node)
    if status is not None:
        state = status.readiness.status.replace("_", " ")
    else:
        state = "silent" if node.is_up else "stopped"
    return NodeLine(node.index, node.node, node.home, node.rpc, node.p2p, node.pid, node.cheat, state, status)


def _make_row(line: NodeLine, nodes: int) -> tuple[str, ...]:
    status = line.status
    told = ("-",) * 5
    if status is not None:
        worker = "ready" if status.worker.ready else "down"
        units = f"{status.balance // UNIT:,}"
        told = (str(status.height), str(status.view), f"{status.peers_connected}/{nodes - 1}", worker, units)
    return (f"{line.index} {shorten(line.node)}", line.state, *told, line.cheat or "-")


def run_logs(directory: Path, index: int | None, count: int, *, is_following: bool, as_json: bool) -> int:
    """Shows the end of the nodes' logs, and with `is_following` what comes, until Ctrl-C.

    Raises: Fault(NOT_A_HOME); Fault(USAGE) where there is no such node.
    """
    devnet = load_devnet(directory)
    chosen = [node for node in devnet.nodes if index in {None, node.index}]
    if not chosen:
        raise Fault(
            Trouble.USAGE, f"expected a node between 0 and {len(devnet.nodes) - 1}, got {index}", cure="count from 0"
        )
    opened = [
        (node.index, get_log(node).open("r", encoding="utf-8", errors="replace"))
        for node in chosen
        if get_log(node).is_file()
    ]
    try:
        for number, log in opened:
            for line in deque(log, count):
                _print_line(number, line, as_json=as_json)
        if is_following:
            _follow(opened, as_json=as_json)
    finally:
        for _, log in opened:
            log.close()
    return Exit.OK


def _follow(opened: Sequence[tuple[int, TextIO]], *, as_json: bool) -> None:
    with watch_signals() as interruption:
        while True:
            for number, log in opened:
                for line in log:
                    _print_line(number, line, as_json=as_json)
            sys.stdout.flush()
            try:
                interruption.wait(LOOK_S)
            except Interrupted:
                return


def _print_line(number: int, line: str, *, as_json: bool) -> None:
    text = line.rstrip("\n")
    shown = json.dumps({"index": number, "line": text}, ensure_ascii=False) if as_json else f"{number} | {clean(text)}"
    sys.stdout.write(shown + os.linesep)
