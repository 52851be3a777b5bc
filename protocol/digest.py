"""Locality-sensitive digests: close outputs have a small Hamming distance."""

from enum import IntEnum
from typing import Annotated

from msgspec import Meta

from protocol.codec import Message


class DigestFamily(IntEnum):
    """How the bits were made; digests of different families have no distance."""

    TEXT_MINHASH256 = 1
    TEXT_SIMHASH64 = 2
    IMG_PDQ256 = 16
    IMG_PHASH64 = 17
    SYNTHETIC64 = 250  # no output makes it: it is there to test agreement within a tolerance before images come


class Digest(Message, frozen=True):
    """Bits of one family, most significant first."""

    family: DigestFamily
    bits: Annotated[bytes, Meta(min_length=8, max_length=32)]


def compute_distance(left: Digest, right: Digest) -> int:
    """The Hamming distance of two digests of one family. Units: bits."""
    assert left.family == right.family, (left.family, right.family)
    assert len(left.bits) == len(right.bits), (len(left.bits), len(right.bits))
    return (int.from_bytes(left.bits, "big") ^ int.from_bytes(right.bits, "big")).bit_count()


DIGEST_BYTES = {
    DigestFamily.TEXT_MINHASH256: 32,
    DigestFamily.TEXT_SIMHASH64: 8,
    DigestFamily.IMG_PDQ256: 32,
    DigestFamily.IMG_PHASH64: 8,
    DigestFamily.SYNTHETIC64: 8,
}
IMAGE_FAMILIES = frozenset({DigestFamily.IMG_PDQ256, DigestFamily.IMG_PHASH64})
