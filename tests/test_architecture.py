"""What the code may look like, judged on its syntax: who imports whom, the purity of protocol, no sleeps, no swallowed errors.

Each rule is shown a violation as well, since a rule that finds nothing proves nothing.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.architecture import (
    ROOT,
    Source,
    check_cycles,
    check_excepts,
    check_file_length,
    check_function_length,
    check_import_rule,
    check_names,
    check_order,
    check_protocol_imports,
    check_protocol_purity,
    check_sleeps,
    check_strangers,
    list_root_modules,
    load_sources,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Allowances: a place and the reason why the rule gives way there. An entry that is no longer needed fails too.
LONG_FILES: dict[str, str] = {
    "tests/protocol/test_certificate.py": "one certificate, and every way in which it or the quorum behind it can lie",
    "tests/protocol/jobs/test_life_endings.py": "every end a job can come to, on one chain of builders",
    "tests/node/test_storage.py": "one database, and every way in which it can be cut, filled, flipped or opened twice",
    "tests/vectors/samples.py": "a sample of every message type: as long as there are types",
}
LONG_FUNCTIONS: dict[str, str] = {}
BROAD_EXCEPTS: dict[str, str] = {
    "node/run.py::run_node": "trio groups whatever ended the node; the one error that matters leaves as itself",
    "node/libp2p_streams.py::unwrapped": "takes libp2p's five nurseries off a lone exception, and always raises it",
    "node/libp2p_streams.py::broken_on_failure": "libp2p raises whatever its parts raise; it becomes one StreamBroken",
    "node/libp2p_streams.py::reported": "an exception out of a libp2p handler would end the host; it is reported",
    "node/http_connections.py::serve_connections.serve": "what a connection makes hypercorn raise ends that connection alone; reported",
    "tests/fuzz/guided.py::Chunk.feed": "whatever an input makes the product raise is what the fuzzer looks for; it is kept and counted",
}
SLEEPS: dict[str, str] = {}


def test_packages_import_only_downwards() -> None:
    assert list(check_import_rule(load_sources())) == []


def test_ordering_and_jobs_and_ledger_are_strangers() -> None:
    assert list(check_strangers(load_sources())) == []


def test_files_import_only_files_above_them() -> None:
    assert list(check_order(load_sources())) == []


def test_there_is_no_import_cycle() -> None:
    assert list(check_cycles(load_sources())) == []


def test_protocol_imports_only_what_is_pure() -> None:
    assert list(check_protocol_imports(load_sources())) == []


def test_protocol_is_synchronous_and_counts_in_integers() -> None:
    assert list(check_protocol_purity(load_sources())) == []


def test_no_file_is_named_like_the_standard_library() -> None:
    assert list(check_names(load_sources())) == []


def test_only_the_packages_and_tests_can_be_imported_from_the_root() -> None:
    assert list_root_modules(ROOT) == []


@pytest.mark.parametrize(
    "rule, allowed",
    [
        (check_excepts, BROAD_EXCEPTS),
        (check_sleeps, SLEEPS),
        (check_file_length, LONG_FILES),
        (check_function_length, LONG_FUNCTIONS),
    ],
)
def test_every_exception_from_a_rule_has_a_reason_and_is_needed(
    rule: Callable[[tuple[Source, ...]], Iterator[tuple[str, str]]], allowed: dict[str, str]
) -> None:
    found = list(rule(load_sources()))
    assert [sentence for where, sentence in found if where not in allowed] == []
    assert sorted(set(allowed) - {where for where, _ in found}) == [], "allowances that nothing needs any more"


@pytest.mark.parametrize(
    "rule, path, text",
    [
        (check_import_rule, "protocol/codec.py", "def f():\n    import node.engine\n"),
        (check_import_rule, "node/engine.py", "from devnet import launch\n"),
        (check_import_rule, "devnet/launch.py", "import tests.simulation\n"),
        (check_import_rule, "verifier/model.py", "import socket\n"),
        (check_import_rule, "verifier/model.py", "from protocol.ledger import state\n"),
        (check_strangers, "protocol/ordering/votes.py", "from protocol.ledger.state import Ledger\n"),
        (check_strangers, "protocol/jobs/life.py", "import protocol.ordering\n"),
        (check_order, "protocol/units.py", "from protocol.codec import encode\n"),
        (check_order, "protocol/ordering/messages.py", "from protocol.ordering.simplex import step\n"),
        (check_cycles, "node/extra.py", "import node.extra2\n"),
        (check_protocol_imports, "protocol/codec.py", "from datetime import datetime\n"),
        (check_protocol_imports, "protocol/codec.py", "import os.path\n"),
        (check_protocol_imports, "protocol/codec.py", "from math import sqrt\n"),
        (check_protocol_imports, "protocol/codec.py", "import math\n"),
        (check_protocol_imports, "protocol/crypto.py", "from nacl.utils import random\n"),
        (check_protocol_purity, "protocol/codec.py", "HALF = 0.5\n"),
        (check_protocol_purity, "protocol/codec.py", "x = 1 / 2\n"),
        (check_protocol_purity, "protocol/codec.py", "x = 2\nx /= 2\n"),
        (check_protocol_purity, "protocol/codec.py", "def f(a: float): ...\n"),
        (check_protocol_purity, "protocol/codec.py", "async def f(): ...\n"),
        (check_protocol_purity, "protocol/codec.py", "x = open('f')\n"),
        (check_protocol_purity, "protocol/codec.py", "x = hash('f')\n"),
        (check_excepts, "node/engine.py", "try:\n    f()\nexcept:\n    g()\n"),
        (check_excepts, "node/engine.py", "try:\n    f()\nexcept (OSError, Exception):\n    g()\n"),
        (check_excepts, "node/engine.py", "try:\n    f()\nexcept OSError:\n    pass\n"),
        (check_excepts, "node/engine.py", "with suppress(Exception):\n    f()\n"),
        (check_sleeps, "tests/node/test_engine.py", "import time\ntime.sleep(1)\n"),
        (check_sleeps, "tests/node/test_engine.py", "import trio\nasync def test_a():\n    await trio.sleep(1)\n"),
        (check_names, "node/queue.py", ""),
        (check_file_length, "node/engine.py", "\n" * 401),
        (check_function_length, "node/engine.py", "def f():\n" + "    x = 1\n" * 50),
    ],
)
def test_each_rule_sees_a_violation(
    rule: Callable[[tuple[Source, ...]], Iterator[object]], path: str, text: str
) -> None:
    others = (parse("node/extra2.py", "import node.extra\n"), parse("protocol/ledger/state.py", ""))
    assert list(rule((parse(path, text), *others))) != []


def test_a_loose_module_at_the_root_is_seen(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.py").touch()
    (tmp_path / "helper.py").touch()
    assert list_root_modules(tmp_path) == ["docs", "helper.py"]


# --- what a process has loaded, seen from inside a fresh one

HEAVY = ("torch", "transformers", "scipy", "datasketch")


def list_loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Those of the named modules that a fresh interpreter has loaded after running the code."""
    report = f"import sys; print('LOADED', *[name for name in {names!r} if name in sys.modules])"
    wrapped = f"try:\n    {code}\nexcept SystemExit:\n    print('ended')\n{report}\n"
    command = [sys.executable, "-P", "-c", wrapped]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def exists(module: str) -> bool:
    return (ROOT / f"{module.replace('.', '/')}.py").exists()


PROCESSES = [
    ("node.run", "import node.run", HEAVY),
    ("node.cli", "import sys, node.cli; sys.argv = ['quorate', '--help']; node.cli.main()", (*HEAVY, "libp2p")),
    (
        "node.cli",
        "import sys, node.cli; sys.argv = 'quorate verify missing.qrc --genesis missing.json'.split(); node.cli.main()",
        (*HEAVY, "libp2p"),
    ),
]


@pytest.mark.parametrize("code, never", [(code, never) for module, code, never in PROCESSES if exists(module)])
def test_a_process_loads_nothing_heavy(code: str, never: tuple[str, ...]) -> None:
    assert list_loaded(code, never) == []


def test_a_loaded_module_is_seen() -> None:
    assert list_loaded("import json", ("json", "torch")) == ["json"]
