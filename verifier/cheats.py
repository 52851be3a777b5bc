"""Executors that cheat, by name: what each of them claims for a job. Calibration measures how surely each is caught.

Every cheat knows the audit and hides as well as its saving allows: who altered a text makes the sketch from the altered text, who let
a smaller model write lets the real one make the sketch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from protocol.models import GenerationSettings, SamplingKind, StopReason, TextOutput
from verifier.altered_weights import (
    NOISE_SHARE,
    Rivalry,
    add_noise,
    build_smaller,
    get_llama_engine,
    restore_earlier,
    round_weights,
)
from verifier.engine import Engine, LlamaEngine
from verifier.model import Model
from verifier.sampling import Integers, choose_token, draw_raw, quantise, shape_noise
from verifier.sketch import Codes, compute_codes, encode_sketch
from verifier.tokens import decode_tokens, encode_prompt

CHEATS: Final = (
    *("small-model", "checkpoint", "int8", "int4", "noise", "other-prompt", "other-seed", "other-temperature"),
    *("altered-token", "truncated", "prefill", "copy", "null-sketch"),
)
NEEDS_SAMPLING: Final = frozenset({"other-seed", "other-temperature"})  # a greedy text has neither
BY_LENGTH: Final = frozenset({"altered-token", "truncated"})  # where the cheat lies decides which beginnings show it
COOLER_PPM: Final = 800_000  # other-temperature draws at this share of the temperature
_NOISE_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A request in token ids. Jobs that are written together have prompts of one length."""

    prompt: tuple[int, ...]
    tokens: int
    temperature_ppm: int
    top_p_ppm: int
    seed: bytes
    sketch_seed: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """What an executor claims for a job: tokens, and the codes of its sketch."""

    job: Job
    tokens: tuple[int, ...]
    codes: Codes


def write_honestly(engine: Engine, jobs: Sequence[Job]) -> list[Written]:
    """The jobs' outputs, generated together, each as long as asked: ends are not looked at."""
    texts, states = _generate(engine, jobs)
    return [
        Written(job, tokens, compute_codes(hidden, job.sketch_seed))
        for job, tokens, hidden in zip(jobs, texts, states, strict=True)
    ]


def write_with_cheat(
    name: str, honest: Engine, writer: Engine, ends: frozenset[int], jobs: Sequence[Job], lengths: Sequence[int]
) -> list[Written]:
    """What this cheat claims for these jobs; of the cheats in BY_LENGTH one claim for each of the lengths.

    `writer` is what `build_writer` made for this cheat.
    """
    match name:
        case "other-prompt":
            # The later half alone: half the reading saved.
            shorter = [replace(job, prompt=job.prompt[len(job.prompt) // 2 :]) for job in jobs]
            return _claim_for(jobs, write_honestly(honest, shorter))
        case "other-seed":
            return _claim_for(jobs, write_honestly(honest, [replace(job, seed=job.seed[::-1]) for job in jobs]))
        case "other-temperature":
            return _claim_for(jobs, write_honestly(honest, [_cool(job) for job in jobs]))
        case "altered-token":
            return _alter(honest, write_honestly(honest, jobs), lengths)
        case "truncated":
            return _truncate(honest, write_honestly(honest, jobs), lengths, min(ends))
        case "prefill":
            texts, _ = _generate(writer, jobs)
            return [resketch(honest, job, tokens) for job, tokens in zip(jobs, texts, strict=True)]
        case "copy":
            # Another member's sketch of the same text, from before anybody knew whose turn it was.
            return _claim_for(
                jobs, write_honestly(honest, [replace(job, sketch_seed=job.sketch_seed[::-1]) for job in jobs])
            )
        case "null-sketch":
            return [replace(written, codes=np.zeros_like(written.codes)) for written in write_honestly(honest, jobs)]
        case _:
            return write_honestly(writer, jobs)


def list_possible(model: Model, rivals: Rivalry) -> list[str]:
    """The cheats that there is material for: an earlier checkpoint is not made up, and a text without ends is not cut short."""
    missing = {"checkpoint"} if rivals.earlier is None else set[str]()
    return [name for name in CHEATS if name not in missing and (name != "truncated" or model.ends)]


def build_writer(name: str, model: Model, rivals: Rivalry) -> Engine:
    """The engine that this cheat writes with. Raises: ModelRefused"""
    llama = get_llama_engine(model).model
    match name:
        case "small-model" | "prefill":
            return build_smaller(model, rivals)
        case "checkpoint":
            assert rivals.earlier is not None, name
            return LlamaEngine(restore_earlier(llama, rivals.earlier))
        case "int8" | "int4":
            return LlamaEngine(round_weights(llama, int(name[3:])))
        case "noise":
            return LlamaEngine(add_noise(llama, NOISE_SHARE, _NOISE_SEED))
        case _:
            return model.engine


def answer_dishonestly(
    name: str, model: Model, writer: Engine, prompt: str, settings: GenerationSettings, seed: bytes, sketch_seed: bytes
) -> tuple[TextOutput, bytes]:
    """What a node with this cheat answers to a request, and the sketch it shows with it; beams are answered greedily.

    Raises: PromptRefused
    """
    ids = encode_prompt(model.tokenizer, prompt, model.card.context_tokens)
    limit = min(settings.max_tokens, model.card.context_tokens - len(ids))
    is_drawn = settings.kind is SamplingKind.SAMPLE
    temperature = settings.temperature_ppm if is_drawn else 0
    job = Job(tuple(ids), limit, temperature, settings.top_p_ppm if is_drawn else 1_000_000, seed, sketch_seed)
    lengths = [max(1, limit // 2) if name == "truncated" else limit]
    (written,) = write_with_cheat(name, model.engine, writer, model.ends, [job], lengths)
    tokens = cut_at_end(written.tokens, model.ends)
    if tokens[-1] in model.ends:
        stop = StopReason.END
    else:
        stop = StopReason.LENGTH if limit == settings.max_tokens else StopReason.CONTEXT
    text = decode_tokens(model.tokenizer, list(tokens))
    sketch = encode_sketch(written.codes[: len(tokens)], model.engine.compute_class)
    return TextOutput(model.id, tokens, text, stop), sketch


def cut_at_end(tokens: tuple[int, ...], ends: frozenset[int]) -> tuple[int, ...]:
    """The tokens up to the first end, which belongs to them."""
    return next((tokens[: at + 1] for at, token in enumerate(tokens) if token in ends), tokens)


def resketch(engine: Engine, job: Job, tokens: tuple[int, ...]) -> Written:
    """The claim of these tokens with the sketch that reading them makes."""
    hidden = engine.read_hidden([[*job.prompt, *tokens[:-1]]])[0, len(job.prompt) - 1 :]
    return Written(job, tokens, compute_codes(hidden, job.sketch_seed))


def _generate(engine: Engine, jobs: Sequence[Job]) -> tuple[list[tuple[int, ...]], Tensor]:
    """Tokens and hidden states, one row a job. Shapes: states [jobs, tokens, width]"""
    count = jobs[0].tokens
    hidden, cache = engine.compute_next([list(job.prompt) for job in jobs], None)
    chosen: list[list[int]] = []
    states = [hidden]
    while True:
        logits = quantise(engine.compute_head(hidden).double().cpu().numpy())
        chosen.append(_choose(logits, jobs, len(chosen)))
        if len(chosen) == count:
            return [tuple(row) for row in zip(*chosen, strict=True)], torch.stack(states, dim=1)
        hidden, cache = engine.compute_next([[token] for token in chosen[-1]], cache)
        states.append(hidden)


def _choose(logits: Integers, jobs: Sequence[Job], position: int) -> list[int]:
    """What choose_token says row by row; for many rows at once where no nucleus has to be sorted out."""
    temperature = jobs[0].temperature_ppm
    if any(job.temperature_ppm != temperature or job.top_p_ppm < 1_000_000 for job in jobs):
        rows = zip(logits, jobs, strict=True)
        return [choose_token(row, job.seed, position, job.temperature_ppm, job.top_p_ppm) for row, job in rows]
    if temperature:
        raw = np.stack([draw_raw(job.seed, position, logits.shape[1]) for job in jobs])
        logits = logits * 1_000_000 + shape_noise(raw) * temperature
    return [int(token) for token in logits.argmax(axis=1)]


def _claim_for(jobs: Sequence[Job], written: Sequence[Written]) -> list[Written]:
    return [replace(one, job=job) for job, one in zip(jobs, written, strict=True)]


def _cool(job: Job) -> Job:
    return replace(job, temperature_ppm=job.temperature_ppm * COOLER_PPM // 1_000_000)


def _alter(engine: Engine, texts: Sequence[Written], lengths: Sequence[int]) -> list[Written]:
    """One token, anywhere, in the place of another that the model itself finds likely there; what follows stays."""
    altered: list[Written] = []
    for written in texts:
        for length in lengths:
            random = np.random.default_rng([*written.job.seed, length])
            at = int(random.integers(length))
            tokens = list(written.tokens[:length])
            inputs = [*written.job.prompt, *tokens[:at]]
            logits = quantise(engine.compute_head(engine.compute_next([inputs], None)[0])[0].double().cpu().numpy())
            logits[tokens[at]] = logits.min()
            tokens[at] = choose_token(logits, random.bytes(32), at, 1_000_000, 1_000_000)
            altered.append(resketch(engine, written.job, tuple(tokens)))
    return altered


def _truncate(engine: Engine, texts: Sequence[Written], lengths: Sequence[int], end: int) -> list[Written]:
    """The beginning alone, with the end-of-text token that makes it look whole."""
    return [
        resketch(engine, written.job, (*written.tokens[: length - 1], end)) for written in texts for length in lengths
    ]
