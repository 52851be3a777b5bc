"""`quorate bench compare`: a billion digest pairs, counted as calibrations do, beside bare numpy and bare faiss in the same run.

The measuring is a process of its own (verifier/bench_compare.py): torch-free, and the memory it reports is nobody else's.
"""

import json
import subprocess
import sys
from typing import Final

from node.faults import Fault, Trouble
from node.render import open_console, print_facts

UNITS: Final = {"seconds": " s", "numpy_seconds": " s", "rss_mb": " MB", "over_numpy": " x", "over_faiss": " x"}


def measure_comparison(pairs: int, rounds: int) -> dict[str, float | int | str]:
    """The figures. Raises: Fault where the measuring process fails."""
    command = [sys.executable, "-P", "-m", "verifier.bench_compare", "--pairs", str(pairs), "--rounds", str(rounds)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Fault(
            Trouble.INTERNAL, f"the measuring process ended with {done.returncode}: {done.stderr[-2000:].strip()}"
        )
    return json.loads(done.stdout)


def print_comparison(figures: dict[str, float | int | str]) -> None:
    """The figures for people."""
    facts = [(name.replace("_", " "), f"{value}{UNITS.get(name, '')}") for name, value in figures.items()]
    if "over_faiss" not in figures:
        facts.append(("faiss", "not installed: pip install 'quorate[calibrate]'"))
    print_facts(open_console(), facts)
