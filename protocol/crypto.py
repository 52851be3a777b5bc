"""Hashes and Ed25519 signatures, each bound to one purpose.

Every hash starts with a domain byte and every signature with `"QR1\\0" | domain | chain id`, so bytes made for one purpose mean
nothing for another, nor on another chain. Ed25519 signatures are not unique: they never enter a hash that names or draws anything.
Source: rules F3-F5; libsodium's rules of validity (it refuses non-canonical S and small-order keys).
"""

from enum import IntEnum
from hashlib import sha256, shake_256
from typing import Final

from nacl import bindings, exceptions

from protocol.units import ChainId, Hash, PublicKey, Signature

MAGIC: Final = b"QR1\x00"


class HashDomain(IntEnum):
    """First byte of everything hashed."""

    LEAF = 0
    NODE = 1
    ROOT = 2
    GENESIS = 3
    BLOCK = 4
    TRANSACTION = 5
    TRANSACTION_LIST = 6
    VALIDATOR_SET = 7
    CARD = 8
    MANIFEST = 9
    OUTPUT = 10
    PAYLOAD = 11
    COMMITMENT = 12
    REVEAL_SET = 13
    ONION = 14
    BEACON = 15
    JUSTIFICATION = 16
    CANDIDATE_LEAF = 17
    CANDIDATE_NODE = 18
    SEED = 19
    TIE = 20
    DRAW = 21
    LEADER = 22
    VALUE = 23


class SignatureDomain(IntEnum):
    """What a signature was made for."""

    PROPOSE = 1
    NOTAR = 2
    NULL = 3
    FINAL = 4
    TRANSACTION = 5
    EVIDENCE = 6
    HANDSHAKE = 7
    STATUS = 8
    PROFILE = 9  # a tolerance profile, which belongs to a model and to no chain


def compute_hash(domain: HashDomain, *parts: bytes) -> Hash:
    """SHA-256 over the domain byte and the parts; the caller makes the boundaries between parts unambiguous."""
    digest = sha256(bytes((domain,)))
    for part in parts:
        digest.update(part)
    return digest.digest()


def compute_stream(domain: HashDomain, length: int, *parts: bytes) -> bytes:
    """`length` bytes of SHAKE256 over the domain byte and the parts: the source of every draw."""
    return shake_256(bytes((domain,)) + b"".join(parts)).digest(length)


class SigningKey:
    """An Ed25519 key pair made from a 32-byte seed; signing is deterministic (RFC 8032)."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        self.public: Final[PublicKey]
        self.public, self._secret = bindings.crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> Signature:
        """The 64-byte signature of a message that `signing_bytes` (or a vote's fixed layout) made."""
        return bindings.crypto_sign(message, self._secret)[:64]


def signing_bytes(domain: SignatureDomain, chain: ChainId, body: bytes) -> bytes:
    """What is signed for a body: magic, domain, chain id and the body's SHA-256."""
    return MAGIC + bytes((domain,)) + chain + sha256(body).digest()


def is_signature_valid(public: PublicKey, message: bytes, signature: Signature) -> bool:
    """Whether this key signed these bytes."""
    try:
        bindings.crypto_sign_open(signature + message, public)
    except exceptions.BadSignatureError:
        return False
    return True
