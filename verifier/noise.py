"""Normal noise that everybody derives again from a seed, number by number, to the last bit.

Philox4x64-10 counts; the seed's first half is its key, the second half the upper two words of its counter, and the step of a sampler
the second word, so the noise of one step needs none of the others'. A normal number is the inverse of the normal distribution at a
uniform one, after Wichura's AS 241, in float64 with nothing but + - x /, the square root and the splitting off of exponents: IEEE 754
rounds these alike everywhere, which libraries' logarithms and cosines do not. So two machines' noise is equal, not close.
Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3; Wichura 1988, Algorithm AS 241, PPND16
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocol.units import Hash

Latents = NDArray[np.int32]
Numbers = NDArray[np.float64]

FRACTION_BITS: Final = 16
ONE: Final = 1 << FRACTION_BITS
LIMIT: Final = 2**31 - 1  # 32,768 standard deviations
MAX_STEPS: Final = 4096

_NEAR: Final = 0.425
_FAR: Final = 5.0
_LN2: Final = 0.6931471805599453
_ROOT_HALF: Final = 0.7071067811865476
_LOG_TERMS: Final = 11  # 2 (s^2)^11 / 23 is under 2^-53 for |s| <= 0.1716

# The polynomials of PPND16, highest power last.
_NEAR_TOP: Final = (
    *(3.3871328727963666080, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4),
    *(4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
)
_NEAR_BOTTOM: Final = (
    *(1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3),
    *(2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)
_MIDDLE_TOP: Final = (
    *(1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504),
    *(1.27045825245236838258, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
)
_MIDDLE_BOTTOM: Final = (
    *(1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1),
    *(1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)
_FAR_TOP: Final = (
    *(6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 2.96560571828504891230e-1),
    *(2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
)
_FAR_BOTTOM: Final = (
    *(1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2),
    *(7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)


def compute_noise(seed: Hash, step: int, count: int) -> Latents:
    """The noise of one step, in units of 2^-16; step 0 is what the sampler starts from, row by row, channels first."""
    assert len(seed) == 32, len(seed)
    assert 0 <= step < MAX_STEPS, step
    key, upper = int.from_bytes(seed[:16], "little"), int.from_bytes(seed[16:], "little")
    raw = np.random.Philox(counter=upper << 128 | step << 64, key=key).random_raw(count)
    # 52 bits and a half: never 0 nor 1, and exact in float64.
    uniform = ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return np.rint(invert_normal(uniform) * ONE).astype(np.int32)


def to_floats(latents: Latents) -> NDArray[np.float32]:
    """The numbers that these integers stand for, as models are given them."""
    return (latents.astype(np.float64) / ONE).astype(np.float32)


def invert_normal(uniform: Numbers) -> Numbers:
    """The number that a standard normal one stays under with this chance, to about 16 digits.

    Shapes: any, between 0 and 1, both left out; the same
    """
    from_middle = uniform - 0.5
    square = 0.180625 - from_middle * from_middle
    near = from_middle * _divide(_NEAR_TOP, _NEAR_BOTTOM, square)
    # Kept off 0 where the result is not used.
    tail = np.maximum(np.minimum(uniform, 1.0 - uniform), 2.0**-53)
    root = np.sqrt(-compute_log(tail))
    far = np.where(
        root <= _FAR, _divide(_MIDDLE_TOP, _MIDDLE_BOTTOM, root - 1.6), _divide(_FAR_TOP, _FAR_BOTTOM, root - 5.0)
    )
    return np.where(np.abs(from_middle) <= _NEAR, near, np.where(from_middle < 0, -far, far))


def compute_log(values: Numbers) -> Numbers:
    """Natural logarithms without a library's: 2 artanh((m - 1) / (m + 1)) of the fraction m, and the exponent's share.

    Shapes: any, positive; the same
    """
    fraction, exponent = np.frexp(values)
    is_low = fraction < _ROOT_HALF
    fraction = np.where(is_low, fraction + fraction, fraction)
    exponent = exponent - is_low
    ratio = (fraction - 1.0) / (fraction + 1.0)
    square = ratio * ratio
    series = np.zeros_like(square)
    for odd in range(2 * _LOG_TERMS + 1, 0, -2):
        series = series * square + 1.0 / odd
    return exponent * _LN2 + 2.0 * ratio * series


def _divide(top: Sequence[float], bottom: Sequence[float], at: Numbers) -> Numbers:
    return _evaluate(top, at) / _evaluate(bottom, at)


def _evaluate(coefficients: Sequence[float], at: Numbers) -> Numbers:
    """Horner's scheme, one rounding an operation: numpy never joins a product and a sum of two calls."""
    total = np.full_like(at, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * at + coefficient
    return total
