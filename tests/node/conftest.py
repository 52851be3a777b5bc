"""Where the nodes of a test live."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where the system has one: simulated time does not wait, so that the disk's syncs would be all of a test."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="quorate-test-") as path:
        yield Path(path)
