"""`quorate init`: a home with a key and a configuration; later, the network it belongs to."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.commands import options
from node.faults import Exit, Fault, Trouble

if TYPE_CHECKING:
    from node.config import Config, LoadedConfig, NetworkSettings, Setting
    from node.home import Home
    from node.keys import NodeKey
    from node.validator_file import ValidatorFile
    from protocol.genesis import Genesis


_Home = Annotated[
    Path | None, typer.Option("--home", metavar="DIR", help="The home to make. Default: the user's own node.")
]
_Genesis = Annotated[
    Path | None, typer.Option("--genesis", metavar="FILE", help="The network to belong to; may come later.")
]
_Peer = Annotated[
    list[str] | None,
    typer.Option("--peer", metavar="ADDR", help="A peer to add, as NODEID@HOST:PORT; once for each."),
]
_Model = Annotated[list[Path] | None, typer.Option("--model", metavar="DIR", help="A model to add; once for each.")]
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

    Its own address among the peers is passed over, so that everybody can type the same line.

    For a network over several machines: everybody runs `quorate init --print-validator > NAME.json`, one runs `quorate genesis
    create` with those files, everybody runs `quorate init --genesis FILE --peer ADDR` and then `quorate run`.
    """
    from node.config import encode_config
    from node.disk import replace_file
    from node.model_cards import load_cards
    from node.rpc_access import load_token
    from node.validator_file import describe_validator

    network = _load_genesis(genesis)
    place, key = _open_home(home, passphrase_file)
    given = {
        "network.listen_host": p2p_host,
        "network.listen_port": p2p_port,
        "rpc.host": rpc_host,
        "rpc.port": rpc_port,
        "rpc.token_file": None if rpc_token_file is None else str(rpc_token_file.absolute()),
    }
    chosen: dict[str, Setting] = {name: value for name, value in given.items() if value is not None}
    others = [text for text in peer or [] if not text.lower().startswith(f"{key.node.hex()}@")]
    merged = _merge_config(place, chosen, others, [str(path.absolute()) for path in model or ()])
    cards = load_cards(merged.config.inference.models)  # refuses a model that is not what its card says
    if rpc_token_file is not None:
        load_token(rpc_token_file)
    if network is not None:
        _store_genesis(place, network)
    replace_file(place.config, encode_config(_list_settings(merged)).encode(), mode=0o600)
    if print_validator or as_json:
        _print_validator(place, describe_validator(key, merged.config.network, cards), is_line=print_validator)
    else:
        _report(place, key, merged.config)
    return Exit.OK


def _open_home(home: Path | None, passphrase_file: Path | None) -> "tuple[Home, NodeKey]":
    from node.home import compute_default_home, create_home
    from node.keys import create_key, load_key, read_passphrase

    place = create_home(home if home is not None else compute_default_home(os.environ))
    passphrase = read_passphrase(passphrase_file, os.environ)
    return place, load_key(place.key, passphrase) if place.key.exists() else create_key(place.key, passphrase)


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


def _merge_config(
    home: "Home", chosen: "Mapping[str, Setting]", peers: "Sequence[str]", models: "Sequence[str]"
) -> "LoadedConfig":
    """What was set before and what is given now, checked as a whole."""
    from node.config import Config, LoadedConfig, load_config

    before = load_config(home.config, {}, {}) if home.config.exists() else LoadedConfig(Config(), {})
    lists: dict[str, Setting] = {
        "network.peers": _add_peers(before.config.network.peers, peers),
        "inference.models": tuple(dict.fromkeys((*map(str, before.config.inference.models), *models))),
    }
    added = {name: value for name, value in lists.items() if value}
    return load_config(None, {}, {**_list_settings(before), **added, **chosen})


def _add_peers(known: "Sequence[str]", given: "Sequence[str]") -> tuple[str, ...]:
    """One address a node: a peer that has moved is found at its new one. Raises: Fault(USAGE)."""
    from node.config import parse_peer_setting

    by_node = {parse_peer_setting(text).node_id: text for text in known}
    for text in given:
        try:
            by_node[parse_peer_setting(text).node_id] = text
        except ValueError as error:
            raise Fault(
                Trouble.USAGE, f"--peer {text[:100]!r}: {error}", cure="`quorate init` prints a node's"
            ) from error
    return tuple(by_node.values())


def _list_settings(loaded: "LoadedConfig") -> "dict[str, Setting]":
    """The settings that are no defaults, as a file would hold them."""
    import msgspec

    from node.config import Setting

    sections = msgspec.convert(msgspec.to_builtins(loaded.config, enc_hook=str), dict[str, dict[str, Setting | None]])
    found = {name: sections[name.partition(".")[0]][name.partition(".")[2]] for name in loaded.origins}
    return {name: value for name, value in found.items() if value is not None}


def _print_validator(home: "Home", validator: "ValidatorFile", *, is_line: bool) -> None:
    from node.render import print_json

    if is_line:
        print_json(validator)
        return
    shown = {"home": str(home.root), "address": validator.address, "validator": validator}
    print_json({**shown, "has_genesis": home.genesis.exists()})


def _report(home: "Home", key: "NodeKey", config: "Config") -> None:
    from node.render import open_console, print_facts
    from node.validator_file import describe_address

    network = config.network
    unknown = f"{key.node.hex()}@HOST:{network.listen_port or 'PORT'}, where HOST is how others reach this machine"
    facts = [
        ("home", str(home.root)),
        ("node", key.node.hex()),
        ("address", describe_address(key, network) or unknown),
        ("peers", str(len(network.peers)) if network.peers else "none (--peer ADDR adds one)"),
        ("models", ", ".join(path.name for path in config.inference.models) or "none (--model DIR adds one)"),
    ]
    print_facts(open_console(), facts)
    _print_next(home, has_network=home.genesis.exists(), unreachable=_is_unreachable(network))


def _is_unreachable(network: "NetworkSettings") -> bool:
    """Whether peers on other machines are named, but only this one can connect here."""
    from node.rpc_access import is_loopback

    elsewhere = [peer for peer in network.peer_addresses if not is_loopback(peer.multiaddr.split("/")[2])]
    return bool(elsewhere) and is_loopback(network.listen_host)


def _print_next(home: "Home", *, has_network: bool, unreachable: bool) -> None:
    where = f" --home {shlex.quote(str(home.root))}"
    if unreachable:
        typer.echo(f"note: peers cannot connect to this node: quorate init{where} --p2p-host IP mends it")
    if has_network:
        typer.echo(f"next: quorate run{where}")
        return
    typer.echo(
        f"next: to found a network, quorate init{where} --print-validator > NAME.json, for `quorate genesis create`"
    )
    typer.echo(f"      to belong to one, quorate init{where} --genesis FILE --peer ADDR")
