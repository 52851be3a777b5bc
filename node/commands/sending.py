"""Transactions of a node's own account, as the command line makes them: signed with the key in the home, given to its running node, and
followed until they are final."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from node.faults import Fault, Trouble

if TYPE_CHECKING:
    from node.keys import NodeKey
    from node.rpc_client import NodeClient
    from protocol.transactions import Transaction

VALID_HEIGHTS: Final = 1_024  # as long as the node gives its own jobs
PATIENCE_S: Final = (
    120.0  # an idle network makes a block every few seconds; one that makes none for so long has stopped
)
_CALL_MS: Final = 10_000
_MICRO: Final = 1_000_000
_MAX_UNITS: Final = 10**9

Home: TypeAlias = Annotated[
    Path | None, typer.Option("--home", metavar="DIR", help="The home of the node that signs; it must be running.")
]
Units: TypeAlias = Annotated[str, typer.Argument(metavar="UNITS", help="How much, to six decimals.")]
Model: TypeAlias = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model's name, or its id.")]


@dataclass(frozen=True, slots=True)
class Account:
    """Whose transaction it is: the open key, the running node, and what the account's next transaction begins with."""

    key: "NodeKey"
    client: "NodeClient"
    chain_id: bytes
    nonce: int
    valid_until: int

    @property
    def head(self) -> tuple[bytes, int, int]:
        """Sender, nonce and last valid height."""
        return self.key.node, self.nonce, self.valid_until


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction in a final block."""

    transaction: str
    height: int


def open_account(home: Path | None, passphrase_file: Path | None) -> Account:
    """The account of the node in a home. Raises: Fault."""
    from node.commands.connect import connect
    from node.home import Home as NodeHome
    from node.home import compute_default_home
    from node.keys import load_key, read_passphrase
    from node.rpc_types import AccountParams, AccountResult, NodeStatus, Nothing

    place = home if home is not None else compute_default_home(os.environ)
    key = load_key(NodeHome(place).key, read_passphrase(passphrase_file, os.environ))
    client = connect(None, place)
    status = client.call("node_status", Nothing(), NodeStatus)
    account = client.call("account_get", AccountParams(key.node.hex()), AccountResult)
    return Account(key, client, bytes.fromhex(status.chain_id), account.nonce + 1, status.height + VALID_HEIGHTS)


def send(account: Account, body: "Transaction") -> Sent:
    """The transaction, once it is final. Raises: Fault where the network refuses it, or does not order it in time."""
    return wait_final(account.client, submit(account, body))


def submit(account: Account, body: "Transaction") -> str:
    """The id of a transaction that the node took. Raises: Fault."""
    from node.rpc_types import TransactionParams, TransactionResult
    from protocol.codec import encode
    from protocol.transactions import sign_transaction

    signed = sign_transaction(account.key.signing, account.chain_id, body)
    return account.client.call("tx_submit", TransactionParams(encode(signed)), TransactionResult).transaction


def wait_final(client: "NodeClient", transaction: str, now: Callable[[], float] = time.monotonic) -> Sent:
    """Where a transaction is final. Raises: Fault(TIMED_OUT)."""
    from node.rpc_types import TransactionState, TransactionWaitParams

    deadline = now() + PATIENCE_S
    while now() < deadline:
        state = client.call("tx_wait", TransactionWaitParams(transaction, _CALL_MS), TransactionState)
        if state.height is not None:
            return Sent(transaction, state.height)
    raise Fault(
        Trouble.TIMED_OUT,
        f"transaction {transaction} was taken, but is in no final block after {PATIENCE_S:.0f} s",
        cure="`quorate status` says whether the network makes blocks; send nothing again before it does",
    )


def find_model(account: Account, wanted: str) -> tuple[bytes, str]:
    """The id and name of a registered model. Raises: Fault(UNKNOWN_MODEL)."""
    from node.rpc_types import ModelList, Nothing
    from protocol.errors import Rejection

    models = account.client.call("model_list", Nothing(), ModelList).models
    found = [model for model in models if wanted in (model.name, model.model)]
    if not found:
        names = ", ".join(model.name for model in models) or "none"
        raise Fault(
            Rejection.UNKNOWN_MODEL,
            f"no model {wanted[:80]!r} is registered; registered are: {names}",
            cure="`quorate register-model DIR` registers one",
        )
    return bytes.fromhex(found[0].model), found[0].name


def parse_amount(text: str) -> int:
    """Micro-units, exactly: no binary fraction comes near money."""
    try:
        micro = Decimal(text) * _MICRO
    except InvalidOperation:
        micro = Decimal(-1)
    if not micro.is_finite() or micro != micro.to_integral_value() or not 0 < micro <= _MAX_UNITS * _MICRO:
        raise Fault(Trouble.USAGE, f"expected an amount above 0 with at most six decimals, got {text[:40]!r}")
    return int(micro)


def report_sent(sent: Sent, sentence: str, *, as_json: bool, **fields: object) -> None:
    """Say what became final, and where."""
    from node.render import print_json

    if as_json:
        print_json({"transaction": sent.transaction, "height": sent.height, **fields})
        return
    typer.echo(sentence)
    typer.echo(f"final in block {sent.height}, transaction {sent.transaction}")
