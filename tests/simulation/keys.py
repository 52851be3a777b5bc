"""Signatures that cost a hash: the simulated adversaries sign with their own keys and never try to forge."""

from __future__ import annotations

from hashlib import sha256


class CheapSigner:
    """Signs by hashing its public key and the message."""

    def __init__(self, public: bytes) -> None:
        self.public = public

    def sign(self, message: bytes) -> bytes:
        return sha256(self.public + message).digest() * 2


def verify_cheaply(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `CheapSigner(public)` signed it."""
    return sha256(public + message).digest() * 2 == signature


def make_public(index: int) -> bytes:
    """The public key of a simulated validator."""
    return sha256(b"validator %d" % index).digest()
