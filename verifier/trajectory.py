"""A commitment to every state of a sampler, and what is opened of it once a beacon has picked steps.

The states are the latents before, between and after the steps; a Merkle root over them binds their number, too. Nobody can know which
steps will be asked for when the root is revealed, so whoever computed a share f of the steps otherwise than the model does is found out
by k opened steps with 1 - C(n - fn, k) / C(n, k). The first and the last state are always opened: noise and picture hang on them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import numpy as np
from msgspec import Meta

from protocol.codec import Message
from protocol.crypto import HashDomain, compute_stream
from protocol.merkle import InclusionProof, MerkleTree, check_inclusion
from protocol.units import Hash
from verifier.diffusion import Shape
from verifier.noise import MAX_STEPS, Latents

MAX_STATE_BYTES: Final = 4 * 1024 * 1024  # a million latents: far above what pictures within the limit are made of
_INDEX_BYTES: Final = 2
_DRAW_BYTES: Final = 8

State: TypeAlias = Annotated[bytes, Meta(max_length=MAX_STATE_BYTES)]


class Opening(Message, frozen=True):
    """One state and where it stands under the root."""

    index: Annotated[int, Meta(ge=0, le=MAX_STEPS)]
    state: State
    proof: InclusionProof


@dataclass(frozen=True, slots=True)
class Commitment:
    """The tree over all states, kept by whoever drew the picture until its audit is over."""

    states: tuple[bytes, ...]
    tree: MerkleTree

    @property
    def root(self) -> Hash:
        return self.tree.root


class OpeningRefused(Exception):
    """Openings that do not show what was committed to: whoever passed them on, or the executor, withholds it."""


def commit_states(states: Sequence[Latents]) -> Commitment:
    """The commitment to a finished run, first noise to last latents."""
    return seal_states([encode_state(state) for state in states])


def seal_states(encoded: Sequence[bytes]) -> Commitment:
    """The same out of states as they were kept."""
    return Commitment(tuple(encoded), MerkleTree.build((_key(index), state) for index, state in enumerate(encoded)))


def open_states(commitment: Commitment, indices: Iterable[int]) -> tuple[Opening, ...]:
    """The states of these numbers, with their proofs."""
    return tuple(
        Opening(index, commitment.states[index], commitment.tree.prove_inclusion(_key(index))) for index in indices
    )


def draw_steps(beacon: Hash, root: Hash, steps: int, count: int) -> tuple[int, ...]:
    """`count` of the steps (or all), ascending: a shuffle by a beacon that came after the root, which is mixed in."""
    drawn = list(range(steps))
    stream = compute_stream(HashDomain.DRAW, _DRAW_BYTES * steps, beacon, root)
    for place in range(min(count, steps)):
        number = int.from_bytes(stream[_DRAW_BYTES * place : _DRAW_BYTES * (place + 1)], "big")
        # The remainder favours small ones by less than 2^-51.
        other = place + number % (steps - place)
        drawn[place], drawn[other] = drawn[other], drawn[place]
    return tuple(sorted(drawn[:count]))


def list_opened(drawn: Iterable[int], steps: int) -> tuple[int, ...]:
    """Which states are to be opened for these steps, ascending: each step's two, the first and the last."""
    return tuple(sorted({0, steps} | {index for step in drawn for index in (step, step + 1)}))


def read_openings(openings: Sequence[Opening], root: Hash, wanted: Sequence[int]) -> dict[int, bytes]:
    """The wanted states, each under the root.

    Raises: OpeningRefused where they are others, in another order, or not under the root.
    """
    if tuple(opening.index for opening in openings) != tuple(wanted):
        raise OpeningRefused(
            f"expected the states {list(wanted)[:8]}, got {[opening.index for opening in openings][:8]}"
        )
    for opening in openings:
        is_there = opening.proof.index == opening.index
        if not is_there or not check_inclusion(root, _key(opening.index), opening.state, opening.proof):
            raise OpeningRefused(f"state {opening.index} is not under the root {root.hex()[:12]}")
    return {opening.index: opening.state for opening in openings}


def encode_state(latents: Latents) -> bytes:
    """The state's bytes: four a number, little-endian, in the array's order."""
    return latents.astype("<i4").tobytes()


def decode_state(state: bytes, shape: Shape) -> Latents:
    """The latents. Raises: ValueError where there are more or fewer."""
    expected = 4 * shape[0] * shape[1] * shape[2]
    if len(state) != expected:
        raise ValueError(f"expected {expected} bytes for {shape}, got {len(state)}")
    return np.frombuffer(state, dtype="<i4").astype(np.int32).reshape(shape)


def _key(index: int) -> bytes:
    return index.to_bytes(_INDEX_BYTES, "big")
