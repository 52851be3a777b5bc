"""Canonical bytes <-> messages: the only encoder.

A message is a msgspec Struct, encoded as a msgpack array in field order; a member of a union carries its integer tag first.
msgpack has many encodings of one value, so every decoded message is encoded again and compared: one value, one byte string.
No maps, no floats; integers are bounded by their type (units.py), byte strings and arrays by `Meta` at their field.
"""

from typing import Final, Generic, TypeVar

import msgspec

from protocol.errors import InvalidMessage, Rejection

M = TypeVar("M")

_ENCODER: Final = msgspec.msgpack.Encoder()


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The base of everything that is encoded: frozen, positional, complete."""


def encode(message: object) -> bytes:
    """The canonical bytes of a message (or of a tuple of messages)."""
    return _ENCODER.encode(message)


class Codec(Generic[M]):
    """A decoder for one type (or union of tagged types) with a limit on its size.

    Units: limit in bytes.
    """

    __slots__ = ("_decoder", "_limit", "_name")

    def __init__(self, message_type: object, limit: int) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(message_type)
        self._limit = limit
        self._name = str(getattr(message_type, "__name__", message_type))

    def decode(self, encoded: bytes) -> M:
        """The message that these bytes are the canonical form of.

        Raises: InvalidMessage(TOO_LARGE | MALFORMED | NOT_CANONICAL).
        """
        if len(encoded) > self._limit:
            raise InvalidMessage(Rejection.TOO_LARGE, f"{self._name}: at most {self._limit} bytes, got {len(encoded)}")
        try:
            message = self._decoder.decode(encoded)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidMessage(Rejection.MALFORMED, f"{self._name}: {error}") from error
        if _ENCODER.encode(message) != encoded:
            raise InvalidMessage(
                Rejection.NOT_CANONICAL, f"{self._name}: not in canonical form; encode it with this protocol's codec"
            )
        return message
