"""Founding and joining a network by `quorate init` and `quorate genesis create`: what is told, kept, and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from node.commands.connect import connect
from node.config import load_config
from node.faults import Exit
from node.home import Home, store_api_address
from node.http_server import HttpConfig
from tests.node.fake_node import FakeNode, serving

ARITH = Path(__file__).resolve().parents[3] / "devnet" / "models" / "arith-s"
STRANGER = "11" * 32


def read_peers(home: str) -> tuple[str, ...]:
    return load_config(Home(Path(home)).config, {}, {}).config.network.peers


def test_peers_and_models_are_added_to_those_there_and_a_peer_that_moved_is_replaced(quorate) -> None:
    first, moved, second = f"{STRANGER}@10.0.0.1:1", f"{STRANGER}@10.0.0.9:1", f"{'22' * 32}@10.0.0.2:1"
    assert quorate("init", "--home", "a", "--peer", first)[0] == Exit.OK
    assert quorate("init", "--home", "a", "--peer", second, "--model", ARITH)[0] == Exit.OK
    assert read_peers("a") == (first, second)
    assert quorate("init", "--home", "a", "--peer", moved, "--model", ARITH)[0] == Exit.OK
    assert read_peers("a") == (moved, second)
    assert load_config(Home(Path("a")).config, {}, {}).config.inference.models == (ARITH,)


def test_a_nodes_own_address_is_no_peer_so_that_everybody_types_the_same_line(quorate) -> None:
    own = json.loads(quorate("init", "--home", "a", "--json")[1])["address"]
    assert quorate("init", "--home", "a", "--peer", own, "--peer", f"{STRANGER}@10.0.0.1:1")[0] == Exit.OK
    assert read_peers("a") == (f"{STRANGER}@10.0.0.1:1",)


@pytest.mark.parametrize("peer", ["10.0.0.1:7550", f"{STRANGER}@10.0.0.1", f"{STRANGER[:-1]}g@10.0.0.1:1", "x" * 500])
def test_a_malformed_peer_is_bad_usage_and_changes_nothing(quorate, peer) -> None:
    quorate("init", "--home", "a")
    before = Home(Path("a")).config.read_bytes()
    code, _, err = quorate("init", "--home", "a", "--peer", peer)
    assert (code, "expected NODEID@HOST:PORT" in err or "hexadecimal" in err) == (Exit.USAGE, True), err
    assert Home(Path("a")).config.read_bytes() == before


def test_a_refused_model_changes_nothing_so_that_init_can_be_repeated(quorate, tmp_path) -> None:
    quorate("init", "--home", "a")
    shutil.copytree(ARITH, tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    code, _, err = quorate("init", "--home", "a", "--model", "broken")
    assert (code, "tokenizer.json" in err) == (Exit.CONFIGURATION, True)
    assert quorate("init", "--home", "a")[0] == Exit.OK


def test_the_validator_line_says_where_to_connect_unless_the_node_listens_everywhere(quorate) -> None:
    line = json.loads(quorate("init", "--home", "a", "--p2p-host", "10.0.0.1", "--print-validator")[1])
    assert line["address"] == f"{line['node']}@10.0.0.1:7550"
    six = json.loads(quorate("init", "--home", "b", "--p2p-host", "fd00::1", "--p2p-port", 9, "--print-validator")[1])
    assert six["address"] == f"{six['node']}@[fd00::1]:9"
    everywhere = json.loads(quorate("init", "--home", "c", "--p2p-host", "0.0.0.0", "--print-validator")[1])
    assert everywhere["address"] is None
    assert "@HOST:7550" in quorate("init", "--home", "c")[1]


def test_creating_a_genesis_prints_the_line_that_every_operator_types(quorate, tmp_path) -> None:
    for name, host in (("a", "10.0.0.1"), ("b", "0.0.0.0")):
        line = quorate("init", "--home", name, "--p2p-host", host, "--print-validator")[1]
        (tmp_path / f"{name}.json").write_text(line)
    a, b = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("a", "b"))
    made = ("genesis", "create", "--validator", "a.json", "--validator", "b.json", "--out", "g.json")
    out = quorate(*made)[1]
    assert f"quorate init --genesis g.json --peer {a['address']} --peer {b['node']}@HOST:PORT" in out
    assert "next" not in quorate(*made[:-1], "h.json", "--json")[1]


def test_a_validator_line_with_the_address_of_another_node_is_refused(quorate, tmp_path) -> None:
    line = json.loads(quorate("init", "--home", "a", "--p2p-host", "10.0.0.1", "--print-validator")[1])
    for address in (f"{STRANGER}@10.0.0.1:7550", "nowhere"):
        (tmp_path / "a.json").write_text(json.dumps({**line, "address": address}))
        assert quorate("genesis", "create", "--validator", "a.json", "--out", "g.json")[0] == Exit.CONFIGURATION
    assert not (tmp_path / "g.json").exists()


def test_a_genesis_that_no_network_could_start_from_is_not_written(quorate, tmp_path) -> None:
    (tmp_path / "a.json").write_text(quorate("init", "--home", "a", "--print-validator")[1])
    for options in (("--validator", "a.json"), ("--stake", 1), ("--name", "")):
        code, _, err = quorate("genesis", "create", "--validator", "a.json", "--out", "g.json", *options)
        assert (code, (tmp_path / "g.json").exists()) == (Exit.CONFIGURATION, False), err


def test_a_node_that_its_peers_cannot_reach_is_told_so(quorate) -> None:
    assert "--p2p-host IP" in quorate("init", "--home", "a", "--peer", f"{STRANGER}@10.0.0.1:1")[1]
    assert "note:" not in quorate("init", "--home", "a", "--p2p-host", "10.0.0.2")[1]
    assert "note:" not in quorate("init", "--home", "b", "--peer", f"{STRANGER}@127.0.0.2:1")[1]


def test_whoever_may_read_a_home_needs_no_token_option(quorate, tmp_path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    assert quorate("init", "--home", "a", "--rpc-token-file", "token")[0] == Exit.OK
    with serving(FakeNode(), HttpConfig(token=token.read_text().strip())) as url:
        store_api_address(Home(Path("a")), url)
        assert quorate("balance", "--home", "a")[0] == Exit.OK
        assert quorate("balance", "--rpc", url)[0] == Exit.LOCKED
        assert quorate("balance", "--rpc", url, "--token-file", token)[0] == Exit.OK
        token.unlink()
        assert quorate("balance", "--home", "a")[0] == Exit.CONFIGURATION
    assert connect(url, None).url == url
