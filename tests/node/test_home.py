"""A home directory: complete or refused, and one process' at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.faults import Exit, Fault, Trouble
from node.home import Home, compute_default_home, create_home, find_home, hold_home, load_api_address, store_api_address


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create_home(tmp_path / "deep" / "home")


def fill(home: Home) -> None:
    for path in (home.config, home.genesis, home.key):
        path.write_bytes(b"")


def test_the_default_home_follows_xdg() -> None:
    assert compute_default_home({"XDG_DATA_HOME": "/data", "HOME": "/home/u"}) == Path("/data/quorate")
    assert compute_default_home({"XDG_DATA_HOME": "relative", "HOME": "/home/u"}) == Path(
        "/home/u/.local/share/quorate"
    )
    assert compute_default_home({"HOME": "/home/u"}) == Path("/home/u/.local/share/quorate")


def test_a_new_home_is_its_owners_alone(home: Home) -> None:
    folders = [home.root, home.key.parent, home.database.parent, home.lock.parent]
    assert [folder.stat().st_mode & 0o077 for folder in folders] == [0, 0, 0, 0]


def test_creating_a_home_again_changes_nothing(home: Home) -> None:
    fill(home)
    home.key.write_bytes(b"key")
    assert create_home(home.root) == home
    assert home.key.read_bytes() == b"key"


def test_a_directory_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(Fault, match=r"thesis\.tex") as raised:
        create_home(tmp_path)
    assert raised.value.reason is Trouble.NOT_A_HOME
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_home_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Fault):
        create_home(tmp_path / "file" / "home")


@pytest.mark.parametrize("missing", ["config.toml", "genesis.json", "keys/node.key"])
def test_a_home_without_one_of_its_files_is_refused_by_name(home: Home, missing: str) -> None:
    fill(home)
    assert find_home(home.root) == home
    (home.root / missing).unlink()
    with pytest.raises(Fault, match=missing) as raised:
        find_home(home.root)
    assert raised.value.reason is Trouble.NOT_A_HOME


def test_a_second_start_is_refused_with_the_holders_pid(home: Home) -> None:
    with hold_home(home), pytest.raises(Fault, match=f"in use by process {os.getpid()}$") as raised, hold_home(home):
        pass
    assert (raised.value.reason, raised.value.exit_code) == (Trouble.HOME_LOCKED, Exit.LOCKED)


def test_a_home_is_free_again_after_it_was_held(home: Home) -> None:
    with hold_home(home):
        pass
    with hold_home(home):
        assert home.lock.read_text() == f"{os.getpid()}\n"


def test_a_killed_holder_leaves_the_home_free(home: Home) -> None:
    program = (
        "import os, sys; from pathlib import Path; from node.home import Home, hold_home\n"
        "with hold_home(Home(Path(sys.argv[1]))): os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", program, home.root], cwd=root, timeout=60, check=False)
    assert ended.returncode == -9
    with hold_home(home):
        assert home.lock.read_text() == f"{os.getpid()}\n"


def test_a_process_started_by_the_holder_does_not_hold_the_home(home: Home) -> None:
    with hold_home(home):
        child = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
        )
        assert child.stdout is not None
        child.stdout.readline()  # it runs: the system has closed what it was not to inherit
    try:
        with hold_home(home):
            assert child.poll() is None
    finally:
        child.communicate(b"\n", timeout=60)


def test_the_address_of_the_running_node_is_found_and_goes_with_it(home: Home) -> None:
    with hold_home(home):
        store_api_address(home, "http://127.0.0.1:7551")
        assert load_api_address(home) == "http://127.0.0.1:7551"
    with pytest.raises(Fault) as raised:
        load_api_address(home)
    assert (raised.value.reason, raised.value.exit_code) == (Trouble.NO_NODE_RUNNING, Exit.UNREACHABLE)
