"""Mutations of values: a sample decoded into lists, maps and leaves, one of which becomes another, and encoded again.

What comes out is well-formed as far as it can be, so it gets past the decoder more often than flipped bytes do. Of msgpack every
value has other encodings, too; `odd_encodings` writes those that a canonical decoder must refuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from tests.fuzz.choices import happens, pick

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fuzz.choices import Choices

Tree: TypeAlias = object
"""None, a boolean, an integer, a float, a text, bytes, a list or a map of these; of msgpack also msgspec.Raw."""

INTEGER_EDGES = (
    0, 1, 2, 3, 4, 31, 32, 63, 64, 100, 101, 102, 127, 128, 255, 256, 257, 1_000_000, 1_000_001, 2**16, 2**31, 2**32,
    2**40, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -128, -(2**31), -(2**63),
)  # fmt: skip
LENGTHS = (0, 1, 31, 32, 33, 63, 64, 65, 255, 256, 1_024, 16_384, 16_385)
TEXTS = ("", "x", "\x00", "ÿ" * 32, "0" * 64, "é" * 500, "𝟘", "a" * 70_000, "../../etc", "\u202e", "~nobody/x", "1e400")
SURROGATE = "\\ud800"  # written into JSON as it stands: half a character, which no UTF-8 can hold
REPEATS = (1, 2, 3, 16, 64, 257, 1_025)
DEPTHS = (1, 2, 5, 50, 600)


def mutate_tree(tree: Tree, others: Sequence[Tree], choices: Choices) -> Tree:
    """The tree with one node changed, wherever it stands."""
    if isinstance(tree, list) and tree and not happens(choices, 4):
        at = choices.below(len(tree))
        return [*tree[:at], mutate_tree(tree[at], others, choices), *tree[at + 1 :]]
    if isinstance(tree, dict) and tree and not happens(choices, 4):
        key = pick(choices, list(tree))
        return {**tree, key: mutate_tree(tree[key], others, choices)}
    if isinstance(tree, list):
        return _change_list(tree, others, choices)
    if isinstance(tree, dict):
        return _change_map(tree, others, choices)
    return _change_leaf(tree, others, choices)


def bend_tree(tree: Tree, others: Sequence[Tree], choices: Choices) -> Tree:
    """As `mutate_tree`, but every node keeps its type and most byte strings their length, so that decoders take most of it."""
    if isinstance(tree, list) and tree and not happens(choices, 8 if _is_row(tree) else 64):
        at = choices.below(len(tree))
        return [*tree[:at], bend_tree(tree[at], others, choices), *tree[at + 1 :]]
    if isinstance(tree, dict) and tree and not happens(choices, 64):
        key = pick(choices, list(tree))
        return {**tree, key: bend_tree(tree[key], others, choices)}
    if isinstance(tree, list):
        return _bend_list(tree, others, choices)
    if isinstance(tree, bool) or tree is None or isinstance(tree, dict):
        return _pick_alike(tree, others, choices)
    if isinstance(tree, int):
        return pick(
            choices,
            (
                tree + 1,
                tree + 1,
                max(0, tree - 1),
                tree * 2,
                tree + choices.below(256),
                abs(pick(choices, INTEGER_EDGES)),
            ),
        )
    if isinstance(tree, bytes) and happens(choices, 2):
        flipped = bytearray(tree or b"\x00")
        flipped[choices.below(len(flipped))] ^= 1 << choices.below(8)
        return bytes(flipped)
    return _pick_alike(tree, others, choices)


def _is_row(items: list[Tree]) -> bool:
    """Whether a list has any number of items of one kind; otherwise it is a struct, with as many as it has fields."""
    return len({type(item) for item in items}) <= 1


def _bend_list(items: list[Tree], others: Sequence[Tree], choices: Choices) -> Tree:
    at, other = choices.below(len(items) + 1), choices.below(len(items) + 1)
    match choices.below(5):
        case 0:
            return items[:at] + items[at + 1 :]
        case 1:
            return [*items[:at], *(items[at : at + 1] * pick(choices, REPEATS)), *items[at:]]
        case 2 if at < len(items) and other < len(items):
            swapped = list(items)
            swapped[at], swapped[other] = items[other], items[at]
            return swapped
        case 3:
            return list(reversed(items))
        case _:
            return _pick_alike(items, others, choices)


def _pick_alike(node: Tree, others: Sequence[Tree], choices: Choices) -> Tree:
    """Another node of the same type, and of bytes of the same length, from anywhere in the samples; the node itself where none is met."""
    for _ in range(8):
        found = _pick_node(others, choices)
        if type(found) is type(node) and (not isinstance(node, bytes) or len(found) == len(node)):
            return found
    return node


def _change_list(items: list[Tree], others: Sequence[Tree], choices: Choices) -> Tree:
    at, other = choices.below(len(items) + 1), choices.below(len(items) + 1)
    match choices.below(8):
        case 0:
            return items[:at] + items[at + 1 :]
        case 1:
            return [*items[:at], *(items[at : at + 1] * pick(choices, REPEATS)), *items[at:]]
        case 2 if at < len(items) and other < len(items):
            swapped = list(items)
            swapped[at], swapped[other] = items[other], items[at]
            return swapped
        case 3:
            return [*items[:at], _pick_node(others, choices), *items[at:]]
        case 4:
            return list(reversed(items))
        case 5:
            return items[:at]
        case 6:
            return _nest(items, choices)
        case _:
            return _pick_node(others, choices)


def _change_map(items: dict[str, Tree], others: Sequence[Tree], choices: Choices) -> Tree:
    keys = list(items)
    key = pick(choices, keys) if keys else "x"
    match choices.below(6):
        case 0:
            return {name: value for name, value in items.items() if name != key}
        case 1:
            return {**items, pick(choices, (*keys, "x", *TEXTS)): _pick_node(others, choices)}
        case 2:
            return {f"{name}{'_' if name == key else ''}": value for name, value in items.items()}
        case 3:
            return _nest(items, choices)
        case 4:
            return {**items, key: items.get(pick(choices, keys) if keys else "")}
        case _:
            return _pick_node(others, choices)


def _change_leaf(leaf: Tree, others: Sequence[Tree], choices: Choices) -> Tree:
    if happens(choices, 6):
        return _nest(leaf, choices) if happens(choices, 3) else _pick_node(others, choices)
    if isinstance(leaf, bool) or leaf is None:
        return pick(choices, (True, False, None, 0, 1, b"", [], leaf))
    if isinstance(leaf, int | float):
        return _change_number(leaf, choices)
    if isinstance(leaf, bytes):
        return _change_bytes(leaf, choices)
    if isinstance(leaf, str):
        return pick(choices, (*TEXTS, leaf * 2, leaf[:-1], leaf.upper(), leaf + "\n", leaf[::-1], 0, None, []))
    return leaf


def _change_number(number: float, choices: Choices) -> Tree:
    edge = pick(choices, INTEGER_EDGES)
    near = int(number) + choices.below(5) - 2
    return pick(
        choices, (edge, near, near, int(number) * 2, -int(number), float(number), str(number), True, None, number + 0.5)
    )


def _change_bytes(content: bytes, choices: Choices) -> Tree:
    size = pick(choices, LENGTHS)
    flipped = bytearray(content or b"\x00")
    flipped[choices.below(len(flipped))] ^= 1 << choices.below(8)
    return pick(
        choices,
        (bytes(flipped), bytes(flipped), bytes(size), b"\xff" * size, content[:-1], content + b"\x00", content[::-1], content.hex(), len(content), None),
    )  # fmt: skip


def _nest(node: Tree, choices: Choices) -> Tree:
    for _ in range(pick(choices, DEPTHS)):
        node = [node]
    return node


def _pick_node(others: Sequence[Tree], choices: Choices) -> Tree:
    """Any part of any sample: what belongs elsewhere, or to another message of the same kind."""
    node: Tree = pick(choices, others)
    while isinstance(node, list | dict) and node and not happens(choices, 3):
        node = pick(choices, list(node.values()) if isinstance(node, dict) else node)
    return node


# --- msgpack: what a canonical encoder never writes


def odd_encodings(tree: Tree, choices: Choices) -> Tree:
    """The tree with one node written in another way than the shortest, or with a length that is a lie."""
    if isinstance(tree, list) and tree and not happens(choices, 5):
        at = choices.below(len(tree))
        return [*tree[:at], odd_encodings(tree[at], choices), *tree[at + 1 :]]
    return _write_oddly(tree, choices)


def _write_oddly(node: Tree, choices: Choices) -> Tree:
    written = encode_tree(node)
    match node:
        case bool() | None:
            return msgspec.Raw(pick(choices, (b"\xc1", b"\xc0", b"\xc2", b"\xc3", b"\x00", b"\xd4\x00\x00")))
        case int():
            return msgspec.Raw(_write_integer(node, choices))
        case bytes() | str():
            content = node.encode("utf-8", "replace") if isinstance(node, str) else node
            marks = (b"\xc4", b"\xc5", b"\xc6", b"\xd9", b"\xda", b"\xdb")
            return msgspec.Raw(_write_length(pick(choices, marks), len(content) + choices.below(3) - 1, content))
        case list():
            content = b"".join(encode_tree(item) for item in node)
            return msgspec.Raw(
                _write_length(pick(choices, (b"\xdc", b"\xdd", b"\xde")), len(node) + choices.below(3) - 1, content)
            )
        case _:
            return msgspec.Raw(written)


def _write_integer(number: int, choices: Choices) -> bytes:
    bits = number & (2**64 - 1)
    wide = (
        (b"\xcf", 8),
        (b"\xce", 4),
        (b"\xcd", 2),
        (b"\xcc", 1),
        (b"\xd3", 8),
        (b"\xd2", 4),
        (b"\xd1", 2),
        (b"\xd0", 1),
    )
    mark, size = pick(choices, wide)
    return mark + (bits & (2 ** (8 * size) - 1)).to_bytes(size, "big")


def _write_length(mark: bytes, length: int, content: bytes) -> bytes:
    size = {0xC4: 1, 0xD9: 1, 0xC5: 2, 0xDA: 2, 0xDC: 2, 0xDE: 2}.get(mark[0], 4)
    return mark + min(max(0, length), 2 ** (8 * size) - 1).to_bytes(size, "big") + content


def encode_tree(tree: Tree) -> bytes:
    """The tree as msgpack, numbers out of its range at its edges."""
    return msgspec.msgpack.encode(_fit(tree))


def _fit(tree: Tree) -> Tree:
    if isinstance(tree, list):
        return [_fit(item) for item in tree]
    if isinstance(tree, str):
        return tree.encode("utf-8", "replace").decode()
    if isinstance(tree, int) and not isinstance(tree, bool):
        return max(-(2**63), min(2**64 - 1, tree))
    return tree
