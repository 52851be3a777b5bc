"""An operator's own model directory: what `quorate models card` writes, checks and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from node.faults import Exit
from verifier.card import CARD_FILE, load_card

ARITH = Path(__file__).resolve().parents[3] / "devnet" / "models" / "arith-s"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model as it comes from elsewhere: no card."""
    copy = tmp_path / "Mine"
    shutil.copytree(ARITH, copy, ignore=shutil.ignore_patterns(CARD_FILE))
    return copy


def test_a_card_pins_the_files_and_can_be_served(quorate, directory) -> None:
    code, out, _ = quorate("models", "card", directory, "--json")
    made = json.loads(out)
    assert (code, made["name"], made["token_ms"] >= 1) == (Exit.OK, "mine", True)
    card = load_card(directory)
    assert (card.name, card.token_ms, card.manifest) == ("mine", made["token_ms"], load_card(ARITH).manifest)
    line = json.loads(quorate("init", "--home", "a", "--model", directory, "--print-validator")[1])
    assert line["serves"] == [made["model"]]


def test_a_card_is_kept_and_the_files_are_checked_against_it(quorate, directory) -> None:
    first = quorate("models", "card", directory, "--name", "kept", "--token-ms", 7, "--json")[1]
    assert quorate("models", "card", directory, "--name", "other", "--json")[1] == first
    (directory / "tokenizer.json").write_text("{}")
    code, _, err = quorate("models", "card", directory)
    assert (code, "tokenizer.json: expected SHA-256" in err) == (Exit.CONFIGURATION, True)


def change_config(directory: Path, **fields: object) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda directory: (directory / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda directory: (directory / "model.safetensors").write_bytes(b"no weights"), "model.safetensors"),
        (lambda directory: change_config(directory, architectures=["Strange"]), "expected one architecture"),
        (lambda directory: change_config(directory, num_hidden_layers=3), "tensors, 9 are missing"),
        (shutil.rmtree, "config.json"),
    ],
)
def test_what_this_machine_cannot_run_gets_no_card(quorate, directory, spoil, said) -> None:
    spoil(directory)
    code, _, err = quorate("models", "card", directory)
    assert (code, said in err, (directory / CARD_FILE).exists()) == (Exit.CONFIGURATION, True, False), err


@pytest.mark.parametrize("option", [("--name", "Not A Name"), ("--dtype", "float8")])
def test_a_card_that_no_ledger_takes_is_not_written(quorate, directory, option) -> None:
    assert quorate("models", "card", directory, *option)[0] == Exit.CONFIGURATION
    assert not (directory / CARD_FILE).exists()
