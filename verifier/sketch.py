"""Activation sketches: what an executor commits to beside its tokens, to show that the model itself ran.

For every token, the direction of the last hidden state is projected on three sequences of signs that follow from the sketch's seed,
and each projection is written as a 16-bit integer in steps of 2^-12 of its standard deviation. The seed is the job's and the
member's own, so nobody can prepare a sketch, and one member's is of no use to another. 32 tokens take 206 bytes with the header.

A sketch says nothing about how tokens were chosen: verifier/margin.py does.
Source: the projections of Activation-DiFR (arXiv 2511.20621) in the place of TOPLOC's largest activations (arXiv 2501.16007), which
the few dimensions that are large in every text would fill
"""

import hashlib
import struct
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.classes import CLASS_ID_BYTES, ComputeClass, compute_class_id
from verifier.sampling import Integers

FAMILY: Final = 1  # signed projections of the last hidden state's direction
VERSION: Final = 1
DIMENSIONS: Final = 3
WINDOW_TOKENS: Final = 32
STEPS: Final = 4096  # code steps in one standard deviation
MAX_GAP: Final = 4096  # a code that is further off counts as this far, so that no single one decides
DISTANCE_UNITS: Final = 16  # a distance is a mean over codes, in sixteenths of a step
HEADER: Final = struct.Struct(f">BBI{CLASS_ID_BYTES}s")
_SIGNS_PURPOSE: Final = b"quorate sketch signs 1"
_MEMBER_PURPOSE: Final = b"quorate sketch member 1"
_CHALLENGE_PURPOSE: Final = b"quorate sketch challenge 1"

Codes = NDArray[np.int16]


class NotFinite(Exception):
    """Activations that are NaN or infinite: nothing can be said of what follows from them."""


class SketchFault(StrEnum):
    """What is wrong with a sketch before any distance is taken."""

    LENGTH = "sketch-length"
    FAMILY = "sketch-family"
    VERSION = "sketch-version"
    CLASS = "sketch-class"


class SketchRefused(Exception):
    """A sketch whose bytes cannot be one of this output in this class."""

    def __init__(self, fault: SketchFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def derive_member_seed(job_seed: bytes, member: bytes) -> bytes:
    """The seed of one member's sketch in a job."""
    return hashlib.sha256(_MEMBER_PURPOSE + job_seed + member).digest()


def derive_challenge_seed(beacon: bytes, job: bytes, member: bytes) -> bytes:
    """The seed of the sketch that a member owes after everybody has committed: only who can run the model has it then."""
    return hashlib.sha256(_CHALLENGE_PURPOSE + beacon + job + member).digest()


def compute_codes(hidden: Tensor, seed: bytes) -> Codes:
    """The codes of these hidden states.

    Shapes: hidden [tokens, width]; codes [tokens, 3]
    Raises: NotFinite
    """
    # One copy for all tokens, and float64 from here on: the projection adds no difference of its own.
    states = hidden.to(torch.float64).cpu().numpy()
    lengths = np.sqrt(np.square(states).sum(axis=1, keepdims=True))
    if not np.isfinite(lengths).all():
        raise NotFinite("the model computed hidden states that are not finite")
    projected = states @ _draw_signs(seed, states.shape[1]).T / np.maximum(lengths, np.finfo(np.float64).tiny)
    return np.clip(np.rint(projected * STEPS), -32767, 32767).astype(np.int16)


def encode_sketch(codes: Codes, declared: ComputeClass) -> bytes:
    """The sketch's bytes: family, version, number of tokens, class, then the codes token by token, big-endian."""
    return HEADER.pack(FAMILY, VERSION, len(codes), compute_class_id(declared)) + codes.astype(">i2").tobytes()


def decode_sketch(sketch: bytes, tokens: int, declared: ComputeClass) -> Codes:
    """The codes of a sketch of so many tokens, made in this class. Raises: SketchRefused"""
    expected = HEADER.size + 2 * DIMENSIONS * tokens
    if len(sketch) != expected:
        raise SketchRefused(SketchFault.LENGTH, f"expected a sketch of {expected} bytes, got {len(sketch)}")
    family, version, count, class_id = HEADER.unpack_from(sketch)
    if family != FAMILY:
        raise SketchRefused(SketchFault.FAMILY, f"expected a sketch of family {FAMILY}, got {family}")
    if version != VERSION:
        raise SketchRefused(SketchFault.VERSION, f"expected a sketch of version {VERSION}, got {version}")
    if count != tokens:
        raise SketchRefused(SketchFault.LENGTH, f"expected a sketch of {tokens} tokens, got one of {count}")
    if class_id != compute_class_id(declared):
        raise SketchRefused(SketchFault.CLASS, f"expected a sketch made in {declared.name}, got {class_id.hex()}")
    return np.frombuffer(sketch, dtype=">i2", offset=HEADER.size).reshape(tokens, DIMENSIONS).astype(np.int16)


def measure_gaps(left: Codes, right: Codes) -> Integers:
    """How far two sketches of the same tokens are apart, token by token, in code steps.

    Shapes: [tokens, 3] each; gaps [tokens], the sums over the three codes
    """
    assert left.shape == right.shape, (left.shape, right.shape)
    return np.minimum(np.abs(left.astype(np.int64) - right.astype(np.int64)), MAX_GAP).sum(axis=1)


def compute_distance(gaps: Sequence[int] | Integers) -> int:
    """The mean gap of a code, in sixteenths of a step, rounded up."""
    total, codes = int(np.sum(gaps)), DIMENSIONS * len(gaps)
    return -(-total * DISTANCE_UNITS // codes)


def list_windows(tokens: int) -> list[slice]:
    """Runs of 32 tokens; what is left at the end belongs to the last one."""
    starts = range(0, max(tokens - WINDOW_TOKENS, 0) + 1, WINDOW_TOKENS)
    return [slice(at, tokens if at == starts[-1] else at + WINDOW_TOKENS) for at in starts]


def _draw_signs(seed: bytes, width: int) -> NDArray[np.float64]:
    """Signs, each +1 or -1. Shapes: [3, width]"""
    row = -(-width // 8)
    stream = hashlib.shake_256(_SIGNS_PURPOSE + seed).digest(DIMENSIONS * row)
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8).reshape(DIMENSIONS, row), axis=1)[:, :width]
    return bits.astype(np.float64) * 2 - 1
