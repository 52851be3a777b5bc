"""Model cards out of model directories, each file checked against its hash. No torch: hashes need no tensors."""

from collections.abc import Iterable
from pathlib import Path

from node.faults import Fault, Trouble
from protocol.models import ModelCard
from verifier.card import ModelRefused, check_files, load_card


def load_cards(directories: Iterable[Path]) -> tuple[ModelCard, ...]:
    """The card of each directory. Raises: Fault(BAD_MODEL) naming the file that differs."""
    return tuple(load_checked_card(directory) for directory in directories)


def load_checked_card(directory: Path) -> ModelCard:
    """The card of a directory whose files have the hashes it lists. Raises: Fault(BAD_MODEL)."""
    try:
        card = load_card(directory)
        check_files(directory)
    except ModelRefused as error:
        raise Fault(Trouble.BAD_MODEL, str(error)) from error
    return card
