"""genesis.json: a genesis that people can read and compare. Field names for keys, bytes in hexadecimal, enums by name.

The canonical bytes, and so the chain id, come from protocol/genesis.py; this is only another way to write the same values, and reading it
back gives exactly them. `quorate verify` reads it, so nothing heavy is imported here.
"""

import json
import types
from enum import Enum, IntEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from node.disk import disk_fault, replace_file
from node.faults import Fault, Trouble
from protocol.codec import Message, encode
from protocol.errors import InvalidMessage
from protocol.genesis import GENESIS_CODEC, MAX_GENESIS_BYTES, Genesis

MAX_GENESIS_FILE_BYTES: Final = 8 * MAX_GENESIS_BYTES  # hexadecimal, names and indents
M = TypeVar("M", bound=Message)


def write_genesis(path: Path, genesis: Genesis) -> None:
    """Put a genesis in a file, whole and durable.

    Raises: StorageFailure.
    """
    replace_file(path, (json.dumps(describe(genesis), indent=1, ensure_ascii=False) + "\n").encode())


def read_genesis(path: Path) -> Genesis:
    """The genesis in a file. Whether a network can start from it is the protocol's to judge.

    Raises: Fault(NO_SUCH_FILE); Fault(BAD_GENESIS) naming the field; StorageFailure.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_GENESIS_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise Fault(Trouble.NO_SUCH_FILE, f"there is no genesis file {path}") from error
    except OSError as error:
        raise disk_fault(path, error) from error
    try:
        return decode_genesis(content)
    except _Unreadable as error:
        raise Fault(Trouble.BAD_GENESIS, f"{path}: {error}") from error


def decode_genesis(content: bytes) -> Genesis:
    """The genesis that this JSON text says.

    Raises: ValueError naming the field.
    """
    if len(content) > MAX_GENESIS_FILE_BYTES:
        raise _Unreadable(f"expected at most {MAX_GENESIS_FILE_BYTES} bytes, got more")
    try:
        document = json.loads(content.decode(), object_pairs_hook=_unique_keys)
    except _Unreadable:
        raise
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"expected JSON, but {error}") from error
    genesis = _read_message(Genesis, document, "")
    try:
        return GENESIS_CODEC.decode(encode(genesis))  # the limit on the whole
    except InvalidMessage as error:
        raise _Unreadable(str(error)) from error


class _Unreadable(ValueError):
    """Which field is wrong, and how."""


def describe(value: object) -> object:
    """What JSON shows of a message: field names for keys, bytes in hexadecimal, enums by name."""
    match value:
        case msgspec.Struct():
            return {field.name: describe(getattr(value, field.name)) for field in msgspec.structs.fields(value)}
        case bytes():
            return value.hex()
        case Enum():
            return _name_member(value)
        case tuple():
            return [describe(item) for item in cast("tuple[object, ...]", value)]
        case _:
            return value


def _name_member(member: Enum) -> str:
    return member.name.lower().replace("_", "-")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:  # parsers differ in which one they take: two people would read two networks
            raise _Unreadable(f"the field {_shorten(key)} comes twice")
        found[key] = value
    return found


def _read_message(kind: type[M], value: object, path: str) -> M:
    if not isinstance(value, dict):
        raise _Unreadable(f"{path or 'the file'}: expected an object, got {_shorten(value)}")
    given = cast("dict[str, object]", value)
    fields = _list_fields(kind)
    for key in given:
        if key not in fields:
            raise _Unreadable(f"unknown field {_shorten(_join(path, key))}; expected {', '.join(fields)}")
    for name in fields:
        if name not in given:
            raise _Unreadable(f"the field {_join(path, name)} is missing")
    return kind(*(_read_value(hint, given[name], _join(path, name)) for name, hint in fields.items()))


def _read_value(hint: object, value: object, path: str) -> object:
    bare = hint
    while get_origin(bare) is Annotated:
        bare = get_args(bare)[0]
    if isinstance(bare, type) and issubclass(bare, Message):
        return _read_message(bare, value, path)
    plain = value
    if get_origin(bare) is tuple:
        if not isinstance(value, list):
            raise _Unreadable(f"{path}: expected a list, got {_shorten(value)}")
        items = enumerate(cast("list[object]", value))
        plain = tuple(_read_value(get_args(bare)[0], item, f"{path}[{index}]") for index, item in items)
    elif get_origin(bare) in {Union, types.UnionType}:
        raise TypeError(f"a genesis has no choice of types, but {path} is {bare}")
    elif bare is bytes:
        plain = _read_hex(value, path)
    elif isinstance(bare, type) and issubclass(bare, IntEnum):
        plain = _read_member(bare, value, path)
    return _check_bounds(hint, plain, path)


def _read_hex(value: object, path: str) -> bytes:
    # bytes.fromhex skips spaces, and takes capitals: one value, one text.
    if not isinstance(value, str) or len(value) % 2 or not set(value) <= set("0123456789abcdef"):
        raise _Unreadable(f"{path}: expected bytes in small hexadecimal digits, got {_shorten(value)}")
    return bytes.fromhex(value)


def _read_member(kind: type[IntEnum], value: object, path: str) -> IntEnum:
    members = {_name_member(member): member for member in kind}
    if not isinstance(value, str) or value not in members:
        raise _Unreadable(f"{path}: expected one of {', '.join(members)}, got {_shorten(value)}")
    return members[value]


def _check_bounds(hint: object, value: object, path: str) -> object:
    try:
        return msgspec.convert(value, hint, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise _Unreadable(f"{path}: {str(error).replace('`', '')}, got {_shorten(value)}") from error


@cache
def _list_fields(kind: type[Message]) -> dict[str, object]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in msgspec.structs.fields(kind)}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shorten(value: object) -> str:
    text = json.dumps(value.hex() if isinstance(value, bytes) else value, default=str)
    return text if len(text) <= 80 else f"{text[:80]}…"
