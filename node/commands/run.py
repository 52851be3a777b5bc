"""`quorate run`: the node itself, in the foreground."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from node.commands import options
from node.faults import Fault, Trouble

if TYPE_CHECKING:
    from node.config import Setting

_NUMBER: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)


def run(
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="The node's home. Default: the user's own node.")
    ] = None,
    p2p_port: Annotated[int | None, typer.Option("--p2p-port", metavar="PORT", help="0: a free one.")] = None,
    rpc_port: Annotated[int | None, typer.Option("--rpc-port", metavar="PORT", help="0: a free one.")] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="debug|info|warning|error", help="What is logged.")
    ] = None,
    join: Annotated[
        bool,
        typer.Option(
            "--join", help="On an empty home begin with a peer's newest snapshot, however short the chain is."
        ),
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any other setting, for this run only."),
    ] = None,
    passphrase_file: options.Passphrase = None,
    as_json: options.Json = False,
) -> int:
    """Run a node until Ctrl-C or SIGTERM. It logs to standard error: lines on a terminal, NDJSON elsewhere."""
    from node.home import compute_default_home
    from node.keys import read_passphrase
    from node.render import print_json
    from node.run import run_node

    place = home if home is not None else compute_default_home(os.environ)
    overrides: dict[str, Setting] = {**_parse_settings(setting or [])}
    named = {"network.listen_port": p2p_port, "rpc.port": rpc_port, "log.level": log_level}
    overrides.update({name: value for name, value in named.items() if value is not None})
    overrides.update({"storage.join": "always"} if join else {})
    _check_models(place, overrides)
    code = run_node(place, overrides, read_passphrase(passphrase_file, os.environ))
    if as_json:
        print_json({"home": str(place), "exit_code": code})
    return code


def _check_models(home: Path, overrides: "dict[str, Setting]") -> None:
    """A model that is not what its card says is told now, not by a worker that never gets ready. Raises: Fault(BAD_MODEL)."""
    from node.config import load_config
    from node.home import find_home
    from node.model_cards import load_cards

    config = load_config(find_home(home).config, os.environ, overrides).config
    if not config.inference.command:
        load_cards(config.inference.models)


def _parse_settings(given: list[str]) -> "dict[str, Setting]":
    settings: dict[str, Setting] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or "." not in name:
            raise Fault(Trouble.USAGE, f"expected --set SECTION.KEY=VALUE, got {text[:80]!r}")
        settings[name] = int(value) if _NUMBER.fullmatch(value) else value
    return settings
