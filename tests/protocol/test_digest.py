from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digest import DIGEST_BYTES, Digest, DigestFamily, compute_distance

DIGESTS = st.binary(min_size=8, max_size=8).map(lambda bits: Digest(DigestFamily.SYNTHETIC64, bits))


@given(DIGESTS, DIGESTS, DIGESTS)
def test_distance_is_a_metric(a: Digest, b: Digest, c: Digest) -> None:
    assert compute_distance(a, a) == 0
    assert (compute_distance(a, b) == 0) == (a == b)
    assert compute_distance(a, b) == compute_distance(b, a)
    assert compute_distance(a, c) <= compute_distance(a, b) + compute_distance(b, c)


def test_distance_counts_different_bits() -> None:
    nothing = Digest(DigestFamily.TEXT_SIMHASH64, bytes(8))
    assert compute_distance(nothing, Digest(DigestFamily.TEXT_SIMHASH64, b"\x01" + bytes(6) + b"\x81")) == 3
    assert compute_distance(nothing, Digest(DigestFamily.TEXT_SIMHASH64, b"\xff" * 8)) == 64


def test_digests_of_different_families_or_lengths_have_no_distance() -> None:
    with pytest.raises(AssertionError):
        compute_distance(Digest(DigestFamily.TEXT_SIMHASH64, bytes(8)), Digest(DigestFamily.SYNTHETIC64, bytes(8)))
    with pytest.raises(AssertionError):
        compute_distance(Digest(DigestFamily.SYNTHETIC64, bytes(8)), Digest(DigestFamily.SYNTHETIC64, bytes(9)))


def test_every_family_has_its_length() -> None:
    assert set(DIGEST_BYTES) == set(DigestFamily)
