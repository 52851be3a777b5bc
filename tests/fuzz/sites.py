"""Every place in the product where bytes, or values read from bytes, become something the program believes in.

Found in the syntax: a Codec that is made, a parser that is called. The table of targets must name each, so none can be forgotten.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.architecture import PACKAGES, Source, load_sources

if TYPE_CHECKING:
    from collections.abc import Iterator

PARSERS = frozenset(
    {
        *(
            "msgspec.msgpack.decode",
            "msgspec.json.decode",
            "msgspec.yaml.decode",
            "msgspec.toml.decode",
            "msgspec.convert",
        ),
        *("json.loads", "json.load", "tomllib.loads", "tomllib.load", "pickle.loads", "pickle.load", "yaml.safe_load"),
        *("load_pem_private_key", "load_der_private_key", "ParseFromString", "FromString", "unpack"),
        *(
            "unpack_from",
            "iter_unpack",
            "b64decode",
            "b58decode",
            "safe_open",
            "load_file",
            "from_file",
            "from_str",
        ),
        *("literal_eval", "MsgpackDecoder"),
    }
)


def list_sites(sources: tuple[Source, ...] | None = None) -> frozenset[str]:
    """The places, as "path::where": the name a codec is bound to, or the function that calls a parser."""
    chosen = load_sources() if sources is None else sources
    return frozenset(site for source in chosen if source.package in PACKAGES for site in _find(source))


def _find(source: Source) -> Iterator[str]:
    yield from _walk(source, source.tree, "")


def _walk(source: Source, node: ast.AST, where: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        inner = where
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{where}.{child.name}" if where else child.name
        elif isinstance(child, ast.Assign | ast.AnnAssign) and not where:
            inner = _name_target(child)
        elif isinstance(child, ast.Call) and _is_parser(child.func):
            yield f"{source.path}::{where or '<module>'}"
        yield from _walk(source, child, inner)


def _name_target(statement: ast.Assign | ast.AnnAssign) -> str:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    return target.id if isinstance(target, ast.Name) else ""


def _is_parser(called: ast.expr) -> bool:
    """Whether a call makes a decoder or parses at once: `Codec[T](...)`, `msgspec.json.decode(...)`, `something.unpack(...)`."""
    if isinstance(called, ast.Subscript):
        called = called.value
    last = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    if last == "Codec" or last.endswith("Decoder") or last in PARSERS:
        return True
    return last in _LAST and ast.unparse(called) in PARSERS


_LAST = frozenset(parser.rsplit(".", 1)[-1] for parser in PARSERS)
