"""The rules of tests/test_architecture.py: functions from parsed files to sentences "path:line: what is wrong".

A rule that knows exceptions gives (place, sentence); the place is what an allowance names.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "verifier", "node", "devnet")

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

# A file imports only files above it. A file that is not listed (one split off later) is held only to having no cycle.
ORDER = {
    "protocol": (
        *("units", "errors", "codec", "crypto", "merkle", "digest", "params", "models", "validators", "block"),
        *("genesis", "voting", "evidence", "transactions", "ordering", "jobs", "ledger", "certificate", "gossip"),
    ),
    "protocol.ordering": ("messages", "signatures", "events", "effects", "votes", "simplex"),
    "protocol.jobs": ("beacon", "committee", "agreement", "ranking", "reputation", "life"),
    "protocol.ledger": ("accounts", "pay", "slashing", "state"),
    "node": (
        *("faults", "disk", "telemetry", "timers", "network", "config", "keys", "genesis_file", "home", "wire", "wal"),
        *("storage", "inference", "events", "chain", "ordering", "mempool", "postbox", "member", "errands", "catch_up"),
        *("certificates", "engine", "api", "service", "rpc", "http_server", "assembly", "run", "cli"),
    ),
    "devnet": ("genesis", "launch", "adversaries", "scenarios", "cli"),
}
STRANGERS = (("protocol.ordering", "protocol.jobs"), ("protocol.ordering", "protocol.ledger"))

PROTOCOL_MAY_IMPORT = frozenset(
    {
        *("__future__", "abc", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq", "hmac"),
        *(
            "itertools",
            "math",
            "operator",
            "struct",
            "types",
            "typing",
            "typing_extensions",
            "nacl",
            "msgspec",
            "protocol",
        ),
    }
)
# The rest of math answers in floats, whose last bit differs between machines.
MATH_ON_INTEGERS = frozenset({"isqrt", "gcd", "lcm", "comb", "perm", "factorial", "prod"})
# The world, code from data, and what differs from process to process.
IMPURE_CALLS = frozenset(
    {"open", "input", "print", "eval", "exec", "compile", "__import__", "breakpoint", "hash", "id", "globals", "vars"}
)
VERIFIER_NEVER_IMPORTS = frozenset(
    {"trio", "libp2p", "socket", "ssl", "http", "urllib", "httpx", "requests", "asyncio", "starlette", "hypercorn"}
)


@dataclass(frozen=True, slots=True)
class Source:
    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        return self.path.split("/", 1)[0]


def parse(path: str, text: str) -> Source:
    return Source(path, text, ast.parse(text, path))


@cache
def load_sources() -> tuple[Source, ...]:
    files = sorted(file for top in (*PACKAGES, "tests") for file in (ROOT / top).rglob("*.py"))
    return tuple(parse(file.relative_to(ROOT).as_posix(), file.read_text("utf-8")) for file in files)


@dataclass(frozen=True, slots=True)
class Import:
    line: int
    module: str
    name: str | None


def find_imports(source: Source) -> Iterator[Import]:
    """Every import, also inside functions; a relative one is given by its absolute name."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = source.path.split("/")[: -node.level]
                base = ".".join([*inside, *([node.module] if node.module else [])])
            yield from (Import(node.lineno, base, alias.name) for alias in node.names)


def resolve_target(found: Import, modules: frozenset[str]) -> str:
    """The module that an import reads: `from a import b` reads a.b if that is a module, otherwise a."""
    inner = f"{found.module}.{found.name}"
    return inner if inner in modules else found.module


# --- who imports whom


def check_import_rule(sources: tuple[Source, ...]) -> Iterator[str]:
    for source in sources:
        if source.package not in PACKAGES:
            continue
        above = (*PACKAGES[PACKAGES.index(source.package) + 1 :], "tests")
        for found in find_imports(source):
            top = found.module.split(".")[0]
            if top in above:
                yield f"{source.path}:{found.line}: {source.package} imports {top}; the rule is {' <- '.join(PACKAGES)}, tests by nobody"
            if source.package == "verifier" and top in VERIFIER_NEVER_IMPORTS:
                yield f"{source.path}:{found.line}: verifier imports {top}; it knows no network"
            if source.package == "verifier" and found.module.startswith("protocol.ledger"):
                yield f"{source.path}:{found.line}: verifier imports {found.module}; it knows no ledger state"


def is_inside(module: str, folder: str) -> bool:
    return module == folder or module.startswith(folder + ".")


def check_strangers(sources: tuple[Source, ...]) -> Iterator[str]:
    modules = frozenset(source.module for source in sources)
    for source in sources:
        for found in find_imports(source):
            target = resolve_target(found, modules)
            for one, other in (*STRANGERS, *((b, a) for a, b in STRANGERS)):
                if is_inside(source.module, one) and is_inside(target, other):
                    yield f"{source.path}:{found.line}: {one} imports {target}; neither may know the other"


def check_order(sources: tuple[Source, ...]) -> Iterator[str]:
    modules = frozenset(source.module for source in sources)
    for source in sources:
        for found in find_imports(source):
            target = resolve_target(found, modules)
            for folder, order in ORDER.items():
                if not (source.module.startswith(folder + ".") and target.startswith(folder + ".")):
                    continue
                here, there = (name.removeprefix(folder + ".").split(".")[0] for name in (source.module, target))
                if here in order and there in order and order.index(here) < order.index(there):
                    yield f"{source.path}:{found.line}: imports {target}, which stands below it in {folder}"


def check_cycles(sources: tuple[Source, ...]) -> Iterator[str]:
    modules = frozenset(source.module for source in sources)
    edges = {s.module: {resolve_target(i, modules) for i in find_imports(s)} & modules - {s.module} for s in sources}
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        stack = [(start, False)]
        while stack:
            module, is_leaving = stack.pop()
            if is_leaving:
                done.add(path.pop())
            elif module in path:
                yield f"import cycle: {' -> '.join([*path[path.index(module) :], module])}"
            elif module not in done:
                path.append(module)
                stack.append((module, True))
                stack.extend((target, False) for target in sorted(edges[module]))


# --- protocol is pure


def check_protocol_imports(sources: tuple[Source, ...]) -> Iterator[str]:
    for source in sources:
        if source.package != "protocol":
            continue
        for found in find_imports(source):
            top = found.module.split(".")[0]
            if top not in PROTOCOL_MAY_IMPORT:
                yield f"{source.path}:{found.line}: protocol imports {found.module}; it may use {', '.join(sorted(PROTOCOL_MAY_IMPORT))}"
            if top == "math" and found.name not in MATH_ON_INTEGERS:
                yield f"{source.path}:{found.line}: protocol may take {', '.join(sorted(MATH_ON_INTEGERS))} from math, each by name"
            if top == "nacl" and found.module.startswith(("nacl.utils", "nacl.public", "nacl.secret")):
                yield f"{source.path}:{found.line}: {found.module} draws entropy; protocol is given its bytes"


def find_bound_names(tree: ast.Module) -> frozenset[str]:
    """Names that the module itself defines or imports, so that a function of ours called `hash` is not taken for the builtin."""
    names = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return frozenset(names)


def check_protocol_purity(sources: tuple[Source, ...]) -> Iterator[str]:
    for source in sources:
        if source.package != "protocol":
            continue
        bound = find_bound_names(source.tree)
        for node in ast.walk(source.tree):
            if why := describe_impurity(node, bound):
                yield f"{source.path}:{getattr(node, 'lineno', 0)}: {why}"


def describe_impurity(node: ast.AST, bound: frozenset[str]) -> str:
    match node:
        case ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith() | ast.Await():
            return "protocol is synchronous"
        case ast.Constant(value=float() | complex()):
            return f"{node.value} is a float; protocol counts in integers"
        case ast.Name(id="float" | "complex"):
            return f"{node.id}: protocol counts in integers"
        case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
            return "/ makes a float; use // and say which way it rounds"
        case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS and name not in bound:
            return f"{name}() touches the world or differs between processes"
        case ast.Global() | ast.Nonlocal():
            return "protocol keeps no state outside its values"
        case _:
            return ""


# --- errors are not swallowed, tests do not sleep


def name_of(node: ast.expr | None) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(is_broad(part) for part in caught.elts)
    return caught is None or name_of(caught) in {"Exception", "BaseException", "ExceptionGroup", "BaseExceptionGroup"}


def is_empty(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in body
    )


def check_excepts(sources: tuple[Source, ...]) -> Iterator[tuple[str, str]]:
    for source in sources:
        for node, where in walk_with_place(source):
            if isinstance(node, ast.ExceptHandler) and is_broad(node.type):
                yield where, f"{source.path}:{node.lineno}: catches everything; name the errors that are meant"
            if isinstance(node, ast.ExceptHandler) and is_empty(node.body):
                yield where, f"{source.path}:{node.lineno}: swallows an error; handle it or let it through"
            if isinstance(node, ast.Call) and name_of(node.func) == "suppress" and any(map(is_broad, node.args)):
                yield where, f"{source.path}:{node.lineno}: suppresses everything; name the errors that are meant"


def check_sleeps(sources: tuple[Source, ...]) -> Iterator[tuple[str, str]]:
    """A sleep in a test, but for trio's under its autojump clock, which takes no time and no luck."""
    for source in sources:
        if source.package != "tests":
            continue
        jumps = "autojump_clock" in source.text or "autojump_threshold" in source.text
        for node, where in walk_with_place(source):
            if not (isinstance(node, ast.Call) and name_of(node.func) == "sleep"):
                continue
            owner = name_of(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            if not (jumps and owner == "trio"):
                yield (
                    where,
                    f"{source.path}:{node.lineno}: sleeps; wait for the event itself, or use trio's autojump clock",
                )


def walk_with_place(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Every node with its place, 'path::Class.function', by which an allowance names it."""
    stack: list[tuple[ast.AST, tuple[str, ...]]] = [(source.tree, ())]
    while stack:
        node, inside = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inside = (*inside, node.name)
        yield node, f"{source.path}::{'.'.join(inside)}"
        stack.extend((child, inside) for child in ast.iter_child_nodes(node))


# --- size and names


def check_file_length(sources: tuple[Source, ...]) -> Iterator[tuple[str, str]]:
    for source in sources:
        lines = source.text.count("\n")
        if lines > MAX_FILE_LINES:
            yield source.path, f"{source.path}: {lines} lines; split it, or say in LONG_FILES why not"


def check_function_length(sources: tuple[Source, ...]) -> Iterator[tuple[str, str]]:
    for source in sources:
        for node, where in walk_with_place(source):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    yield (
                        where,
                        f"{source.path}:{node.lineno}: {node.name} has {lines} lines; split it, or say in LONG_FUNCTIONS why not",
                    )


def check_names(sources: tuple[Source, ...]) -> Iterator[str]:
    for source in sources:
        if source.module.split(".")[-1] in sys.stdlib_module_names:
            yield f"{source.path}: named like a module of the standard library"


def list_root_modules(root: Path) -> list[str]:
    """What could be imported from the root besides the four packages and tests; environments and dot folders aside."""
    loose = [file.name for file in root.glob("*.py")]
    folders = [f for f in root.iterdir() if f.is_dir() and f.name.isidentifier() and f.name not in {"build", "dist"}]
    loose += [folder.name for folder in folders if any(folder.glob("*.py"))]
    return sorted(set(loose) - {*PACKAGES, "tests"})
