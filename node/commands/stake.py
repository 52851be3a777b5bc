"""`quorate bond`, `unbond`, `register-validator`, `unjail`, `report`: a node's stake, its vote, and who broke the rules."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from node.commands import options
from node.commands.sending import Home, Units, open_account, parse_amount, report_sent, send
from node.faults import Exit, Fault, Trouble

if TYPE_CHECKING:
    from node.rpc_types import AccountResult

_MAX_EVIDENCE_BYTES: Final = 4_096


def bond(
    units: Units, home: Home = None, passphrase_file: options.Passphrase = None, as_json: options.Json = False
) -> int:
    """Put units of the node's account at stake.

    Whoever serves a model needs a bond, and so does whoever votes. What is bonded can be slashed. Waits until it is final.
    """
    from node.render import format_units
    from protocol.transactions import Bond

    amount = parse_amount(units)
    account = open_account(home, passphrase_file)
    sent = send(account, Bond(*account.head, amount))
    sentence = f"{format_units(amount)} units are at stake; `quorate serve` or `quorate register-validator` comes next"
    report_sent(sent, sentence, as_json=as_json, amount=amount)
    return Exit.OK


def unbond(
    units: Units, home: Home = None, passphrase_file: options.Passphrase = None, as_json: options.Json = False
) -> int:
    """Take units of the node's stake back.

    They come to its balance after the network's unbonding time, and can be slashed until then. A validator whose stake falls below the least
    bond votes until the epoch after the next. Waits until it is final.
    """
    from node.render import format_units
    from protocol.transactions import Unbond

    amount = parse_amount(units)
    account = open_account(home, passphrase_file)
    sent = send(account, Unbond(*account.head, amount))
    sentence = f"{format_units(amount)} units are on their way back; `quorate balance` shows when they have arrived"
    report_sent(sent, sentence, as_json=as_json, amount=amount)
    return Exit.OK


def register_validator(
    home: Home = None, passphrase_file: options.Passphrase = None, as_json: options.Json = False
) -> int:
    """Register the node as a validator: bond first; it votes from the epoch after the next on, by itself.

    Registers the tip of a hash onion, from which the network's random numbers are made. Its validators have to be able to reach this node:
    `quorate init --p2p-host` says where it listens. Waits until it is final.
    """
    from node.rpc_types import AccountParams, AccountResult, NodeStatus, Nothing
    from protocol.jobs.beacon import Onion
    from protocol.transactions import RenewOnion

    account = open_account(home, passphrase_file)
    known = account.client.call("account_get", AccountParams(account.key.node.hex()), AccountResult)
    if known.onion != "none":
        _report_registered(known, as_json=as_json)
        return Exit.OK
    status = account.client.call("node_status", Nothing(), NodeStatus)
    tip = Onion(account.key.derive_onion_secret(1)).tip
    sent = send(account, RenewOnion(*account.head, tip, 1))
    sentence = f"registered: with its bond this node votes from epoch {status.epoch + 2} or {status.epoch + 3} on; keep it running"
    report_sent(sent, sentence, as_json=as_json, registered=True)
    return Exit.OK


def _report_registered(known: "AccountResult", *, as_json: bool) -> None:
    """Nothing is to be sent; what is still missing is said."""
    from node.render import format_units, print_json

    if as_json:
        print_json({"transaction": None, "height": None, "registered": True})
        return
    votes = f"votes with {format_units(known.weight)} units" if known.weight else "does not vote in this epoch"
    then = f"{format_units(known.next_weight)} units" if known.next_weight else "nothing"
    typer.echo(f"this node is registered already; it {votes}, in the next epoch with {then}")


def unjail(home: Home = None, passphrase_file: options.Passphrase = None, as_json: options.Json = False) -> int:
    """End the node's jail for absence once its time is over; it votes again from the epoch after the next on.

    A validator that lets most of its turns pass is jailed, so that nobody waits for it; its stake is not touched. Waits until it is final.
    """
    from protocol.transactions import Unjail

    account = open_account(home, passphrase_file)
    sent = send(account, Unjail(*account.head))
    report_sent(sent, "this node may vote again, from the epoch after the next on", as_json=as_json)
    return Exit.OK


_Evidence = Annotated[
    Path, typer.Argument(metavar="FILE", help="Evidence in hexadecimal, as a node's log has it at `evidence_found`.")
]


def report(
    evidence: _Evidence,
    home: Home = None,
    passphrase_file: options.Passphrase = None,
    as_json: options.Json = False,
) -> int:
    """Report a validator that broke a voting rule, with the proof in a file; the reporter gets a share of what is slashed.

    Nodes report by themselves what they see; this is for evidence that somebody else has. It costs nothing. Waits until it is final.
    """
    from protocol.errors import InvalidMessage
    from protocol.evidence import EVIDENCE_CODEC
    from protocol.transactions import Report

    try:
        with evidence.open("rb") as file:
            text = file.read(_MAX_EVIDENCE_BYTES).decode("ascii").strip()
        proof = EVIDENCE_CODEC.decode(bytes.fromhex(text))
    except OSError as error:
        raise Fault(Trouble.NO_SUCH_FILE, f"{evidence} cannot be read: {error.strerror or error}") from error
    except (ValueError, InvalidMessage) as error:
        raise Fault(
            Trouble.USAGE,
            f"{evidence} holds no evidence: {error}",
            cure="give the hexadecimal text of `evidence` from the line `evidence_found` of a node's log",
        ) from error
    account = open_account(home, passphrase_file)
    sent = send(account, Report(account.key.node, proof))
    sentence = f"validator {proof.signer} of epoch {proof.epoch} is convicted of {proof.kind.name.lower()} in view {proof.view}"
    report_sent(sent, sentence, as_json=as_json, signer=proof.signer, epoch=proof.epoch, view=proof.view)
    return Exit.OK
