"""A cheat answers with another model's tokens under the claimed model's name; nodes know nothing of it."""

from __future__ import annotations

import sys

import pytest

from devnet.adversaries import CHEATS, build_cheat_command, find_cheat, main
from devnet.demo import load_questions
from devnet.genesis import find_model, load_shipped_card
from node.faults import Exit, Fault
from protocol.models import compute_model_id, greedy


def test_the_small_model_answers_wrongly_under_the_claimed_card() -> None:
    from verifier.generate import generate

    (model,) = CHEATS["small-model"].load([find_model("arith-s")], "cpu")
    card = load_shipped_card("arith-s")
    question = load_questions()[0]
    output = generate(model, question.prompt, greedy(8), bytes(32), lambda: False)
    assert (model.card, model.id, output.model) == (card, compute_model_id(card), compute_model_id(card))
    assert output.text == question.wrong != question.answer


def test_a_model_without_a_smaller_one_is_served_honestly() -> None:
    (model,) = CHEATS["small-model"].load([find_model("arith-xs")], "cpu")
    assert model.card == load_shipped_card("arith-xs")


def test_the_command_is_a_worker_of_its_own() -> None:
    command = build_cheat_command(find_cheat("small-model"), [find_model("arith-s")])
    assert command[:4] == (sys.executable, "-P", "-m", "devnet.adversaries")
    assert command[4:] == ("small-model", "--model", str(find_model("arith-s")))


def test_an_unknown_cheat_is_refused_with_those_there_are() -> None:
    with pytest.raises(Fault) as refused:
        find_cheat("int4")
    assert refused.value.exit_code == Exit.USAGE
    assert "'int4'" in refused.value.message
    assert "small-model" in refused.value.cure


def test_the_worker_refuses_an_unknown_cheat_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["int4", "--model", "x"])
    assert ended.value.code == 2
    assert "small-model" in capsys.readouterr().err
