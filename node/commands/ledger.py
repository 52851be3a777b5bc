"""`quorate ledger`: judge and show the chain on a stopped node's disk."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.commands import options, protection
from node.faults import Exit, Fault, Trouble

if TYPE_CHECKING:
    from node.ledger_check import Checked
    from node.storage import Storage
    from protocol.genesis import Genesis

app = typer.Typer(help="Judge, show and move what lies on a stopped node's disk.", invoke_without_command=True)


@app.callback()
def ledger(context: typer.Context) -> None:
    """Judge, show and move what lies on a stopped node's disk."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_Home = Annotated[
    Path | None, typer.Option("--home", metavar="DIR", help="The home of a node. Default: the user's own node.")
]


@app.command("check")
def check(home: _Home = None, as_json: options.Json = False) -> int:
    """Judge every block again, and the state: links, bodies, certificates, execution. Exit code 6 names the damaged height."""
    from node.ledger_check import check_ledger
    from node.render import open_console, print_facts, print_json

    with _open(home) as (storage, genesis):
        last = _follow(check_ledger(storage, genesis))
    if as_json:
        print_json(
            {
                "height": last.height,
                "base_height": last.base_height,
                "state_from": last.state_from,
                "proven_height": last.proven_height,
                "certificates": last.certificates,
                "state_root": "" if last.ledger is None else last.ledger.state_root.hex(),
            }
        )
        return Exit.OK
    facts = [
        ("ledger", f"ok · heights {last.base_height} to {last.height}"),
        ("states", f"executed again from height {last.state_from}"),
        ("final", f"proven up to height {last.proven_height} by {last.certificates} certificates"),
        ("state root", "" if last.ledger is None else last.ledger.state_root.hex()),
    ]
    print_facts(open_console(), facts)
    return Exit.OK


@app.command("export")
def export(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write; - for standard output.")],
    home: _Home = None,
    as_json: options.Json = False,
) -> int:
    """Write the state as JSON lines: first its height and root, then one line an entry."""
    from node.ledger_check import load_final_state
    from node.ledger_export import export_lines
    from node.render import print_json
    from protocol.block import compute_header_hash

    with _open(home) as (storage, genesis):
        state, header = load_final_state(storage, genesis)
    lines = (f"{line}\n" for line in export_lines(state, header, compute_header_hash(header)))
    if str(out) == "-":
        sys.stdout.writelines(lines)
        return Exit.OK
    try:
        with out.open("w", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise Fault(Trouble.CANNOT_WRITE, f"{out}: {error.strerror or error}") from error
    root, count = state.state_root.hex(), len(state.entries)
    if as_json:
        print_json({"out": str(out), "height": header.height, "state_root": root, "entries": count})
    else:
        typer.echo(f"{out}: {count} entries of the state after height {header.height}, root {root}")
    return Exit.OK


app.command("export-protection")(protection.export_protection)
app.command("import-protection")(protection.import_protection)


@contextmanager
def _open(home: Path | None) -> "Iterator[tuple[Storage, Genesis]]":
    """The chain of a home that no node uses meanwhile."""
    from node.genesis_file import read_genesis
    from node.home import compute_default_home, find_home, hold_home
    from node.ledger_check import open_ledger

    place = find_home(home if home is not None else compute_default_home(os.environ))
    with hold_home(place):
        genesis = read_genesis(place.genesis)
        storage = open_ledger(place.database, genesis)
        try:
            yield storage, genesis
        finally:
            storage.close()


def _follow(steps: "Iterator[Checked]") -> "Checked":
    """The last step; how far it has come is shown on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("checking", total=None)
        last = next(steps)
        for last in steps:
            progress.update(
                bar, total=last.final_height - last.base_height + 1, completed=last.height - last.base_height
            )
    return last
