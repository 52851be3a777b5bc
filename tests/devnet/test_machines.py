"""A network over several machines, made as strangers make it: lines and a genesis file go by mail, everything else over the network."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devnet.genesis import MODELS
from devnet.perturbation.namespaces import explain_no_namespaces
from devnet.ports import find_free_ports
from node.faults import Exit, Fault
from node.rpc_types import JobState, JobSubmitParams, JobSubmitted, JobWaitParams
from protocol.errors import Rejection
from tests.devnet.machines import Machine, connected, make_machines
from tests.devnet.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION, ANSWER = "23+58=", "81"
ARITH = str(MODELS / "arith-s")
START_S = 90  # of patience with a busy machine: processes start, one of them loads torch
TOKEN = "a token of our own, for two machines\n"


def test_two_machines_found_a_network_and_a_third_follows_it_and_asks_once_it_has_units(tmp_path: Path) -> None:
    first, second, stranger = make_machines(tmp_path, ["127.0.0.1", "127.0.0.2", "127.0.0.3"])
    ports = find_free_ports(2)
    propose(first, "--p2p-port", str(ports[0]), "--rpc-port", "0")
    propose(second, "--p2p-port", str(ports[1]), "--rpc-port", "0", "--model", ARITH)
    line = found((first, second))
    with ExitStack() as stack:
        for machine in (first, second):
            belong(machine, line)
            stack.enter_context(machine.running())
        wait_until(lambda: first.is_ready() and second.is_ready(), "both validators are ready", START_S)
        check_answer(first, verifier=second)

        first.send("genesis.json", stranger)
        belong(stranger, [*line, "--p2p-host", stranger.address, "--p2p-port", "0", "--rpc-port", "0"])
        stack.enter_context(stranger.running())
        wait_until(
            lambda: stranger.is_ready() and stranger.read_status().peers_connected == 2, "the stranger follows", START_S
        )
        status = stranger.read_status()
        assert (status.is_validator, status.peers_connected, status.balance) == (False, 2, 0)
        check_same_chain(first, stranger)

        poor = stranger.quorate("ask", QUESTION, "--home", "home", "--committee", "1")
        assert (poor.code, "quorate transfer" in poor.errors) == (Exit.USAGE, True), poor.errors
        sent = first.quorate("transfer", status.node, "2.5", "--home", "home", "--json")
        assert sent.code == Exit.OK, sent.errors
        wait_until(lambda: stranger.read_status().balance == 2_500_000, "the units arrive")
        check_answer(stranger, verifier=first)


@pytest.mark.skipif(bool(reason := explain_no_namespaces()), reason=reason or "never")
def test_a_cut_link_stops_only_those_who_are_no_quorum_and_healed_they_all_go_on(tmp_path: Path) -> None:
    with connected(tmp_path, 4) as (switch, machines), ExitStack() as stack:
        first, second, third, fourth = machines
        for machine in machines:
            serves = ("--model", ARITH) if machine is second else ()
            (machine.root / "token").write_text(TOKEN)
            propose(machine, "--rpc-host", machine.address, "--rpc-token-file", "token", *serves)
        line = found(machines)
        for machine in machines:
            belong(machine, line)
            stack.enter_context(machine.running())
        wait_until(lambda: all(machine.is_ready() for machine in machines), "all validators are ready", START_S)
        check_remote_rpc_wants_the_token(first, f"http://{second.address}:7551")
        check_answer(first, verifier=second)

        switch.cut(4)
        before = fourth.read_status().height
        job = check_answer(first, verifier=third)
        assert fourth.read_status().height <= before + 1 < first.read_status().height, (
            "three of four are a quorum, one is none"
        )

        switch.cut(3)
        waiting = submit(first)
        assert wait_job(first, waiting, 3_000) is None, "two of four make no block final"
        assert wait_job(second, waiting, 0) is None

        switch.heal(3)
        switch.heal(4)
        wait_until(lambda: is_settled(first, waiting), "the job asked during the cut is settled")
        wait_until(lambda: is_settled(fourth, waiting), "who was cut off has caught up")
        check_same_chain(first, fourth)
        shown = fourth.quorate("jobs", "show", job, "--home", "home", "--out", "late.qrc")
        assert shown.code == Exit.OK, shown.errors
        assert fourth.quorate("verify", "late.qrc", "--genesis", "genesis.json").code == Exit.OK


def propose(machine: Machine, *options: str) -> None:
    """A home, and the line by which its operator proposes it as a validator."""
    done = machine.quorate("init", "--home", "home", "--p2p-host", machine.address, *options, "--print-validator")
    assert done.code == Exit.OK, done.errors
    (machine.root / f"{machine.root.name}.json").write_text(done.output)


def found(machines: Sequence[Machine]) -> list[str]:
    """The line that `genesis create` tells everybody to type; the genesis file is on every machine."""
    first = machines[0]
    for machine in machines[1:]:
        machine.send(f"{machine.root.name}.json", first)
    lines = [part for machine in machines for part in ("--validator", f"{machine.root.name}.json")]
    made = first.quorate("genesis", "create", "--out", "genesis.json", "--model", ARITH, *lines)
    assert made.code == Exit.OK, made.errors
    for machine in machines[1:]:
        first.send("genesis.json", machine)
    return next(shlex.split(line) for line in made.output.splitlines() if line.startswith("  quorate init"))


def belong(machine: Machine, line: list[str]) -> None:
    done = machine.quorate(*line[1:], "--home", "home")
    assert (done.code, "quorate run --home home" in done.output) == (Exit.OK, True), done.errors


def check_answer(asker: Machine, verifier: Machine) -> str:
    """The job of a question that one machine asked, after the other, with the file and its own genesis, has found it certified."""
    name = f"{asker.root.name}.qrc"
    (asker.root / name).unlink(missing_ok=True)
    asked = asker.quorate("ask", QUESTION, "--home", "home", "--committee", "1", "--out", name, "--json")
    assert (asked.code, asked.json["text"]) == (Exit.OK, ANSWER), asked.errors
    asker.send(name, verifier)
    verified = verifier.quorate("verify", name, "--genesis", "genesis.json", "--json")
    assert (verified.code, verified.json["valid"], verified.json["text"]) == (Exit.OK, True, ANSWER), verified.errors
    return asked.json["job"]


def check_same_chain(one: Machine, other: Machine) -> None:
    height = min(one.read_status().height, other.read_status().height)
    assert one.read_block(height) == other.read_block(height)


def check_remote_rpc_wants_the_token(machine: Machine, url: str) -> None:
    assert machine.quorate("status", "--rpc", url, "--token-file", "token").code == Exit.OK
    refused = machine.quorate("status", "--rpc", url)
    assert (refused.code, "--token-file" in refused.errors) == (Exit.LOCKED, True), refused.errors


def submit(machine: Machine) -> str:
    params = JobSubmitParams(model="arith-s", prompt=QUESTION, seats=1)
    return machine.call("job_submit", params, JobSubmitted).job


def wait_job(machine: Machine, job: str, timeout_ms: int) -> JobState | None:
    """The job as a final block has it after so long; none while no final block holds it."""
    try:
        return machine.call("job_wait", JobWaitParams(job, timeout_ms), JobState)
    except Fault as fault:
        if fault.reason is not Rejection.UNKNOWN_JOB:
            raise
        return None


def is_settled(machine: Machine, job: str) -> bool:
    state = wait_job(machine, job, 200)
    return state is not None and state.status == "accepted"
