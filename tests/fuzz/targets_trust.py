"""The files by which a stranger follows a chain's validators: chain files and trusted headers."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from protocol.chain_file import encode_chain_file, encode_trusted_header, follow_chain_file, read_trust
from protocol.codec import encode
from protocol.trust import STEP_CODEC, trust_genesis, walk_steps
from tests.fuzz.shapes import Packed
from tests.fuzz.target import Target
from tests.protocol.trusts import make_line

if TYPE_CHECKING:
    from protocol.trust import Trust
    from tests.protocol.trusts import Line


@cache
def _get_line() -> tuple[Line, Trust]:
    line = make_line()
    return line, trust_genesis(line.genesis)


def _take_chain_file(content: bytes) -> str:
    return f"{follow_chain_file(_get_line()[1], content).step_count} steps"


def _take_header(content: bytes) -> str:
    """A header that a person vouches for: whatever it says, it is of this chain, and its votes hold where it brings any."""
    return f"epoch {min(9, read_trust(_get_line()[0].genesis, content).root.epoch)}"


def _take_step(content: bytes) -> str:
    """One step by itself, behind the steps of before it."""
    line, trust = _get_line()
    step = STEP_CODEC.decode(content)
    before = [known for known in line.list_steps() if known.header.height < step.header.height]
    return f"{walk_steps(trust, [*before, step]).step_count} steps"


def _list_chain_files() -> list[bytes]:
    line, trust = _get_line()
    return [encode_chain_file(trust.chain, line.list_steps()[:count]) for count in (0, 1, 4)]


def _list_headers() -> list[bytes]:
    line = _get_line()[0]
    return [
        encode_trusted_header(line.make_trusted(height, is_proven=proven))
        for height, proven in ((1, True), (30, True), (30, False))
    ]


TARGETS = (
    Target("chain-file", ("protocol/chain_file.py::_CHAIN_CODEC",), Packed(4), _list_chain_files, _take_chain_file),
    Target("trusted-header", ("protocol/chain_file.py::_HEADER_CODEC",), Packed(4), _list_headers, _take_header),
    Target(
        "chain-step",
        ("protocol/trust.py::STEP_CODEC",),
        Packed(),
        lambda: [encode(step) for step in _get_line()[0].list_steps()],
        _take_step,
    ),
)
