"""`python -P -m verifier.bench_audit --tokens N --rounds R`: one process that generates, sketches, reads and audits, turn about.

It prints one line of JSON. The model has 44 million random weights: what is measured does not depend on their values. A bare prefill
is one forward pass over the same tokens with the logits of every position; what a pass without any logits takes is given beside it.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import torch

from protocol.models import GenerationSettings, SamplingKind
from verifier.engine import LlamaEngine
from verifier.generate import sample_tokens
from verifier.llama import Attention, LlamaConfig, build_llama, compute_shapes
from verifier.margin import Replay
from verifier.model import DTYPES, use_deterministic_settings
from verifier.prefill import Passage, read_passages
from verifier.sketch import compute_codes, encode_sketch

T = TypeVar("T")

SEED: Final = bytes(32)
PROMPT: Final = tuple(range(1, 17))
SIZES: Final = {  # width, inner width, layers, heads, key heads, vocabulary
    "44m": (512, 1536, 8, 8, 8, 32_000),
    "500m": (896, 4864, 24, 14, 2, 151_936),
}


def measure_audit(size: str, tokens: int, rounds: int, dtype: str) -> dict[str, float | int | str]:
    """Medians over the rounds, and ratios of what was measured in the same round. Units: seconds of processor time"""
    use_deterministic_settings()
    engine = build_engine(size, len(PROMPT) + tokens, dtype)
    settings = GenerationSettings(SamplingKind.SAMPLE, 1, 1_000_000, 1_000_000, tokens)
    seconds: dict[str, list[float]] = {}
    flips = sum(_run_round(engine, settings, seconds) for _ in range(rounds))
    medians = {f"{name}_seconds": round(statistics.median(found), 4) for name, found in seconds.items()}
    return {
        "audit_over_prefill": _compute_ratio(seconds, "audit", "prefill"),
        "generation_over_audit": _compute_ratio(seconds, "generation", "audit"),
        "sketch_share": _compute_ratio(seconds, "sketch", "generation", digits=5),
        "greedy_audit_over_prefill": _compute_ratio(seconds, "greedy_audit", "prefill"),
        "audit_over_states": _compute_ratio(seconds, "audit", "states"),
        "tokens": tokens,
        "dtype": dtype,
        "size": size,
        "margins_above_zero": flips,
        **medians,
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _run_round(engine: LlamaEngine, settings: GenerationSettings, seconds: dict[str, list[float]]) -> int:
    """Everything once; how many tokens the audit would have chosen otherwise."""
    chosen, hidden = _time(seconds, "generation", lambda: _generate(engine, settings))
    _time(seconds, "sketch", lambda: encode_sketch(compute_codes(hidden, SEED), engine.compute_class))
    rows = [[*PROMPT, *chosen[:-1]]]
    _time(seconds, "states", lambda: engine.read_hidden(rows))
    _time(seconds, "prefill", lambda: engine.compute_head(engine.read_hidden(rows)))
    passage = Passage(PROMPT, tuple(chosen), Replay(SEED, settings.temperature_ppm, settings.top_p_ppm, 0.001), SEED)
    (reading,) = _time(seconds, "audit", lambda: read_passages(engine, [passage]))
    assert not isinstance(reading, Exception), reading
    greedy = replace(passage, replay=replace(passage.replay, temperature_ppm=0))
    _time(seconds, "greedy_audit", lambda: read_passages(engine, [greedy]))
    return int((reading.margins > 0).sum())


def measure_reading(size: str, tokens: int, dtype: str, attention: Attention) -> dict[str, float | int | str]:
    """How much one audit of this many tokens adds to the process's memory, weights not counted. Units: MB, seconds"""
    use_deterministic_settings()
    engine = build_engine(size, len(PROMPT) + tokens, dtype, attention)
    weights = sum(weight.numel() * weight.element_size() for weight in engine.model.weights.values())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    claimed = tuple(int(token) for token in torch.randint(engine.vocabulary, (tokens,), generator=_seeded(2)))
    started = time.process_time()
    read_passages(engine, [Passage(PROMPT, claimed, Replay(SEED, 1_000_000, 1_000_000, 0.001), SEED)])
    return {
        "size": size,
        "tokens": tokens,
        "dtype": dtype,
        "attention": str(attention),
        "weights_mb": round(weights / 2**20, 1),
        "audit_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
        "audit_seconds": round(time.process_time() - started, 2),
    }


def build_engine(size: str, context: int, dtype: str, attention: Attention = Attention.EAGER) -> LlamaEngine:
    """A Llama of random weights."""
    width, inner, layers, heads, key_heads, vocabulary = SIZES[size]
    config = LlamaConfig(
        vocabulary=vocabulary,
        width=width,
        inner_width=inner,
        layers=layers,
        heads=heads,
        key_heads=key_heads,
        head_width=width // heads,
        context=context,
        norm_epsilon=1e-6,
        rope_theta=10_000.0,
        rope_scaling=None,
        is_tied=True,
        has_attention_bias=False,
        has_mlp_bias=False,
    )
    generator, number = _seeded(1), DTYPES[dtype]
    weights = {
        name: torch.ones(shape, dtype=number)
        if "norm" in name
        else torch.empty(shape, dtype=number).normal_(0, 0.05, generator=generator)
        for name, shape in compute_shapes(config).items()
    }
    return LlamaEngine(build_llama(config, weights, attention))


def _generate(engine: LlamaEngine, settings: GenerationSettings) -> tuple[list[int], torch.Tensor]:
    """What `generate` does for a prompt that is token ids already."""
    return sample_tokens(engine, frozenset(), list(PROMPT), settings, SEED, settings.max_tokens, lambda: False)


def _time(seconds: dict[str, list[float]], name: str, way: Callable[[], T]) -> T:
    # One thread does all the work, so its processor time is what it would take on a machine that is not shared.
    started = time.process_time()
    result = way()
    seconds.setdefault(name, []).append(time.process_time() - started)
    return result


def _compute_ratio(seconds: dict[str, list[float]], part: str, whole: str, digits: int = 3) -> float:
    """The median of the rounds' ratios: what slows the machine for a moment slows both."""
    return round(statistics.median(a / b for a, b in zip(seconds[part], seconds[whole], strict=True)), digits)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="verifier.bench_audit")
    parser.add_argument("--size", choices=sorted(SIZES), default="44m")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=0, help="0: only the memory of one audit")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    parser.add_argument("--attention", choices=[str(one) for one in Attention], default="eager")
    wish = parser.parse_args(arguments)
    if wish.rounds:
        print(json.dumps(measure_audit(wish.size, wish.tokens, wish.rounds, wish.dtype)))
    else:
        print(json.dumps(measure_reading(wish.size, wish.tokens, wish.dtype, Attention(wish.attention))))


if __name__ == "__main__":
    main(sys.argv[1:])
