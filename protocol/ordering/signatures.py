"""How the machine signs and verifies: handed in, so that the simulator can use something cheaper than Ed25519.

Both are pure: Ed25519 signing is deterministic (RFC 8032).
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from protocol.units import PublicKey, Signature

Verify: TypeAlias = Callable[[PublicKey, bytes, Signature], bool]
"""Whether this key signed these bytes; in production `protocol.crypto.is_signature_valid`."""


class Signer(Protocol):
    """One private key; in production `protocol.crypto.SigningKey`."""

    def sign(self, message: bytes) -> Signature:
        """The signature of these bytes, always the same one."""
        ...
