"""`quorate transfer`: units from the node's own account to another one."""

import os
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from node.commands import options
from node.faults import Exit, Fault, Trouble

if TYPE_CHECKING:
    from node.keys import NodeKey
    from node.rpc_client import NodeClient

VALID_HEIGHTS: Final = 1_024  # as long as the node gives its own jobs
_MICRO: Final = 1_000_000
_MAX_UNITS: Final = 10**9


def transfer(
    recipient: Annotated[str, typer.Argument(metavar="NODE", help="Whose account: a node id, 64 hex digits.")],
    units: Annotated[str, typer.Argument(metavar="UNITS", help="How much, to six decimals.")],
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="The home of the node that pays; it must be running.")
    ] = None,
    passphrase_file: options.Passphrase = None,
    as_json: options.Json = False,
) -> int:
    """Send units from a node's account to another account.

    The key in the home signs. Exit code 0: the network has the transfer; `quorate balance NODE` shows when it has arrived.
    """
    from node.commands.connect import connect
    from node.home import Home, compute_default_home
    from node.keys import load_key, read_passphrase
    from node.render import format_units, print_json
    from node.rpc_types import TransactionParams, TransactionResult

    amount, payee = _parse_amount(units), _parse_node(recipient)
    place = home if home is not None else compute_default_home(os.environ)
    key = load_key(Home(place).key, read_passphrase(passphrase_file, os.environ))
    client = connect(None, place)
    signed = _sign(client, key, payee, amount)
    taken = client.call("tx_submit", TransactionParams(signed), TransactionResult)
    if as_json:
        print_json({"transaction": taken.transaction, "recipient": payee.hex(), "amount": amount})
    else:
        typer.echo(f"{format_units(amount)} units are on their way to {payee.hex()}")
        typer.echo(f"transaction {taken.transaction}")
    return Exit.OK


def _parse_amount(text: str) -> int:
    """Micro-units, exactly: no binary fraction comes near money."""
    try:
        micro = Decimal(text) * _MICRO
    except InvalidOperation:
        micro = Decimal(-1)
    if not micro.is_finite() or micro != micro.to_integral_value() or not 0 < micro <= _MAX_UNITS * _MICRO:
        raise Fault(Trouble.USAGE, f"expected an amount above 0 with at most six decimals, got {text[:40]!r}")
    return int(micro)


def _parse_node(text: str) -> bytes:
    digits = set(text.lower())
    if len(text) != 64 or not digits <= set("0123456789abcdef"):
        raise Fault(Trouble.USAGE, f"expected a node id, 64 hexadecimal digits, got {text[:80]!r}")
    return bytes.fromhex(text)


def _sign(client: "NodeClient", key: "NodeKey", payee: bytes, amount: int) -> bytes:
    """The transfer with the account's next nonce, signed for the chain that the running node is on."""
    from node.rpc_types import AccountParams, AccountResult, NodeStatus, Nothing
    from protocol.codec import encode
    from protocol.transactions import Transfer, sign_transaction

    status = client.call("node_status", Nothing(), NodeStatus)
    account = client.call("account_get", AccountParams(key.node.hex()), AccountResult)
    body = Transfer(key.node, account.nonce + 1, status.height + VALID_HEIGHTS, payee, amount)
    return encode(sign_transaction(key.signing, bytes.fromhex(status.chain_id), body))
