"""The README's own commands, typed one after the other in an empty directory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devnet.devnet_file import load_devnet
from tests.devnet.processes import stopped_at_end

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
HEADING = "## A network on this machine"


def list_commands() -> Iterator[str]:
    """The commands of the section about devnets, one a line, as they stand there."""
    section = (ROOT / "README.md").read_text("utf-8").partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    for block in SHELL.findall(section):
        yield from block.splitlines()


def make_commands_available(place: Path) -> dict[str, str]:
    """An environment whose PATH has `quorate` and `quorate-devnet`, as after `export PATH=…`, from this interpreter."""
    folder = place / "bin"
    folder.mkdir()
    for name, module in (("quorate", "node.cli"), ("quorate-devnet", "devnet.cli")):
        program = folder / name
        program.write_text(f"#!{sys.executable} -P\nfrom {module} import main\n\nmain()\n")
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def type_command(command: str, place: Path, environment: dict[str, str]) -> str:
    """Its standard output; a shell reads it, as it does for whoever copies it."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_every_command_of_the_devnet_section_works_as_it_is_written(tmp_path: Path) -> None:
    environment = make_commands_available(tmp_path)
    desk = tmp_path / "desk"
    desk.mkdir()
    with stopped_at_end(desk / "D"):
        said = {command: type_command(command, desk, environment) for command in list_commands()}
        assert load_devnet(desk / "D").marks == ()
    assert [command.split()[1] for command in said] == ["devnet", "ask", "ask", "verify", "devnet", "devnet"]
    asked = next(output for command, output in said.items() if command.endswith("--json"))
    assert (json.loads(asked)["status"], json.loads(asked)["text"]) == ("accepted", "81")
    assert "valid · accepted" in next(output for command, output in said.items() if "verify" in command)
    assert {path.suffix for path in desk.iterdir()} == {"", ".qrc"}, (
        "nothing is written but the devnet and certificates"
    )
