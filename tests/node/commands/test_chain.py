"""`quorate chain`, `quorate checkpoint`, and what `ask` keeps beside a certificate where the validators have changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from node.faults import Exit
from node.genesis_file import write_genesis
from protocol.block import compute_header_hash
from protocol.certificate import check_certificate
from protocol.chain_file import decode_chain_file, decode_trusted_header, encode_chain_file, name_chain_file, read_trust
from tests.node.fake_node import FakeNode, serving
from tests.protocol.certificates import list_steps
from tests.protocol.changing import EPOCH, start_changing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def node() -> FakeNode:
    """A node whose validators changed with epoch 2, and change again with epoch 4."""
    fake = FakeNode(start_changing())
    fake.chain.run(2 * EPOCH)
    return fake


@pytest.fixture
def url(node: FakeNode) -> Iterator[str]:
    with serving(node) as bound:
        yield bound


def get_name(node: FakeNode) -> str:
    return name_chain_file(node.get_snapshot().chain_id)


def test_the_changes_are_fetched_and_later_ones_added(quorate: Run, url: str, node: FakeNode) -> None:
    code, out, _ = quorate("chain", "--out", "c.qrs", "--rpc", url)
    assert code == Exit.OK
    assert "2, the last at the end of epoch 3" in out
    assert decode_chain_file(Path("c.qrs").read_bytes()).steps == list_steps(node.chain)
    node.chain.step(node.chain.bond("v3", 1_000_000))
    node.chain.run(3 * EPOCH)
    code, out, _ = quorate("chain", "--out", "c.qrs", "--rpc", url, "--json")
    chain_id = node.get_snapshot().chain_id.hex()
    assert (code, json.loads(out)) == (
        Exit.OK,
        {"chain": "c.qrs", "chain_id": chain_id, "steps": 3, "last_epoch": list_steps(node.chain)[-1].header.epoch},
    )
    assert decode_chain_file(Path("c.qrs").read_bytes()).steps == list_steps(node.chain)


def test_a_chain_whose_validators_never_changed_has_a_file_that_says_so(quorate: Run) -> None:
    with serving(FakeNode()) as url:
        code, out, _ = quorate("chain", "--out", "c.qrs", "--rpc", url)
    assert (code, "have never changed" in out) == (Exit.OK, True)
    assert decode_chain_file(Path("c.qrs").read_bytes()).steps == ()


@pytest.mark.parametrize("content", [b"", b"QRS\x01", b"something else", encode_chain_file(bytes(32), ())])
def test_a_file_that_holds_no_changes_of_this_chain_is_written_anew(
    quorate: Run, url: str, node: FakeNode, content: bytes
) -> None:
    Path("c.qrs").write_bytes(content)
    assert quorate("chain", "--out", "c.qrs", "--rpc", url)[0] == Exit.OK
    assert decode_chain_file(Path("c.qrs").read_bytes()).steps == list_steps(node.chain)


def test_a_checkpoint_is_a_header_whose_hash_can_be_compared(quorate: Run, url: str, node: FakeNode) -> None:
    code, out, _ = quorate("checkpoint", "--out", "t.qrt", "--rpc", url)
    assert code == Exit.OK
    assert compute_header_hash(node.chain.header).hex() in out.split()
    assert read_trust(node.genesis, Path("t.qrt").read_bytes()).root.height == node.chain.header.height
    assert f"--height {node.chain.header.height}" in out
    code, out, _ = quorate("checkpoint", "--out", "t.qrt", "--height", 9, "--rpc", url, "--json")
    header = decode_trusted_header(Path("t.qrt").read_bytes()).header
    assert (code, header.height) == (Exit.OK, 9)
    assert json.loads(out) == {
        "trusted_header": "t.qrt",
        "chain_id": header.chain_id.hex(),
        "height": 9,
        "hash": compute_header_hash(header).hex(),
        "epoch": 1,
        "time_ms": header.time_ms,
    }


def test_a_block_that_the_node_lacks_is_no_checkpoint(quorate: Run, url: str) -> None:
    code, out, _ = quorate("checkpoint", "--out", "t.qrt", "--height", 10**6, "--rpc", url, "--json")
    assert (code, json.loads(out)["error"]["reason"]) == (Exit.USAGE, "unknown_block")
    assert not Path("t.qrt").exists()


def test_ask_keeps_the_changes_beside_the_certificate_and_verify_finds_them(
    quorate: Run, url: str, node: FakeNode, tmp_path: Path
) -> None:
    write_genesis(tmp_path / "genesis.json", node.genesis)
    node.chain.run(EPOCH)
    code, out, _ = quorate("ask", "23+58=", "--model", "adder", "--rpc", url, "--out", "x.qrc", "--json")
    assert (code, json.loads(out)["chain"]) == (Exit.OK, get_name(node))
    code, out, _ = quorate("verify", "x.qrc", "--genesis", "genesis.json", "--json")
    assert (code, json.loads(out)["trust"]["steps"]) == (Exit.OK, 2)
    kept = Path(get_name(node)).read_bytes()
    code, out, _ = quorate("ask", "1+1=", "--model", "adder", "--rpc", url)
    assert f"{get_name(node)}: the validators have changed" in " ".join(out.split())
    assert Path(get_name(node)).read_bytes() == kept


def test_ask_keeps_no_chain_file_where_nothing_changed(quorate: Run, tmp_path: Path) -> None:
    with serving(FakeNode()) as url:
        code, out, _ = quorate("ask", "23+58=", "--model", "adder", "--rpc", url, "--out", "x.qrc", "--json")
    assert (code, json.loads(out)["chain"]) == (Exit.OK, None)
    assert [path.name for path in tmp_path.iterdir()] == ["x.qrc"]


def test_a_chain_file_that_cannot_be_kept_costs_no_answer(
    quorate: Run, url: str, node: FakeNode, tmp_path: Path
) -> None:
    node.chain.run(EPOCH)
    (tmp_path / get_name(node)).mkdir()
    code, out, err = quorate("ask", "23+58=", "--model", "adder", "--rpc", url, "--out", "x.qrc", "--json")
    assert (code, json.loads(out)["text"], json.loads(out)["chain"]) == (Exit.OK, "81", None)
    assert "quorate chain --out" in err
    with pytest.raises(Exception, match="other validators"):
        check_certificate(Path("x.qrc").read_bytes(), node.genesis)


def test_jobs_show_keeps_the_changes_as_well(quorate: Run, url: str, node: FakeNode) -> None:
    node.chain.run(EPOCH)
    job = json.loads(quorate("ask", "23+58=", "--model", "adder", "--rpc", url, "--json")[1])["job"]
    Path(get_name(node)).unlink()
    _, _, err = quorate("jobs", "show", job, "--rpc", url, "--out", "again.qrc")
    assert f"to be given along with {get_name(node)}" in err
    assert Path(get_name(node)).is_file()
