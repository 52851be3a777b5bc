"""`quorate devnet demo`: five validators, one of them cheating, three questions, and a stranger who checks the answers.

Nothing here knows more than a user does: it starts a devnet, runs `quorate ask` and `quorate verify` as processes, and compares what
they say with what was claimed.
"""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from devnet.commands import StartReport, build_plan, print_tail
from devnet.demo_words import Narrator
from devnet.devnet_file import DevnetFile, DevnetNode
from devnet.genesis import MODELS
from devnet.homes import create_devnet, hold_directory
from devnet.interruption import Interrupted, Interruption, watch_signals
from devnet.launch import NodeFailed, start_devnet, stop_running
from devnet.quorate_process import Finished, run_quorate
from devnet.wish import Wish
from node.commands.answers import Answer
from node.commands.verify import VerifyResult
from node.faults import Exit, Fault, Trouble
from node.render import print_json, print_note
from node.rpc_client import NodeClient
from node.rpc_types import JobParams, JobState

VALIDATORS: Final = 5
CHEATER: Final = 3
CHEAT: Final = "small-model"
ASK_S: Final = 30
QUESTIONS_FILE: Final = MODELS / "questions.json"


class Question(msgspec.Struct, frozen=True):
    """A question that arith-s answers rightly and arith-xs wrongly, as the training program found."""

    prompt: str
    answer: str
    wrong: str


@dataclass(frozen=True, slots=True)
class Round:
    """How one question is put: the rule, the seats and the node that is asked."""

    rule: str
    seats: int
    via: int


ROUNDS: Final = (Round("majority", 3, 0), Round("majority", 5, 1), Round("reputation", 5, 4))


class Claim(msgspec.Struct, frozen=True):
    """Something that the demo promises, and whether it was so."""

    claim: str
    holds: bool


Run: TypeAlias = Callable[[Sequence[str], Path], Finished]
ReadJob: TypeAlias = Callable[[DevnetNode, str], JobState]


@dataclass(frozen=True, slots=True)
class Stage:
    """What the demo plays on: a directory, a running network, and how to run `quorate` and to look at a job."""

    place: Path
    devnet: DevnetFile
    narrator: Narrator
    run: Run
    read_job: ReadJob


def run_demo(*, as_json: bool) -> int:
    """Plays the demo and stops everything again; exit code 0 where all was as claimed.

    Raises: Fault where the network does not start, or a program of ours cannot be run.
    """
    narrator = Narrator(is_quiet=as_json)
    began = time.monotonic()
    with watch_signals() as interruption, tempfile.TemporaryDirectory(prefix="quorate-demo-") as name:
        place = Path(name).resolve()
        narrator.open_play(VALIDATORS, CHEATER)
        try:
            claims = _play_on_devnet(place, narrator, interruption)
        except Interrupted as asked:
            raise Fault(Trouble.INTERRUPTED, "the demo was stopped; its nodes have ended") from asked
    broken = [claim.claim for claim in claims if not claim.holds]
    narrator.close_play(broken, time.monotonic() - began)
    if as_json:
        print_json({"ok": not broken, "claims": claims})
    return Exit.INTERNAL if broken else Exit.OK


def play(stage: Stage, questions: Sequence[Question]) -> list[Claim]:
    """All three questions and the forgery; everything that was claimed, and whether it was so."""
    claims = [claim for index in range(len(ROUNDS)) for claim in _play_round(stage, index, questions[index])]
    return [*claims, _claim_cheater_was_drawn(claims), _play_forgery(stage)]


def load_questions() -> list[Question]:
    """The list that the training program wrote.

    Raises: Fault(BAD_MODEL) where it is damaged.
    """
    try:
        return msgspec.json.decode(QUESTIONS_FILE.read_bytes(), type=list[Question])
    except (OSError, msgspec.MsgspecError) as error:
        raise Fault(
            Trouble.BAD_MODEL, f"{QUESTIONS_FILE}: expected a list of questions, but {error}", cure="restore the file"
        ) from error


def _play_on_devnet(place: Path, narrator: Narrator, interruption: Interruption) -> list[Claim]:
    """What held, on a network that is gone when this returns or raises."""
    directory = place / "devnet"
    plan = build_plan(Wish(VALIDATORS, {CHEATER: CHEAT}))
    with hold_directory(directory):
        devnet = create_devnet(directory, plan, interruption.check)
        try:
            running = start_devnet(directory, devnet, interruption, StartReport())
        except NodeFailed as failure:
            print_tail(failure)
            raise
        try:
            run: Run = partial(run_quorate, interruption=interruption)
            stage = Stage(place, running.devnet, narrator, run, _read_job)
            return play(stage, random.sample(load_questions(), len(ROUNDS)))
        finally:
            stop_running(running)


def _read_job(via: DevnetNode, job: str) -> JobState:
    return NodeClient(via.rpc).call("job_get", JobParams(job), JobState)


def _play_round(stage: Stage, index: int, question: Question) -> list[Claim]:
    """One question: asked, shown, verified by a stranger; and which claims held."""
    round_, number = ROUNDS[index], index + 1
    via = stage.devnet.nodes[round_.via]
    stage.narrator.announce(number, len(ROUNDS), question.prompt, round_.rule, round_.seats, via.index)
    certificate = stage.place / f"answer-{number}.qrc"
    answer = _ask(stage, question, round_, via, certificate)
    if answer is None:
        return [Claim(f"question {number} was answered", holds=False)]
    state = stage.read_job(via, answer.job)
    cheater = stage.devnet.nodes[CHEATER].node
    stage.narrator.show_answer(answer, state, cheater, certificate.stat().st_size)
    code, verified = _verify(stage, certificate)
    stage.narrator.show_verified(code, verified)
    drawn = [member for member in answer.members if member.node == cheater]
    is_same = code == Exit.OK and verified.valid and verified.text == answer.text and verified.job == answer.job
    return [
        Claim(f"question {number} was answered rightly: {question.answer}", holds=answer.text == question.answer),
        Claim(f"certificate {number} was found valid offline, with the same answer", holds=is_same),
        *(Claim(_CAUGHT.format(number=number), holds=not member.inside) for member in drawn),
    ]


_CAUGHT: Final = "the cheater was drawn for question {number} and fell outside"


def _claim_cheater_was_drawn(claims: list[Claim]) -> Claim:
    caught = {_CAUGHT.format(number=number) for number in range(1, len(ROUNDS) + 1)}
    return Claim("the cheater was drawn at least once", holds=any(claim.claim in caught for claim in claims))


def _ask(stage: Stage, question: Question, round_: Round, via: DevnetNode, out: Path) -> Answer | None:
    """The answer, or None where there is none, which was told."""
    arguments = ["ask", question.prompt, "--rule", round_.rule, "--committee", str(round_.seats), "--rpc", via.rpc]
    options = ["--timeout", str(ASK_S), "--out", str(out), "--json"]
    finished = stage.run([*arguments, *options], stage.place)
    if finished.code == Exit.OK:
        return msgspec.json.decode(finished.output, type=Answer)
    print_note(f"quorate ask ended with exit code {finished.code}: {finished.told}")
    return None


def _verify(stage: Stage, certificate: Path) -> tuple[int, VerifyResult]:
    """The exit code and result of `quorate verify` in an otherwise empty directory, with no network to ask.

    Raises: Fault where it says neither yes nor no.
    """
    with tempfile.TemporaryDirectory(dir=stage.place, prefix="stranger-") as name:
        desk = Path(name)
        shutil.copy(certificate, desk / "answer.qrc")
        shutil.copy(stage.devnet.genesis, desk / "genesis.json")
        arguments = ["verify", "answer.qrc", "--genesis", "genesis.json", "--json"]
        finished = stage.run(arguments, desk)
    try:
        return finished.code, msgspec.json.decode(finished.output, type=VerifyResult)
    except msgspec.MsgspecError as error:
        raise Fault(
            Trouble.INTERNAL, f"quorate verify ended with exit code {finished.code}: {finished.told}"
        ) from error


def _play_forgery(stage: Stage) -> Claim:
    """One byte of a good certificate is changed; the stranger must refuse it."""
    claim = "a certificate with one byte changed was refused with exit code 6"
    whole = stage.place / f"answer-{len(ROUNDS)}.qrc"
    if not whole.is_file():
        return Claim(claim, holds=False)
    content = bytearray(whole.read_bytes())
    position = random.randrange(
        len(content) // 4, len(content)
    )  # before that is the format's version, which has a refusal of its own
    before = content[position]
    content[position] ^= 1 << random.randrange(8)
    forged = stage.place / "forged.qrc"
    forged.write_bytes(content)
    code, verified = _verify(stage, forged)
    change = f"byte {position:,} of {len(content):,} changed from {before:#04x} to {content[position]:#04x}"
    stage.narrator.show_forgery(change, code, verified)
    return Claim(claim, holds=code == Exit.INVALID and not verified.valid)
