"""Digests of texts, over their token ids: they group outputs and spot copies, they never decide (one changed token may not show).

`text-minhash256`: one bit of each of 256 MinHash values over the 3-shingles, as datasketch 2.0 computes them in its scheme "affine32"
with seed 1 (1.x hashes otherwise). `text-simhash64`: 64 majorities over the shingles' SHA-256. Wraps datasketch, which has no types.
"""
# pyright: reportAny=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from protocol.digest import Digest, DigestFamily

SHINGLE_TOKENS: Final = 3
SCHEME: Final = "affine32"
SEED: Final = 1


def compute_text_digest(family: DigestFamily, tokens: Sequence[int]) -> Digest:
    """The digest of an output's token ids."""
    match family:
        case DigestFamily.TEXT_MINHASH256:
            return compute_minhash256(tokens)
        case DigestFamily.TEXT_SIMHASH64:
            return compute_simhash64(tokens)
        case DigestFamily.SYNTHETIC64:
            raise ValueError("synthetic64 is made by no output; the card names a family of texts")
        case DigestFamily.IMG_PDQ256 | DigestFamily.IMG_PHASH64:
            raise ValueError(f"{family.name} is a family of pictures; the card of a text model names one of texts")


def compute_minhash256(tokens: Sequence[int]) -> Digest:
    """One bit of each of 256 minima; the expected distance is 128 x (1 - Jaccard similarity of the shingle sets)."""
    sketch = MinHash(num_perm=256, seed=SEED, scheme=SCHEME)
    sketch.update_batch(list_shingles(tokens))
    bits = mix(sketch.hashvalues) & np.uint32(1)
    return Digest(DigestFamily.TEXT_MINHASH256, np.packbits(bits.astype(np.uint8)).tobytes())


def mix(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's finalizer.

    Without it the 256 bits would be one: affine32 is a x h + b modulo 2^32 with odd a, whose lowest bit is h's, flipped or not.
    """
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def compute_simhash64(tokens: Sequence[int]) -> Digest:
    """Bit by bit what most shingles say, repeated ones counted again; a tie is 0."""
    hashes = np.frombuffer(b"".join(hashlib.sha256(s).digest()[:8] for s in list_shingles(tokens)), dtype=np.uint8)
    bits = np.unpackbits(hashes.reshape(-1, 8), axis=1)
    return Digest(DigestFamily.TEXT_SIMHASH64, np.packbits(bits.sum(axis=0) * 2 > len(bits)).tobytes())


def list_shingles(tokens: Sequence[int]) -> list[bytes]:
    """Every run of three tokens, as three 4-byte little-endian integers; a shorter text is one shorter shingle."""
    assert tokens, "an output has at least one token"
    packed = np.asarray(tokens, dtype="<u4").tobytes()
    size = 4 * SHINGLE_TOKENS
    return [packed[at : at + size] for at in range(0, len(packed) - size + 1, 4)] or [packed]
