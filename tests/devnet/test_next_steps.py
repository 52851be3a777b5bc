"""What to try next can be typed as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from msgspec.structs import replace

from devnet.demo import load_questions
from devnet.devnet_file import DevnetFile
from devnet.next_steps import name_question, print_next_steps, shorten_path
from tests.devnet.fake_devnet import make_node

HONEST = DevnetFile("ab" * 32, "/nowhere/genesis.json", tuple(make_node(index) for index in range(4)))
CHEATED = replace(HONEST, nodes=(*HONEST.nodes, replace(make_node(4), cheat="small-model")))


def test_where_a_node_cheats_the_question_is_one_that_it_gets_wrong() -> None:
    question, option, seats = shlex.split(name_question(CHEATED))
    assert question in {known.prompt for known in load_questions()}
    assert (option, seats) == ("--committee", "5")
    assert shlex.split(name_question(HONEST)) == ["23+58="]


def test_a_committee_has_an_odd_number_of_seats() -> None:
    four = replace(HONEST, nodes=(*HONEST.nodes[:3], replace(make_node(3), cheat="small-model")))
    assert name_question(four).endswith("--committee 3")


@pytest.mark.parametrize("is_detached", [True, False])
def test_it_names_the_directory_and_how_it_ends(capsys: pytest.CaptureFixture[str], is_detached: bool) -> None:
    print_next_steps(Path("/some where"), CHEATED, is_detached=is_detached)
    told = capsys.readouterr().out
    assert "--home '/some where' --out answer.qrc" in told
    assert "--genesis /nowhere/genesis.json" in told
    assert "node 4 (small-model)" in told
    assert ("devnet down" in told) is is_detached


def test_a_path_below_this_directory_is_short() -> None:
    assert shorten_path(Path.cwd() / "D") == "D"
    assert shorten_path(Path("/elsewhere/D")) == "/elsewhere/D"
