"""PNG files: the pixels come back, read by a decoder of the standard's own rules."""

from __future__ import annotations

import struct
import zlib

import pytest

from node.png import encode_png
from protocol.models import ImageOutput


def read_png(content: bytes) -> tuple[int, int, int, bytes]:
    """Width, height, colour type and pixels of a file without filters; every chunk's checksum is checked."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, list[tuple[bytes, bytes]]()
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks.append((kind, body))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, rest) == (8, [0, 0, 0])
    lines = zlib.decompress(chunks[1][1])
    size = len(lines) // height
    assert all(lines[row * size] == 0 for row in range(height))
    return width, height, colour, b"".join(lines[row * size + 1 : (row + 1) * size] for row in range(height))


@pytest.mark.parametrize("width, height, channels, colour", [(1, 1, 1, 0), (3, 2, 1, 0), (2, 5, 3, 2), (64, 64, 1, 0)])
def test_the_pixels_come_back(width: int, height: int, channels: int, colour: int) -> None:
    pixels = bytes(at * 7 % 256 for at in range(width * height * channels))
    output = ImageOutput(b"m" * 32, width, height, 3 if channels == 3 else 1, pixels)
    assert read_png(encode_png(output)) == (width, height, colour, pixels)
