"""`quorate bench audit`: what an audit takes beside a bare prefill and beside generating, and what sketching adds to generation.

The measuring is a process of its own (verifier/bench_audit.py), with one thread.
"""

import json
import os
import subprocess
import sys
from typing import Final

from node.faults import Fault, Trouble
from node.render import open_console, print_facts

UNITS: Final = {"audit_over_prefill": " x", "generation_over_audit": " x", "audit_over_states": " x", "rss_mb": " MB"}


def measure_audit(tokens: int, rounds: int, size: str, dtype: str) -> dict[str, float | int | str]:
    """The figures. Raises: Fault where the measuring process fails."""
    wish = ["--tokens", str(tokens), "--rounds", str(rounds), "--size", size, "--dtype", dtype]
    command = [sys.executable, "-P", "-m", "verifier.bench_audit", *wish]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise Fault(
            Trouble.INTERNAL, f"the measuring process ended with {done.returncode}: {done.stderr[-2000:].strip()}"
        )
    return json.loads(done.stdout)


def print_audit(figures: dict[str, float | int | str]) -> None:
    """The figures for people."""
    seconds = {name: " s" for name in figures if name.endswith("_seconds")}
    units = {**UNITS, **seconds}
    facts = [(name.replace("_", " "), f"{value}{units.get(name, '')}") for name, value in figures.items()]
    print_facts(open_console(), facts)
