"""From a prompt to an output: greedy, sampled or by beam search, with the reason why it ended.

An output that the clock cut off is no output: nobody could agree with it, so it is an error (GenerationFailed), which a node answers
with an abstention.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from protocol.models import MAX_OUTPUT_BYTES, GenerationSettings, SamplingKind, StopReason, TextOutput
from verifier.engine import Engine
from verifier.model import Model
from verifier.sampling import Integers, choose_extensions, choose_token, compute_log_shares, quantise
from verifier.tokens import decode_tokens, encode_prompt


class GenerationFailed(Exception):
    """A generation that ended without an output, with the reason."""


@dataclass(frozen=True, slots=True)
class Beam:
    """A partial answer. Units: score in 2^-16 nats, the sum of its tokens' log probabilities"""

    tokens: tuple[int, ...]
    score: int


@dataclass(frozen=True, slots=True)
class Generation:
    """An output, and the hidden state that each of its tokens was chosen from: what a sketch is made of.

    Shapes: hidden [tokens, width]
    """

    output: TextOutput
    hidden: Tensor


def generate(
    model: Model, prompt: str, settings: GenerationSettings, seed: bytes, is_late: Callable[[], bool]
) -> TextOutput:
    """The model's output; `tokens` includes the end-of-text token where there is one.

    Raises: PromptRefused · GenerationFailed if `is_late` says so before the end
    """
    return generate_traced(model, prompt, settings, seed, is_late).output


def generate_traced(
    model: Model, prompt: str, settings: GenerationSettings, seed: bytes, is_late: Callable[[], bool]
) -> Generation:
    """The model's output and its trace. Raises: as `generate`."""
    ids = encode_prompt(model.tokenizer, prompt, model.card.context_tokens)
    room = model.card.context_tokens - len(ids)
    limit = min(settings.max_tokens, room)
    if settings.kind is SamplingKind.BEAM:
        tokens = search_beams(model, ids, settings.beams, limit, is_late)
        # The beams' states are spent on others; one reading of the answer has them again.
        hidden = model.engine.read_hidden([[*ids, *tokens[:-1]]])[0, len(ids) - 1 :]
    else:
        tokens, hidden = sample_tokens(model.engine, model.ends, ids, settings, seed, limit, is_late)
    if tokens[-1] in model.ends:
        stop = StopReason.END
    else:
        stop = StopReason.LENGTH if limit == settings.max_tokens else StopReason.CONTEXT
    text = decode_tokens(model.tokenizer, tokens)
    if len(text.encode()) > MAX_OUTPUT_BYTES:
        raise GenerationFailed(f"the text has more than {MAX_OUTPUT_BYTES} bytes; ask for fewer tokens")
    return Generation(TextOutput(model.id, tuple(tokens), text, stop), hidden)


def sample_tokens(
    engine: Engine,
    ends: frozenset[int],
    prompt: list[int],
    settings: GenerationSettings,
    seed: bytes,
    limit: int,
    is_late: Callable[[], bool],
) -> tuple[list[int], Tensor]:
    """At most `limit` tokens, one after the other, and their hidden states; position 0 is the first one after the prompt."""
    temperature = settings.temperature_ppm if settings.kind is SamplingKind.SAMPLE else 0
    tokens: list[int] = []
    states: list[Tensor] = []
    hidden, cache = engine.compute_next([prompt], None)
    while True:
        states.append(hidden)
        logits = _read(engine.compute_head(hidden))[0]
        tokens.append(choose_token(logits, seed, len(tokens), temperature, settings.top_p_ppm))
        if tokens[-1] in ends or len(tokens) == limit:
            return tokens, torch.cat(states)
        _check_time(is_late, len(tokens), limit)
        hidden, cache = engine.compute_next([tokens[-1:]], cache)


def search_beams(model: Model, prompt: list[int], beams: int, limit: int, is_late: Callable[[], bool]) -> list[int]:
    """The most likely of the answers that `beams` parallel ones lead to, by summed log probability, without a length penalty.

    Ties: the answer that ended first, then the smaller beam number, then the smaller token id. Log probabilities only fall, so the
    search is over as soon as an ended answer scores at least as high as every open one.
    """
    live, ended = [Beam((), 0)], None
    hidden, cache = model.engine.compute_next([prompt], None)
    for length in range(1, limit + 1):
        totals = (
            compute_log_shares(_read(model.engine.compute_head(hidden)))
            + np.array([beam.score for beam in live], dtype=np.int64)[:, None]
        )
        parents: list[int] = []
        extended: list[Beam] = []
        # At most every end token of every live beam can stand before the ones that go on.
        for parent, token in choose_extensions(totals, beams + len(live) * len(model.ends)):
            beam = Beam((*live[parent].tokens, token), int(totals[parent, token]))
            if token in model.ends:
                ended = beam if ended is None or beam.score > ended.score else ended
            elif len(extended) < beams:
                parents.append(parent)
                extended.append(beam)
        live = extended
        if not live or (ended is not None and ended.score >= live[0].score):
            break
        if length < limit:
            _check_time(is_late, length, limit)
            cache = model.engine.select_rows(cache, parents)
            hidden, cache = model.engine.compute_next([list(beam.tokens[-1:]) for beam in live], cache)
    if ended is not None and (not live or ended.score >= live[0].score):
        return list(ended.tokens)
    return list(live[0].tokens)


def _read(logits: Tensor) -> Integers:
    values = logits.float().cpu().numpy()
    if np.isnan(values).any():
        raise GenerationFailed("the model computed what is not a number; nothing is answered")
    return quantise(values)


def _check_time(is_late: Callable[[], bool], done: int, limit: int) -> None:
    if is_late():
        raise GenerationFailed(f"the deadline passed after {done} of at most {limit} tokens; nothing is answered")
