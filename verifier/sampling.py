"""Which token comes next, in integers: quantised logits, noise from Philox(seed, position), and stated tie rules.

Logits are rounded to 2^-16 before anything is compared, so the last bits in which honest machines differ seldom matter, and any
position can be replayed on its own. Sampling is Gumbel-max: the largest of logit + temperature x noise wins, which draws from
softmax(logit / temperature). Greedy is temperature 0 of the same code.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float32] | NDArray[np.float64]

FRACTION_BITS: Final = 16
LOGIT_LIMIT: Final = 2.0**15  # logits beyond are clipped, so that every product below stays under 2^63
MAX_VOCABULARY: Final = 2**18  # keeps top-p's cumulative sums under 2^63; the largest published one is 262,144
_ONE: Final = 1 << FRACTION_BITS
_PPM: Final = 1_000_000
_WEIGHT_BITS: Final = 24


def quantise(logits: Floats) -> Integers:
    """Logits in units of 2^-16, halves to even.

    Shapes: any; the same
    """
    assert not np.isnan(logits).any(), "the model computed NaN"
    return np.rint(np.clip(logits.astype(np.float64), -LOGIT_LIMIT, LOGIT_LIMIT) * _ONE).astype(np.int64)


def choose_token(logits: Integers, seed: bytes, position: int, temperature_ppm: int, top_p_ppm: int) -> int:
    """The token at this position; of equal scores the smallest token id wins.

    Shapes: logits [vocabulary], quantised
    """
    assert logits.ndim == 1 and logits.size <= MAX_VOCABULARY, logits.shape
    if temperature_ppm == 0:
        return int(np.argmax(logits))
    scores = logits * _PPM + compute_noise(seed, position, logits.size) * temperature_ppm
    kept = list_nucleus(logits, temperature_ppm, top_p_ppm)
    return int(kept[np.argmax(scores[kept])])


def compute_noise(seed: bytes, position: int, count: int) -> Integers:
    """Gumbel noise for the tokens of one position, in units of 2^-16."""
    return shape_noise(draw_raw(seed, position, count))


def draw_raw(seed: bytes, position: int, count: int) -> NDArray[np.uint64]:
    """The raw words that the noise of one position is made of: Philox4x64-10, the seed's first 16 bytes as key, the position in the counter's second word.

    Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3
    """
    return np.random.Philox(counter=position << 64, key=int.from_bytes(seed[:16], "little")).random_raw(count)


def draw_raw_rows(seed: bytes, positions: Sequence[int], count: int) -> NDArray[np.uint64]:
    """The same for many positions, in half the time where rows are short. Shapes: [positions, count]"""
    rows = np.empty((len(positions), count), dtype=np.uint64)
    generator = np.random.Philox(counter=0, key=int.from_bytes(seed[:16], "little"))
    state = generator.state
    for row, position in enumerate(positions):
        state["state"]["counter"][1] = position
        generator.state = state
        rows[row] = generator.random_raw(count)
    return rows


def shape_noise(raw: NDArray[np.uint64]) -> Integers:
    """Raw words as Gumbel noise in units of 2^-16; the larger the word, the larger the noise.

    The logarithms are the platform's float64 ones, off by at most one unit in the last place, which moves a rounded value once in
    about 2^31.
    """
    # 52 bits and a half: never 0 nor 1, and exact in float64.
    uniform = ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return np.rint(-np.log(-np.log(uniform)) * _ONE).astype(np.int64)


def list_nucleus(logits: Integers, temperature_ppm: int, top_p_ppm: int) -> Integers:
    """Ids, ascending, of the fewest most likely tokens that together have top_p of the probability.

    Weights are rounded to 2^-24 of the largest; of equal logits the smaller token id is more likely.
    """
    if top_p_ppm >= _PPM:
        return np.arange(logits.size, dtype=np.int64)
    order = np.argsort(-logits, kind="stable")
    distance = (logits[order] - logits[order[0]]).astype(np.float64) * (_PPM / temperature_ppm / _ONE)
    weights = np.rint(np.exp(distance) * (1 << _WEIGHT_BITS)).astype(np.int64)
    before = np.cumsum(weights) - weights
    # The most likely token stays whatever top_p says.
    count = max(1, int(np.count_nonzero(before * _PPM < int(weights.sum()) * top_p_ppm)))
    return np.sort(order[:count])


def compute_log_shares(logits: Integers) -> Integers:
    """Logarithms of each token's probability, in units of 2^-16; at most 0.

    Shapes: [rows, vocabulary]; the same
    """
    largest = logits.max(axis=-1, keepdims=True)
    sums = np.exp((logits - largest).astype(np.float64) / _ONE).sum(axis=-1, keepdims=True)
    return logits - largest - np.rint(np.log(sums) * _ONE).astype(np.int64)


def choose_extensions(scores: Integers, count: int) -> list[tuple[int, int]]:
    """The best (beam, token) pairs; of equal scores the smaller beam number, then the smaller token id comes first.

    Shapes: scores [beams, vocabulary]
    """
    flat = scores.reshape(-1)
    count = min(count, flat.size)
    # Everything at least as good as the last that is taken, so that ties are decided by place, not by the partition.
    least = np.partition(flat, flat.size - count)[flat.size - count]
    places = np.flatnonzero(flat >= least)
    best = places[np.argsort(-flat[places], kind="stable")][:count]
    return [(int(place) // scores.shape[1], int(place) % scores.shape[1]) for place in best]
