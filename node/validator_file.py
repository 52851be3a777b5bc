"""The line by which an operator proposes a node as a validator: what `init --print-validator` prints and `genesis create` takes.

It holds nothing secret: the node's public key, the tip of its hash onion, the ids of the models it serves, and where it listens.
"""

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from node.config import NetworkSettings, parse_peer_setting
from node.faults import Fault, Trouble
from node.keys import NodeKey
from node.rpc_types import Hex32
from protocol.jobs.beacon import Onion
from protocol.models import ModelCard, compute_model_id

MAX_VALIDATOR_BYTES: Final = 64 * 1024


class ValidatorFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One future validator."""

    node: Hex32
    onion_tip: Hex32
    serves: tuple[Hex32, ...] = ()
    address: Annotated[str, msgspec.Meta(max_length=512)] | None = None  # for the other operators; the genesis has none


def describe_validator(key: NodeKey, network: NetworkSettings, cards: Iterable[ModelCard]) -> ValidatorFile:
    """This node as a validator of these models; its onion's tip takes about a second to compute."""
    serves = tuple(compute_model_id(card).hex() for card in cards)
    return ValidatorFile(key.node.hex(), Onion(key.onion_secret).tip.hex(), serves, describe_address(key, network))


def describe_address(key: NodeKey, network: NetworkSettings) -> str | None:
    """NODEID@HOST:PORT, where the configuration says that much: not if the node listens everywhere, or on a port to be found."""
    host = ipaddress.ip_address(network.listen_host)
    if host.is_unspecified or network.listen_port == 0:
        return None
    shown = f"[{host}]" if host.version == 6 else str(host)
    return f"{key.node.hex()}@{shown}:{network.listen_port}"


def load_validator(path: Path) -> ValidatorFile:
    """The validator in a file. Raises: Fault(NO_SUCH_FILE | BAD_GENESIS)."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_VALIDATOR_BYTES + 1)
    except OSError as error:
        raise Fault(Trouble.NO_SUCH_FILE, f"the validator file {path} cannot be read: {error.strerror}") from error
    try:
        validator = msgspec.json.decode(content, type=ValidatorFile)
        if (
            validator.address is not None
            and parse_peer_setting(validator.address).node_id.hex() != validator.node.lower()
        ):
            raise ValueError(f"its address is another node's: {validator.address[:16]}…")
        return validator
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors, too
        raise Fault(
            Trouble.BAD_GENESIS,
            f"{path} is no validator's line: {error}",
            cure="make it with `quorate init --print-validator`",
        ) from error
