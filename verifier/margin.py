"""Token margins: by how much, at each position, the claimed token lost against the one that the auditor's model would have chosen.

The choice is replayed with the job's own noise (verifier/sampling.py): 0 at nearly every position of an honest output, little at
others, and much where another model, prompt, seed or temperature chose. Integers, in 2^-16 nats.
Source: Token-DiFR, arXiv 2511.20621
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.sampling import FRACTION_BITS, Integers, draw_raw_rows, quantise, shape_noise

ONE_NAT: Final = 1 << FRACTION_BITS
MARGIN_CAP: Final = 64 * ONE_NAT  # what a token counts that could not have been chosen at all
CACHED_LOGITS: Final = 2**20
_PPM: Final = 1_000_000
_RARE: Final = 1 / 32
_COMMON_TOKENS: Final = 1024  # nearly every nucleus has fewer


@dataclass(frozen=True, slots=True)
class Replay:
    """How the tokens were to be chosen; temperature 0 is greedy.

    Units: slack in nats, by how much an honest executor's logits may differ where the edge of the nucleus is concerned
    """

    seed: bytes
    temperature_ppm: int
    top_p_ppm: int
    slack: float


def measure_margins(logits: Tensor, tokens: Sequence[int], first: int, replay: Replay) -> Integers:
    """The margins of tokens at positions `first` and on.

    Shapes: logits [tokens, vocabulary], finite; margins [tokens]
    """
    assert logits.shape[0] == len(tokens), (logits.shape, len(tokens))
    if replay.temperature_ppm == 0:
        return _measure_greedy(logits, tokens)
    wide = (logits if logits.dtype == torch.float64 else logits.float()).cpu()
    # A few rows at a time: whatever is made of them stays in the processor's cache.
    rows = max(1, CACHED_LOGITS // logits.shape[1])
    claimed = np.asarray(tokens, dtype=np.int64)
    parts = [
        _measure_sampled(wide[at : at + rows], claimed[at : at + rows], first + at, replay)
        for at in range(0, len(tokens), rows)
    ]
    return np.concatenate(parts)


def _measure_greedy(logits: Tensor, tokens: Sequence[int]) -> Integers:
    claimed = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    best = quantise(_to_numpy(logits.amax(dim=1)))
    return np.minimum(best - quantise(_to_numpy(claimed)), MARGIN_CAP)


def _measure_sampled(logits: Tensor, tokens: Integers, first: int, replay: Replay) -> Integers:
    """Exact integer scores where they could decide; everywhere else a bound shows that they do not.

    A token beats the bound b only if its noise does: with the word's distance w from the top of its range, -log(u) >= w says that
    w must be below exp((z - b) / T). That is one exponential a token in place of two logarithms.
    """
    count, vocabulary = logits.shape
    raw = draw_raw_rows(replay.seed, range(first, first + count), vocabulary)
    inner, outer = bound_nucleus(logits, replay)
    values = logits.numpy()
    rows = np.arange(count)

    def score(at: NDArray[np.int64], columns: NDArray[np.int64]) -> Integers:
        noise = shape_noise(raw[at, columns]) * replay.temperature_ppm
        return quantise(values[at, columns]) * _PPM + noise

    claimed = score(rows, tokens)
    luckiest = raw.argmax(axis=1)
    is_inside = values[rows, luckiest] >= inner
    best = np.maximum(score(rows, values.argmax(axis=1)), claimed)
    best = np.where(is_inside, np.maximum(best, score(rows, luckiest)), best)
    at, columns = _list_rivals(logits, raw, best, inner, replay.temperature_ppm)
    np.maximum.at(best, at, score(at, columns))
    margins = np.minimum(-(-(best - claimed) // _PPM), MARGIN_CAP)
    return np.where(values[rows, tokens] >= outer, margins, MARGIN_CAP)


def _list_rivals(
    logits: Tensor, raw: NDArray[np.uint64], best: Integers, inner: NDArray[np.float64], temperature_ppm: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows and columns of all tokens inside the nucleus that might score more than the best so far, and a few that do not."""
    temperature = temperature_ppm / _PPM
    # Rounding of logits and noise, single precision, and the halves that were cut off the words.
    leeway = 2.0**-14 / temperature + 1e-3
    bias = -best / (_PPM * ONE_NAT) / temperature + leeway
    # What even the likeliest token would need; where that is rare, nearly all are done with in one comparison of integers.
    least = np.exp(np.minimum(bias + logits.amax(dim=1).double().numpy() / temperature, 0.0))
    if least.max() < _RARE:
        floors = (2.0**32 - 1 - np.ceil(least * 2.0**32)).astype(np.uint64) << np.uint64(32)
        at, columns = np.divmod(np.flatnonzero(raw >= floors[:, None]), raw.shape[1])
        values = logits.numpy()[at, columns].astype(np.float64)
        below_top = np.invert(raw[at, columns]) * 2.0**-64
        is_rival = (below_top <= np.exp(bias[at] + values / temperature)) & (values >= inner[at])
        return at[is_rival], columns[is_rival]
    high = raw.view(np.uint32).reshape(*raw.shape, 2)[:, :, 1]
    limits = torch.add(
        torch.from_numpy(bias + 32 * math.log(2)).to(logits.dtype)[:, None], logits, alpha=1 / temperature
    )
    is_near = torch.from_numpy(np.invert(high).astype(np.float32)) <= limits.exp_()
    if np.isfinite(inner).any():
        is_near &= logits >= torch.from_numpy(inner).to(logits.dtype)[:, None]
    found = is_near.nonzero().numpy()
    return found[:, 0], found[:, 1]


def bound_nucleus(logits: Tensor, replay: Replay) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits from which a token is in the nucleus of every honest executor, and below which it is in none.

    Shapes: logits [rows, vocabulary] on the CPU; [rows] each
    """
    rows = logits.shape[0]
    if replay.top_p_ppm >= _PPM:
        return np.full(rows, -np.inf), np.full(rows, -np.inf)
    temperature, share = replay.temperature_ppm / _PPM, replay.top_p_ppm / _PPM
    # A shift of all logits by the slack moves a share p of the probability by at most 2 p (1 - p) slack / T.
    unsure = 2 * share * (1 - share) * replay.slack / temperature + 1e-5
    top = logits.amax(dim=1, keepdim=True)
    total = ((logits - top) / temperature).exp().sum(dim=1, keepdim=True, dtype=torch.float64).numpy()
    for kept in (min(_COMMON_TOKENS, logits.shape[1]), logits.shape[1]):
        values = _sort_largest(logits.numpy(), kept)
        weights = np.exp((values - values[:, :1]) / temperature) / total
        before = weights.cumsum(axis=1) - weights
        if kept == logits.shape[1] or bool((before[:, -1] > share + unsure).all()):
            break
    first = values[:, 0]
    inner = np.minimum(_get_last(values, before, share - unsure) + replay.slack, first)
    outer = np.minimum(_get_last(values, before, share + unsure) - replay.slack, first)
    return inner, outer


def _sort_largest(values: NDArray[np.float64], kept: int) -> NDArray[np.float64]:
    """Each row's largest, falling. numpy's sorts take a tenth of the time of torch's."""
    count = values.shape[1]
    largest = values if kept == count else np.partition(values, count - kept, axis=1)[:, count - kept :]
    return np.sort(largest, axis=1)[:, ::-1].astype(np.float64)


def _get_last(values: NDArray[np.float64], before: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """In each row the smallest logit that has less than this share before it."""
    count = np.maximum((before < share).sum(axis=1), 1)
    return values[np.arange(len(values)), count - 1]


def _to_numpy(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
