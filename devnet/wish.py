"""What a command line asks a devnet to be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from node.faults import Fault, Trouble

DEFAULT_NODES: Final = 5
MAX_NODES: Final = 32  # each one is two processes; more than that no single machine runs well


@dataclass(frozen=True, slots=True)
class Wish:
    """None and nothing mean: as it is where there is a devnet, as usual where there is none. Cheats by node index."""

    nodes: int | None = None
    cheats: Mapping[int, str] | None = None
    models: tuple[str, ...] = ()


def parse_wish(nodes: int | None, cheats: Sequence[str], models: Sequence[str]) -> Wish:
    """The wish that these options mean; whether its cheats and models exist is for others to say.

    Raises: Fault(USAGE).
    """
    if nodes is not None and not 1 <= nodes <= MAX_NODES:
        raise Fault(Trouble.USAGE, f"expected --nodes between 1 and {MAX_NODES}, got {nodes}")
    return Wish(nodes, _parse_cheats(cheats) or None, tuple(models))


def _parse_cheats(given: Sequence[str]) -> dict[int, str]:
    cheats: dict[int, str] = {}
    for text in given:
        index, _, name = text.partition("=")
        if not index.isascii() or not index.isdigit() or not name:
            raise Fault(
                Trouble.USAGE,
                f"expected --cheat I=NAME with a node's index, got {text[:80]!r}",
                cure="write it as in --cheat 4=small-model",
            )
        cheats[int(index[:6])] = name
    return cheats
