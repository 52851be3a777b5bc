"""Four real nodes on this machine: an answer, its certificate, a member killed and replaced, and back again far behind."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

from devnet.devnet_file import load_devnet
from devnet.processes import ProcessMark, is_running, mark_process
from node.faults import Exit, Fault, Trouble
from node.rpc_client import NodeClient
from node.rpc_types import (
    BlockParams,
    BlockResult,
    JobParams,
    JobState,
    JobSubmitParams,
    JobSubmitted,
    JobWaitParams,
    NodeStatus,
    Nothing,
    SettingsParams,
)
from tests.devnet.processes import background, list_family, quorate, stopped_at_end, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from devnet.devnet_file import DevnetNode

QUESTION, ANSWER = "23+58=", "81"
FAR_BEHIND = 50


def test_a_member_is_killed_replaced_and_comes_back_far_behind_to_the_same_state_and_votes(tmp_path: Path) -> None:
    home = tmp_path / "devnet"
    with stopped_at_end(home):
        up = quorate("devnet", "up", "--nodes", "4", "--home", str(home), "--detach", "--json", cwd=tmp_path)
        assert up.code == Exit.OK, up.errors
        nodes = load_devnet(home).nodes
        check_starts_are_refused(home, tmp_path)

        certificate = check_answer_is_certified(home, tmp_path)
        check_changed_certificate_is_refused(home, certificate, tmp_path)

        victim, asked, other = nodes[3], NodeClient(nodes[0].rpc), nodes[1]
        assert victim.mark is not None
        killed_at = read_status(NodeClient(victim.rpc)).height
        kill(victim.mark)

        check_killed_member_is_replaced(asked, nodes[0], victim, tmp_path)
        make_blocks(asked, killed_at + FAR_BEHIND)

        with background("run", "--home", victim.home, cwd=tmp_path):
            back = NodeClient(victim.rpc)
            wait_until(lambda: is_ready(back), "the killed node is ready again")
            height = read_status(asked).height
            wait_until(lambda: read_status(back).height >= height, "it has caught up")
            assert height >= killed_at + FAR_BEHIND
            for each in (killed_at + 1, height):
                assert read_block(back, each).state_root == read_block(asked, each).state_root
            check_its_vote_counts(asked, other, back)


def test_ctrl_c_on_an_attached_devnet_ends_every_process(tmp_path: Path) -> None:
    home = tmp_path / "devnet"
    with stopped_at_end(home), background("devnet", "up", "--nodes", "2", "--home", str(home), cwd=tmp_path) as up:
        wait_until(lambda: is_said(tmp_path, "It ends with Ctrl-C") or up.poll() is not None, "the devnet is ready", 60)
        assert up.poll() is None, (tmp_path / "said").read_text()
        second = quorate("devnet", "up", "--home", str(home), cwd=tmp_path)
        assert (second.code, second.output) == (Exit.LOCKED, ""), second.errors

        family = list_family(load_devnet(home).marks)
        assert len(family) >= 4, "two nodes, each with a worker"
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=30) == Exit.OK, (tmp_path / "said").read_text()
        wait_until(lambda: not any(is_running(mark) for mark in family), "workers end with their nodes", 5)
        assert load_devnet(home).marks == ()


def is_said(cwd: Path, words: str) -> bool:
    return words in (cwd / "said").read_text()


def check_starts_are_refused(home: Path, cwd: Path) -> None:
    again = quorate("devnet", "up", "--home", str(home), "--detach", cwd=cwd)
    assert (again.code, again.output) == (Exit.LOCKED, ""), again.errors
    assert "running already: 4 of its 4 nodes" in again.errors
    twice = quorate("run", "--home", str(home / "node-0"), cwd=cwd)
    assert (twice.code, twice.output) == (Exit.LOCKED, ""), twice.errors
    assert f"in use by process {load_devnet(home).nodes[0].pid}" in twice.errors


def check_answer_is_certified(home: Path, cwd: Path) -> Path:
    """The certificate's file, after a process that has only it and the genesis has found it valid."""
    asked = quorate("ask", QUESTION, "--home", str(home), "--out", "answer.qrc", "--json", cwd=cwd)
    assert asked.code == Exit.OK, asked.errors
    answer = asked.json
    assert (answer["status"], answer["text"], len(answer["members"])) == ("accepted", ANSWER, 3)
    desk = make_desk(home, cwd / "answer.qrc", cwd / "stranger")
    verified = quorate("verify", "answer.qrc", "--genesis", "genesis.json", "--json", cwd=desk)
    assert verified.code == Exit.OK, verified.output + verified.errors
    result = verified.json
    assert (result["valid"], result["decision"], result["text"]) == (True, "accepted", ANSWER)
    assert result["job"] == answer["job"]
    return cwd / "answer.qrc"


def check_changed_certificate_is_refused(home: Path, certificate: Path, cwd: Path) -> None:
    content = bytearray(certificate.read_bytes())
    content[len(content) // 2] ^= 1
    (cwd / "forged.qrc").write_bytes(content)
    desk = make_desk(home, cwd / "forged.qrc", cwd / "suspicious")
    verified = quorate("verify", "answer.qrc", "--genesis", "genesis.json", "--json", cwd=desk)
    assert (verified.code, verified.json["valid"]) == (Exit.INVALID, False)


def make_desk(home: Path, certificate: Path, desk: Path) -> Path:
    desk.mkdir()
    shutil.copy(certificate, desk / "answer.qrc")
    shutil.copy(load_devnet(home).genesis, desk / "genesis.json")
    return desk


def kill(mark: ProcessMark) -> None:
    """SIGKILL to a node, and the end of its worker with it."""
    family = list_family((mark,))
    assert mark_process(mark.pid) == mark
    os.kill(mark.pid, signal.SIGKILL)
    wait_until(lambda: not any(is_running(each) for each in family), "the killed node's worker ends too", 10)


def check_killed_member_is_replaced(client: NodeClient, via: DevnetNode, victim: DevnetNode, cwd: Path) -> None:
    """Asks until the draw takes the killed node; its seat is then answered by somebody else."""
    for attempt in range(20):
        out = f"again-{attempt}.qrc"
        asked = quorate("ask", QUESTION, "--rpc", via.rpc, "--max-tokens", "4", "--out", out, "--json", cwd=cwd)
        assert asked.code == Exit.OK, asked.errors
        assert (asked.json["text"], asked.json["agreement_ppm"]) == (ANSWER, 1_000_000)
        assert victim.node not in {member["node"] for member in asked.json["members"]}
        state = client.call("job_get", JobParams(asked.json["job"]), JobState)
        if any(seat.replaced for seat in state.seats):
            return
    raise AssertionError("in twenty draws of three from four the killed node was never drawn")


def make_blocks(client: NodeClient, height: int) -> None:
    """Jobs with short windows, one after another: each is several blocks at the network's pace."""
    while read_status(client).height < height:
        job = submit(client)
        wait_settled(client, job)


def submit(client: NodeClient) -> str:
    params = JobSubmitParams(
        model="arith-s", prompt=QUESTION, settings=SettingsParams(max_tokens=4), commit_ms=2_000, reveal_ms=2_000
    )
    return client.call("job_submit", params, JobSubmitted).job


def wait_settled(client: NodeClient, job: str) -> None:
    def is_settled() -> bool:
        try:
            return client.call("job_wait", JobWaitParams(job, timeout_ms=10_000), JobState).status != "open"
        except Fault as fault:
            if fault.retryable or "no job" in fault.message:  # its block is not final yet
                return False
            raise

    wait_until(is_settled, "a job is settled")


def check_its_vote_counts(asked: NodeClient, other: DevnetNode, back: NodeClient) -> None:
    """With one of the other three gone, no block is final without the vote of the node that came back."""
    assert other.mark is not None
    kill(other.mark)
    height = read_status(asked).height
    submit(asked)
    wait_until(lambda: min(read_status(asked).height, read_status(back).height) >= height + 3, "three more blocks")
    assert read_block(back, height + 3).state_root == read_block(asked, height + 3).state_root


def read_status(client: NodeClient) -> NodeStatus:
    return client.call("node_status", Nothing(), NodeStatus)


def read_block(client: NodeClient, height: int) -> BlockResult:
    return client.call("block_get", BlockParams(height), BlockResult)


def is_ready(client: NodeClient) -> bool:
    try:
        return read_status(client).readiness.status == "ready"
    except Fault as fault:
        if fault.reason is Trouble.UNREACHABLE:
            return False
        raise
