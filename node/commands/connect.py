"""Which node a command talks to: --rpc, else the home's running node (a devnet's first that answers), else the user's own."""

import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from node.config import load_config
from node.faults import Fault, Trouble
from node.home import Home, compute_default_home, load_api_address
from node.rpc_access import load_token
from node.rpc_client import NodeClient

DEVNET_FILE: Final = "devnet.json"
MAX_DEVNET_BYTES: Final = 1024 * 1024


class DevnetNode(msgspec.Struct, frozen=True):
    """What is read of one node's entry in devnet.json."""

    index: int
    rpc: str
    home: str = ""
    pid: int | None = None


class DevnetFile(msgspec.Struct, frozen=True):
    """What is read of devnet.json."""

    nodes: tuple[DevnetNode, ...]


def connect(rpc: str | None, home: Path | None, token_file: Path | None = None) -> NodeClient:
    """A client for the node that the options name. Raises: Fault."""
    token = None if token_file is None else load_token(token_file)
    if rpc is not None:
        return NodeClient(_check_url(rpc), token)
    if home is None:
        return _connect_home(Home(compute_default_home(os.environ)), token)
    if (home / DEVNET_FILE).is_file():
        return _connect_devnet(home, token)
    if not home.is_dir():
        raise Fault(Trouble.NO_NODE_RUNNING, f"there is no directory {home}")
    return _connect_home(Home(home), token)


def list_devnet_nodes(home: Path) -> tuple[DevnetNode, ...]:
    """The nodes that a devnet's home names. Raises: Fault(NOT_A_HOME)."""
    path = home / DEVNET_FILE
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(MAX_DEVNET_BYTES), type=DevnetFile)
    except OSError as error:
        raise Fault(Trouble.NOT_A_HOME, f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Fault(Trouble.NOT_A_HOME, f"{path} does not describe a devnet: {error}") from error
    return found.nodes


def _connect_home(home: Home, token: str | None) -> NodeClient:
    """Whoever may read a home may also read which token its node wants."""
    url = load_api_address(home)
    if token is None and home.config.is_file():
        token_file = load_config(home.config, os.environ, {}).config.rpc.token_file
        token = None if token_file is None else load_token(token_file)
    return NodeClient(url, token)


def _connect_devnet(home: Path, token: str | None) -> NodeClient:
    nodes = list_devnet_nodes(home)
    for node in nodes:
        client = NodeClient(_check_url(node.rpc), token)
        if client.is_alive():
            return client
    raise Fault(
        Trouble.NO_NODE_RUNNING,
        f"none of the {len(nodes)} nodes of the devnet in {home} answers",
        cure=f"`quorate devnet up --home {home}` starts it, `quorate devnet logs --home {home}` says what happened",
    )


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") not in {"", "rpc"}:
        raise Fault(Trouble.USAGE, f"expected the address of a node such as http://127.0.0.1:7551, got {url[:100]!r}")
    return f"{parts.scheme}://{parts.netloc}"
