"""Frames and fetches: what one node encodes another decodes, and nothing else is accepted."""

import pytest

from node.wire import (
    FETCH_REQUEST_CODEC,
    FetchBlocks,
    FetchBody,
    FetchCert,
    FetchOutput,
    FetchSnapshot,
    FetchSnapshotChunk,
    Frame,
    FrameKind,
    Status,
    TransactionBatch,
    decode_frame,
    encode_frame,
)
from protocol.codec import encode
from protocol.errors import InvalidMessage, Rejection
from protocol.ordering.messages import QuorumCert, Vote, VoteKind

FRAMES: list[Frame] = [
    Vote(VoteKind.NOTAR, 0, 7, b"h" * 32, 1, b"s" * 64),
    QuorumCert(VoteKind.FINAL, 0, 7, b"h" * 32, (0, 2, 3), (b"s" * 64,) * 3),
    TransactionBatch((b"one", b"two")),
    Status(5, b"h" * 32, 1, 0, 9, (b"n" * 32,)),
]


@pytest.mark.parametrize("message", FRAMES, ids=lambda message: type(message).__name__)
def test_a_frame_decodes_to_what_was_encoded(message: Frame) -> None:
    assert decode_frame(encode_frame(message)) == message


@pytest.mark.parametrize("message", FRAMES, ids=lambda message: type(message).__name__)
def test_every_truncation_of_a_frame_is_refused(message: Frame) -> None:
    frame = encode_frame(message)
    for length in range(len(frame)):
        with pytest.raises(InvalidMessage):
            decode_frame(frame[:length])


@pytest.mark.parametrize("kind", [0, 6, 255])
def test_a_frame_of_an_unknown_kind_is_malformed(kind: int) -> None:
    with pytest.raises(InvalidMessage) as refused:
        decode_frame(bytes((kind,)) + b"\x90")
    assert refused.value.reason is Rejection.MALFORMED


def test_an_oversized_vote_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(InvalidMessage) as refused:
        decode_frame(bytes((FrameKind.VOTE,)) + bytes(300))
    assert refused.value.reason is Rejection.TOO_LARGE


@pytest.mark.parametrize(
    "request_",
    [
        *(FetchBlocks(3), FetchBody(b"h" * 32), FetchCert(0, 4), FetchOutput(b"o" * 32, 262_144)),
        *(FetchSnapshot(), FetchSnapshotChunk(256, 2_600)),
    ],
    ids=lambda r: type(r).__name__,
)
def test_a_fetch_request_decodes_to_what_was_encoded(
    request_: FetchBlocks | FetchBody | FetchCert | FetchOutput,
) -> None:
    assert FETCH_REQUEST_CODEC.decode(encode(request_)) == request_
