"""The demo says that all was as claimed only where it was; and it leaves nothing running, however it ends."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from devnet.demo import CHEATER, VALIDATORS, Claim, Question, Stage, load_questions, play
from devnet.demo_words import Narrator
from devnet.devnet_file import FILE_NAME, DevnetFile, load_devnet
from devnet.processes import is_running
from devnet.quorate_process import Finished
from node.commands.answers import Answer, Member
from node.commands.verify import VerifyFault, VerifyResult
from node.faults import Exit, Fault
from node.rpc_types import CaptureState, JobState
from tests.devnet.fake_devnet import make_node
from tests.devnet.processes import background, list_family, quorate, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from devnet.devnet_file import DevnetNode

NODES = tuple(make_node(index) for index in range(VALIDATORS))
QUESTION = Question("23+58=", "81", "82")
JOB = "ab" * 32
CERTIFICATE = bytes(range(256)) * 4


@dataclass(frozen=True, slots=True)
class Network:
    """What `quorate` would say: the members of a committee of three, and how sound everything else is."""

    drawn: tuple[int, ...] = (0, CHEATER, 4)
    text: str = "81"
    cheater_inside: bool = False
    is_answered: bool = True
    verified_text: str = "81"
    sees_forgery: bool = True

    def run(self, arguments: Sequence[str], directory: Path) -> Finished:
        if arguments[0] == "ask":
            return self._ask(directory / arguments[arguments.index("--out") + 1])
        assert sorted(path.name for path in directory.iterdir()) == ["answer.qrc", "genesis.json"]
        return self._verify((directory / "answer.qrc").read_bytes())

    def _ask(self, out: Path) -> Finished:
        if not self.is_answered:
            return Finished(Exit.NO_ANSWER, b"", b"quorate: inconclusive\n")
        out.write_bytes(CERTIFICATE)
        members = tuple(self._member(index) for index in self.drawn)
        answer = Answer(JOB, "accepted", self.text, "majority", 666_667, 4_000, 10**12, members, str(out), chain=None)
        return Finished(Exit.OK, msgspec.json.encode(answer), b"")

    def _member(self, index: int) -> Member:
        if index != CHEATER:
            return Member(NODES[index].node, "81", 0, inside=True)
        return Member(NODES[index].node, "82", 121, inside=self.cheater_inside)

    def _verify(self, certificate: bytes) -> Finished:
        if certificate != CERTIFICATE and self.sees_forgery:
            refused = VerifyResult(valid=False, fault=VerifyFault("bad_signature", "the signature is not seat 2's"))
            return Finished(Exit.INVALID, msgspec.json.encode(refused), b"")
        found = VerifyResult(
            True, "accepted", self.verified_text, job=JOB, recomputed=("draw", "finality"), attested=("windows",)
        )
        return Finished(Exit.OK, msgspec.json.encode(found), b"")


SOUND = Network()


def read_job(_via: DevnetNode, job: str) -> JobState:
    capture = CaptureState(200_000, 0, 104_000_000)
    return JobState(
        job, "accepted", "settled", "settled 3/3/3", "00" * 32, "arith-s", QUESTION.prompt, "majority", "00" * 32,
        3_000, 4_000, 1, 2, 9, None, 666_667, 900, "11" * 32, (), 5, 1_000_000, capture,
    )  # fmt: skip


def play_on(network: Network, place: Path, *, is_quiet: bool = True) -> list[Claim]:
    genesis = place / "genesis.json"
    genesis.write_text("{}")
    stage = Stage(place, DevnetFile("ab" * 32, str(genesis), NODES), Narrator(is_quiet=is_quiet), network.run, read_job)
    return play(stage, [QUESTION] * 3)


def list_broken(claims: list[Claim]) -> list[str]:
    return [claim.claim for claim in claims if not claim.holds]


def test_on_a_sound_network_every_claim_holds(tmp_path: Path) -> None:
    claims = play_on(SOUND, tmp_path)
    assert list_broken(claims) == []
    assert len(claims) == 3 * 3 + 2, "answer, certificate, cheater for each question; drawn at all; forgery"


@pytest.mark.parametrize(
    "network, broken",
    [
        (replace(SOUND, text="82"), "was answered rightly: 81"),
        (replace(SOUND, cheater_inside=True), "fell outside"),
        (replace(SOUND, drawn=(0, 1, 4)), "the cheater was drawn at least once"),
        (replace(SOUND, is_answered=False), "was answered"),
        (replace(SOUND, verified_text="82"), "was found valid offline"),
        (replace(SOUND, sees_forgery=False), "one byte changed was refused"),
    ],
)
def test_each_thing_that_goes_wrong_breaks_a_claim(tmp_path: Path, network: Network, broken: str) -> None:
    assert any(broken in claim for claim in list_broken(play_on(network, tmp_path)))


def test_a_verifier_that_says_neither_yes_nor_no_ends_the_demo(tmp_path: Path) -> None:
    class Mute(Network):
        def _verify(self, certificate: bytes) -> Finished:
            return Finished(1, b"", b"Traceback\nMemoryError\n")

    with pytest.raises(Fault, match="exit code 1: MemoryError"):
        play_on(Mute(), tmp_path)


def test_it_tells_who_cheated_and_what_was_refused_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play_on(SOUND, tmp_path, is_quiet=False)
    told = capsys.readouterr().out
    rows = [line for line in told.splitlines() if "the cheater" in line and "121 bits" in line]
    assert len(rows) == 3
    assert all("outside" in row and "82" in row for row in rows)
    assert "0 % if 20 % of these 5 nodes are bad, 10.4 % in a crowd" in told
    assert "exit code 6: not valid. the signature is not seat 2's" in told
    assert max(len(line) for line in told.splitlines()) <= 80


def test_the_questions_are_many_and_the_models_part_on_each() -> None:
    questions = load_questions()
    assert len(questions) >= 20
    assert all(question.answer != question.wrong for question in questions)


def test_on_a_real_network_all_is_as_claimed_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = quorate("devnet", "demo", "--json", cwd=tmp_path, timeout_s=120)
    assert done.code == Exit.OK, done.errors + done.output
    shown = json.loads(done.output)
    assert shown["ok"] is True
    assert sum("fell outside" in claim["claim"] for claim in shown["claims"]) >= 2
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_every_process_and_removes_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()

    def find_started() -> list[Path]:
        return [file.parent for file in (tmp_path / "tmp").glob(f"*/devnet/{FILE_NAME}")]

    with background("devnet", "demo", cwd=tmp_path) as demo:
        wait_until(
            lambda: any(len(load_devnet(each).marks) == VALIDATORS for each in find_started()), "the nodes start"
        )
        family = list_family(load_devnet(find_started()[0]).marks)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=30) == Exit.TEMPORARY
    assert not any(is_running(mark) for mark in family)
    assert list((tmp_path / "tmp").iterdir()) == []
