"""Small model directories: a Llama that was never trained, over the signs of sums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from devnet.models.train_arith import END, VOCABULARY, build_tokenizer
from devnet.models.training import build_config, build_untrained, save_model
from verifier.model import use_deterministic_settings


@pytest.fixture(autouse=True, scope="session")
def _deterministic() -> None:
    use_deterministic_settings()


def write_untrained(directory: Path, context: int = 64, seed: int = 1) -> Path:
    config = build_config(VOCABULARY, 32, 64, 2, 4, context, is_tied=True)
    save_model(directory, build_untrained(config, seed, 0.3), build_tokenizer(), END, torch.float32, token_ms=20)
    return directory


@pytest.fixture
def make_directory(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model directory and gives its path."""

    def make(name: str = "untrained", context: int = 64, seed: int = 1) -> Path:
        return write_untrained(tmp_path / name, context, seed)

    return make


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One such directory that no test changes."""
    return write_untrained(tmp_path_factory.mktemp("models") / "untrained")
