"""The reference pages that are generated, so that they cannot drift: docs/configuration.md from node/config.py, docs/rpc.md from the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from node.config import CONFIG_VERSION, ENVIRONMENT_PREFIX, Config
from node.faults import CONSEQUENCES, RpcCode
from node.jsonrpc import MAX_BATCH
from node.rpc import REGISTRY
from protocol.units import MAX_UINT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from node.jsonrpc import Method

DOCS = Path(__file__).resolve().parents[2] / "docs"

CONFIGURATION_HEAD = f"""# Configuration

Generated from node/config.py by `make docs`; a test fails where it is not current.

A node reads `config.toml` in its home once, when it starts. `quorate init` writes that file; it can be edited by hand. Its first line is
`version = {CONFIG_VERSION}`. Each setting is taken from the first of these that names it: an option of `quorate run` (`--set SECTION.KEY=VALUE` for
those without an option of their own), the environment (`{ENVIRONMENT_PREFIX}SECTION__KEY`, lists separated by commas), the file, the default.
A key that nobody knows is an error, which names the nearest one. Relative paths start from the file's directory, elsewhere from the
current one.

What the network agrees on (pace, windows, fees, bonds) is no configuration: it is in the genesis, which `quorate genesis show` prints.

```toml
version = {CONFIG_VERSION}

[network]
listen_host = "192.0.2.1"
peers = ["{"ab" * 32}@192.0.2.2:7550"]

[inference]
models = ["/srv/models/arith-s"]
```
"""

RPC_HEAD = f"""# JSON-RPC

Generated from the registry of methods by `make docs`; a test fails where it is not current. `rpc.discover` answers with the same as an
OpenRPC document, with JSON Schemas.

JSON-RPC 2.0 at `POST /rpc`, with `content-type: application/json`, parameters by name or by position, up to {MAX_BATCH} calls a batch. Beside it
`GET /livez` (200 while the node's loop turns) and `GET /readyz` (200 ready, 206 syncing, 503 not; with every check, its reason and its cure).

The address is in `run/api` in the home; by default it is `http://127.0.0.1:7551`. On loopback no token is needed, but calls from web pages are
refused. Elsewhere, and wherever `rpc.token_file` is set, calls need the header `authorization: Bearer TOKEN`.

```sh
curl -s http://127.0.0.1:7551/rpc -H 'content-type: application/json' \\
  -d '{{"jsonrpc": "2.0", "id": 1, "method": "node_status"}}'
```

Hashes and ids are in hexadecimal, bytes in base64, money in micro-units (1,000,000 are one unit), times in milliseconds. Jobs are signed and paid
by the account of the node that is asked. An error is `{{"code", "message", "data": {{"reason", "retryable", "cure"}}}}`; programs go by `reason`;
[errors.md](errors.md) lists the cases.
"""


def render_configuration() -> str:
    """docs/configuration.md as it should be."""
    parts = [CONFIGURATION_HEAD]
    for section in msgspec.structs.fields(Config):
        parts += [f"## [{section.name}]", "", _first_line(section.type), ""]
        parts += ["| key | default | allowed | meaning |", "|---|---|---|---|"]
        for field in msgspec.structs.fields(section.type):
            allowed, meaning = _describe_type(field.type)
            parts.append(f"| `{field.name}` | {_show_default(field.default)} | {allowed} | {meaning} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def render_rpc() -> str:
    """docs/rpc.md as it should be."""
    kinds: dict[str, type[msgspec.Struct]] = {}
    parts = [RPC_HEAD, "## Methods", ""]
    for method in REGISTRY.values():
        parts += _render_method(method)
        kinds |= {kind.__name__: kind for kind in _list_structs(method.result)}
        kinds |= {kind.__name__: kind for field in _fields(method.parameters) for kind in _list_structs(field.type)}
    parts += ["## Types", ""]
    for name, kind in sorted(kinds.items()):
        parts += [f"### {name}", "", _first_line(kind), "", *_render_fields(kind), ""]
    parts += ["## Error codes", "", "| code | name |", "|---|---|"]
    parts += [f"| {int(code)} | {code.name.lower()} |" for code in RpcCode]
    return "\n".join(parts).rstrip() + "\n"


PAGES: dict[str, Callable[[], str]] = {"configuration.md": render_configuration, "rpc.md": render_rpc}


def write_pages() -> None:
    """Puts the pages where they are read."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), "utf-8")


def _render_method(method: Method) -> Iterator[str]:
    yield from (f"### {method.name}", "", method.summary, "")
    if _fields(method.parameters):
        yield from (_first_line(method.parameters), "", *_render_fields(method.parameters), "")
    yield from (f"Result: {_name_type(method.result)}.", "")
    if method.errors:
        reasons = (f"`{reason.value}` ({int(CONSEQUENCES[reason].rpc)})" for reason in method.errors)
        yield from (f"Errors: {', '.join(reasons)}.", "")


def _render_fields(kind: type[msgspec.Struct]) -> Iterator[str]:
    fields = _fields(kind)
    has_defaults = kind.__struct_config__.forbid_unknown_fields  # a parameter may be left out; a result is always whole
    yield from (("| name | type | default |", "|---|---|---|") if has_defaults else ("| name | type |", "|---|---|"))
    for field in fields:
        row = f"| `{field.encode_name}` | {_name_type(field.type)}{_describe_bounds(field.type)} |"
        default = "required" if field.required else _show_default(_get_default(field))
        yield f"{row} {default} |" if has_defaults else row


def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _split(hint: object) -> tuple[object, list[Meta]]:
    """A type and what was noted of it, without the nesting that aliases bring."""
    metas: list[Meta] = []
    while get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        metas = [note for note in notes if isinstance(note, Meta)] + metas
    return hint, metas


def _parts(hint: object) -> tuple[object, ...]:
    return tuple(part for part in get_args(hint) if part is not Ellipsis)


def _is_union(hint: object) -> bool:
    return not isinstance(hint, type) and type(None) in get_args(hint)


def _list_structs(hint: object) -> Iterator[type[msgspec.Struct]]:
    bare, _ = _split(hint)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        yield bare
        for field in _fields(bare):
            yield from _list_structs(field.type)
    elif get_origin(bare) is not Literal:
        for part in _parts(bare):
            yield from _list_structs(part)


def _name_type(hint: object) -> str:
    bare, _ = _split(hint)
    if _is_union(bare):
        return " or ".join(_name_type(part) for part in _parts(bare))
    if get_origin(bare) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(bare))
    if get_origin(bare) is tuple:
        return f"list of {_name_type(_parts(bare)[0])}"
    if get_origin(bare) is dict:
        return f"object of {_name_type(get_args(bare)[1])}"
    assert isinstance(bare, type), bare
    if issubclass(bare, msgspec.Struct):
        return f"[{bare.__name__}](#{bare.__name__.lower()})" if _fields(bare) else "nothing"
    return {
        int: "integer",
        str: "string",
        bool: "true or false",
        bytes: "base64",
        type(None): "null",
        object: "any",
    }.get(bare, bare.__name__.lower())


def _describe_bounds(hint: object) -> str:
    bare, metas = _split(hint)
    if _is_union(bare):
        return next((text for part in _parts(bare) if (text := _describe_bounds(part))), "")
    found = [meta.description for meta in metas if meta.description]
    found += _list_bounds(metas)
    return f" ({', '.join(found)})" if found else ""


def _list_bounds(metas: list[Meta]) -> list[str]:
    low = next((meta.ge for meta in metas if meta.ge is not None), None)
    high = next((meta.le for meta in metas if meta.le is not None), None)
    short = next((meta.min_length for meta in metas if meta.min_length is not None), None)
    long = next((meta.max_length for meta in metas if meta.max_length is not None), None)
    found: list[str] = []
    if low is not None and high is not None and high < MAX_UINT:  # the largest integer of all is no bound worth reading
        found.append(f"{low:,} to {high:,}")
    if long is not None:
        found.append(f"{short or 0} to {long} long")
    return found


def _describe_type(hint: object) -> tuple[str, str]:
    """What a setting may be, and what it means; each says what it means."""
    bare, metas = _split(hint)
    meaning = next(meta.description for meta in metas if meta.description)
    if get_origin(bare) is Literal:
        return _name_type(bare), meaning
    if get_origin(bare) is tuple:
        longest = next(meta.max_length for meta in metas if meta.max_length is not None)
        return f"at most {longest:,} {_name_type(_parts(bare)[0])}s", meaning
    named = " or ".join(_name_type(part) for part in _parts(bare) if part is not type(None)) or _name_type(bare)
    bounds = [text for text in _list_bounds(metas) if "long" not in text]
    return ", ".join(bounds) if bounds else named, meaning


def _get_default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _show_default(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):
        return "its defaults"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"
