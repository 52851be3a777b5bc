"""All nodes are ready, or none is left running; nodes inherit nothing that was meant for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devnet.devnet_file import DevnetFile, DevnetNode, load_devnet
from devnet.interruption import Interrupted, Interruption
from devnet.launch import (
    NodeCommand,
    NodeFailed,
    build_environment,
    read_status,
    read_tail,
    start_devnet,
    stop_devnet,
)
from devnet.processes import ProcessMark, is_running
from node.faults import Exit
from tests.devnet.fake_devnet import make_bare_devnet

if TYPE_CHECKING:
    from pathlib import Path

WAITS = "exec sleep 600"


def shell(script: str) -> tuple[str, ...]:
    """A node that is a shell script; $1 is its home."""
    return ("sh", "-c", script, "sh")


@pytest.fixture
def devnet(tmp_path: Path) -> DevnetFile:
    return make_bare_devnet(tmp_path)


def test_a_node_that_fails_is_told_with_its_last_words_and_the_others_are_stopped(
    tmp_path: Path, devnet: DevnetFile
) -> None:
    marks: list[ProcessMark] = []

    def report(_node: DevnetNode, _why: str) -> None:
        marks.extend(load_devnet(tmp_path).marks)

    script = f'case "$1" in *node-1) read line < "$1/../go"; echo "the key is broken"; exit 3;; esac; {WAITS}'
    (tmp_path / "go").write_text("now\n")
    with pytest.raises(NodeFailed) as failed:
        start_devnet(tmp_path, devnet, Interruption(), report, NodeCommand(shell(script)))
    assert failed.value.exit_code == Exit.CONFIGURATION
    assert "node 1 ended with exit code 3" in failed.value.message
    assert failed.value.tail == ("the key is broken",)
    assert len(marks) >= 2, "both had been started, and written down"
    assert not any(is_running(mark) for mark in marks)
    assert load_devnet(tmp_path).marks == ()


def test_a_node_that_never_gets_ready_is_told_with_the_reason(tmp_path: Path, devnet: DevnetFile) -> None:
    with pytest.raises(NodeFailed) as failed:
        start_devnet(tmp_path, devnet, Interruption(), ignore, NodeCommand(shell(WAITS), ready_s=0.2))
    assert failed.value.exit_code == Exit.NOT_READY
    assert "was not ready after 0 s: starting" in failed.value.message
    assert load_devnet(tmp_path).marks == ()


def test_who_interrupts_the_start_finds_nothing_running(tmp_path: Path, devnet: DevnetFile) -> None:
    interruption = Interruption()
    marks: list[ProcessMark] = []

    def report(_node: DevnetNode, _why: str) -> None:
        marks.extend(load_devnet(tmp_path).marks)
        interruption.request()

    with pytest.raises(Interrupted):
        start_devnet(tmp_path, devnet, interruption, report, NodeCommand(shell(WAITS)))
    assert len(set(marks)) == 2
    assert not any(is_running(mark) for mark in marks)


def test_down_stops_what_another_launcher_has_started(tmp_path: Path, devnet: DevnetFile) -> None:
    interruption = Interruption()
    marks: list[ProcessMark] = []

    def stop_from_elsewhere(_node: DevnetNode, _why: str) -> None:
        if not marks:
            stopped, killed = stop_devnet(tmp_path)
            marks.extend(stopped.marks)
            assert killed == ()

    with pytest.raises(NodeFailed):
        start_devnet(tmp_path, devnet, interruption, stop_from_elsewhere, NodeCommand(shell(WAITS)))
    assert len(marks) == 2
    assert not any(is_running(mark) for mark in marks)
    assert stop_devnet(tmp_path)[0].marks == ()


def test_a_node_that_is_not_there_has_no_status_and_no_log(devnet: DevnetFile) -> None:
    assert read_status(devnet.nodes[0]) is None
    assert read_tail(devnet.nodes[0]) == []


def test_nodes_inherit_neither_settings_nor_passphrase_of_another_node() -> None:
    given = {
        "PATH": "/bin",
        "QUORATE__RPC__PORT": "7551",
        "QUORATE__LOG__LEVEL": "debug",
        "QUORATE_PASSPHRASE": "secret",
    }
    assert build_environment(given) == {"PATH": "/bin", "QUORATE__LOG__LEVEL": "debug"}


def ignore(_node: DevnetNode, _why: str) -> None:
    """A report that nobody reads."""
