"""The real `quorate` command, run to its end as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devnet.interruption import Interruption
from devnet.launch import build_environment

_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Finished:
    """How it ended, and what it wrote."""

    code: int
    output: bytes
    errors: bytes

    @property
    def told(self) -> str:
        """The last line that it wrote about how it went."""
        lines = self.errors.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing was said"


def run_quorate(arguments: Sequence[str], directory: Path, interruption: Interruption) -> Finished:
    """`quorate` with these arguments, in this directory.

    Raises: Interrupted, after the process has ended.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "node.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        env=build_environment(os.environ),
        start_new_session=True,
    )
    try:
        while True:
            try:
                output, errors = process.communicate(timeout=_LOOK_S)
                return Finished(process.returncode, output, errors)
            except subprocess.TimeoutExpired:
                interruption.check()
    finally:
        process.kill()
        process.wait()
