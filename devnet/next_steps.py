"""What to type next: commands that work from another shell in the same directory, without anything set first."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from devnet.devnet_file import DevnetFile
from node.render import open_console

QUESTION: Final = '"23+58="'
TELLING_QUESTION: Final = '"43+77="'  # of devnet/models/questions.json


def print_next_steps(directory: Path, devnet: DevnetFile, *, is_detached: bool) -> None:
    """Shows how to ask, verify and look, and how it ends."""
    quorate, home = name_command(), shlex.quote(shorten_path(directory))
    end = f"{quorate} devnet down --home {home}" if is_detached else "Ctrl-C here"
    cheats = ", ".join(f"node {node.index} ({node.cheat})" for node in devnet.nodes if node.cheat)
    lines = [
        "",
        f"{len(devnet.nodes)} validators are up" + (f", of which cheats: {cheats}." if cheats else "."),
        "From another shell:" if not is_detached else "Try next:",
        f"  {quorate} ask {name_question(devnet)} --home {home} --out answer.qrc",
        f"  {quorate} verify answer.qrc --genesis {shlex.quote(shorten_path(Path(devnet.genesis)))}",
        f"  {quorate} devnet status --home {home}",
        f"  {quorate} devnet logs -f --home {home}",
        f"It ends with {end}.",
    ]
    console = open_console()
    for line in lines:
        console.print(line, soft_wrap=True)


def name_question(devnet: DevnetFile) -> str:
    """What to ask: where a node cheats, a question that it gets wrong, of as many nodes as can be drawn."""
    if not any(node.cheat for node in devnet.nodes):
        return QUESTION
    seats = len(devnet.nodes) - 1 + len(devnet.nodes) % 2
    return f"{TELLING_QUESTION} --committee {seats}"


def name_command() -> str:
    """How the shell finds this `quorate`: by its name if that is the one on the PATH, otherwise by its path."""
    own = Path(sys.executable).parent / "quorate"
    found = shutil.which("quorate")
    if found is not None and Path(found).resolve() == own.resolve():
        return "quorate"
    return shlex.quote(shorten_path(own))


def shorten_path(path: Path) -> str:
    """The path from here where it lies below this directory, whole otherwise."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
