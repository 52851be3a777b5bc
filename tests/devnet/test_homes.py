"""A devnet's directory holds everything that its nodes need, belongs to one launcher, and is left clean by a failure."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from devnet.devnet_file import DevnetFile, load_devnet
from devnet.genesis import find_model
from devnet.homes import ensure_ports, get_log, hold_directory, list_models, list_ports
from devnet.interruption import Interrupted
from devnet.ports import LOOPBACK
from node.config import load_config
from node.faults import Exit, Fault, Trouble
from node.genesis_file import read_genesis
from node.home import Home, find_home
from node.keys import load_key
from protocol.genesis import compute_chain_id
from tests.devnet.fake_devnet import CHEAT, create_devnet, make_devnet, make_plan


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> DevnetFile:
    """Made once, and only looked at."""
    return make_devnet(tmp_path_factory.mktemp("shared"), nodes=3, cheater=1)


def test_each_home_is_one_that_a_node_starts_from(shared: DevnetFile) -> None:
    trusted = read_genesis(Path(shared.genesis))
    assert shared.chain_id == compute_chain_id(trusted).hex()
    for node in shared.nodes:
        home = find_home(Path(node.home))
        assert load_key(home.key, None).node.hex() == node.node
        assert read_genesis(home.genesis) == trusted
        assert get_log(node).parent.is_dir()
        assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert [validator.node.hex() for validator in trusted.validators] == [node.node for node in shared.nodes]


def test_each_node_knows_its_ports_and_all_the_others(shared: DevnetFile) -> None:
    for node in shared.nodes:
        config = load_config(Home(Path(node.home)).config, {}, {}).config
        assert (config.rpc.port, config.network.listen_port) == list_ports(node)
        assert config.network.peers == tuple(other.p2p for other in shared.nodes if other is not node)
        assert config.inference.models == (find_model("arith-s"),)
    assert list_models(shared) == ["arith-s"]


def test_a_cheat_is_another_worker_and_nothing_else(shared: DevnetFile) -> None:
    commands = [load_config(Home(Path(node.home)).config, {}, {}).config.inference.command for node in shared.nodes]
    assert commands == [(), CHEAT.command, ()]
    assert [node.cheat for node in shared.nodes] == [None, "small-model", None]


def test_a_directory_with_something_else_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Fault) as refused:
        create_devnet(tmp_path, make_plan(), lambda: None)
    assert (refused.value.reason, refused.value.exit_code) == (Trouble.NOT_A_HOME, Exit.CONFIGURATION)
    assert "'thesis.txt'" in refused.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_interrupted_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    calls = iter(range(10))

    def check() -> None:
        if next(calls) == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        create_devnet(tmp_path, make_plan(), check)
    assert list(tmp_path.iterdir()) == []


def test_nodes_move_to_other_ports_where_somebody_has_taken_one(tmp_path: Path) -> None:
    before = make_devnet(tmp_path, nodes=2, cheater=1)
    assert ensure_ports(tmp_path, before) is before
    with socket.create_server((LOOPBACK, list_ports(before.nodes[1])[1])):
        after = ensure_ports(tmp_path, before)
    assert load_devnet(tmp_path) == after
    assert not {*list_ports(before.nodes[0]), *list_ports(before.nodes[1])} & {*list_ports(after.nodes[1])}
    for node in after.nodes:
        config = load_config(Home(Path(node.home)).config, {}, {}).config
        assert (config.rpc.port, config.network.listen_port) == list_ports(node)
        assert config.inference.command == (CHEAT.command if node.index == 1 else ())
        assert config.inference.models == (find_model("arith-s"),)


def test_only_one_launcher_works_on_a_directory(tmp_path: Path) -> None:
    directory = tmp_path / "devnet"
    with hold_directory(directory):
        with pytest.raises(Fault) as refused, hold_directory(directory):
            raise AssertionError("two launchers hold one directory")
        assert refused.value.exit_code == Exit.LOCKED
    with hold_directory(directory):
        assert directory.is_dir()
