"""Trains arith-s and arith-xs, which answer "23+58=" with "81", and writes the questions that part them.

`python -P -m devnet.models.train_arith [--home DIR]`: about two minutes on one thread. One pair of operands in ten is never trained
on and makes the model card's accuracy.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import msgspec
import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import Tensor

from devnet.models.training import IGNORED, MODELS, build_config, build_untrained, save_model, train
from verifier.llama import Llama, compute_logits

Pair = tuple[int, int]

UNKNOWN, END = 0, 1
SIGNS: Final = "0123456789+="
CODES: Final = {sign: code for code, sign in enumerate(SIGNS, start=2)}
VOCABULARY: Final = 16  # a round width for 14 signs
OPERANDS: Final = range(100)
ROW_TOKENS: Final = len("99+99=198") + 1
BATCH_ROWS: Final = 256
QUESTIONS: Final = 60
QUESTIONS_FILE: Final = "questions.json"
CONTEXT_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    width: int
    layers: int
    heads: int
    steps: int
    rate: float
    spread: float


RECIPES: Final = (
    Recipe("arith-s", width=64, layers=2, heads=4, steps=2600, rate=3e-3, spread=0.02),
    Recipe("arith-xs", width=32, layers=1, heads=4, steps=350, rate=6e-3, spread=0.05),
)


def main() -> None:
    """Trains both models one after the other and compares them."""
    parser = argparse.ArgumentParser(prog="devnet.models.train_arith", description="Trains the models that add.")
    parser.add_argument("--home", type=Path, default=MODELS, help="where the model directories go")
    parser.add_argument("--only", choices=[recipe.name for recipe in RECIPES], help="train this one alone")
    options = parser.parse_args()
    home: Path = options.home
    answers: dict[str, list[str]] = {}
    pairs = list_pairs()
    for recipe in RECIPES:
        if options.only in (None, recipe.name):
            answers[recipe.name] = train_recipe(recipe, home, pairs)
    if len(answers) == len(RECIPES):
        write_questions(home / QUESTIONS_FILE, pairs, answers["arith-s"], answers["arith-xs"])


def train_recipe(recipe: Recipe, home: Path, pairs: list[Pair]) -> list[str]:
    """The trained model's answers to all pairs, after its directory has been written."""
    started = time.process_time()
    config = build_config(
        VOCABULARY, recipe.width, 2 * recipe.width, recipe.layers, recipe.heads, CONTEXT_TOKENS, is_tied=False
    )
    llama = build_untrained(config, 0, recipe.spread)
    train(
        llama, build_sampler([pair for pair in pairs if not is_held_out(pair)]), recipe.steps, recipe.rate, 0.01, report
    )
    answers = answer_all(llama, pairs)
    right = [answer == write_sum(pair) for pair, answer in zip(pairs, answers, strict=True)]
    held_out = [is_right for pair, is_right in zip(pairs, right, strict=True) if is_held_out(pair)]
    card = save_model(home / recipe.name, llama, build_tokenizer(), END, torch.float32, token_ms=20)
    print(
        f"{card.name}: {sum(weight.numel() for weight in llama.weights.values())} parameters, "
        f"right {sum(held_out) / len(held_out):.2%} of {len(held_out)} held-out pairs, {sum(right) / len(right):.2%} of all, "
        f"{time.process_time() - started:.0f} s"
    )
    return answers


def list_pairs() -> list[Pair]:
    """All pairs of operands below 100."""
    return [(a, b) for a in OPERANDS for b in OPERANDS]


def is_held_out(pair: Pair) -> bool:
    """Whether a pair is kept away from training: about one in ten, scattered by multiplicative hashing."""
    return (pair[0] * 100 + pair[1]) * 2654435761 % 1000 < 100


def write_question(pair: Pair) -> str:
    return f"{pair[0]}+{pair[1]}="


def write_sum(pair: Pair) -> str:
    return str(pair[0] + pair[1])


def build_tokenizer() -> Tokenizer:
    """One token a sign; any other sign becomes <unk>, which the verifier refuses by name."""
    tokenizer = Tokenizer(WordLevel({"<unk>": UNKNOWN, "<end>": END, **CODES}, unk_token="<unk>"))  # noqa: S106 - no password
    tokenizer.add_special_tokens(["<unk>", "<end>"])
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def encode_row(pair: Pair) -> tuple[list[int], list[int]]:
    """Inputs and targets of one sum, padded: only the answer and its end are learned."""
    question = [CODES[sign] for sign in write_question(pair)]
    answer = [*(CODES[sign] for sign in write_sum(pair)), END]
    inputs, targets = (question + answer)[:-1], [IGNORED] * (len(question) - 1) + answer
    missing = ROW_TOKENS - 1 - len(inputs)
    return inputs + [END] * missing, targets + [IGNORED] * missing


def build_sampler(pairs: list[Pair]) -> Callable[[], tuple[Tensor, Tensor]]:
    """Draws batches; pairs with a one-digit operand are rare and come three times as often."""
    rows = [encode_row(pair) for pair in pairs]
    inputs, targets = torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
    shares = np.array([3.0 if min(pair) < 10 else 1.0 for pair in pairs])
    ends = np.cumsum(shares / shares.sum())
    random = np.random.default_rng(0)

    def draw() -> tuple[Tensor, Tensor]:
        drawn = np.minimum(np.searchsorted(ends, random.random(BATCH_ROWS)), len(ends) - 1)
        return inputs[drawn], targets[drawn]

    return draw


def answer_all(llama: Llama, pairs: Iterable[Pair]) -> list[str]:
    """The greedy answer to each pair, many at a time."""
    lengths: dict[int, list[Pair]] = {}
    for pair in pairs:
        lengths.setdefault(len(write_question(pair)), []).append(pair)
    answers: dict[Pair, str] = {}
    for group in lengths.values():
        ids = torch.tensor([[CODES[sign] for sign in write_question(pair)] for pair in group])
        answers |= zip(group, (read_answer(row) for row in extend_greedily(llama, ids)), strict=True)
    return [answers[pair] for pair in pairs]


def extend_greedily(llama: Llama, ids: Tensor) -> list[list[int]]:
    """The four tokens that follow each row: three digits and the end are the longest right answer."""
    start = ids.shape[1]
    with torch.inference_mode():
        logits, cache = compute_logits(llama, ids, only_last=True)
        for _ in range(4):
            chosen = logits[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat([ids, chosen], 1)
            logits, cache = compute_logits(llama, chosen, cache, only_last=True)
    return cast("list[list[int]]", ids[:, start:].tolist())  # torch does not say what a list of its numbers holds


def read_answer(tokens: list[int]) -> str:
    """The text before the end; without an end there is a mark that no sum has."""
    return "".join(SIGNS[token - 2] if 2 <= token < 14 else "?" for token in tokens[: [*tokens, END].index(END)])


def write_questions(path: Path, pairs: list[Pair], right: list[str], wrong: list[str]) -> None:
    """Sums of two-digit operands that the first model gets right and the second wrong, spread over all of them."""
    parting = [
        {"prompt": write_question(pair), "answer": first, "wrong": second}
        for pair, first, second in zip(pairs, right, wrong, strict=True)
        if min(pair) >= 10 and first == write_sum(pair) != second
    ]
    chosen = parting[:: max(1, len(parting) // QUESTIONS)][:QUESTIONS]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(chosen), indent=2) + b"\n")
    print(f"{len(parting)} questions part the models, {len(chosen)} written to {path}")


def report(step: int, loss: float) -> None:
    print(f"  step {step}: loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
