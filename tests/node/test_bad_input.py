"""Every bad input of docs/errors.md, done for real: the exit code, the RPC code, the reason and the sentence are those of the table.

The table and this file must name the same cases, so neither can be changed without the other.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from node.cli import main, run_command
from node.disk import SYSTEM_DISK
from node.faults import CONSEQUENCES
from node.genesis_file import write_genesis
from node.home import Home, find_home, hold_home
from node.http_server import HttpConfig, HttpLimits
from node.storage import open_storage
from node.wal import open_wal
from tests.node import bad_trust
from tests.node.bad_chains import (
    STRANGER,
    ask_for_lost_text,
    bond_after_conviction,
    check_damaged,
    export_lost_votes,
    fetch_lost_text,
    import_lower_bound,
    make_busy,
    send_transaction,
    submit_again,
    transfer,
    transfer_too_much,
    unjail,
)
from tests.node.bad_inputs import Outcome, World, call, post
from tests.node.fake_node import FakeNode, serving
from tests.protocol.builders import make_genesis, start_chain
from verifier.card import load_card

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
ARITH = ROOT / "devnet" / "models" / "arith-s"
OPTIONS = {
    "model": "--model",
    "seats": "--committee",
    "max_fee": "--max-fee",
    "max_tokens": "--max-tokens",
    "request_id": "--request-id",
}


def ask(world: World, node: FakeNode | None = None, question: str = "23+58=", **changes: object) -> Outcome:
    """What a question leads to on both sides, which must say the same."""
    params = {"model": "adder", "seats": 3, **changes}
    asked = dict(params)
    if "max_tokens" in asked:
        asked["settings"] = {"max_tokens": asked.pop("max_tokens")}
    if "max_fee" in asked:
        params["max_fee"] = f"{int(str(asked['max_fee'])) / 1_000_000}"
    with serving(node or FakeNode()) as url:
        options = [part for name, value in params.items() for part in (OPTIONS[name], value)]
        told = world.fail("ask", question, "--rpc", url, *options)
        answered = call(url, "job_submit", prompt=question, **asked)
    assert (told.reason, told.sentence) == (answered.reason, answered.sentence)
    return Outcome(told.exit, answered.rpc, told.reason, told.sentence)


def served(_: World, act: Callable[[str], Outcome], node: FakeNode | None = None, **config: object) -> Outcome:
    """What an action on a served node leads to."""
    with serving(node or FakeNode(), HttpConfig(**config)) as url:
        return act(url)


def arith() -> FakeNode:
    """A node that has the model, not only its card."""
    card = load_card(ARITH)
    return FakeNode(start_chain(make_genesis(cards=(card,))), model_directory=ARITH)


def poor(_: World) -> FakeNode:
    return FakeNode(start_chain(make_genesis(balance=2_000)))


def settled(world: World, answers: Callable[[int], str]) -> Outcome:
    """How a job without an answer ends."""
    with serving(FakeNode(answers=answers)) as url:
        arguments = ["ask", "23+58=", "--model", "adder", "--rpc", url]
        code, out, _ = world.run(*arguments)
        run_command(arguments)
    shown = " ".join(world.capsys.readouterr().out.split())
    assert out["certificate"] is None
    return Outcome(code, None, out["status"], shown.partition("decision ")[2].partition(" capture ")[0])


def time_out(world: World) -> Outcome:
    with serving(FakeNode(is_stalled=True)) as url:
        return world.fail("ask", "1+1=", "--model", "adder", "--rpc", url, "--timeout", "0.05")


def ask_before_settlement(method: str, url: str) -> Outcome:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "job_submit", "params": {"model": "adder", "prompt": "1+1="}}
    job = httpx.post(f"{url}/rpc", json=asked, trust_env=False).json()["result"]["job"]
    return call(url, method, job=job)


def unknown_job(world: World) -> Outcome:
    with serving(FakeNode()) as url:
        told = world.fail("jobs", "show", "00" * 32, "--rpc", url)
        answered = call(url, "job_get", job="00" * 32)
    assert told.sentence == answered.sentence
    return Outcome(told.exit, answered.rpc, told.reason, told.sentence)


def break_inside(_: World) -> Outcome:
    node = FakeNode(fault=RuntimeError("a secret"))
    with serving(node) as url:
        return call(url, "node_status")


def unknown_verb(world: World) -> Outcome:
    world.monkeypatch.setattr("sys.argv", ["quorate", "statsu", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    error = json.loads(world.capsys.readouterr().out)["error"]
    return Outcome(int(str(ended.value.code)), None, error["reason"], error["message"])


def foreign_server(world: World) -> Outcome:
    world.monkeypatch.setattr("node.rpc_client.NodeClient._post", lambda *_: b"<html>")
    return world.fail("status", "--rpc", "http://127.0.0.1:1")


def certificate(world: World, change: Callable[[bytes], bytes]) -> Outcome:
    return world.verify(change(world.make_certificate().read_bytes()))


def certificate_of_another_chain(world: World) -> Outcome:
    good = world.make_certificate().read_bytes()
    write_genesis(world.place / "genesis.json", make_genesis(stake=101_000_000))
    return world.verify(good)


def broken_genesis(world: World) -> Outcome:
    path = world.make_certificate()
    (world.place / "genesis.json").write_text('{"version": 1}')
    return world.fail("verify", path, "--genesis", world.place / "genesis.json")


def run_home(world: World, prepare: Callable[[Home], object], *options: object) -> Outcome:
    home = world.make_home()
    prepare(Home(home))
    return world.fail("run", "--home", home, *options)


def run_locked(world: World) -> Outcome:
    home = world.make_home()
    with hold_home(find_home(home)):
        return world.fail("run", "--home", home)


def run_with_wrong_passphrase(world: World) -> Outcome:
    write_genesis(world.place / "genesis.json", make_genesis())
    for name in ("right", "wrong"):
        (world.place / name).write_text(name)
    home = world.place / "home"
    made = ("init", "--home", home, "--genesis", world.place / "genesis.json")
    assert world.run(*made, "--passphrase-file", world.place / "right")[0] == 0
    return world.fail("run", "--home", home, "--passphrase-file", world.place / "wrong")


def run_on_a_port_in_use(world: World) -> Outcome:
    home = world.make_home()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return world.fail("run", "--home", home, "--rpc-port", taken.getsockname()[1])


def run_with_altered_weights(world: World) -> Outcome:
    model = world.place / "model"
    shutil.copytree(ARITH, model)
    home = world.make_home()
    assert world.run("init", "--home", home, "--model", model)[0] == 0
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    return world.fail("run", "--home", home)


def run_on_a_full_disk(world: World) -> Outcome:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    home = world.make_home()
    calls = replace_calls(write=refuse)
    world.monkeypatch.setattr("node.run.open_wal", partial(open_wal, calls=calls))
    return world.fail("run", "--home", home)


def replace_calls(**changes: object):
    from dataclasses import replace as replace_fields

    return replace_fields(SYSTEM_DISK, **changes)


def keep_on_a_full_disk(world: World) -> Outcome:
    with serving(FakeNode()) as url:
        return world.fail("ask", "1+1=", "--model", "adder", "--rpc", url, "--out", "/dev/full")


def keep_in_no_directory(world: World) -> Outcome:
    with serving(FakeNode()) as url:
        return world.fail("ask", "1+1=", "--model", "adder", "--rpc", url, "--out", world.place / "none" / "x.qrc")


def make_card_of_strange_model(world: World) -> Outcome:
    model = world.place / "model"
    shutil.copytree(ARITH, model, ignore=shutil.ignore_patterns("card.json"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["Strange"]}))
    return world.fail("models", "card", model)


def spoil_key(home: Home) -> None:
    home.key.write_text("no key\n")


def open_key(home: Home) -> None:
    home.key.chmod(0o644)


def make_foreign(home: Home) -> None:
    open_storage(home.database, bytes(32)).close()


def misspell(home: Home) -> None:
    home.config.write_text("version = 1\n[rpc]\nprot = 1\n")


def flip(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


STALE = b'{"jsonrpc":"2.0","id":1,"method":"node_status"}'

CASES: dict[str, Callable[[World], Outcome]] = {
    # a question
    "unknown model": lambda w: ask(w, model="adler"),
    "empty prompt": lambda w: ask(w, question=""),
    "prompt over 8 KiB": lambda w: ask(w, question="1" * 8193),
    "prompt too long for the model": lambda w: ask(w, arith(), question="1+" * 40, model="arith-s"),
    "prompt with signs that the model has no token for": lambda w: ask(w, arith(), question="2+3=?", model="arith-s"),
    "zero seats": lambda w: ask(w, seats=0),
    "even number of seats": lambda w: ask(w, seats=4),
    "more seats than the network allows": lambda w: ask(w, seats=1001),
    "more seats than the serving nodes can hold": lambda w: ask(
        w, FakeNode(start_chain(make_genesis(validators=("v0", "v1"))))
    ),
    "more tokens than the model's context": lambda w: ask(w, max_tokens=64),
    "unaffordable fee": lambda w: ask(w, poor(w)),
    "fee above --max-fee": lambda w: ask(w, max_fee=1_500),
    "request id over 64 signs": lambda w: ask(w, request_id="r" * 65),
    "network is busy": lambda w: ask(w, make_busy()),
    "node is catching up": lambda w: ask(w, FakeNode(sync_target=70)),
    "node has stopped ordering": lambda w: ask(w, FakeNode(halted="two certificates for one view")),
    "job failed: no quorum in time": lambda w: settled(w, lambda _: ""),
    "job inconclusive: no agreement": lambda w: settled(w, lambda seat: ("79", "80", "81")[seat]),
    "no answer within --timeout": time_out,
    "accepted, but nobody serves the text": ask_for_lost_text,
    "unknown job": unknown_job,
    # a call
    "malformed JSON": lambda w: served(w, lambda url: post(url, b'{"jsonrpc":')),
    "no JSON-RPC request": lambda w: served(w, lambda url: post(url, b'{"method":"node_status"}')),
    "empty batch": lambda w: served(w, lambda url: post(url, b"[]")),
    "batch over the limit": lambda w: served(w, lambda url: post(url, b"[" + b",".join([STALE] * 33) + b"]")),
    "unknown method": lambda w: served(w, lambda url: call(url, "job_steal")),
    "wrong types": lambda w: served(w, lambda url: call(url, "job_submit", model="adder", prompt="1", seats="3")),
    "body over the limit": lambda w: served(
        w, lambda url: post(url, b" " * 5_001), limits=HttpLimits(body_bytes=5_000)
    ),
    "other content type": lambda w: served(w, lambda url: post(url, STALE, {"content-type": "text/plain"})),
    "other path": lambda w: served(w, lambda url: post(url, STALE, path="/")),
    "call from a web page": lambda w: served(w, lambda url: post(url, STALE, {"origin": "http://example.org"})),
    "no token, or a wrong one": lambda w: served(w, lambda url: post(url, STALE), token="0123456789abcdef"),
    "duplicate transaction": lambda _: send_transaction(forge=False),
    "job submitted again": submit_again,
    "convicted sender": bond_after_conviction,
    "jailed sender that wants to vote again too early": partial(unjail, after_blocks=1),
    "sender that is not jailed": partial(unjail, after_blocks=0),
    "forged signature": lambda _: send_transaction(forge=True),
    "bytes that are no transaction": lambda w: served(w, lambda url: call(url, "tx_submit", transaction="AAAA")),
    "unknown block": lambda w: served(w, lambda url: call(url, "block_get", height=70)),
    "certificate before the settlement": lambda w: served(w, partial(ask_before_settlement, "certificate_get")),
    "output before the settlement": lambda w: served(w, partial(ask_before_settlement, "output_get")),
    "output that nobody serves": fetch_lost_text,
    "fault of the node": break_inside,
    # a command
    "unknown verb": unknown_verb,
    "unknown option": lambda w: w.fail("status", "--colour"),
    "no node runs in this home": lambda w: w.fail("status", "--home", w.make_home()),
    "nobody answers there": lambda w: w.fail("status", "--rpc", "http://127.0.0.1:1"),
    "something else answers there": foreign_server,
    "certificate cannot be written": keep_in_no_directory,
    "disk full while keeping a certificate": keep_on_a_full_disk,
    "malformed peer": lambda w: w.fail("init", "--home", w.make_home(), "--peer", "10.0.0.1:7550"),
    "no model to make a card of": lambda w: w.fail("models", "card", w.place / "none"),
    "model of an unsupported architecture": make_card_of_strange_model,
    "transfer that the account cannot pay": transfer_too_much,
    "transfer to a malformed node id": lambda w: transfer(w, recipient=STRANGER[:-1]),
    "transfer of no amount": lambda w: transfer(w, units="0.0000001"),
    "no chain to check": lambda w: w.fail("ledger", "check", "--home", w.make_home()),
    "damaged chain": check_damaged,
    "bound of signatures that is lower than the home's": import_lower_bound,
    "bound of signatures of a home that lost votes": export_lost_votes,
    # a certificate
    "no such certificate": lambda w: w.fail("verify", w.place / "none.qrc", "--genesis", w.place / "none.json"),
    "certificate truncated": lambda w: certificate(w, lambda content: content[:-100]),
    "certificate altered": lambda w: certificate(w, flip),
    "certificate empty": lambda w: certificate(w, lambda _: b""),
    "certificate of another chain": certificate_of_another_chain,
    "certificate of a newer version": lambda w: certificate(w, lambda content: b"QRC\x02" + content[4:]),
    "genesis file broken": broken_genesis,
    **bad_trust.CASES,
    # a node's start
    "directory is no home": lambda w: w.fail("run", "--home", w.place / "none"),
    "home of another chain": lambda w: run_home(w, make_foreign),
    "home in use": run_locked,
    "key file broken": lambda w: run_home(w, spoil_key),
    "key file open to others": lambda w: run_home(w, open_key),
    "wrong passphrase": run_with_wrong_passphrase,
    "unknown setting": lambda w: run_home(w, misspell),
    "open address without a token": lambda w: run_home(w, lambda _: None, "--set", "rpc.host=0.0.0.0"),
    "port in use": run_on_a_port_in_use,
    "model's weights do not match their hash": run_with_altered_weights,
    "disk full at start": run_on_a_full_disk,
}


@dataclass(frozen=True)
class Row:
    """One line of the table in docs/errors.md; a dash is nothing."""

    case: str
    exit: int | None
    rpc: int | None
    reason: str
    sentence: str


def read_rows() -> list[Row]:
    lines = (ROOT / "docs" / "errors.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]
    rows = [cell for cell in cells if len(cell) == 5 and cell[0] != "case"]
    return [
        Row(case, None if code == "-" else int(code), None if rpc == "-" else int(rpc), reason.strip("`"), sentence)
        for case, code, rpc, reason, sentence in rows
    ]


ROWS = {row.case: row for row in read_rows()}


def test_the_table_and_the_tests_name_the_same_cases() -> None:
    assert len(ROWS) == len(read_rows())
    assert list(ROWS) == list(CASES)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_as_docs_errors_says(
    case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    outcome = CASES[case](World(tmp_path, capsys, monkeypatch))
    row = ROWS[case]
    assert (outcome.exit, outcome.rpc, outcome.reason) == (row.exit, row.rpc, row.reason)
    pattern = ".+".join(re.escape(part) for part in row.sentence.split("…"))
    assert re.fullmatch(pattern, outcome.sentence), outcome.sentence


def test_every_code_in_the_table_is_the_reason_s_own() -> None:
    by_name = {str(reason.value): consequence for reason, consequence in CONSEQUENCES.items()}
    for row in ROWS.values():
        assert row.exit in {None, int(by_name[row.reason].exit)}, row
        assert row.rpc in {None, int(by_name[row.reason].rpc)}, row
