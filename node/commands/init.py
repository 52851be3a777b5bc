"""`quorate init`: a home with a key and a configuration; later, the network it belongs to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.commands import options
from node.faults import Exit, Fault, Trouble

if TYPE_CHECKING:
    from node.config import LoadedConfig, Setting
    from node.home import Home
    from node.keys import NodeKey
    from protocol.genesis import Genesis


_Home = Annotated[
    Path | None, typer.Option("--home", metavar="DIR", help="The home to make. Default: the user's own node.")
]
_Genesis = Annotated[
    Path | None, typer.Option("--genesis", metavar="FILE", help="The network to belong to; may come later.")
]
_Peer = Annotated[
    list[str] | None,
    typer.Option("--peer", metavar="ADDR", help="A peer, as NODEID@HOST:PORT; once for each."),
]
_Model = Annotated[list[Path] | None, typer.Option("--model", metavar="DIR", help="A model to serve; once for each.")]
_P2pHost = Annotated[
    str | None, typer.Option("--p2p-host", metavar="IP", help="Where peers reach this node; 0.0.0.0: everywhere.")
]
_P2pPort = Annotated[int | None, typer.Option("--p2p-port", metavar="PORT", help="Its port; 0: a free one.")]
_RpcHost = Annotated[
    str | None, typer.Option("--rpc-host", metavar="IP", help="Anything but loopback needs --rpc-token-file.")
]
_RpcPort = Annotated[int | None, typer.Option("--rpc-port", metavar="PORT", help="Its port; 0: a free one.")]
_RpcTokenFile = Annotated[
    Path | None, typer.Option("--rpc-token-file", metavar="FILE", help="The token that callers must bear.")
]
_PrintValidator = Annotated[
    bool,
    typer.Option("--print-validator", help="Print the line that `quorate genesis create` takes, nothing else."),
]


def init(
    home: _Home = None,
    genesis: _Genesis = None,
    peer: _Peer = None,
    model: _Model = None,
    p2p_host: _P2pHost = None,
    p2p_port: _P2pPort = None,
    rpc_host: _RpcHost = None,
    rpc_port: _RpcPort = None,
    rpc_token_file: _RpcTokenFile = None,
    passphrase_file: options.Passphrase = None,
    print_validator: _PrintValidator = False,
    as_json: options.Json = False,
) -> int:
    """Make a node's home: its key and its configuration. Run again, it keeps the key and adds what is new.

    For a network over several machines: everybody runs `quorate init --print-validator > NAME.json`, one runs `quorate genesis
    create` with those files, everybody runs `quorate init --genesis FILE --peer ADDR` and then `quorate run`.
    """
    from node.home import compute_default_home, create_home
    from node.keys import create_key, load_key, read_passphrase

    network = _load_genesis(genesis)
    place = create_home(home if home is not None else compute_default_home(os.environ))
    passphrase = read_passphrase(passphrase_file, os.environ)
    key = load_key(place.key, passphrase) if place.key.exists() else create_key(place.key, passphrase)
    given = {
        "network.listen_host": p2p_host,
        "network.listen_port": p2p_port,
        "network.peers": tuple(peer or ()) or None,
        "rpc.host": rpc_host,
        "rpc.port": rpc_port,
        "rpc.token_file": None if rpc_token_file is None else str(rpc_token_file.absolute()),
        "inference.models": tuple(str(path.absolute()) for path in model or ()) or None,
    }
    _store_config(place, {name: value for name, value in given.items() if value is not None})
    if network is not None:
        _store_genesis(place, network)
    _report(place, key, network is not None, print_validator=print_validator, as_json=as_json)
    return Exit.OK


def _load_genesis(path: Path | None) -> "Genesis | None":
    if path is None:
        return None
    from node.genesis_file import read_genesis
    from protocol.ledger.state import create_genesis

    genesis = read_genesis(path)
    create_genesis(genesis)  # refuses what no network could start from
    return genesis


def _store_genesis(home: "Home", genesis: "Genesis") -> None:
    from node.genesis_file import read_genesis, write_genesis
    from protocol.genesis import compute_chain_id

    if home.genesis.exists():
        have, want = compute_chain_id(read_genesis(home.genesis)), compute_chain_id(genesis)
        if have != want:
            raise Fault(
                Trouble.WRONG_HOME,
                f"{home.root} belongs to chain {have.hex()[:16]}, but the genesis is chain {want.hex()[:16]}",
            )
        return
    write_genesis(home.genesis, genesis)


def _store_config(home: "Home", given: "Mapping[str, Setting]") -> None:
    """Writes what was set before and what is given now; the whole is checked before the file is replaced."""
    from node.config import encode_config, load_config
    from node.disk import replace_file

    before = _list_settings(load_config(home.config, {}, {})) if home.config.exists() else {}
    merged = load_config(None, {}, {**before, **given})
    replace_file(home.config, encode_config(_list_settings(merged)).encode(), mode=0o600)


def _list_settings(loaded: "LoadedConfig") -> "dict[str, Setting]":
    """The settings that are no defaults, as a file would hold them."""
    import msgspec

    from node.config import Setting

    sections = msgspec.convert(msgspec.to_builtins(loaded.config, enc_hook=str), dict[str, dict[str, Setting | None]])
    found = {name: sections[name.partition(".")[0]][name.partition(".")[2]] for name in loaded.origins}
    return {name: value for name, value in found.items() if value is not None}


def _report(home: "Home", key: "NodeKey", has_network: bool, *, print_validator: bool, as_json: bool) -> None:
    from node.config import load_config
    from node.render import open_console, print_facts, print_json, shorten
    from node.validator_file import describe_validator

    config = load_config(home.config, {}, {}).config
    validator = describe_validator(key, config)
    if print_validator:
        print_json(validator)
        return
    address = f"{key.node.hex()}@{config.network.listen_host}:{config.network.listen_port}"
    if as_json:
        print_json({"home": str(home.root), "address": address, "validator": validator, "has_genesis": has_network})
        return
    models = ", ".join(path.name for path in config.inference.models) or "none (--model DIR adds one)"
    facts = [
        ("home", str(home.root)),
        ("node", key.node.hex()),
        ("onion tip", validator.onion_tip),
        ("address", address),
        ("models", models),
    ]
    print_facts(open_console(), facts)
    where = f" --home {home.root}"
    following = f"quorate run{where}" if has_network else f"quorate init{where} --genesis FILE --peer ADDR"
    typer.echo(f"next: {following}" if home.genesis.exists() or not has_network else f"node {shorten(key.node.hex())}")
