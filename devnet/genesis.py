"""The beginning of a network on one machine: equal validators from the keys of their homes, the shipped models' cards, full accounts."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.faults import Fault, Trouble
from node.keys import NodeKey
from protocol.genesis import Genesis, GenesisAccount, GenesisValidator
from protocol.jobs.beacon import Onion
from protocol.models import ModelCard, compute_model_id
from protocol.params import DEVNET, PROTOCOL_VERSION, UNIT
from protocol.units import Hash, Milliseconds, NodeId
from protocol.validators import MAX_VALIDATORS
from verifier.card import CARD_FILE, ModelRefused, load_card

MODELS: Final = Path(__file__).parent / "models"
DEFAULT_MODEL: Final = "arith-s"
STAKE: Final = 1_000 * UNIT  # equal, and far above what any number of open jobs can lock
BALANCE: Final = 1_000_000 * UNIT  # nobody should have to think of money on a devnet
_NAME_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Founder:
    """A validator of the first hour: its account and the tip of its hash onion."""

    node: NodeId
    onion_tip: Hash


def make_founder(key: NodeKey) -> Founder:
    """What the genesis says of a node; about half a second of hashing."""
    return Founder(key.node, Onion(key.onion_secret).tip)


def list_shipped_models() -> list[str]:
    """The names of the models in devnet/models."""
    return sorted(card.parent.name for card in MODELS.glob(f"*/{CARD_FILE}"))


def find_model(name: str) -> Path:
    """A shipped model's directory.

    Raises: Fault(BAD_MODEL) listing those there are.
    """
    if name not in list_shipped_models():
        raise Fault(
            Trouble.BAD_MODEL,
            f"expected a shipped model, got {name!r}",
            cure=f"choose among {', '.join(list_shipped_models())}",
        )
    return MODELS / name


def load_shipped_card(name: str) -> ModelCard:
    """A shipped model's card; whether the weights are those it pins is checked by whoever loads them.

    Raises: Fault(BAD_MODEL).
    """
    try:
        return load_card(find_model(name))
    except ModelRefused as error:
        raise Fault(Trouble.BAD_MODEL, str(error)) from error


def build_genesis(
    founders: Sequence[Founder], cards: Sequence[ModelCard], seed: Hash, time_ms: Milliseconds
) -> Genesis:
    """A network of equal validators that all serve every model.

    The name has the seed's first digits in it, so that people can tell two devnets apart as well as nodes can.
    """
    assert 1 <= len(founders) <= MAX_VALIDATORS, len(founders)
    serves = tuple(sorted(compute_model_id(card) for card in cards))
    return Genesis(
        version=PROTOCOL_VERSION,
        name=f"devnet-{seed[:_NAME_BYTES].hex()}",
        time_ms=time_ms,
        seed=seed,
        params=DEVNET,
        validators=tuple(GenesisValidator(founder.node, STAKE, founder.onion_tip, serves) for founder in founders),
        accounts=tuple(GenesisAccount(founder.node, BALANCE) for founder in founders),
        models=tuple(cards),
    )


def draw_seed() -> Hash:
    """A seed that no other network has."""
    return secrets.token_bytes(32)
