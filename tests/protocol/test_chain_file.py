from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.chain_file import (
    MAX_CHAIN_FILE_BYTES,
    MAX_TRUSTED_HEADER_BYTES,
    decode_chain_file,
    decode_trusted_header,
    encode_chain_file,
    encode_trusted_header,
    follow_chain_file,
    read_trust,
)
from protocol.errors import InvalidTrust, Rejection
from protocol.trust import Trust, trust_genesis
from tests.protocol.builders import make_genesis
from tests.protocol.trusts import Line, make_line

if TYPE_CHECKING:
    from collections.abc import Callable


@cache
def made() -> tuple[Line, bytes, bytes]:
    """A chain, its chain file, and a trusted header of it that brings its votes."""
    line = make_line()
    chain = trust_genesis(line.genesis).chain
    return line, encode_chain_file(chain, line.list_steps()), encode_trusted_header(line.make_trusted(30))


def follow(encoded: bytes) -> Trust:
    return follow_chain_file(trust_genesis(made()[0].genesis), encoded)


def read(encoded: bytes) -> Trust:
    return read_trust(made()[0].genesis, encoded)


def refuse(act: Callable[[], object]) -> Rejection:
    with pytest.raises(InvalidTrust) as caught:
        act()
    assert str(caught.value)
    return caught.value.reason


READERS = pytest.mark.parametrize("act, index", [(follow, 1), (read, 2)], ids=["chain file", "trusted header"])


def test_files_lead_to_the_trust_that_their_contents_lead_to() -> None:
    line, chain, header = made()
    assert follow(chain).step_count == 4
    assert read(header).root.height == 30
    assert follow_chain_file(read(header), chain).step_count == 2
    assert decode_chain_file(chain).steps == line.list_steps()
    assert decode_trusted_header(header) == line.make_trusted(30)


def test_a_chain_without_a_change_has_a_file_without_steps() -> None:
    trust = trust_genesis(make_genesis())
    assert follow_chain_file(trust, encode_chain_file(trust.chain, ())) == trust


@READERS
def test_every_changed_byte_is_refused(act: Callable[[bytes], object], index: int) -> None:
    chain = trust_genesis(make_line().genesis).chain
    encoded = made()[2] if index == 2 else encode_chain_file(chain, make_line().list_steps()[:2])
    for position in range(len(encoded)):
        changed = bytearray(encoded)
        changed[position] ^= 1 << position % 8
        refuse(lambda: act(bytes(changed)))  # noqa: B023


@READERS
def test_every_truncation_and_any_addition_is_refused(act: Callable[[bytes], object], index: int) -> None:
    encoded = made()[index]
    for length in range(len(encoded)):
        refuse(lambda: act(encoded[:length]))  # noqa: B023
    assert refuse(lambda: act(encoded + b"\x00")) is Rejection.MALFORMED


@READERS
def test_size_is_judged_before_anything_is_decoded(act: Callable[[bytes], object], index: int) -> None:
    encoded = made()[index]
    limit = {1: MAX_CHAIN_FILE_BYTES, 2: MAX_TRUSTED_HEADER_BYTES}[index]
    assert refuse(lambda: act(encoded[:4] + bytes(limit + 1))) is Rejection.TOO_LARGE


@READERS
def test_a_newer_format_is_told_from_a_wrong_file(act: Callable[[bytes], object], index: int) -> None:
    encoded, other = made()[index], made()[3 - index]
    assert refuse(lambda: act(encoded[:3] + b"\x02" + encoded[4:])) is Rejection.NEWER_VERSION
    for wrong in (encoded[:3] + b"\x00" + encoded[4:], encoded[:3], b"", b"QRC\x01", other):
        assert refuse(lambda: act(wrong)) is Rejection.MALFORMED  # noqa: B023


def test_files_of_another_chain_are_refused() -> None:
    _, chain, header = made()
    other = make_genesis(stake=7_000_000_000)
    assert refuse(lambda: follow_chain_file(trust_genesis(other), chain)) is Rejection.WRONG_CHAIN
    assert refuse(lambda: read_trust(other, header)) is Rejection.WRONG_CHAIN
    relabelled = encode_chain_file(trust_genesis(other).chain, decode_chain_file(chain).steps)
    assert refuse(lambda: follow_chain_file(trust_genesis(other), relabelled)) is Rejection.WRONG_CHAIN
    assert refuse(lambda: follow(relabelled)) is Rejection.WRONG_CHAIN


def test_a_newer_file_begins_with_the_older_one() -> None:
    line, chain, _ = made()
    steps = line.list_steps()
    older = follow(encode_chain_file(trust_genesis(line.genesis).chain, steps[:2]))
    assert follow(chain).eras[: len(older.eras)] == older.eras


def list_places(value: object, place: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Where anything stands in nested lists."""
    inner = enumerate(value) if isinstance(value, list) else ()
    return [place, *(each for index, item in inner for each in list_places(item, (*place, index)))]


def swap(value: object, place: tuple[int, ...], other: object) -> object:
    """The nested lists with another value at a place."""
    if not place or not isinstance(value, list):
        return other
    return [swap(item, place[1:], other) if index == place[0] else item for index, item in enumerate(value)]


@READERS
@given(data=st.data())
@settings(max_examples=300)
def test_no_structure_makes_the_check_fail_otherwise_than_by_refusing(
    data: st.DataObject, act: Callable[[bytes], object], index: int
) -> None:
    encoded = made()[index]
    raw: list[object] = msgspec.msgpack.decode(encoded[4:])
    changed: object = raw
    others = st.sampled_from(
        [0, 1, 7, 2**53, 2**63 - 1, 2**64 - 1, None, True, b"", bytes(32), bytes(64), b"\xff" * 64, [], [None], "x"]
    )
    for _ in range(data.draw(st.integers(1, 2))):
        changed = swap(changed, data.draw(st.sampled_from(list_places(changed))), data.draw(others))
    # The votes beside a trusted header may be left out; a chain file without steps says nothing that is wrong.
    harmless = ([*raw[:2], None], raw) if index == 2 else ([raw[0], []], raw)
    if changed in harmless:
        return
    refuse(lambda: act(encoded[:4] + msgspec.msgpack.encode(changed)))


def test_leaving_the_votes_of_a_trusted_header_out_leaves_the_same_root() -> None:
    header = decode_trusted_header(made()[2])
    assert read(encode_trusted_header(replace(header, final_cert=None))).root == read(made()[2]).root
