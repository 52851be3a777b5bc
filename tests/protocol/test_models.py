"""Outputs: each has one encoding, and the hash binds all of it."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from protocol.codec import encode
from protocol.errors import InvalidMessage, Rejection
from protocol.models import MAX_PIXEL_BYTES, OUTPUT_CODEC, ImageOutput, StopReason, TextOutput, compute_output_hash

MODEL = b"m" * 32
PICTURE = ImageOutput(MODEL, 2, 3, 1, bytes(range(6)))
TEXT = TextOutput(MODEL, (1, 2), "ab", StopReason.END)


@pytest.mark.parametrize("output", [PICTURE, TEXT, ImageOutput(MODEL, 1, 1, 3, b"rgb")])
def test_an_output_comes_back_as_what_it_is(output: ImageOutput | TextOutput) -> None:
    assert OUTPUT_CODEC.decode(encode(output)) == output


@pytest.mark.parametrize(
    "other",
    [
        replace(PICTURE, pixels=bytes(5) + b"\x06"),
        replace(PICTURE, width=3, height=2),
        replace(PICTURE, width=6, height=1),
        replace(PICTURE, model=b"n" * 32),
        ImageOutput(MODEL, 2, 1, 3, bytes(range(6))),
        TEXT,
    ],
)
def test_the_hash_binds_model_measures_and_pixels(other: ImageOutput | TextOutput) -> None:
    assert compute_output_hash(other) != compute_output_hash(PICTURE)


@pytest.mark.parametrize(
    "fields, said",
    [
        ((2, MODEL, 2, 3, 1, bytes(5)), "a picture of 2 x 3 x 1 has 6 bytes, got 5"),
        ((2, MODEL, 2, 3, 1, bytes(7)), "got 7"),
        ((2, MODEL, 0, 3, 1, b""), "at `$[2]`"),
        ((2, MODEL, 2, 3, 2, bytes(12)), "at `$[4]`"),
        ((2, MODEL, 2**20, 2**20, 3, b"x"), "has 3298534883328 bytes"),
        ((2, MODEL, MAX_PIXEL_BYTES, 1, 3, bytes(MAX_PIXEL_BYTES + 1)), "at `$[5]`"),
        ((2, MODEL[:31], 1, 1, 1, b"x"), "at `$[1]`"),
        ((3, MODEL, 1, 1, 1, b"x"), ""),
        ((1, MODEL, 1, 1, 1, b"x"), ""),
    ],
)
def test_what_is_no_whole_picture_is_not_decoded(fields: tuple[object, ...], said: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        OUTPUT_CODEC.decode(msgspec.msgpack.encode(fields))
    assert caught.value.reason is Rejection.MALFORMED
    assert said in str(caught.value)
