"""The files of trust: a chain file ("QRS": the changes of a validator set) and a trusted header ("QRT"), and their bytes.

A chain file only ever grows: a newer one of the same chain begins with the steps of an older one. What the steps prove is trust.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, TypeVar

from msgspec import Meta

from protocol.codec import Codec, Message, encode
from protocol.errors import InvalidMessage, InvalidTrust, Rejection
from protocol.genesis import Genesis
from protocol.trust import MAX_STEP_BYTES, ChainStep, Trust, TrustedHeader, trust_header, walk_steps
from protocol.units import ChainId

FILE_VERSION: Final = 1
MAX_STEPS: Final = 4096  # of 12 KiB and 4 ms each with 100 validators; beyond it a trusted header is the better root
MAX_CHAIN_FILE_BYTES: Final = MAX_STEPS * MAX_STEP_BYTES
MAX_TRUSTED_HEADER_BYTES: Final = MAX_STEP_BYTES
CHAIN_MAGIC: Final = b"QRS"
HEADER_MAGIC: Final = b"QRT"

M = TypeVar("M", bound=Message)


class ChainFile(Message, frozen=True):
    """The changes of a chain's validator set, ascending: all since the genesis, or all since some epoch."""

    chain_id: ChainId
    steps: Annotated[tuple[ChainStep, ...], Meta(max_length=MAX_STEPS)]


_CHAIN_CODEC: Final = Codec[ChainFile](ChainFile, MAX_CHAIN_FILE_BYTES)
_HEADER_CODEC: Final = Codec[TrustedHeader](TrustedHeader, MAX_TRUSTED_HEADER_BYTES)


def name_chain_file(chain: ChainId) -> str:
    """What the file beside certificates is called: all certificates of a chain share it."""
    return f"{chain.hex()[:12]}.qrs"


def encode_chain_file(chain: ChainId, steps: Sequence[ChainStep]) -> bytes:
    """The file's bytes."""
    return CHAIN_MAGIC + bytes((FILE_VERSION,)) + encode(ChainFile(chain, tuple(steps)))


def decode_chain_file(encoded: bytes) -> ChainFile:
    """The steps in a file's bytes; whether they hold is for `follow_chain_file`.

    Raises: InvalidTrust(MALFORMED | NEWER_VERSION | TOO_LARGE | NOT_CANONICAL).
    """
    return _decode(encoded, CHAIN_MAGIC, _CHAIN_CODEC, "chain file")


def encode_trusted_header(trusted: TrustedHeader) -> bytes:
    """The file's bytes."""
    return HEADER_MAGIC + bytes((FILE_VERSION,)) + encode(trusted)


def decode_trusted_header(encoded: bytes) -> TrustedHeader:
    """The header in a file's bytes; whether it is one of the chain is for `read_trust`.

    Raises: InvalidTrust(MALFORMED | NEWER_VERSION | TOO_LARGE | NOT_CANONICAL).
    """
    return _decode(encoded, HEADER_MAGIC, _HEADER_CODEC, "trusted header")


def read_trust(genesis: Genesis, encoded: bytes) -> Trust:
    """Trust in the header of a file. Raises: InvalidTrust."""
    trusted = decode_trusted_header(encoded)
    try:
        return trust_header(genesis, trusted)
    except InvalidMessage as error:
        raise _distrust(error, "trusted header") from error


def follow_chain_file(trust: Trust, encoded: bytes) -> Trust:
    """The trust that a chain file leads to. Raises: InvalidTrust."""
    chain = decode_chain_file(encoded)
    if chain.chain_id != trust.chain:
        raise InvalidTrust(
            Rejection.WRONG_CHAIN,
            f"this chain file is of chain {chain.chain_id.hex()[:12]}, the genesis given is of {trust.chain.hex()[:12]}: use its own",
        )
    try:
        return walk_steps(trust, chain.steps)
    except InvalidMessage as error:
        raise _distrust(error, "chain file") from error


def _decode(encoded: bytes, magic: bytes, codec: Codec[M], what: str) -> M:
    head, version, body = encoded[:3], encoded[3:4], encoded[4:]
    if head != magic or not version or version == b"\x00":
        raise InvalidTrust(
            Rejection.MALFORMED,
            f"this is no {what}: expected a file that starts with {magic.decode()} and a version, got {encoded[:4].hex() or 'nothing'}",
        )
    if version[0] > FILE_VERSION:
        raise InvalidTrust(
            Rejection.NEWER_VERSION,
            f"this {what} has format {version[0]}, this program reads up to {FILE_VERSION}: install a newer quorate",
        )
    try:
        return codec.decode(body)
    except InvalidMessage as error:
        raise InvalidTrust(
            error.reason, f"this {what} is truncated or altered ({error}): fetch it again, from another node"
        ) from error


def _distrust(error: InvalidMessage, what: str) -> InvalidTrust:
    return InvalidTrust(error.reason, f"this {what} does not hold ({error}): fetch it again, from another node")
