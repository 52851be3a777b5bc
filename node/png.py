"""A picture as a PNG file. The pixels are the answer and what a certificate binds; the file is derived from them."""

import struct
import zlib
from typing import Final

from protocol.models import ImageOutput

_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES: Final = {1: 0, 3: 2}  # channels to PNG's grey and RGB
_LEVEL: Final = 9


def encode_png(picture: ImageOutput) -> bytes:
    """The file, without filters or metadata. Source: PNG specification, third edition (W3C 2025)"""
    row = picture.width * picture.channels
    lines = b"".join(b"\x00" + picture.pixels[at : at + row] for at in range(0, len(picture.pixels), row))
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, _COLOUR_TYPES[picture.channels], 0, 0, 0)
    return (
        _MAGIC
        + _make_chunk(b"IHDR", head)
        + _make_chunk(b"IDAT", zlib.compress(lines, _LEVEL))
        + _make_chunk(b"IEND", b"")
    )


def _make_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
