"""`quorate transfer`: units from a node's account to another account, signed with the key in its home."""

from typing import Annotated

import typer

from node.commands import options
from node.commands.sending import Home, Units, open_account, parse_amount, report_sent, send
from node.faults import Exit, Fault, Trouble


def transfer(
    recipient: Annotated[str, typer.Argument(metavar="NODE", help="Whose account: a node id, 64 hex digits.")],
    units: Units,
    home: Home = None,
    passphrase_file: options.Passphrase = None,
    as_json: options.Json = False,
) -> int:
    """Send units from a node's account to another account.

    The key in the home signs. Waits until it is final: then the units are there.
    """
    from node.render import format_units
    from protocol.transactions import Transfer

    amount, payee = parse_amount(units), _parse_node(recipient)
    account = open_account(home, passphrase_file)
    sent = send(account, Transfer(*account.head, payee, amount))
    sentence = f"{format_units(amount)} units are {payee.hex()}'s now"
    report_sent(sent, sentence, as_json=as_json, recipient=payee.hex(), amount=amount)
    return Exit.OK


def _parse_node(text: str) -> bytes:
    digits = set(text.lower())
    if len(text) != 64 or not digits <= set("0123456789abcdef"):
        raise Fault(Trouble.USAGE, f"expected a node id, 64 hexadecimal digits, got {text[:80]!r}")
    return bytes.fromhex(text)
