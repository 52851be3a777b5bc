"""What docs/ says is so: generated pages are current, links lead somewhere, the service starts a command that exists."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from node.cli import run_command
from node.config import load_config
from node.faults import Exit
from tests.docs.pages import DOCS, PAGES

ROOT = DOCS.parent
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
ANCHOR = re.compile(r"\]\(#([^)]+)\)")


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_current(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), "write it anew with `make docs`"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name
)
def test_links_to_files_and_headings_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    local = [target for target in LINK.findall(text) if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
    headings = {
        re.sub(r"[^a-z0-9 _-]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    assert set(ANCHOR.findall(text)) <= headings


def test_the_example_of_a_configuration_is_one(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text("utf-8"), re.DOTALL)
    assert example is not None
    path = tmp_path / "config.toml"
    path.write_text(example[1])
    assert set(load_config(path, {}, {}).origins) == {
        f"{section}.{key}"
        for section, keys in tomllib.loads(example[1]).items()
        if section != "version"
        for key in keys
    }


def test_the_service_runs_a_command_that_exists_and_stays_down_where_restarting_helps_nobody(capsys) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(DOCS / "quorate.service")
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "quorate"
    assert run_command([*arguments, "--help"]) == Exit.OK
    assert "Run a node" in capsys.readouterr().out
    kept_down = {int(code) for code in unit["Service"]["RestartPreventExitStatus"].split()}
    assert kept_down == {Exit.USAGE, Exit.CONFIGURATION, Exit.LOCKED, Exit.INCOMPATIBLE}


# --- every command that a page shows


COMMAND = re.compile(r"^quorate (?!devnet\b)(.+)$", re.MULTILINE)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def list_commands() -> list[list[str]]:
    pages = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
    blocks = "\n".join(block for page in pages for block in SHELL.findall(page.read_text("utf-8")))
    return [shlex.split(line.partition(">")[0], comments=True) for line in COMMAND.findall(blocks)]


def test_every_command_shown_has_the_verb_and_the_options_that_it_names(capsys) -> None:
    commands = list_commands()
    assert {"init", "genesis", "models", "run", "transfer", "ask", "verify", "status"} <= {
        words[0] for words in commands
    }
    for words in commands:
        verb = words[: 2 if words[0] in {"genesis", "models", "jobs"} else 1] if not words[0].startswith("-") else []
        assert run_command([*verb, "--help"]) == Exit.OK, words
        known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
        assert {word for word in words if word.startswith("--")} <= known, words
