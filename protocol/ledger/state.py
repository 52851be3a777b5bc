"""A block's way into the state: build_block proposes, check_block judges and executes at once (the ABCI-like boundary).

check_block is deterministic: an InvalidBlock means that no honest leader could have built it on this parent.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from protocol.block import Block, Header
from protocol.genesis import Genesis
from protocol.ledger.draft import Ledger
from protocol.transactions import SignedTransaction
from protocol.units import Epoch, Hash, Milliseconds, View


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a leader brings to its own block; candidates are encoded signed transactions in the order they came."""

    epoch: Epoch
    view: View
    proposer: int
    time_ms: Milliseconds  # raised to the parent's time plus the pace
    beacon_reveal: Hash
    candidates: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class BuiltBlock:
    """A leader's block, the state after it, and the candidates that can never be included as things stand."""

    block: Block
    ledger: Ledger
    invalid: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Why a block is wanted: `due` at once; otherwise `next_ms` is when the next window closes (None: nothing is open)."""

    due: bool
    next_ms: Milliseconds | None


def create_genesis(genesis: Genesis) -> tuple[Ledger, Header]:
    """The first state and the header of height 0, view 0, whose hash is the root of the chain. Raises: InvalidGenesis."""
    ...


def build_block(ledger: Ledger, parent: Header, context: BuildContext, *, verified: Container[bytes] = frozenset()) -> BuiltBlock:
    """PrepareProposal. `verified`: encoded transactions whose signatures are known to be good."""
    ...


def check_block(ledger: Ledger, parent: Header, block: Block, *, verified: Container[bytes] = frozenset()) -> Ledger:
    """ProcessProposal and execution: the state after the block. Raises: InvalidBlock."""
    ...


def check_transaction(ledger: Ledger, signed: SignedTransaction, *, pending_nonce: int | None = None) -> None:
    """Admission to the mempool (signature not judged). Raises: InvalidTransaction with a sentence for the command line's user.

    `pending_nonce`: the sender's highest nonce already waiting; nonces up to params.nonce_gap above the next are held for later.
    """
    ...


def has_work(ledger: Ledger, now_ms: Milliseconds) -> Work:
    """Whether a leader should propose at once, transactions aside, and when to look again."""
    ...


def get_onion_gap(ledger: Ledger, parent: Header, view: View) -> tuple[int, int, Hash]:
    """(validator index of the leader of `view`, how many hashes lie between its next reveal and its stored tip, the tip)."""
    ...
