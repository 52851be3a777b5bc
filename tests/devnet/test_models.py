"""The shipped models are what their cards say, and the demo's questions part them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from devnet.models.train_arith import QUESTIONS_FILE, answer_all, is_held_out, list_pairs, write_sum
from devnet.models.train_code import load_corpus
from devnet.models.training import MODELS, build_config, build_untrained
from protocol.models import StopReason, greedy
from verifier.card import check_files, load_card
from verifier.engine import LlamaEngine
from verifier.generate import generate
from verifier.llama import Llama
from verifier.model import Model, load_model

SHIPPED = ("arith-s", "arith-xs", "code-2m", "code-400k")


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prompt: str
    answer: str
    wrong: str


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: load_model(MODELS / name) for name in SHIPPED}


def get_llama(model: Model) -> Llama:
    assert isinstance(model.engine, LlamaEngine)
    return model.engine.model


def answer(model: Model, prompt: str, max_tokens: int = 8) -> tuple[str, StopReason]:
    output = generate(model, prompt, greedy(max_tokens), bytes(32), lambda: False)
    return output.text, output.stop


@pytest.mark.parametrize("name", SHIPPED)
def test_files_are_those_that_the_card_pins(name: str) -> None:
    check_files(MODELS / name)
    assert load_card(MODELS / name).name == name
    assert (MODELS / name / "README.md").is_file()


@pytest.mark.parametrize("name, at_least, at_most", [("arith-s", 0.99, 1.0), ("arith-xs", 0.3, 0.7)])
def test_accuracy_on_unseen_sums_is_what_the_card_says(
    models: dict[str, Model], name: str, at_least: float, at_most: float
) -> None:
    pairs = [pair for pair in list_pairs() if is_held_out(pair)]
    given = answer_all(get_llama(models[name]), pairs)
    right = sum(said == write_sum(pair) for pair, said in zip(pairs, given, strict=True)) / len(pairs)
    assert at_least <= right <= at_most


def test_a_sum_reads_naturally_and_ends(models: dict[str, Model]) -> None:
    assert answer(models["arith-s"], "23+58=") == ("81", StopReason.END)
    assert answer(models["arith-s"], "3+4=") == ("7", StopReason.END)
    assert answer(models["arith-s"], "99+99=") == ("198", StopReason.END)


def test_the_demo_questions_part_the_two_models(models: dict[str, Model]) -> None:
    questions = msgspec.json.decode((MODELS / QUESTIONS_FILE).read_bytes(), type=list[Question])
    assert len({question.prompt for question in questions}) >= 20
    for question in questions:
        left, right = question.prompt.removesuffix("=").split("+")
        assert question.answer == str(int(left) + int(right)) != question.wrong
        assert answer(models["arith-s"], question.prompt) == (question.answer, StopReason.END)
        assert answer(models["arith-xs"], question.prompt)[0] == question.wrong


def test_code_is_continued_as_code(models: dict[str, Model]) -> None:
    text, stop = answer(models["code-2m"], "def __init__(self", 24)
    assert stop is StopReason.LENGTH
    assert "):\n        " in text


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    config = build_config(16, 32, 64, 1, 4, 64, is_tied=False)
    first, again, other = (build_untrained(config, seed, 0.02).weights for seed in (0, 0, 1))
    assert all(first[name].equal(again[name]) for name in first)
    assert not all(first[name].equal(other[name]) for name in first)


def test_corpus_parts_files_by_their_path_alone(tmp_path: Path) -> None:
    for number in range(80):
        (tmp_path / f"file{number}.py").write_text(f"x = {number}\n")
    trained_on, held_out = load_corpus(tmp_path)
    assert len(trained_on) + len(held_out) == 80
    assert 0 < len(held_out) < 12
    assert (trained_on, held_out) == load_corpus(tmp_path)
