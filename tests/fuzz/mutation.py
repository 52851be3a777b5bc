"""One input made of a target's samples: a few mutations of its form, of its bytes, or of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz.bytewise import MAX_BYTES, mutate_bytes
from tests.fuzz.choices import happens, pick
from tests.fuzz.shapes import Packed, Unreadable
from tests.fuzz.trees import bend_tree, mutate_tree, odd_encodings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fuzz.choices import Choices
    from tests.fuzz.shapes import Shape

MAX_RAW_BYTES = 512


def mutate(sample: bytes, others: Sequence[bytes], shape: Shape, choices: Choices) -> bytes:
    """The sample after one to four mutations, most often such that keep the types; now and then it is nothing but noise."""
    if happens(choices, 50):
        return choices.octets(choices.below(MAX_RAW_BYTES))
    content, is_gentle = sample, not happens(choices, 4)
    for _ in range(pick(choices, (1, 1, 1, 2, 2, 3, 4))):
        content = _mutate_once(content, others, shape, choices, is_gentle=is_gentle)
    return (mutate_bytes(content, others, choices) if content == sample else content)[:MAX_BYTES]


def _mutate_once(content: bytes, others: Sequence[bytes], shape: Shape, choices: Choices, *, is_gentle: bool) -> bytes:
    if not is_gentle and happens(choices, 3):
        return mutate_bytes(content, others, choices)
    try:
        (head, tree), (_, other) = shape.read(content), shape.read(pick(choices, others))
    except Unreadable:
        return mutate_bytes(content, others, choices)
    try:
        if is_gentle:
            return shape.write(head, bend_tree(tree, (tree, other), choices))
        changed = mutate_tree(tree, (tree, other), choices)
        return shape.write(
            head, odd_encodings(changed, choices) if isinstance(shape, Packed) and happens(choices, 6) else changed
        )
    except RecursionError:  # nested deeper than Python's own encoder goes: the bytes of that are in bytewise.py
        return mutate_bytes(content, others, choices)
