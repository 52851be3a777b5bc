"""One teacher-forced pass over prompts and claimed tokens: margins, sketch codes and surprise, without ever holding all logits.

Outputs are read in batches, padded on the right. Each batch's hidden states are turned into logits a chunk of positions at a time;
of a chunk only what the tests need is kept. Whatever is claimed must have been checked before (verifier/claims.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from verifier.engine import Engine
from verifier.likelihood import Surprise, join_surprise, measure_surprise
from verifier.margin import Replay, measure_margins
from verifier.sampling import Integers
from verifier.sketch import Codes, NotFinite, compute_codes

BATCH_POSITIONS: Final = 4096  # padding included; a single longer text is read alone
CHUNK_BYTES: Final = 32 * 1024 * 1024  # of logits in float32


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to read: token ids of the vocabulary, at least one claimed, together at most the context.

    `sketch_seed`: wanted are the codes that an honest sketch of this seed has. `drawn`: wanted is the surprise of tokens so drawn.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    replay: Replay
    sketch_seed: bytes | None = None
    drawn: Replay | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model says of a passage, token by token.

    Shapes: margins [tokens]; codes [tokens, 3]
    """

    margins: Integers
    codes: Codes | None
    surprise: Surprise | None


def read_passages(engine: Engine, passages: Sequence[Passage]) -> list[Reading | NotFinite]:
    """A reading of each passage, or that the model computed what is not finite there."""
    readings: dict[int, Reading | NotFinite] = {}
    for batch in plan_batches([_count(passage) for passage in passages]):
        longest = max(_count(passages[index]) for index in batch)
        rows = [_list_inputs(passages[index], longest) for index in batch]
        for index, hidden in zip(batch, engine.read_hidden(rows), strict=True):
            readings[index] = _read_passage(engine, passages[index], hidden)
    return [readings[index] for index in range(len(passages))]


def plan_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of texts that are read together: of similar length, within the batch's positions."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        # The first of a batch is its longest; all others are padded to it.
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= BATCH_POSITIONS:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _count(passage: Passage) -> int:
    # The last token is claimed, not read.
    return len(passage.prompt) + len(passage.tokens) - 1


def _list_inputs(passage: Passage, length: int) -> list[int]:
    inputs = [*passage.prompt, *passage.tokens[:-1]]
    return inputs + [0] * (length - len(inputs))


def _read_passage(engine: Engine, passage: Passage, hidden: Tensor) -> Reading | NotFinite:
    first = len(passage.prompt) - 1
    states = hidden[first : first + len(passage.tokens)]
    size = max(1, CHUNK_BYTES // (4 * engine.vocabulary))
    margins: list[Integers] = []
    surprise: list[Surprise] = []
    try:
        codes = None if passage.sketch_seed is None else compute_codes(states, passage.sketch_seed)
        for at in range(0, len(passage.tokens), size):
            tokens = passage.tokens[at : at + size]
            logits = engine.compute_head(states[at : at + size])
            _check_finite(logits)
            margins.append(measure_margins(logits, tokens, at, passage.replay))
            if passage.drawn is not None:
                surprise.append(measure_surprise(logits, tokens, passage.drawn))
    except NotFinite as error:
        return error
    return Reading(np.concatenate(margins), codes, join_surprise(surprise) if surprise else None)


def _check_finite(logits: Tensor) -> None:
    # One pass: whatever is NaN or infinite shows in a sum; finite numbers that only sum to infinity are looked at again.
    if not bool(torch.isfinite(logits.sum())) and not bool(torch.isfinite(logits).all()):
        raise NotFinite("the model computed logits that are not finite")
