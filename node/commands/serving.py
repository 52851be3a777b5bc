"""`quorate register-model`, `serve`, `withdraw`: which models a network has, and which of them this node answers for."""

from pathlib import Path
from typing import Annotated

import typer

from node.commands import options
from node.commands.sending import Home, Model, find_model, open_account, report_sent, send
from node.faults import Exit

_Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="A model directory with its card (`quorate models card DIR`).")
]


def register_model(
    directory: _Directory,
    home: Home = None,
    passphrase_file: options.Passphrase = None,
    as_json: options.Json = False,
) -> int:
    """Put a model's card on the ledger, so that nodes can serve it and everybody can ask it.

    The card pins the model's files; its hash is the model's id. Waits until it is final.
    """
    from node.model_cards import load_checked_card
    from protocol.models import compute_model_id
    from protocol.transactions import RegisterModel

    card = load_checked_card(directory)
    account = open_account(home, passphrase_file)
    sent = send(account, RegisterModel(*account.head, card))
    model = compute_model_id(card).hex()
    sentence = f"model {card.name} is registered as {model}; nodes serve it with `quorate serve {card.name}`"
    report_sent(sent, sentence, as_json=as_json, model=model, name=card.name)
    return Exit.OK


def serve(
    model: Model, home: Home = None, passphrase_file: options.Passphrase = None, as_json: options.Json = False
) -> int:
    """Announce that the node answers questions for a model; it can be drawn from the next epoch on.

    The node needs a bond (`quorate bond`) and the model's files (`quorate init --model DIR`). Waits until it is final.
    """
    from protocol.transactions import Serve

    account = open_account(home, passphrase_file)
    wanted, name = find_model(account, model)
    sent = send(account, Serve(*account.head, wanted))
    report_sent(
        sent,
        f"this node serves {name} from the next epoch on",
        as_json=as_json,
        model=wanted.hex(),
        name=name,
    )
    return Exit.OK


def withdraw(
    model: Model, home: Home = None, passphrase_file: options.Passphrase = None, as_json: options.Json = False
) -> int:
    """End answering questions for a model; until the next epoch the node may still be drawn.

    Waits until it is final.
    """
    from protocol.transactions import Withdraw

    account = open_account(home, passphrase_file)
    wanted, name = find_model(account, model)
    sent = send(account, Withdraw(*account.head, wanted))
    report_sent(
        sent,
        f"this node no longer serves {name}, from the next epoch on",
        as_json=as_json,
        model=wanted.hex(),
        name=name,
    )
    return Exit.OK
