"""The directory of a devnet: one home a node, the genesis they share, devnet.json; and that only one launcher works on it."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from devnet.devnet_file import FILE_NAME, DevnetFile, DevnetNode, store_devnet
from devnet.genesis import Founder, build_genesis, draw_seed, find_model, load_shipped_card, make_founder
from devnet.ports import LOOPBACK, find_free_ports, is_port_free
from node.config import Setting, encode_config, load_config
from node.disk import disk_fault, replace_file
from node.faults import Fault, Trouble
from node.genesis_file import write_genesis
from node.home import Home, create_home
from node.keys import create_key
from protocol.genesis import Genesis, compute_chain_id

GENESIS_NAME: Final = "genesis.json"
LOCK_NAME: Final = "lock"
LOG_NAME: Final = "node.log"


@dataclass(frozen=True, slots=True)
class Worker:
    """The worker of a node that cheats: the cheat's name and the command."""

    cheat: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new devnet is to be. `models` names shipped ones; `cheats` are by node index."""

    nodes: int
    models: tuple[str, ...]
    cheats: Mapping[int, Worker]


@contextmanager
def hold_directory(directory: Path) -> Iterator[None]:
    """The devnet's directory is this launcher's alone; the system lets go of it however the process ends.

    Raises: Fault(HOME_LOCKED) naming the process that has it; StorageFailure.
    """
    path = directory / LOCK_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise disk_fault(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        raise Fault(
            Trouble.HOME_LOCKED,
            f"the devnet in {directory} is being run by process {holder}",
            cure=f"stop it with Ctrl-C there, or with `quorate devnet down --home {directory}`; or choose another --home",
        ) from error
    finally:
        os.close(descriptor)


def create_devnet(directory: Path, plan: Plan, check: Callable[[], None]) -> DevnetFile:
    """A new devnet, stopped; `check` is called now and then and may raise. What fails half-way leaves nothing behind.

    Raises: Fault(NOT_A_HOME) where the directory holds something else; Fault(BAD_MODEL); StorageFailure.
    """
    foreign = sorted(entry.name for entry in directory.iterdir() if entry.name != LOCK_NAME)
    if foreign:
        raise Fault(
            Trouble.NOT_A_HOME,
            f"{directory}: expected an empty or a new directory, got one that holds {foreign[0]!r}",
            cure="give an empty or a new directory with --home DIR",
        )
    cards = [load_shipped_card(name) for name in plan.models]
    homes = [directory / f"node-{index}" for index in range(plan.nodes)]
    with ExitStack() as stack:
        stack.callback(_remove, homes, (directory / GENESIS_NAME, directory / FILE_NAME))
        founders = [_create_node(home, check) for home in homes]
        genesis = build_genesis(founders, cards, draw_seed(), time.time_ns() // 1_000_000)
        devnet = _write_down(directory, homes, founders, genesis, plan)
        stack.pop_all()
    return devnet


def get_log(node: DevnetNode) -> Path:
    """Where a node's process writes what it says."""
    return Path(node.home) / "logs" / LOG_NAME


def list_models(devnet: DevnetFile) -> list[str]:
    """The names of the models that a devnet's nodes serve.

    Raises: Fault(BAD_CONFIGURATION).
    """
    config = load_config(Home(Path(devnet.nodes[0].home)).config, {}, {}).config
    return [model.name for model in config.inference.models]


def ensure_ports(directory: Path, devnet: DevnetFile) -> DevnetFile:
    """The same devnet on ports that are free now: its own, unless somebody else has taken one of them.

    Raises: Fault(BAD_CONFIGURATION) where a node's configuration was changed by hand into none; StorageFailure.
    """
    if all(is_port_free(port) for node in devnet.nodes for port in list_ports(node)):
        return devnet
    ports = find_free_ports(2 * len(devnet.nodes))
    nodes = tuple(
        replace(node, rpc=_make_url(rpc), p2p=_make_peer(node.node, p2p))
        for node, rpc, p2p in zip(devnet.nodes, ports[::2], ports[1::2], strict=True)
    )
    moved = replace(devnet, nodes=nodes)
    for node in nodes:
        home = Home(Path(node.home))
        inference = load_config(home.config, {}, {}).config.inference
        _store_config(home, moved, node, inference.models, inference.command)
    store_devnet(directory, moved)
    return moved


def list_ports(node: DevnetNode) -> tuple[int, int]:
    """The ports of a node's RPC and of its peers."""
    return _parse_port(node.rpc), _parse_port(node.p2p)


def _remove(homes: Sequence[Path], files: Sequence[Path]) -> None:
    for home in homes:
        shutil.rmtree(home, ignore_errors=True)
    for file in files:
        file.unlink(missing_ok=True)


def _create_node(root: Path, check: Callable[[], None]) -> Founder:
    check()
    home = create_home(root)
    try:
        (root / "logs").mkdir(mode=0o700)
    except OSError as error:
        raise disk_fault(root, error) from error
    return make_founder(create_key(home.key, None))


def _write_down(
    directory: Path, homes: Sequence[Path], founders: Sequence[Founder], genesis: Genesis, plan: Plan
) -> DevnetFile:
    write_genesis(directory / GENESIS_NAME, genesis)
    ports = find_free_ports(2 * len(homes))
    nodes = tuple(
        DevnetNode(
            index=index,
            node=founder.node.hex(),
            home=str(home),
            rpc=_make_url(ports[2 * index]),
            p2p=_make_peer(founder.node.hex(), ports[2 * index + 1]),
            pid=None,
            started=None,
            cheat=plan.cheats[index].cheat if index in plan.cheats else None,
        )
        for index, (home, founder) in enumerate(zip(homes, founders, strict=True))
    )
    devnet = DevnetFile(compute_chain_id(genesis).hex(), str(directory / GENESIS_NAME), nodes)
    models = [find_model(name) for name in plan.models]
    for node in nodes:
        home = Home(Path(node.home))
        write_genesis(home.genesis, genesis)
        _store_config(home, devnet, node, models, plan.cheats[node.index].command if node.cheat else ())
    store_devnet(directory, devnet)
    return devnet


def _store_config(
    home: Home, devnet: DevnetFile, node: DevnetNode, models: Sequence[Path], command: Sequence[str]
) -> None:
    rpc_port, p2p_port = list_ports(node)
    settings: dict[str, Setting] = {
        "network.listen_host": LOOPBACK,
        "network.listen_port": p2p_port,
        "network.peers": tuple(peer.p2p for peer in devnet.nodes if peer.index != node.index),
        "rpc.host": LOOPBACK,
        "rpc.port": rpc_port,
        "inference.models": tuple(str(model) for model in models),
    }
    if command:
        settings["inference.command"] = tuple(command)
    replace_file(home.config, encode_config(settings).encode(), mode=0o600)


def _make_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def _make_peer(node: str, port: int) -> str:
    return f"{node}@{LOOPBACK}:{port}"


def _parse_port(address: str) -> int:
    _, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65_535:
        raise Fault(Trouble.NOT_A_HOME, f"{FILE_NAME}: expected an address that ends in a port, got {address!r}")
    return int(port)
