"""devnet.json says which processes are whose, and is not believed blindly."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from devnet.devnet_file import FILE_NAME, DevnetFile, has_devnet, load_devnet, store_devnet
from node.faults import Exit, Fault
from tests.devnet.fake_devnet import make_node

if TYPE_CHECKING:
    from pathlib import Path

DEVNET = DevnetFile("ab" * 32, "/nowhere/genesis.json", (make_node(0, os.getpid()), make_node(1)))


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    assert not has_devnet(tmp_path)
    store_devnet(tmp_path, DEVNET)
    assert has_devnet(tmp_path)
    assert load_devnet(tmp_path) == DEVNET


def test_others_read_it_by_these_names(tmp_path: Path) -> None:
    store_devnet(tmp_path, DEVNET)
    document = json.loads((tmp_path / FILE_NAME).read_bytes())
    assert list(document) == ["chain_id", "genesis", "nodes"]
    assert list(document["nodes"][0]) == ["index", "node", "home", "rpc", "p2p", "pid", "started", "cheat"]


def test_a_node_is_up_while_its_very_process_runs() -> None:
    assert [node.is_up for node in DEVNET.nodes] == [True, False]
    assert len(DEVNET.marks) == 1


def test_a_directory_without_a_devnet_is_named(tmp_path: Path) -> None:
    with pytest.raises(Fault) as refused:
        load_devnet(tmp_path)
    assert refused.value.exit_code == Exit.CONFIGURATION
    assert str(tmp_path) in refused.value.message


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"chain_id": "zz"}', b"\xff", b" " * (1024 * 1024 + 1), b'{"nodes": [' + b"[" * 10_000],
    ids=["empty", "cut off", "a list", "no hex", "no text", "too large", "deep"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(Fault) as refused:
        load_devnet(tmp_path)
    assert refused.value.exit_code == Exit.CONFIGURATION
    assert FILE_NAME in refused.value.message
