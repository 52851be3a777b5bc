"""Settings: who wins, what is refused, and how clearly."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import (
    CONFIG_VERSION,
    MAX_CONFIG_BYTES,
    Config,
    ConfigError,
    Setting,
    encode_config,
    load_config,
    parse_peer_setting,
)
from node.disk import StorageFailure
from node.faults import Exit
from node.network import PeerAddress, peer_id_of

NODE = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def load(path: Path, text: str) -> Config:
    path.write_text(text)
    return load_config(path, {}, {}).config


def test_nothing_set_gives_the_defaults_bound_to_loopback() -> None:
    loaded = load_config(None, {}, {})
    assert loaded.config == Config()
    assert loaded.origins == {}
    assert (loaded.config.rpc.host, loaded.config.network.listen_host) == ("127.0.0.1", "127.0.0.1")


def test_flags_win_over_the_environment_over_the_file_over_defaults(path: Path) -> None:
    path.write_text("version = 1\n[rpc]\nport = 1\nmax_connections = 10\nmax_body_bytes = 2048\n")
    environment = {"QUORATE__RPC__PORT": "2", "QUORATE__RPC__MAX_CONNECTIONS": "20", "HOME": "/x"}
    loaded = load_config(path, environment, {"rpc.port": 3})
    assert (loaded.config.rpc.port, loaded.config.rpc.max_connections, loaded.config.rpc.max_body_bytes) == (
        3,
        20,
        2048,
    )
    assert loaded.origins == {
        "rpc.port": "command line",
        "rpc.max_connections": "QUORATE__RPC__MAX_CONNECTIONS",
        "rpc.max_body_bytes": str(path),
    }


def test_paths_start_from_the_place_that_names_them(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path.write_text('version = 1\n[inference]\nmodels = ["models/a", "/abs/b"]\n')
    assert load_config(path, {}, {}).config.inference.models == (tmp_path / "models/a", Path("/abs/b"))
    from_environment = load_config(path, {"QUORATE__INFERENCE__MODELS": "x, y"}, {}).config
    assert from_environment.inference.models == (elsewhere / "x", elsewhere / "y")


def test_another_worker_command_is_taken_word_by_word(path: Path) -> None:
    config = load(path, 'version = 1\n[inference]\ncommand = ["python", "-P", "-m", "worker", "a b"]\n')
    assert config.inference.command == ("python", "-P", "-m", "worker", "a b")


@pytest.mark.parametrize(
    "text, named",
    [
        ("[rpc]\nport = 1", "expected `version = 1`, got none"),
        ("version = 2", "got 2"),
        ("version = true", "got True"),
        ("version = 1\n[rcp]\nport = 1", "unknown setting 'rcp'; the nearest one is 'rpc'"),
        ("version = 1\n[rpc]\nprot = 1", "unknown setting 'rpc.prot'; the nearest one is 'rpc.port'"),
        ("version = 1\nrpc = 5", r"expected a section \[rpc\]"),
        ("version = 1\n[rpc]\nport = '1'", "rpc.port = '1': Expected `int`, got `str`"),
        ("version = 1\n[rpc]\nport = 1.0", "rpc.port"),
        ("version = 1\n[rpc]\nport = 65536", "rpc.port = 65536: Expected `int` <= 65535"),
        ("version = 1\n[rpc]\nport = -1", "rpc.port = -1"),
        ("version = 1\n[rpc]\nport = true", "rpc.port = True"),
        ("version = 1\n[rpc]\nhost = '0.0.0.0'", "open to other machines"),
        ("version = 1\n[rpc]\nhost = 'example'", "expected an IP address"),
        ("version = 1\n[network]\nlisten_host = 'example'", "expected an IP address"),
        ("version = 1\n[network]\npeers = ['x']", "expected NODEID@HOST:PORT"),
        ("version = 1\n[network]\npeers = 'x'", "network.peers"),
        ("version = 1\n[log]\nlevel = 'loud'", "log.level = 'loud': Invalid enum value 'loud'"),
        ("version = 1\n[inference]\ndevice = 'tpu'", "inference.device = 'tpu'"),
        ("version = 1\n[inference]\nmodels = [1]", "inference.models"),
        ("version = 1\n[inference]\nmodels = ['']", "expected a path"),
        ("version = 1\n[inference]\nmodels = ['~nobody-of-this-name/x']", "there is no such user"),
        ("version = 1\n[rpc]\nport = " + "9" * 5_000, "expected TOML"),
        ("version = 1\n[inference]\nqueue_size = 0", "inference.queue_size = 0"),
        ("version = 1\n[rpc", "expected TOML"),
        ("version = 1\n# " + "x" * MAX_CONFIG_BYTES, "expected at most"),
        ("version = 1\na = " + "[" * 5000, "expected TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(path: Path, text: str, named: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=named) as raised:
        load_config(path, {}, {})
    assert str(path) in raised.value.message
    assert raised.value.exit_code is Exit.CONFIGURATION


@pytest.mark.parametrize(
    "environment, named",
    [
        ({"QUORATE__RPC__PROT": "1"}, "QUORATE__RPC__PROT: unknown setting 'rpc.prot'; the nearest one is 'rpc.port'"),
        ({"QUORATE__PORT": "1"}, "QUORATE__PORT: unknown setting"),
        ({"QUORATE__RPC__PORT": "many"}, "QUORATE__RPC__PORT: rpc.port = 'many'"),
        ({"QUORATE__RPC__PORT": "99999"}, "<= 65535"),
    ],
)
def test_a_wrong_variable_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(None, environment, {})


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(ConfigError, match=r"command line: rpc\.port = 70000"):
        load_config(None, {}, {"rpc.port": 70000})


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(StorageFailure, match="No such file"):
        load_config(path, {}, {})


def test_other_machines_are_let_in_with_a_token(path: Path) -> None:
    config = load(path, "version = 1\n[rpc]\nhost = '0.0.0.0'\ntoken_file = 'token'\n")
    assert config.rpc.token_file == path.parent / "token"


@pytest.mark.parametrize(
    "text, multiaddr",
    [
        (f"{NODE.hex()}@10.0.0.1:4001", "/ip4/10.0.0.1/tcp/4001"),
        (f"{NODE.hex().upper()}@[::1]:4001", "/ip6/::1/tcp/4001"),
        (f"{NODE.hex()}@node-1.example.org:04001", "/dns4/node-1.example.org/tcp/4001"),
        (f"/ip4/10.0.0.1/tcp/4001/p2p/{peer_id_of(NODE)}", "/ip4/10.0.0.1/tcp/4001"),
    ],
)
def test_a_peer_is_written_in_either_way(text: str, multiaddr: str) -> None:
    assert parse_peer_setting(text) == PeerAddress(NODE, multiaddr)


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "10.0.0.1:4001", f"{NODE.hex()}@10.0.0.1", f"{NODE.hex()}@:4001", f"{NODE.hex()}@10.0.0.1:0", f"{NODE.hex()}@h:65536",
        f"{NODE.hex()[2:]}@h:1", f"{'zz' * 32}@h:1", f"{'a ' * 32}@h:1", f"{NODE.hex()}@a/b:1", f"{NODE.hex()}@h:1 ", "/ip4/10.0.0.1/tcp/1",
        "/ip4/10.0.0.1/tcp/1/p2p/Qm0", f"{NODE.hex()}@h:١",
    ],
)  # fmt: skip
def test_what_is_no_peer_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_peer_setting(text)


def test_peers_come_out_as_addresses(path: Path) -> None:
    config = load(path, f'version = 1\n[network]\npeers = ["{NODE.hex()}@10.0.0.1:4001"]\n')
    assert config.network.peer_addresses == (PeerAddress(NODE, "/ip4/10.0.0.1/tcp/4001"),)


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(command=st.lists(WORDS, max_size=4), port=st.integers(0, 65_535), level=st.sampled_from(["debug", "error"]))
def test_an_encoded_file_loads_as_what_it_was_made_of(
    tmp_path_factory: pytest.TempPathFactory, command: list[str], port: int, level: str
) -> None:
    settings: dict[str, Setting] = {"inference.command": tuple(command), "rpc.port": port, "log.level": level}
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(encode_config(settings))
    assert load_config(path, {}, {}).config == load_config(None, {}, settings).config
    assert path.read_text().startswith(f"version = {CONFIG_VERSION}\n")


def test_a_clock_can_be_set_wrong_for_a_test_from_the_environment_and_within_an_hour_only() -> None:
    variable = "QUORATE__TESTING__CLOCK_SKEW_MS"
    assert load_config(None, {variable: "-3000"}, {}).config.testing.clock_skew_ms == -3_000
    with pytest.raises(ConfigError, match=variable):
        load_config(None, {variable: "3600001"}, {})
