"""How the machine signs: handed in, so that the simulator can use something cheaper than Ed25519.

Signing is pure, as verifying is (`protocol.voting.Verify`): Ed25519 signatures are deterministic (RFC 8032).
"""

from typing import Protocol

from protocol.units import Signature


class Signer(Protocol):
    """One private key; in production `protocol.crypto.SigningKey`."""

    def sign(self, message: bytes) -> Signature:
        """The signature of these bytes, always the same one."""
        ...
