"""`quorate ledger export-protection` and `import-protection`: a key moves to another home without ever signing twice."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.commands import options
from node.faults import Exit, Fault, Trouble

if TYPE_CHECKING:
    from node.home import Home
    from node.vote_log import VoteLog

_Home = Annotated[
    Path | None, typer.Option("--home", metavar="DIR", help="The home of a stopped node. Default: the user's own.")
]


@dataclass(frozen=True, slots=True)
class _Held:
    """A stopped node's key and vote log."""

    place: "Home"
    node: bytes
    chain: bytes
    log: "VoteLog"


def export_protection(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    home: _Home = None,
    passphrase_file: options.Passphrase = None,
    as_json: options.Json = False,
) -> int:
    """Write how far this home's key has signed, for the home that it moves to.

    The node must be stopped, and must never be started here again: two homes with one key sign twice, and lose the stake.
    """
    from node.protection import export_protection as write_file
    from node.render import print_json

    with _hold(home, passphrase_file, is_new=False) as held:
        _check_complete(held)
        epoch, view = held.log.horizon
        write_file(out, held.node, held.chain, (epoch, view))
    if as_json:
        print_json({"out": str(out), "node": held.node.hex(), "epoch": epoch, "view": view})
    else:
        typer.echo(f"{out}: this key has signed up to epoch {epoch}, view {view}")
        typer.echo("next: quorate ledger import-protection FILE in the new home; never start this one again")
    return Exit.OK


def import_protection(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export-protection` wrote in the old home.")],
    home: _Home = None,
    passphrase_file: options.Passphrase = None,
    as_json: options.Json = False,
) -> int:
    """Never sign at or below what a file says that this home's key has signed elsewhere.

    The node must be stopped. A file that would lower what this home knows is refused.
    """
    from node.protection import import_protection as raise_bound
    from node.protection import read_protection
    from node.render import print_json

    with _hold(home, passphrase_file, is_new=True) as held:
        epoch, view = read_protection(file, held.node, held.chain)
        is_raised = raise_bound(held.log, (epoch, view))
    if as_json:
        print_json({"node": held.node.hex(), "epoch": epoch, "view": view, "raised": is_raised})
    else:
        done = "from now on" if is_raised else "as before"
        typer.echo(f"this home signs only above epoch {epoch}, view {view}, {done}")
    return Exit.OK


@contextmanager
def _hold(home: Path | None, passphrase_file: Path | None, *, is_new: bool) -> Iterator[_Held]:
    """The key and the log of a home that no node uses meanwhile. `is_new`: a log is made where there is none."""
    from node.genesis_file import read_genesis
    from node.home import compute_default_home, find_home, hold_home
    from node.keys import load_key, read_passphrase
    from node.vote_log import VoteLog
    from node.wal import open_wal
    from protocol.genesis import compute_chain_id

    place = find_home(home if home is not None else compute_default_home(os.environ))
    with hold_home(place):
        key = load_key(place.key, read_passphrase(passphrase_file, os.environ))
        chain = compute_chain_id(read_genesis(place.genesis))
        if not is_new and not place.votes.is_file():
            raise Fault(
                Trouble.NO_SUCH_FILE,
                f"{place.votes}: there is no vote log",
                cure="this home has never run: nothing moves",
            )
        opened = open_wal(place.votes, chain)
        try:
            yield _Held(place, key.node, chain, VoteLog(opened.wal, opened.records))
        finally:
            opened.wal.close()


def _check_complete(held: _Held) -> None:
    """Refuse a log that lacks votes, as far as the chain beside it can tell. Raises: Fault(VOTES_LOST)."""
    from node.protection import check_complete
    from node.storage import open_storage
    from node.stored import LogState

    if not held.place.database.is_file():
        check_complete(held.log, LogState.UNKNOWN)
        return
    storage = open_storage(held.place.database, held.chain)
    try:
        check_complete(held.log, storage.log.bind(held.log.lineage, held.log.position))
    finally:
        storage.close()
