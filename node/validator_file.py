"""The line by which an operator proposes a node as a validator: what `init --print-validator` prints and `genesis create` takes.

It holds nothing secret: the node's public key, the tip of its hash onion, and the ids of the models it serves.
"""

from pathlib import Path
from typing import Final

import msgspec

from node.config import Config
from node.faults import Fault, Trouble
from node.keys import NodeKey
from node.model_cards import load_cards
from node.rpc_types import Hex32
from protocol.jobs.beacon import Onion
from protocol.models import compute_model_id

MAX_VALIDATOR_BYTES: Final = 64 * 1024


class ValidatorFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One future validator."""

    node: Hex32
    onion_tip: Hex32
    serves: tuple[Hex32, ...] = ()


def describe_validator(key: NodeKey, config: Config) -> ValidatorFile:
    """This node as a validator; its onion's tip takes about a second to compute."""
    serves = tuple(compute_model_id(card).hex() for card in load_cards(config.inference.models))
    return ValidatorFile(key.node.hex(), Onion(key.onion_secret).tip.hex(), serves)


def load_validator(path: Path) -> ValidatorFile:
    """The validator in a file. Raises: Fault(NO_SUCH_FILE | BAD_GENESIS)."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_VALIDATOR_BYTES + 1)
    except OSError as error:
        raise Fault(Trouble.NO_SUCH_FILE, f"the validator file {path} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(content, type=ValidatorFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Fault(
            Trouble.BAD_GENESIS,
            f"{path} is no validator's line: {error}",
            cure="make it with `quorate init --print-validator`",
        ) from error
