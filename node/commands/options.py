"""The options that several verbs share: one name, one meaning, one help text."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Rpc: TypeAlias = Annotated[
    str | None, typer.Option("--rpc", metavar="URL", help="The node to ask, such as http://127.0.0.1:7551.")
]
Home: TypeAlias = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="The home of a node, or of a devnet. Default: the user's own node."),
]
Token: TypeAlias = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="The bearer token of a node on another machine.")
]
Passphrase: TypeAlias = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="Holds the passphrase of the node's key.")
]
