"""Nodes that cheat: `python -P -m devnet.adversaries NAME …` is a worker like `verifier.worker`, but for the lie it tells.

A node runs whatever worker its configuration names (`inference.command`) and knows nothing of cheats; only devnets are given these.
A new cheat is a function from model directories to loaded models, and a row in CHEATS.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devnet.genesis import find_model
from node.faults import Fault, Trouble
from protocol.models import compute_model_id
from verifier.card import load_card

if TYPE_CHECKING:  # torch takes a second to load, and whoever only starts nodes needs none
    from verifier.load import LoadedModel

SMALLER: Final = {"arith-s": "arith-xs", "digits": "digits-xs"}  # a model and the one that passes for it


@dataclass(frozen=True, slots=True)
class Cheat:
    """A way to cheat: what it does, in a few words, and the models that its worker serves in place of those in these directories."""

    name: str
    does: str
    load: "Callable[[Sequence[Path], str], list[LoadedModel]]"


def load_smaller(directories: Sequence[Path], device: str) -> "list[LoadedModel]":
    """Models of which some have a smaller one's weights behind the real one's card."""
    from verifier.load import load_any_model

    models: list[LoadedModel] = []
    for directory in directories:
        smaller = SMALLER.get(directory.name)
        model = load_any_model(find_model(smaller) if smaller else directory, device)
        claimed = load_card(directory)
        models.append(replace(model, id=compute_model_id(claimed), card=claimed))
    return models


CHEATS: Final = {
    cheat.name: cheat
    for cheat in (
        Cheat("small-model", "runs arith-xs, an eighth of the size, while it claims to run arith-s", load_smaller),
    )
}


def find_cheat(name: str) -> Cheat:
    """A cheat by its name.

    Raises: Fault(USAGE) listing those there are.
    """
    if name not in CHEATS:
        raise Fault(
            Trouble.USAGE, f"expected a known cheat, got {name!r}", cure=f"choose among {', '.join(sorted(CHEATS))}"
        )
    return CHEATS[name]


def build_cheat_command(cheat: Cheat, directories: Sequence[Path]) -> tuple[str, ...]:
    """The worker command of a node that cheats."""
    models = [part for directory in directories for part in ("--model", str(directory))]
    return (sys.executable, "-P", "-m", "devnet.adversaries", cheat.name, *models)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves dishonest models until stdin ends."""
    parser = argparse.ArgumentParser(prog="devnet.adversaries", description="A node's worker that cheats.")
    parser.add_argument("cheat", choices=sorted(CHEATS))
    parser.add_argument("--model", action="append", required=True, type=Path, metavar="DIR", help="a model to claim")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options = parser.parse_args(arguments)
    from verifier.worker import run_worker

    run_worker(lambda: CHEATS[options.cheat].load(options.model, options.device))


if __name__ == "__main__":
    main()
