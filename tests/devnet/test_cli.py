"""`quorate devnet`: what it refuses, in one sentence and with which exit code, before anything is started."""

from __future__ import annotations

import json
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from devnet.cli import app
from devnet.devnet_file import DevnetFile
from devnet.homes import get_log, list_ports
from devnet.ports import LOOPBACK
from node.cli import run_app
from node.faults import Exit
from tests.devnet.fake_devnet import make_devnet

if TYPE_CHECKING:
    from pathlib import Path


def call(*arguments: str) -> int:
    return run_app(app, "quorate devnet", arguments)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DevnetFile]:
    directory = tmp_path_factory.mktemp("stopped")
    return directory, make_devnet(directory, nodes=2, cheater=1)


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (("--nodes", "0"), Exit.USAGE, "between 1 and 32, got 0"),
        (("--nodes", "many"), Exit.USAGE, "'--nodes'"),
        (("--cheat", "small-model"), Exit.USAGE, "'small-model'"),
        (("--cheat", "x=small-model"), Exit.USAGE, "'x=small-model'"),
        (("--cheat", "5=small-model"), Exit.USAGE, "between 0 and 4, got 5"),
        (("--cheat", "1=int4"), Exit.USAGE, "small-model"),
        (("--model", "gpt-7"), Exit.CONFIGURATION, "arith-s"),
    ],
)
def test_what_cannot_be_wished_for_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: Exit, words: str
) -> None:
    assert call("up", "--home", str(tmp_path / "d"), *arguments) == code
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.count("\n") == 1
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("verb", ["down", "status", "logs"])
def test_without_a_devnet_it_says_where_it_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert call(verb, "--home", str(tmp_path), "--json") == Exit.CONFIGURATION
    told = capsys.readouterr()
    assert str(tmp_path) in told.err
    assert json.loads(told.out)["error"]["code"] == Exit.CONFIGURATION


def test_a_stopped_devnet_is_shown_as_stopped(
    stopped: tuple[Path, DevnetFile], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, devnet = stopped
    assert call("status", "--home", str(directory), "--json") == Exit.NOT_READY
    shown = json.loads(capsys.readouterr().out)
    assert shown["chain_id"] == devnet.chain_id
    assert [(node["state"], node["cheat"], node["status"]) for node in shown["nodes"]] == [
        ("stopped", None, None),
        ("stopped", "small-model", None),
    ]
    assert call("status", "--home", str(directory)) == Exit.NOT_READY
    table = capsys.readouterr().out
    assert "small-model" in table
    assert max(len(line) for line in table.splitlines()) <= 80


def test_down_may_come_again(stopped: tuple[Path, DevnetFile], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("down", "--home", str(stopped[0]), "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"stopped": [], "killed": []}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--nodes", "3"), "another --nodes: 2, not 3"),
        (("--cheat", "0=small-model"), "another --cheat"),
        (("--model", "arith-xs"), "another --model"),
    ],
)
def test_a_devnet_is_not_changed_into_another(
    stopped: tuple[Path, DevnetFile], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert call("up", "--home", str(stopped[0]), *arguments) == Exit.CONFIGURATION
    assert words in capsys.readouterr().err


def test_logs_show_the_last_lines_of_one_node_or_all(
    stopped: tuple[Path, DevnetFile], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, devnet = stopped
    for node in devnet.nodes:
        get_log(node).write_text(f"first of {node.index}\nlast\x1b[2J of {node.index}\n")
    assert call("logs", "--home", str(directory), "-n", "1") == Exit.OK
    assert capsys.readouterr().out.splitlines() == [r"0 | last\u001b[2J of 0", r"1 | last\u001b[2J of 1"]
    assert call("logs", "1", "--home", str(directory), "--json") == Exit.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"index": 1, "line": "first of 1"}
    assert call("logs", "2", "--home", str(directory)) == Exit.USAGE


def test_a_stranger_on_a_nodes_port_is_not_taken_for_the_node(
    stopped: tuple[Path, DevnetFile], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, devnet = stopped
    with socket.create_server((LOOPBACK, list_ports(devnet.nodes[0])[0])) as server:
        server.listen()
        answer_once(server, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        assert call("status", "--home", str(directory)) == Exit.UNREACHABLE
    assert "is no node of this version" in capsys.readouterr().err


def answer_once(server: socket.socket, reply: bytes) -> None:
    """Answers the next connection, from a thread that ends with it."""
    import threading

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()


def test_signals_do_what_they_did_once_a_verb_has_ended(stopped: tuple[Path, DevnetFile]) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert call("up", "--home", str(stopped[0]), "--nodes", "3") == Exit.CONFIGURATION
    assert signal.getsignal(signal.SIGINT) is before
