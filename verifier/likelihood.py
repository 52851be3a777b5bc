"""The likelihood test: whether a sampled text is as surprising as a text of this model at this temperature is on average.

Only for outputs that come with neither a seed nor a sketch. It catches other models and temperatures slowly, and says nothing about
greedy texts, which are always more likely than drawn ones.
Source: Zero-shot statistical tests for LLM-generated text, arXiv 2501.02406; the variance is that of the surprise under the model
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.margin import Replay, bound_nucleus
from verifier.sampling import Integers

MILLI: Final = 1000
SCORE_CAP: Final = 1000 * MILLI
SURPRISE_CAP: Final = 32.0  # nats; a token that could not be drawn at all


@dataclass(frozen=True, slots=True)
class Surprise:
    """Token by token, the surprise beyond its expectation, and its variance. Shapes: [tokens] each. Units: nats, nats squared"""

    excess: NDArray[np.float64]
    variance: NDArray[np.float64]


def measure_surprise(logits: Tensor, tokens: Sequence[int], replay: Replay) -> Surprise:
    """The surprise of tokens under the distribution that sampling draws from. Shapes: logits [tokens, vocabulary]"""
    temperature = replay.temperature_ppm / 1_000_000
    wide = logits.double().cpu()
    inner, outer = bound_nucleus(wide, replay)
    edge = torch.from_numpy((np.maximum(inner, -1e30) + np.maximum(outer, -1e30)) / 2)[:, None]
    scaled = wide / temperature
    total = torch.logsumexp(scaled.masked_fill(wide < edge, -torch.inf), dim=1, keepdim=True)
    weights = (scaled - total).masked_fill(wide < edge, -torch.inf).exp()
    surprise = torch.where(weights > 0, total - scaled, 0.0)
    entropy = (weights * surprise).sum(dim=1)
    variance = (weights * surprise.square()).sum(dim=1) - entropy.square()
    # A token just outside this nucleus may lie just inside an honest executor's: it is as surprising as its logit says.
    found = (total - scaled).gather(1, torch.tensor(tokens)[:, None])[:, 0].clamp(max=SURPRISE_CAP)
    return Surprise((found - entropy).numpy(), variance.clamp(min=0).numpy())


def compute_score(surprise: Surprise) -> int:
    """How many standard deviations the text's surprise is off, in thousandths; above 0 is too surprising.

    One nat squared is added to the variance: where a text is all but certain, a single rare token says little.
    """
    total, variance = float(surprise.excess.sum()), float(surprise.variance.sum())
    score = total / math.sqrt(variance + 1.0) * MILLI
    return round(max(-SCORE_CAP, min(SCORE_CAP, score)))


def join_surprise(parts: Sequence[Surprise]) -> Surprise:
    """Consecutive stretches of one text as one."""
    return Surprise(np.concatenate([part.excess for part in parts]), np.concatenate([part.variance for part in parts]))


def list_scores(surprise: Surprise, lengths: Sequence[int]) -> Integers:
    """The scores of the text's beginnings of these lengths."""
    return np.array(
        [compute_score(Surprise(surprise.excess[:length], surprise.variance[:length])) for length in lengths]
    )
