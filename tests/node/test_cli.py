"""The quorate command against a node over real HTTP: what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from node.cli import run_command
from node.commands import connect
from node.faults import Exit, Fault
from node.genesis_file import write_genesis
from node.home import Home, create_home, store_api_address
from node.rpc_client import NodeClient
from protocol.certificate import check_certificate
from protocol.genesis import compute_chain_id
from tests.node.fake_node import FakeNode, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
ARITH = ROOT / "devnet" / "models" / "arith-s"


@pytest.fixture
def node() -> FakeNode:
    fake = FakeNode(answers=lambda seat: "80" if seat == 1 else "81")
    fake.chain.run(1)
    return fake


@pytest.fixture
def url(node: FakeNode) -> Iterator[str]:
    with serving(node) as bound:
        yield bound


@pytest.fixture
def quorate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in an empty directory: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


def ask(quorate: Callable[..., tuple[int, str, str]], url: str, *more: object) -> tuple[int, str, str]:
    return quorate("ask", "23+58=", "--model", "adder", "--rpc", url, *more)


def widest(text: str) -> int:
    """The width of the widest line, but for those with an id or address, which stays whole so that it can be copied."""
    lines = [line.rstrip() for line in text.splitlines()]
    return max(len(line) for line in lines if not any(len(word) > 64 for word in line.split()))


# --- ask, verify, jobs


def test_ask_shows_answer_decision_cost_and_seats_and_keeps_the_certificate(quorate, url, node, tmp_path) -> None:
    code, out, err = ask(quorate, url)
    assert code == Exit.OK
    certificate = next(tmp_path.glob("*.qrc"))
    assert check_certificate(certificate.read_bytes(), node.genesis).text == "81"
    for shown in ("23+58=", "81", "accepted · majority of 3", "2 of 3 seats agree (66.7 %)", "inside", "outside"):
        assert shown in out
    assert "units," in out
    assert "left" in out
    assert "waiting for" in err
    assert "members generate" in err


def test_ask_fits_a_terminal_of_80_columns_except_for_what_must_stay_whole(quorate, url) -> None:
    _, out, _ = ask(quorate, url, "--out", "x.qrc")
    assert widest(out) <= 80


def test_ask_as_json_has_exactly_the_documented_keys(quorate, url, node) -> None:
    code, out, _ = ask(quorate, url, "--json", "--out", "x.qrc")
    answer = json.loads(out)
    assert code == Exit.OK
    assert list(answer) == [
        *("job", "status", "text", "rule", "agreement_ppm", "fee", "balance", "members", "certificate"),
        *("chain", "picture"),
    ]
    assert [list(member) for member in answer["members"]] == [["node", "text", "digest_distance", "inside"]] * 3
    assert [member["text"] for member in answer["members"]] == ["81", "80", "81"]
    assert [member["inside"] for member in answer["members"]] == [True, False, True]
    assert (answer["status"], answer["text"], answer["certificate"]) == ("accepted", "81", "x.qrc")
    assert answer["balance"] == node.get_balance()
    assert answer["fee"] == 3 * node.genesis.params.min_seat_fee + node.genesis.params.base_fee


@pytest.mark.parametrize(
    "answers, status", [(lambda seat: ("79", "80", "81")[seat], "inconclusive"), (lambda _: "", "failed")]
)
def test_ask_without_an_answer_exits_7_and_certifies_nothing(quorate, url, node, tmp_path, answers, status) -> None:
    node.answers = answers
    code, out, _ = ask(quorate, url, "--json")
    answer = json.loads(out)
    assert (code, answer["status"]) == (Exit.NO_ANSWER, status)
    assert answer["text"] is None is answer["certificate"]
    assert answer["fee"] < 3 * node.genesis.params.min_seat_fee
    assert list(tmp_path.glob("*.qrc")) == []
    code, out, _ = ask(quorate, url)
    assert (code, status in out, "comes back" in out) == (Exit.NO_ANSWER, True, True)


def test_an_output_that_nobody_serves_is_shown_by_its_hash(quorate, url, node) -> None:
    node.lost.add("80")
    code, out, err = ask(quorate, url)
    assert code == Exit.OK
    assert "…" in out
    assert "none served it" in err


def test_a_repeated_request_id_asks_once(quorate, url, node) -> None:
    first = json.loads(ask(quorate, url, "--json", "--request-id", "r")[1])
    second = json.loads(ask(quorate, url, "--json", "--request-id", "r")[1])
    assert first["job"] == second["job"]
    assert first["balance"] == second["balance"]


def test_waiting_ends_at_its_time_and_names_the_job_that_goes_on(quorate, url, node) -> None:
    node.is_stalled = True
    code, out, err = ask(quorate, url, "--timeout", "0.05", "--json")
    assert code == Exit.NO_ANSWER
    assert json.loads(out)["error"]["reason"] == "timed_out"
    assert "quorate jobs wait " in err


def test_ctrl_c_leaves_the_job_running(quorate, url, node, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("node.commands.answers._poll", interrupt)
    code, _, err = ask(quorate, url)
    assert code == Exit.NO_ANSWER
    assert "quorate jobs wait " in err


def test_jobs_wait_takes_a_job_up_again_by_the_start_of_its_id(quorate, url, node) -> None:
    node.is_stalled = True
    _, out, _ = ask(quorate, url, "--timeout", "0.05", "--json")
    job = json.loads(out)["error"]["job"]
    node.is_stalled = False
    code, out, _ = quorate("jobs", "wait", job[:10], "--rpc", url, "--json")
    assert (code, json.loads(out)["job"], json.loads(out)["text"]) == (Exit.OK, job, "81")


def test_jobs_are_listed_and_shown(quorate, url) -> None:
    job = json.loads(ask(quorate, url, "--json")[1])["job"]
    code, out, _ = quorate("jobs", "ls", "--rpc", url)
    assert (code, job[:8] in out, "accepted" in out, widest(out) <= 80) == (Exit.OK, True, True, True)
    code, out, _ = quorate("jobs", "show", job, "--rpc", url, "--out", "again.qrc")
    assert (code, "66.7 %" in out, widest(out) <= 80) == (Exit.OK, True, True)
    assert Path("again.qrc").stat().st_size > 1000
    assert quorate("jobs", "show", "ff", "--rpc", url)[0] == Exit.USAGE


def test_a_job_that_no_block_holds_is_not_waited_for_for_ever(quorate, url, monkeypatch) -> None:
    monkeypatch.setattr("node.commands.jobs.UNKNOWN_S", 0.0)
    monkeypatch.setattr("node.commands.answers._POLL_MS", 10)
    code, out, _ = quorate("jobs", "wait", "00" * 32, "--rpc", url, "--json")
    assert (code, json.loads(out)["error"]["reason"]) == (Exit.USAGE, "unknown_job")


def test_the_certificate_of_a_job_that_the_ledger_forgot_can_still_be_had(quorate, url, node) -> None:
    job = json.loads(ask(quorate, url, "--json")[1])["job"]
    node.chain.run(3 * node.genesis.params.epoch_heights)
    assert quorate("jobs", "show", job, "--rpc", url)[0] == Exit.USAGE
    code, _, err = quorate("jobs", "show", job, "--rpc", url, "--out", "late.qrc")
    assert (code, "forgotten" in err) == (Exit.OK, True)
    assert check_certificate(Path("late.qrc").read_bytes(), node.genesis).text == "81"


@pytest.fixture
def certificate(quorate, url, node, tmp_path) -> Path:
    assert ask(quorate, url, "--out", "x.qrc")[0] == Exit.OK
    write_genesis(tmp_path / "genesis.json", node.genesis)
    return tmp_path / "x.qrc"


def test_verify_shows_what_was_recomputed_and_what_is_attested(quorate, certificate) -> None:
    code, out, _ = quorate("verify", certificate, "--genesis", "genesis.json")
    assert code == Exit.OK
    for shown in ("valid · accepted", "81", "recomputed here", "attested by the quorum", "outside"):
        assert shown in out
    assert widest(out.replace(str(certificate), "")) <= 80


def test_verify_as_json_has_exactly_the_documented_keys(quorate, certificate) -> None:
    _, out, _ = quorate("verify", certificate, "--genesis", "genesis.json", "--json")
    report = json.loads(out)
    assert list(report) == [
        *("valid", "decision", "text", "picture_sha256", "job", "recomputed", "attested", "assumed", "trust", "fault")
    ]
    assert (report["valid"], report["decision"], report["text"], report["fault"]) == (True, "accepted", "81", None)
    assert report["recomputed"]
    assert report["attested"]


def test_a_valid_certificate_without_an_answer_exits_7(quorate, url, node, certificate) -> None:
    node.answers = lambda _: ""
    job = json.loads(ask(quorate, url, "--json")[1])["job"]
    assert quorate("jobs", "show", job, "--rpc", url, "--out", "failed.qrc")[0] == Exit.OK
    code, out, _ = quorate("verify", "failed.qrc", "--genesis", "genesis.json", "--json")
    assert (code, json.loads(out)["valid"], json.loads(out)["decision"]) == (Exit.NO_ANSWER, True, "failed")


# --- which node


def test_a_home_leads_to_its_running_node(quorate, url, tmp_path) -> None:
    store_api_address(create_home(tmp_path / "home"), url)
    assert quorate("status", "--home", tmp_path / "home")[0] == Exit.OK


def test_the_users_own_home_is_the_default(quorate, url, tmp_path) -> None:
    store_api_address(create_home(tmp_path / "data" / "quorate"), url)
    assert quorate("status")[0] == Exit.OK


def test_a_devnet_leads_to_its_first_node_that_answers(quorate, url, tmp_path) -> None:
    nodes = [{"index": 0, "rpc": "http://127.0.0.1:1", "home": "n0"}, {"index": 1, "rpc": url, "home": "n1"}]
    (tmp_path / "devnet.json").write_text(json.dumps({"chain_id": "", "genesis": "", "nodes": nodes}))
    assert quorate("status", "--home", tmp_path)[0] == Exit.OK
    (tmp_path / "devnet.json").write_text(json.dumps({"nodes": nodes[:1]}))
    assert quorate("status", "--home", tmp_path)[0] == Exit.UNREACHABLE
    (tmp_path / "devnet.json").write_text("[]")
    assert quorate("status", "--home", tmp_path)[0] == Exit.CONFIGURATION


@pytest.mark.parametrize("address", ["127.0.0.1:7551", "ftp://127.0.0.1", "http://", "http://h/elsewhere"])
def test_an_address_that_is_none_is_bad_usage(quorate, address) -> None:
    assert quorate("status", "--rpc", address)[0] == Exit.USAGE


def test_a_server_that_is_no_node_is_told_apart(monkeypatch) -> None:
    client = NodeClient("http://127.0.0.1:1")
    for body in (b"<html>", b"{}", b'{"jsonrpc":"2.0","id":9,"result":{}}', b'{"jsonrpc":"2.0","id":1,"result":{}}'):
        monkeypatch.setattr(client, "_post", lambda _, body=body: body)
        client._last_id = 0
        with pytest.raises(Fault) as caught:
            client.call("node_status", connect.DevnetFile(()), connect.DevnetNode)
        assert caught.value.exit_code is Exit.UNREACHABLE


# --- status, peers, balance


def test_status_shows_the_node_and_its_checks(quorate, url, node) -> None:
    code, out, _ = quorate("status", "--rpc", url)
    assert code == Exit.OK
    for shown in ("ready", "validator", "4 connected, 4 of them see this node", "adder", "1 min 5 s"):
        assert shown in out
    assert widest(out) <= 80
    node.seen_by = ("v1",)
    code, out, _ = quorate("status", "--rpc", url)
    assert (code, "peers: 1 peers confirm" in out) == (Exit.NOT_READY, True)
    status = json.loads(quorate("status", "--rpc", url, "--json")[1])
    assert (status["height"], status["readiness"]["status"], len(status["models"])) == (1, "not_ready", 1)


def test_peers_say_why_they_are_not_connected(quorate, url, node) -> None:
    node.seen_by = ("v1", "v2", "v3")
    code, out, _ = quorate("peers", "--rpc", url)
    assert (code, "connection refused" in " ".join(out.split()), widest(out) <= 80) == (Exit.OK, True, True)
    assert len(json.loads(quorate("peers", "--rpc", url, "--json")[1])["peers"]) == 4


def test_balance_is_in_units(quorate, url) -> None:
    code, out, _ = quorate("balance", "--rpc", url)
    assert (code, "1,000 units" in out) == (Exit.OK, True)
    other = json.loads(quorate("balance", "00" * 32, "--rpc", url, "--json")[1])
    assert other == {
        "node": "00" * 32,
        "balance": 0,
        "bonded": 0,
        "locked": 0,
        "nonce": 0,
        "unbonding": [],
        "weight": 0,
        "next_weight": 0,
        "onion": "none",
        "missed_slots": 0,
        "jailed_until_ms": None,
        "convicted": False,
    }
    assert quorate("balance", "xyz", "--rpc", url)[0] == Exit.USAGE


# --- init, genesis


def test_operators_agree_on_a_genesis_and_each_makes_a_home_of_it(quorate, tmp_path) -> None:
    for name in ("a", "b"):
        line = quorate("init", "--home", name, "--model", ARITH, "--p2p-port", 4001, "--print-validator")[1]
        (tmp_path / f"{name}.json").write_text(line)
    made = ("genesis", "create", "--validator", "a.json", "--validator", "b.json", "--model", ARITH, "--out", "g.json")
    code, out, _ = quorate(*made, "--name", "two", "--stake", 500)
    assert (code, "500" in out, "arith-s" in out) == (Exit.OK, True, True)
    assert widest(out.partition("next, ")[0]) <= 80
    assert quorate(*made)[0] == Exit.CONFIGURATION
    shown = json.loads(quorate("genesis", "show", "g.json", "--json")[1])
    address = json.loads(quorate("init", "--home", "b", "--json")[1])["address"]
    code, out, _ = quorate("init", "--home", "a", "--genesis", "g.json", "--peer", address)
    assert (code, "quorate run --home a" in out) == (Exit.OK, True)
    assert Home(Path("a")).genesis.read_bytes() == Path("g.json").read_bytes()
    assert address in Home(Path("a")).config.read_text()
    assert "4001" in Home(Path("a")).config.read_text()
    assert {entry["stake"] for entry in shown["validators"]} == {500_000_000}


def test_init_again_keeps_key_and_settings_and_refuses_another_network(quorate, node, tmp_path) -> None:
    first = json.loads(quorate("init", "--home", "a", "--rpc-port", 0, "--json")[1])
    write_genesis(tmp_path / "g1.json", node.genesis)
    write_genesis(tmp_path / "g2.json", replace(node.genesis, name="other"))
    second = json.loads(quorate("init", "--home", "a", "--genesis", "g1.json", "--json")[1])
    assert second["validator"] == first["validator"]
    assert second["has_genesis"] is True
    assert quorate("init", "--home", "a", "--genesis", "g1.json")[0] == Exit.OK
    code, _, err = quorate("init", "--home", "a", "--genesis", "g2.json")
    assert (code, compute_chain_id(node.genesis).hex()[:16] in err) == (Exit.CONFIGURATION, True)


def test_a_validator_of_an_unlisted_model_is_refused(quorate, tmp_path) -> None:
    (tmp_path / "a.json").write_text(quorate("init", "--home", "a", "--model", ARITH, "--print-validator")[1])
    code, _, err = quorate("genesis", "create", "--validator", "a.json", "--out", "g.json")
    assert (code, "--model DIR" in err, (tmp_path / "g.json").exists()) == (Exit.CONFIGURATION, True, False)


# --- the program itself


def test_no_arguments_are_help(quorate) -> None:
    for arguments in ([], ["--help"], ["jobs"], ["genesis"], ["bench"]):
        code, out, err = quorate(*arguments)
        assert (code, out.startswith("Usage: quorate"), err) == (Exit.OK, True, "")
    assert "devnet" in quorate("--help")[1]


@pytest.mark.parametrize(
    "arguments", [["ask"], ["ask", "x", "--committee", "many"], ["jobs", "dance"], ["verify", "f"], ["status", "--x"]]
)
def test_bad_usage_exits_2_in_one_line(quorate, arguments) -> None:
    code, out, err = quorate(*arguments, "--json")
    assert code == Exit.USAGE
    assert err.count("\n") == 1
    assert json.loads(out)["error"]["reason"] == "usage"


def test_version_is_told(quorate) -> None:
    assert json.loads(quorate("version", "--json")[1])["protocol"] == 1
    assert quorate("--version")[1].startswith("quorate ")


def run_program(tmp_path: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    script = code or "import sys; sys.argv[0] = sys.argv[1]; del sys.argv[1]; from node.cli import main; main()"
    command = [sys.executable, "-P", "-c", script, str(tmp_path / "quorate"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_an_unknown_verb_goes_to_the_program_of_that_name_beside_this_one(tmp_path) -> None:
    program = tmp_path / "quorate-dance"
    program.write_text('#!/bin/sh\necho "danced $@"\nexit 5\n')
    program.chmod(0o755)
    done = run_program(tmp_path, "dance", "--slowly", "x")
    assert (done.returncode, done.stdout) == (5, "danced --slowly x\n")


def test_an_unknown_verb_without_a_program_names_the_nearest(tmp_path) -> None:
    done = run_program(tmp_path, "statsu")
    assert (done.returncode, "quorate status" in done.stderr) == (Exit.USAGE, True)


def test_a_reader_that_goes_away_is_told_nothing(tmp_path) -> None:
    script = (
        "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1);"
        " from node.cli import run_command; sys.exit(run_command(['version', '--json']))"
    )
    done = run_program(tmp_path, code=script)
    assert (done.returncode, done.stderr) == (1, "")
