"""Mutations that know nothing of what the bytes mean: flips, cuts, repeats, and pieces of other samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz.choices import pick

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.fuzz.choices import Choices

MAX_BYTES = 64 * 1024  # of a mutated input; what is larger only shows that size is judged first
EDGES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xc0", b"\xc1", b"\x00" * 8, b"\xff" * 4, b"\xff" * 8, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\r\n", b"\x91" * 2_000, b"[" * 2_000, b'"', b"{", b"9" * 5_000)  # fmt: skip


def mutate_bytes(sample: bytes, others: Sequence[bytes], choices: Choices) -> bytes:
    """The sample after one mutation."""
    return pick(choices, _MUTATIONS)(sample, others, choices)[:MAX_BYTES]


def _flip(sample: bytes, _others: Sequence[bytes], choices: Choices) -> bytes:
    if not sample:
        return choices.octets(1)
    changed, at = bytearray(sample), choices.below(len(sample))
    changed[at] ^= 1 << choices.below(8)
    return bytes(changed)


def _overwrite(sample: bytes, _others: Sequence[bytes], choices: Choices) -> bytes:
    at, edge = choices.below(len(sample) + 1), pick(choices, EDGES)
    return sample[:at] + edge + sample[at + len(edge) :]


def _insert(sample: bytes, _others: Sequence[bytes], choices: Choices) -> bytes:
    at = choices.below(len(sample) + 1)
    return sample[:at] + pick(choices, EDGES) + sample[at:]


def _scatter(sample: bytes, _others: Sequence[bytes], choices: Choices) -> bytes:
    at = choices.below(len(sample) + 1)
    return sample[:at] + choices.octets(1 + choices.below(8)) + sample[at + choices.below(9) :]


def _cut(sample: bytes, _others: Sequence[bytes], choices: Choices) -> bytes:
    return sample[: choices.below(len(sample) + 1)]


def _drop(sample: bytes, _others: Sequence[bytes], choices: Choices) -> bytes:
    start = choices.below(len(sample) + 1)
    return sample[:start] + sample[start + 1 + choices.below(16) :]


def _repeat(sample: bytes, _others: Sequence[bytes], choices: Choices) -> bytes:
    start = choices.below(len(sample) + 1)
    end = start + 1 + choices.below(64)
    return sample[:end] + sample[start:end] * (1 + choices.below(32)) + sample[end:]


def _splice(sample: bytes, others: Sequence[bytes], choices: Choices) -> bytes:
    other = pick(choices, others)
    return sample[: choices.below(len(sample) + 1)] + other[choices.below(len(other) + 1) :]


def _extend(sample: bytes, others: Sequence[bytes], choices: Choices) -> bytes:
    return sample + pick(choices, (choices.octets(1), b"\x00" * 64, pick(choices, others)))


_MUTATIONS: tuple[Callable[[bytes, Sequence[bytes], Choices], bytes], ...] = (
    _flip, _flip, _overwrite, _insert, _scatter, _cut, _drop, _repeat, _splice, _extend,
)  # fmt: skip
