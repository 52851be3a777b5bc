"""The node's key: one Ed25519 seed, in a file that only its owner reads. Everything secret is derived from it.

The file is PKCS#8 in PEM, as `openssl pkey` reads it; with a passphrase PBES2 (PBKDF2-HMAC-SHA256, AES-256-CBC). One key belongs to one
network: the same hash onion on two networks would show on each what the other is going to draw.
"""

import hmac
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from node.disk import create_file, disk_fault
from node.faults import Fault, Trouble
from protocol.crypto import SigningKey
from protocol.units import NodeId

SEED_BYTES: Final = 32
PASSPHRASE_VARIABLE: Final = "QUORATE_PASSPHRASE"  # noqa: S105 - a name, no secret
PBKDF2_ROUNDS: Final = 600_000  # OWASP's figure of 2023; cryptography's own writer takes 2,048
_MAX_KEY_FILE_BYTES: Final = 16 * 1024
_MAX_PASSPHRASE_BYTES: Final = 1024
_ONION_PURPOSE: Final = b"quorate hash onion 1"
_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A node's secrets. The seed is for the transport, which makes its own key object of it."""

    seed: bytes = field(repr=False)
    signing: SigningKey = field(repr=False)
    onion_secret: bytes = field(repr=False)  # the innermost value of the beacon's first hash onion

    def derive_onion_secret(self, renewals: int) -> bytes:
        """The innermost value of the hash onion after so many renewals; none says anything about another."""
        if renewals == 0:
            return self.onion_secret
        return hmac.digest(self.onion_secret, b"renewal %d" % renewals, "sha256")

    @property
    def node(self) -> NodeId:
        """The public key: the node's name and account."""
        return self.signing.public


def derive_key(seed: bytes) -> NodeKey:
    """Everything that follows from a seed."""
    assert len(seed) == SEED_BYTES, len(seed)
    # HMAC with the seed as key is one-way: the onion's reveals say nothing about the seed, and a signature nothing about the onion.
    return NodeKey(seed, SigningKey(seed), hmac.digest(seed, _ONION_PURPOSE, "sha256"))


def create_key(path: Path, passphrase: bytes | None) -> NodeKey:
    """A new key, in a new file; no file is ever replaced.

    Raises: Fault(FILE_EXISTS); StorageFailure.
    """
    seed = os.urandom(SEED_BYTES)
    create_file(path, _encode_pem(seed, passphrase), mode=0o600)
    return derive_key(seed)


def load_key(path: Path, passphrase: bytes | None) -> NodeKey:
    """The key in a file.

    Raises: Fault(PERMISSION) where others may read it; Fault(KEY_LOCKED) where the passphrase is missing or wrong;
    Fault(BAD_KEY) where it is no key; StorageFailure.
    """
    content = _read_private(path)
    is_encrypted = content.lstrip().startswith(_ENCRYPTED)
    if is_encrypted and passphrase is None:
        raise Fault(
            Trouble.KEY_LOCKED,
            f"{path} is encrypted, and no passphrase was given",
            cure=f"give it with --passphrase-file FILE or {PASSPHRASE_VARIABLE}",
        )
    if not is_encrypted and passphrase is not None:
        raise Fault(
            Trouble.BAD_KEY,
            f"{path}: expected an encrypted key, because a passphrase was given, got one that is not encrypted",
            cure="leave the passphrase out, or restore the encrypted file",
        )
    return derive_key(_decode_pem(path, content, passphrase))


def read_passphrase(path: Path | None, environment: Mapping[str, str]) -> bytes | None:
    """The passphrase from a file's first line, else from the environment, else none.

    Raises: Fault(KEY_LOCKED) where it is empty or too long; StorageFailure.
    """
    if path is None:
        given = environment.get(PASSPHRASE_VARIABLE)
        return None if given is None else _check_passphrase(PASSPHRASE_VARIABLE, os.fsencode(given))
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_PASSPHRASE_BYTES + 2)
    except OSError as error:
        raise disk_fault(path, error) from error
    return _check_passphrase(str(path), line.rstrip(b"\r\n"))


def _check_passphrase(source: str, passphrase: bytes) -> bytes:
    if not 1 <= len(passphrase) <= _MAX_PASSPHRASE_BYTES:
        raise Fault(
            Trouble.KEY_LOCKED,
            f"{source}: expected a passphrase of 1 to {_MAX_PASSPHRASE_BYTES} bytes on one line, got {len(passphrase)} bytes",
        )
    return passphrase


def _read_private(path: Path) -> bytes:
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        )  # a named pipe must not hold the start up
    except FileNotFoundError as error:
        raise Fault(Trouble.BAD_KEY, f"there is no key file {path}") from error
    except OSError as error:
        raise disk_fault(path, error) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Fault(Trouble.BAD_KEY, f"{path}: expected a file that holds a key, got something else")
        if found.st_mode & 0o077:
            raise Fault(
                Trouble.PERMISSION,
                f"{path}: expected a key that only its owner may read (mode 0600), got mode {stat.S_IMODE(found.st_mode):04o}",
                cure=f"chmod 600 {path}",
            )
        return os.read(descriptor, _MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise disk_fault(path, error) from error
    finally:
        os.close(descriptor)


def _decode_pem(path: Path, content: bytes, passphrase: bytes | None) -> bytes:
    # Here and not above: whoever needs only paths and names starts faster without it.
    from cryptography.exceptions import InternalError, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if len(content) > _MAX_KEY_FILE_BYTES:
        raise Fault(Trouble.BAD_KEY, f"{path}: expected a key of at most {_MAX_KEY_FILE_BYTES} bytes, got more")
    try:
        key = load_pem_private_key(content, passphrase)
    # InternalError: a seed of another length.
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        if passphrase is not None:  # decrypted with another passphrase, a key looks just like a damaged one
            raise Fault(
                Trouble.KEY_LOCKED, f"{path}: the passphrase does not open it, or the file is damaged"
            ) from error
        raise Fault(
            Trouble.BAD_KEY, f"{path}: expected a private key (PKCS#8 in PEM), got something unreadable"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Fault(Trouble.BAD_KEY, f"{path}: expected an Ed25519 key, got {type(key).__name__.lstrip('_')}")
    return key.private_bytes_raw()


def _encode_pem(seed: bytes, passphrase: bytes | None) -> bytes:
    # RFC 8410: version 0, the algorithm's identifier 1.3.101.112, the seed as an octet string within an octet string.
    key = _der(0x30, _der(0x02, b"\x00"), _der(0x30, bytes.fromhex("06032b6570")), _der(0x04, _der(0x04, seed)))
    if passphrase is None:
        return _armour(b"PRIVATE KEY", key)
    return _armour(b"ENCRYPTED PRIVATE KEY", _encrypt(key, passphrase))


def _encrypt(key: bytes, passphrase: bytes) -> bytes:
    """PBES2 of RFC 8018, laid out here because cryptography's own writer fixes the number of rounds, far too low."""
    from hashlib import pbkdf2_hmac

    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    salt, start = os.urandom(16), os.urandom(16)
    padding = 16 - len(key) % 16
    encryptor = Cipher(
        algorithms.AES256(pbkdf2_hmac("sha256", passphrase, salt, PBKDF2_ROUNDS)), modes.CBC(start)
    ).encryptor()
    sealed = encryptor.update(key + bytes((padding,)) * padding) + encryptor.finalize()
    hmac_sha256 = _der(0x30, bytes.fromhex("06082a864886f70d0209"), _der(0x05))
    rounds = _der(0x02, PBKDF2_ROUNDS.to_bytes(3, "big"))
    derivation = _der(0x30, bytes.fromhex("06092a864886f70d01050c"), _der(0x30, _der(0x04, salt), rounds, hmac_sha256))
    cipher = _der(0x30, bytes.fromhex("060960864801650304012a"), _der(0x04, start))
    scheme = _der(0x30, bytes.fromhex("06092a864886f70d01050d"), _der(0x30, derivation, cipher))
    return _der(0x30, scheme, _der(0x04, sealed))


def _der(tag: int, *parts: bytes) -> bytes:
    """One DER value; everything in a key file is shorter than 256 bytes."""
    content = b"".join(parts)
    length = bytes((len(content),)) if len(content) < 128 else bytes((0x81, len(content)))
    return bytes((tag,)) + length + content


def _armour(label: bytes, der: bytes) -> bytes:
    from base64 import b64encode

    text = b64encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join((b"-----BEGIN " + label + b"-----", *lines, b"-----END " + label + b"-----", b""))
