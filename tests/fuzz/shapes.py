"""How the bytes of an input become a tree of values and bytes again, so that mutations can respect their form."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from tests.fuzz.trees import SURROGATE, encode_tree

if TYPE_CHECKING:
    from tests.fuzz.trees import Tree

_SURROGATE_MARK = "\\u202e"  # as json writes one of the texts of trees.py; becomes half a character


_HEAD = struct.Struct(">IBQ")


class Unreadable(Exception):
    """These bytes have no such form; they are mutated as bytes."""


class Shape(Protocol):
    """The form of one kind of input."""

    def read(self, content: bytes) -> tuple[bytes, Tree]:
        """A head that is left as it is, and the values. Raises: Unreadable."""
        ...

    def write(self, head: bytes, tree: Tree) -> bytes:
        """The bytes of a head and changed values, whatever these have become."""
        ...


@dataclass(frozen=True)
class Packed:
    """msgpack behind a few bytes that name a kind or a format."""

    prefix: int = 0

    def read(self, content: bytes) -> tuple[bytes, Tree]:
        try:
            return content[: self.prefix], msgspec.msgpack.decode(content[self.prefix :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable from error

    def write(self, head: bytes, tree: Tree) -> bytes:
        return head + encode_tree(tree)


@dataclass(frozen=True)
class Json:
    """A JSON text; one of the odd texts becomes half a character, which Python's own reader lets pass."""

    def read(self, content: bytes) -> tuple[bytes, Tree]:
        try:
            return b"", json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Unreadable from error

    def write(self, head: bytes, tree: Tree) -> bytes:
        try:
            return json.dumps(tree, default=_show).replace(_SURROGATE_MARK, SURROGATE).encode()
        except RecursionError:
            return b"[" * 5_000 + b"]" * 5_000


def _show(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else repr(value)


@dataclass(frozen=True)
class Lines:
    """Text, line by line: TOML, HTTP, PEM."""

    end: bytes = b"\n"

    def read(self, content: bytes) -> tuple[bytes, Tree]:
        return b"", [[line] for line in content.split(self.end)]

    def write(self, head: bytes, tree: Tree) -> bytes:
        return self.end.join(_flatten(tree))


def _flatten(tree: Tree) -> list[bytes]:
    if isinstance(tree, list):
        return (
            [b"".join(_flatten(item)) for item in tree]
            if all(isinstance(item, list) for item in tree)
            else [b"".join(part for item in tree for part in _flatten(item))]
        )
    return [tree] if isinstance(tree, bytes) else [str(tree).encode("utf-8", "replace")]


@dataclass(frozen=True)
class Framed:
    """Messages, each behind its length; a lie about a length is left to bytewise.py."""

    length: str = ">I"
    prefix: int = 0

    def read(self, content: bytes) -> tuple[bytes, Tree]:
        size, at, parts = struct.calcsize(self.length), self.prefix, []
        while at < len(content):
            if at + size > len(content):
                raise Unreadable
            (length,) = struct.unpack_from(self.length, content, at)
            at += size + length
            parts.append(content[at - length : at])
        return content[: self.prefix], parts

    def write(self, head: bytes, tree: Tree) -> bytes:
        parts = [
            part if isinstance(part, bytes) else encode_tree(part)
            for part in (tree if isinstance(tree, list) else [tree])
        ]
        framed = b"".join(struct.pack(self.length, len(part)) + part for part in parts)
        return head + framed


@dataclass(frozen=True)
class Log:
    """A vote log: frames with checksums, which are made right again after a mutation."""

    def read(self, content: bytes) -> tuple[bytes, Tree]:
        at, frames = 0, []
        while at + _HEAD.size + 8 <= len(content):
            length, kind, position = _HEAD.unpack_from(content, at)
            start = at + _HEAD.size + 4
            frames.append([kind, position, content[start : start + length]])
            at = start + length + 4
        if not frames or at != len(content):
            raise Unreadable
        return b"", frames

    def write(self, head: bytes, tree: Tree) -> bytes:
        frames = (
            [frame for frame in tree if isinstance(frame, list) and len(frame) == 3] if isinstance(tree, list) else []
        )
        if not frames or not all(isinstance(frame[2], bytes) for frame in frames):
            return encode_tree(tree)
        salt = int.from_bytes(frames[0][2][-4:], "big")
        return b"".join(self._write_frame(*frame, salt) for frame in frames)

    def _write_frame(self, kind: object, position: object, body: bytes, salt: int) -> bytes:
        fits = isinstance(kind, int) and isinstance(position, int)
        head = _HEAD.pack(len(body), int(kind) & 0xFF, int(position) & (2**64 - 1)) if fits else b"\x00" * _HEAD.size
        return head + struct.pack(">I", zlib.crc32(head, salt)) + body + struct.pack(">I", zlib.crc32(body, salt))


@dataclass(frozen=True)
class Opaque:
    """No form at all."""

    def read(self, content: bytes) -> tuple[bytes, Tree]:
        raise Unreadable

    def write(self, head: bytes, tree: Tree) -> bytes:
        return encode_tree(tree)
