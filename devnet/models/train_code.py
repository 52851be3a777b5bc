"""Trains code-2m, a language model of two million parameters over the sources of Python's standard library, and its rivals.

The rivals are what audits have to tell from it: code-400k, with the same tokenizer, and code-2m as it was after 1,400 of 1,600 steps.

`python -P -m devnet.models.train_code [--home DIR]`: about six minutes on one thread. One file in thirty is never trained on and
makes the model card's figures. The corpus is the library of the Python that runs this, so its version belongs to the result.
"""

import argparse
import hashlib
import os
import platform
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] - its PathLike is not parametrised
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from torch.nn import functional

from devnet.models.training import MODELS, build_config, build_untrained, save_model, train
from verifier.altered_weights import encode_difference
from verifier.llama import Llama, compute_logits

VOCABULARY: Final = 1024
END: Final = 0
CONTEXT_TOKENS: Final = 256
SIZES: Final = {"code-2m": (192, 528, 4, 6), "code-400k": (96, 264, 3, 3)}  # width, inner width, layers, heads
BATCH_ROWS: Final = 8
STEPS: Final = 1600
EARLIER_STEP: Final = 1400
EARLIER_FILE: Final = "code-2m-earlier.safetensors"
RATE: Final = 3e-3
# No tests, no generated tables: prose and code of one kind.
FOLDERS: Final = (
    ".",
    "asyncio",
    "collections",
    "concurrent/futures",
    "email",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
)
MORE_FOLDERS: Final = (
    "multiprocessing",
    "tomllib",
    "unittest",
    "urllib",
    "wsgiref",
    "xml/dom",
    "xml/etree",
    "xmlrpc",
    "zoneinfo",
)
SKIPPED: Final = frozenset({"pydoc_data", "_sysconfigdata", "this.py"})

Ids = NDArray[np.int64]


def main() -> None:
    """Trains the model and prints what its card says."""
    parser = argparse.ArgumentParser(
        prog="devnet.models.train_code", description="Trains the models that write Python."
    )
    parser.add_argument("--home", type=Path, default=MODELS, help="where the model directory goes")
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer, for a trial")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    started = time.process_time()
    trained_on, held_out = load_corpus(Path(sysconfig.get_paths()["stdlib"]))
    tokenizer = train_tokenizer(trained_on)
    ids, held_ids = encode_files(tokenizer, trained_on), encode_files(tokenizer, held_out)
    corpus = f"{len(ids)} tokens of Python {platform.python_version()}, {len(trained_on)} files; {len(held_out)} held-out files"
    for name, (width, inner, layers, heads) in SIZES.items():
        config = build_config(VOCABULARY, width, inner, layers, heads, CONTEXT_TOKENS, is_tied=True)
        llama = build_untrained(config, 0, 0.02)
        earlier: dict[str, Tensor] = {}
        train(llama, build_sampler(ids), options.steps, RATE, 0.05, build_report(llama, earlier), is_mixed=True)
        loss, accuracy = measure(llama, held_ids)
        card = save_model(options.home / name, llama, tokenizer, END, torch.bfloat16, token_ms=50)
        if name == "code-2m" and earlier:
            now = {name: weight.detach().to(torch.bfloat16) for name, weight in llama.weights.items()}
            save_file(encode_difference(now, earlier), options.home / EARLIER_FILE, metadata={"format": "pt"})
        print(
            f"{card.name}: {sum(weight.numel() for weight in llama.weights.values())} parameters, {corpus}: "
            f"loss {loss:.3f} nats, next token right {accuracy:.1%}; {time.process_time() - started:.0f} s"
        )


def load_corpus(library: Path) -> tuple[list[str], list[str]]:
    """The files to train on and those held out, each in the order of its path's hash."""
    paths = [
        path.relative_to(library).as_posix()
        for folder in (*FOLDERS, *MORE_FOLDERS)
        for path in (library / folder).glob("*.py")
        if not any(path.name.startswith(skipped) for skipped in SKIPPED)
    ]
    order = sorted(paths, key=hash_path)
    trained_on = [path for path in order if hash_path(path)[0] >= 256 // 30]
    held_out = [path for path in order if hash_path(path)[0] < 256 // 30]
    return [read_source(library / path) for path in trained_on], [read_source(library / path) for path in held_out]


def hash_path(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


def read_source(path: Path) -> str:
    return path.read_text("utf-8", errors="replace")


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level pairs: every text has tokens, whatever its signs."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<end>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode_files(tokenizer: Tokenizer, texts: list[str]) -> Ids:
    """All files' tokens in a row, each file closed by the end."""
    rows = [[*encoding.ids, END] for encoding in tokenizer.encode_batch(texts)]
    return np.concatenate([np.array(row, dtype=np.int64) for row in rows])


def build_sampler(ids: Ids) -> Callable[[], tuple[Tensor, Tensor]]:
    """Draws windows from anywhere; every position is asked for the next token."""
    random = np.random.default_rng(0)

    def draw() -> tuple[Tensor, Tensor]:
        starts = random.integers(0, len(ids) - CONTEXT_TOKENS - 1, BATCH_ROWS)
        rows = torch.from_numpy(np.stack([ids[start : start + CONTEXT_TOKENS + 1] for start in starts]))
        return rows[:, :-1], rows[:, 1:]

    return draw


def measure(llama: Llama, ids: Ids) -> tuple[float, float]:
    """Mean loss in nats and share of next tokens guessed right, over whole windows of the held-out files."""
    windows = (len(ids) - 1) // CONTEXT_TOKENS
    losses: list[float] = []
    right = 0
    for window in range(windows):
        at = window * CONTEXT_TOKENS
        row = torch.from_numpy(ids[at : at + CONTEXT_TOKENS + 1])[None]
        with torch.inference_mode():
            logits, _ = compute_logits(llama, row[:, :-1])
        losses.append(functional.cross_entropy(logits[0], row[0, 1:]).item())
        right += int((logits[0].argmax(-1) == row[0, 1:]).sum())
    return sum(losses) / windows, right / (windows * CONTEXT_TOKENS)


def build_report(llama: Llama, earlier: dict[str, Tensor]) -> Callable[[int, float], None]:
    """What prints how far the training is, and keeps the weights of the earlier step when it comes by."""

    def report(step: int, loss: float) -> None:
        print(f"  step {step}: loss {loss:.3f}, {time.process_time():.0f} s", flush=True)
        if step == EARLIER_STEP:
            earlier.update({name: weight.detach().to(torch.bfloat16) for name, weight in llama.weights.items()})

    return report


if __name__ == "__main__":
    main()
