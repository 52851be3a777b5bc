"""The agreed beginning of a network: who votes, who owns what, which models are served. Its hash is the chain id."""

from typing import Annotated, Final

from msgspec import Meta

from protocol.codec import Codec, Message, encode
from protocol.crypto import HashDomain, compute_hash
from protocol.models import ModelCard
from protocol.params import PROTOCOL_VERSION, Params
from protocol.units import ChainId, Hash, Micro, Milliseconds, ModelId, NodeId
from protocol.validators import MAX_VALIDATORS, Validator, ValidatorSet

MAX_GENESIS_BYTES: Final = 4 * 1024 * 1024


class GenesisValidator(Message, frozen=True):
    """A first validator: its key, its bonded stake, the tip of its hash onion, the models it serves from the start."""

    node: NodeId
    stake: Annotated[int, Meta(ge=1, le=2**53)]
    onion_tip: Hash
    serves: Annotated[tuple[ModelId, ...], Meta(max_length=64)]


class GenesisAccount(Message, frozen=True):
    """An account that exists from the start."""

    node: NodeId
    balance: Micro


class Genesis(Message, frozen=True):
    """Everything that the first state and the first leader schedule are computed from."""

    version: Annotated[int, Meta(ge=1, le=PROTOCOL_VERSION)]
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*\Z")]
    time_ms: Milliseconds
    seed: Hash  # of the first leader schedule and the first beacon
    params: Params
    validators: Annotated[tuple[GenesisValidator, ...], Meta(min_length=1, max_length=MAX_VALIDATORS)]
    accounts: Annotated[tuple[GenesisAccount, ...], Meta(max_length=10_000)]
    models: Annotated[tuple[ModelCard, ...], Meta(max_length=256)]


GENESIS_CODEC: Final = Codec[Genesis](Genesis, MAX_GENESIS_BYTES)


def compute_chain_id(genesis: Genesis) -> ChainId:
    """The chain's name: every signature is bound to it."""
    return compute_hash(HashDomain.GENESIS, encode(genesis))


def compute_validator_set(genesis: Genesis) -> ValidatorSet:
    """The first validator table, in the genesis' order, weighted by bonded stake."""
    return ValidatorSet(tuple(Validator(entry.node, entry.stake) for entry in genesis.validators))
