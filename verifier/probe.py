"""Whether an engine computes in the class that its node declares: a few fixed tokens, read and continued, in fine codes.

The probe of a class is part of the profile. An engine whose probe is the same to the last bit computes as the calibrated machine did;
one that is close to it by less than half its distance to any other class is taken for one of it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.classes import ComputeClass
from verifier.engine import Engine
from verifier.tolerances import ProfileBody

READ_TOKENS: Final = 16
NEXT_TOKENS: Final = 4
DIMENSIONS: Final = 4
STEPS: Final = 2**24  # to a standard deviation: about the last bit of float32
NEAR: Final = 64  # steps on average: as far as float32 kernels and instruction sets part
_PURPOSE: Final = b"quorate class probe 1"

Fine = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a probe says: the calibrated class it is nearest to, the mean distance in steps, and whether that is the declared one's."""

    declared: str
    nearest: str
    distance: int
    is_declared: bool
    is_identical: bool


def probe_engine(engine: Engine) -> bytes:
    """The engine's probe: the same for the same weights, code, number format, attention and instruction set."""
    count = min(READ_TOKENS + NEXT_TOKENS, engine.context)
    drawn = np.frombuffer(hashlib.shake_256(_PURPOSE).digest(4 * count), dtype="<u4")
    ids = [int(token) % engine.vocabulary for token in drawn]
    first = max(1, count - NEXT_TOKENS)
    read = engine.read_hidden([ids[:first]])[0]
    hidden, cache = engine.compute_next([ids[:first]], None)
    states = [read, hidden]
    for token in ids[first:]:
        hidden, cache = engine.compute_next([[token]], cache)
        states.append(hidden)
    return _project(torch.cat(states)).astype(">i4").tobytes()


def check_class(profile: ProfileBody, engine: Engine) -> Likeness:
    """What this engine's probe says about the class that it declares."""
    declared = engine.compute_class
    probes = {record.compute_class.name: bytes.fromhex(record.probe) for record in profile.classes if record.probe}
    return compare_probe(probe_engine(engine), declared, probes)


def compare_probe(probe: bytes, declared: ComputeClass, probes: Mapping[str, bytes]) -> Likeness:
    """The nearest of the known probes; of equally near ones the declared class's."""
    distances = {name: _measure(probe, known) for name, known in probes.items() if len(known) == len(probe)}
    if not distances:
        return Likeness(declared.name, "", 0, is_declared=False, is_identical=False)
    nearest = min(distances, key=lambda name: (distances[name], name != declared.name))
    # Kernels of one number format part by a few steps; another format is thousands away.
    is_declared = declared.name in distances and distances[declared.name] <= max(NEAR, 2 * distances[nearest])
    return Likeness(declared.name, nearest, distances[nearest], is_declared, probes.get(declared.name) == probe)


def _project(hidden: torch.Tensor) -> Fine:
    states = hidden.to(torch.float64).cpu().numpy()
    lengths = np.sqrt(np.square(states).sum(axis=1, keepdims=True)) + np.finfo(np.float64).tiny
    stream = hashlib.shake_256(_PURPOSE + b" signs").digest(DIMENSIONS * states.shape[1])
    signs = np.where(np.frombuffer(stream, dtype=np.uint8).reshape(DIMENSIONS, -1) & 1, 1.0, -1.0)
    codes = np.rint(states @ signs.T / lengths * STEPS)
    return np.clip(np.nan_to_num(codes, nan=0.0), -(2**31) + 1, 2**31 - 1).astype(np.int64)


def _measure(left: bytes, right: bytes) -> int:
    gaps = np.frombuffer(left, dtype=">i4").astype(np.int64) - np.frombuffer(right, dtype=">i4").astype(np.int64)
    return int(np.abs(gaps).mean())
