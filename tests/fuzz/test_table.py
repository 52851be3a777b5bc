"""The table names every decoder and every message of the product, and its samples are what the product takes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from protocol.codec import Codec, Message
from protocol.errors import InvalidMessage
from tests.architecture import PACKAGES, load_sources, parse
from tests.fuzz import targets_wire
from tests.fuzz.sites import list_sites
from tests.fuzz.table import EXCUSED, TARGETS
from tests.fuzz.target import judge
from tests.vectors.samples import list_samples

if TYPE_CHECKING:
    from collections.abc import Iterator

ABSTRACT = {"Message", "AccountTransaction"}
OWN = {
    "Opening": "no message carries it yet; tests/verifier tries what reads it",
    "ComputeClass": "only hashed: what is declared of it travels as JSON",
    "_StoredRange": "written by the fetch server, read as a BlockRange",
    "_StoredManifest": "written by the fetch server, read as a Manifest",
    "_Message": "of the measurement in node/bench_votes.py",
}


def test_every_decoder_of_the_product_is_tried_or_excused() -> None:
    named = {site for target in TARGETS.values() for site in target.decodes} | set(EXCUSED)
    found = list_sites()
    assert sorted(found - named) == [], (
        "name these in tests/fuzz/table.py: a new decoder needs a fuzz target, or a reason"
    )
    assert sorted(set(EXCUSED) - found) == [], "these are not in the product any more"
    texts = {source.path: source.text for source in load_sources()}
    stale = [
        site
        for site in named
        for path, _, where in (site.partition("::"),)
        if where.split(".")[-1] not in texts.get(path, "")
    ]
    assert sorted(stale) == [], "these are not in the product any more"


@pytest.mark.parametrize(
    "text, where",
    [
        ("NEW: Final = Codec[New](New, 64)\n", "NEW"),
        ("NEW = Codec(New, 64)\n", "NEW"),
        ("class A:\n    def read(self, b):\n        return msgspec.json.decode(b, type=New)\n", "A.read"),
        ("async def f(b):\n    x = json.loads(b)\n", "f"),
        ("def f(b):\n    return HEAD.unpack_from(b, 3)\n", "f"),
        ("D = msgspec.msgpack.Decoder(New)\n", "D"),
        ("json.loads(b'')\n", "<module>"),
    ],
)
def test_a_new_decoder_is_seen(text: str, where: str) -> None:
    assert list_sites((parse("node/new.py", text),)) == {f"node/new.py::{where}"}


def list_messages() -> Iterator[type[Message]]:
    """Every message type of the product that can be encoded."""
    for source in load_sources():
        if source.package in PACKAGES and "(Message" in source.text:
            importlib.import_module(source.module)
    waiting = [Message]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.split(".")[0] in PACKAGES and kind.__name__ not in ABSTRACT | set(OWN):
            yield kind


def list_parts(value: object) -> Iterator[type]:
    """The types of a value and of everything in it."""
    yield type(value)
    inner = [getattr(value, name) for name in value.__struct_fields__] if isinstance(value, msgspec.Struct) else value
    if isinstance(inner, list | tuple):
        for item in inner:
            yield from list_parts(item)


def list_values() -> Iterator[object]:
    """The samples as values: those of the pinned vectors, and every target's decoded by every codec that takes them."""
    yield from (sample.message for sample in list_samples())
    yield from (message for make in targets_wire.FRAMES.values() for message in make())
    codecs = [Codec(kind, 2**24) for kind in list_messages()]
    for target in TARGETS.values():
        for sample in target.samples():
            for skipped in (0, 1, 4):
                yield from _decode_by_all(codecs, sample[skipped:])


def _decode_by_all(codecs: list[Codec], content: bytes) -> Iterator[object]:
    for codec in codecs:
        try:
            yield codec.decode(content)
        except InvalidMessage:
            continue


def test_every_message_type_of_the_product_is_in_some_sample() -> None:
    sampled = {kind for value in list_values() for kind in list_parts(value)}
    missing = {kind.__name__ for kind in list_messages()} - {kind.__name__ for kind in sampled}
    assert sorted(missing) == [], "add a sample of these to a target of tests/fuzz"


@pytest.mark.parametrize("name", TARGETS)
def test_samples_are_taken_as_far_as_a_target_says(name: str) -> None:
    """Most are good; each is refused by name or leads to a word."""
    target = TARGETS[name]
    words = [judge(target, sample).word for sample in target.samples()]
    assert words and all(words)
    assert sum(word in {"malformed", "not_canonical", "too_large"} for word in words) * 2 <= len(words), words
