"""What all simulated ledger nodes of one schedule share: the genesis, the keys, and what has been seen to be final."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from protocol.block import Header
from protocol.codec import encode
from protocol.crypto import SigningKey, is_signature_valid
from protocol.genesis import Genesis, GenesisAccount, GenesisValidator, compute_chain_id
from protocol.jobs.beacon import Onion
from protocol.jobs.settlement import Settlement
from protocol.ledger.draft import Ledger
from protocol.ledger.state import create_genesis
from protocol.models import ModelCard, compute_model_id
from protocol.params import MINIMAL, UNIT, Params
from protocol.transactions import Submit, Transaction, compute_transaction_id, sign_transaction
from protocol.units import Hash, Height, JobId, NodeId
from tests.protocol.builders import make_card, make_hash, make_key, make_synthetic_card
from tests.simulation.invariants import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEDGER_PARAMS: Final = replace(MINIMAL, max_delay_ms=2_000, idle_interval_ms=1_000)
TEXT_CARD: Final = make_card()
IMAGE_CARD: Final = make_synthetic_card()
CARDS: Final = (TEXT_CARD, IMAGE_CARD)
STAKE: Final = 100 * UNIT
BALANCE: Final = 1_000 * UNIT
ONION_LAYERS: Final = 2_048  # more than the views of any schedule


@lru_cache(maxsize=256)
def get_key(name: str) -> SigningKey:
    """The key pair that belongs to a name; schedules use the same few."""
    return make_key(name)


@lru_cache(maxsize=64)
def get_onion(name: str) -> Onion:
    """The onion that belongs to a name."""
    return Onion(make_hash(f"onion {name}"), ONION_LAYERS, 32)


class Notary:
    """Real signatures, each checked once: what a known key has just signed need not be checked again by every node."""

    def __init__(self) -> None:
        self.signed: set[tuple[bytes, bytes, bytes]] = set()

    def make_signer(self, key: SigningKey) -> NotedSigner:
        """A signer with this key."""
        return NotedSigner(self, key)

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether this key signed these bytes."""
        return (public, message, signature) in self.signed or is_signature_valid(public, message, signature)


class NotedSigner:
    """Signs with a real key and lets the notary know."""

    def __init__(self, notary: Notary, key: SigningKey) -> None:
        self.notary = notary
        self.key = key

    def sign(self, message: bytes) -> bytes:
        signature = self.key.sign(message)
        self.notary.signed.add((self.key.public, message, signature))
        return signature


def make_town_genesis(
    seed: int,
    weights: Sequence[int],
    accounts: Sequence[str],
    *,
    serves: Callable[[int], Sequence[ModelCard]] = lambda _: CARDS,
    params: Params = LEDGER_PARAMS,
) -> Genesis:
    """Validators v0, v1, … of these weights, and named accounts."""
    validators = tuple(
        GenesisValidator(
            get_key(f"v{index}").public,
            weight * STAKE,
            get_onion(f"v{index}").tip,
            tuple(compute_model_id(card) for card in serves(index)),
        )
        for index, weight in enumerate(weights)
    )
    owners = (*accounts, *(f"v{index}" for index in range(len(weights))))
    return Genesis(
        version=1,
        name="simulated",
        time_ms=0,
        seed=make_hash(f"schedule {seed}"),
        params=params,
        validators=validators,
        accounts=tuple(GenesisAccount(get_key(name).public, BALANCE) for name in owners),
        models=CARDS,
    )


def break_rule(name: str, text: str) -> None:
    """A broken invariant, outside of a network's watch."""
    raise Violation(name, text)


@dataclass(slots=True)
class Town:
    """One schedule's shared knowledge. `fail` ends the schedule with a broken invariant."""

    genesis: Genesis
    fail: Callable[[str, str], None] = break_rule
    notary: Notary = field(default_factory=Notary)
    verified: set[bytes] = field(default_factory=set)  # every transaction that a known key has signed
    keys: dict[NodeId, SigningKey] = field(default_factory=dict)
    roots: dict[Height, Hash] = field(default_factory=dict)
    submitted: dict[JobId, tuple[Height, Submit]] = field(default_factory=dict)
    settlements: dict[JobId, Settlement] = field(default_factory=dict)
    ledger: Ledger = field(init=False)
    header: Header = field(init=False)
    chain_id: Hash = field(init=False)

    def __post_init__(self) -> None:
        self.ledger, self.header = create_genesis(self.genesis)
        self.chain_id = compute_chain_id(self.genesis)

    def sign(self, key: SigningKey, body: Transaction) -> bytes:
        """An encoded transaction, signed by its author."""
        encoded = encode(sign_transaction(key, self.chain_id, body))
        self.verified.add(encoded)
        return encoded

    def see_state(self, header: Header, ledger: Ledger, bodies: Sequence[Transaction]) -> None:
        """An honest node made a block final: at every height all have the same state root."""
        root = self.roots.setdefault(header.height, ledger.state_root)
        if not root == ledger.state_root == header.state_root:
            self.fail("state-root", f"height {header.height} has two states")
        for body in bodies:
            if isinstance(body, Submit):
                self.submitted.setdefault(compute_transaction_id(body), (header.height, body))

    def see_settlement(self, job: JobId, settlement: Settlement) -> None:
        """An honest node settled a job: every other one settles it in the same way."""
        if self.settlements.setdefault(job, settlement) != settlement:
            self.fail("settlement", f"job {job.hex()[:12]} was settled in two ways")
