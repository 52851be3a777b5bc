"""The entries of votes.wal: each kind comes back as it went in, and foreign bytes are named damage."""

import pytest

from node.application import SIGNATURE_BYTES
from node.disk import DamagedStorage
from node.records import decode_record, encode_record, place_of
from protocol.codec import encode
from protocol.ordering.messages import QuorumCert, Vote, VoteKind

VOTE = Vote(VoteKind.NULL, 0, 7, bytes(32), 1, b"s" * 64)
CERT = QuorumCert(VoteKind.NOTAR, 0, 8, b"h" * 32, (0, 1, 2), (b"s" * 64,) * 3)


@pytest.mark.parametrize("record, place", [(VOTE, (0, 7)), (CERT, (0, 8))], ids=["vote", "cert"])
def test_a_record_comes_back_with_its_place(record: Vote | QuorumCert, place: tuple[int, int]) -> None:
    assert decode_record(encode_record(record)) == record
    assert place_of(record) == place


@pytest.mark.parametrize("encoded", [b"", b"\x00\x90", b"\x07\x90", b"\x01\x90", encode_record(VOTE)[:-1]])
def test_bytes_that_are_no_record_are_damage(encoded: bytes) -> None:
    with pytest.raises(DamagedStorage, match=r"votes\.wal"):
        decode_record(encoded)


def test_a_certificate_is_no_larger_than_a_leader_reckons_with() -> None:
    for validators in (1, 4, 16, 100):
        signers = tuple(range(validators))
        cert = QuorumCert(VoteKind.NULL, 2**40, 2**62, bytes(32), signers, (b"s" * 64,) * validators)
        assert len(encode(cert)) <= SIGNATURE_BYTES * (validators + 1)
