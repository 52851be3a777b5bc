from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest

import protocol
from protocol.certificate import check_certificate
from protocol.codec import Message
from protocol.genesis import GENESIS_CODEC
from tests.vectors.generate import FILES, compute_vectors, load_vectors
from tests.vectors.samples import list_samples

if TYPE_CHECKING:
    from collections.abc import Iterator

ABSTRACT = {"AccountTransaction"}  # only what its subclasses start with


@pytest.mark.parametrize("name", FILES)
def test_every_encoding_and_hash_is_as_pinned(name: str) -> None:
    computed, pinned = compute_vectors(name), load_vectors(name)
    assert list(computed) == list(pinned)
    assert {label for label, value in computed.items() if value != pinned[label]} == set()


@pytest.mark.parametrize("sample", list_samples(), ids=lambda sample: sample.name)
def test_the_pinned_bytes_are_read_back(sample) -> None:
    assert sample.codec.decode(bytes.fromhex(load_vectors("messages")[sample.name])) == sample.message


def test_the_pinned_certificate_is_still_valid() -> None:
    pinned = load_vectors("certificate")
    genesis = GENESIS_CODEC.decode(bytes.fromhex(pinned["genesis"]))
    report = check_certificate(bytes.fromhex(pinned["certificate"]), genesis)
    assert (report.decision.name.lower(), report.text, report.job.hex()) == (
        pinned["decision"],
        pinned["text"],
        pinned["job"],
    )


def list_subclasses(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from list_subclasses(child)


def test_every_message_type_of_the_protocol_has_a_vector() -> None:
    for module in pkgutil.walk_packages(protocol.__path__, "protocol."):
        importlib.import_module(module.name)
    kinds = {kind.__name__ for kind in list_subclasses(Message) if kind.__module__.startswith("protocol.")}
    assert kinds - ABSTRACT - {type(sample.message).__name__ for sample in list_samples()} == set()
