"""`quorate genesis`: make and show the agreed beginning of a network."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from node.commands import options
from node.faults import Exit, Fault, Trouble

if TYPE_CHECKING:
    from node.validator_file import ValidatorFile
    from protocol.genesis import Genesis
    from protocol.models import ModelCard
    from protocol.params import Params

app = typer.Typer(help="Make and show the agreed beginning of a network.", invoke_without_command=True)

_MICRO: Final = 1_000_000
_ACCOUNT: Final = re.compile(r"([0-9a-fA-F]{64})=([0-9]{1,12})")


@app.callback()
def genesis(context: typer.Context) -> None:
    """Make and show the agreed beginning of a network."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The genesis file to write.")]
_Validator = Annotated[
    list[Path],
    typer.Option("--validator", metavar="FILE", help="A line of `quorate init --print-validator`; one for each."),
]
_Model = Annotated[
    list[Path] | None, typer.Option("--model", metavar="DIR", help="A model of this network; once for each.")
]
_Name = Annotated[str, typer.Option("--name", help="The network's name.")]
_Stake = Annotated[
    int, typer.Option("--stake", metavar="UNITS", min=1, max=10**9, help="What each validator has bonded.")
]
_Balance = Annotated[
    int, typer.Option("--balance", metavar="UNITS", min=0, max=10**9, help="What each validator can spend.")
]
_Account = Annotated[
    list[str] | None,
    typer.Option("--account", metavar="NODE=UNITS", help="Another account that exists from the start."),
]
_Params = Annotated[
    str,
    typer.Option("--params", metavar="internet|devnet", help="Delays and windows: between sites, or on one machine."),
]


@app.command("create")
def create(
    out: _Out,
    validator: _Validator,
    model: _Model = None,
    name: _Name = "quorate",
    stake: _Stake = 1_000,
    balance: _Balance = 1_000,
    account: _Account = None,
    params: _Params = "internet",
    as_json: options.Json = False,
) -> int:
    """Make the genesis file that every node of a new network needs; its hash is the chain id."""
    from node.genesis_file import write_genesis
    from node.model_cards import load_cards
    from node.validator_file import load_validator
    from protocol.codec import encode
    from protocol.errors import Refusal
    from protocol.genesis import GENESIS_CODEC
    from protocol.ledger.state import create_genesis

    if out.exists():
        raise Fault(Trouble.FILE_EXISTS, f"{out} exists, and a network's genesis is never replaced")
    entries = [load_validator(path) for path in validator]
    cards = load_cards(model or ())
    built = _build(name, _choose_params(params), entries, cards, (stake, balance), _parse_accounts(account or []))
    try:
        create_genesis(GENESIS_CODEC.decode(encode(built)))  # as everybody else is going to read it
    except Refusal as refusal:
        raise Fault(
            Trouble.BAD_GENESIS, f"no network could start so: {refusal}", cure="correct the options"
        ) from refusal
    write_genesis(out, built)
    _print(out, built, as_json=as_json)
    if not as_json:
        _print_next(out, entries)
    return Exit.OK


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A genesis file.")], as_json: options.Json = False
) -> int:
    """Show a genesis file: its chain id, validators, accounts and models."""
    from node.genesis_file import read_genesis

    _print(file, read_genesis(file), as_json=as_json)
    return Exit.OK


def _choose_params(name: str) -> "Params":
    from protocol.params import DEVNET, INTERNET

    known = {"internet": INTERNET, "devnet": DEVNET}
    if name not in known:
        raise Fault(Trouble.USAGE, f"expected --params internet or devnet, got {name[:40]!r}")
    return known[name]


def _parse_accounts(given: list[str]) -> dict[bytes, int]:
    accounts: dict[bytes, int] = {}
    for text in given:
        match = _ACCOUNT.fullmatch(text)
        if match is None:
            raise Fault(
                Trouble.USAGE, f"expected --account NODE=UNITS with the node in 64 hex digits, got {text[:80]!r}"
            )
        accounts[bytes.fromhex(match[1])] = int(match[2]) * _MICRO
    return accounts


def _build(
    name: str,
    params: "Params",
    entries: "list[ValidatorFile]",
    cards: "tuple[ModelCard, ...]",
    stake_and_balance: tuple[int, int],
    others: dict[bytes, int],
) -> "Genesis":
    import secrets
    import time

    from protocol.genesis import Genesis, GenesisAccount, GenesisValidator
    from protocol.models import compute_model_id

    known = {compute_model_id(card).hex() for card in cards}
    for entry in entries:
        if missing := [model for model in entry.serves if model.lower() not in known]:
            raise Fault(
                Trouble.BAD_GENESIS,
                f"validator {entry.node[:8]} serves the model {missing[0][:16]}, which is none of the {len(known)} given",
                cure="give its directory too, with --model DIR",
            )
    stake, balance = stake_and_balance
    validators = tuple(
        GenesisValidator(
            bytes.fromhex(entry.node),
            stake * _MICRO,
            bytes.fromhex(entry.onion_tip),
            tuple(sorted(bytes.fromhex(model) for model in entry.serves)),
        )
        for entry in sorted(entries, key=lambda entry: entry.node.lower())
    )
    balances = {validator.node: balance * _MICRO for validator in validators} | others
    return Genesis(
        version=1,
        name=name,
        time_ms=time.time_ns() // 1_000_000,
        seed=secrets.token_bytes(32),
        params=params,
        validators=validators,
        accounts=tuple(GenesisAccount(node, amount) for node, amount in sorted(balances.items())),
        models=tuple(sorted(cards, key=lambda card: card.name)),
    )


def _print_next(out: Path, entries: "list[ValidatorFile]") -> None:
    """The line that is the same for everybody: a node skips its own address."""
    peers = " ".join(f"--peer {entry.address or f'{entry.node}@HOST:PORT'}" for entry in entries)
    typer.echo(f"next, on every machine, with a copy of {out.name}:")
    typer.echo(f"  quorate init --genesis {shlex.quote(out.name)} {peers}")
    typer.echo("  quorate run")


def _print(path: Path, shown: "Genesis", *, as_json: bool) -> None:
    from node.render import format_units, open_console, print_facts, print_json, print_table, shorten
    from protocol.genesis import compute_chain_id
    from protocol.models import compute_model_id

    names = {compute_model_id(card): card.name for card in shown.models}
    balances = {account.node: account.balance for account in shown.accounts}
    if as_json:
        validators = [
            {"node": each.node.hex(), "stake": each.stake, "serves": [model.hex() for model in each.serves]}
            for each in shown.validators
        ]
        print_json(
            {
                "genesis": str(path),
                "chain_id": compute_chain_id(shown).hex(),
                "name": shown.name,
                "time_ms": shown.time_ms,
                "validators": validators,
                "accounts": {node.hex(): balance for node, balance in balances.items()},
                "models": {model.hex(): name for model, name in names.items()},
            }
        )
        return
    console = open_console()
    facts = [
        ("genesis", str(path)),
        ("network", shown.name),
        ("chain id", compute_chain_id(shown).hex()),
        ("accounts", f"{len(balances)} with {format_units(sum(balances.values()))} units"),
        ("models", ", ".join(f"{name} ({shorten(model.hex())})" for model, name in names.items()) or "none"),
    ]
    print_facts(console, facts)
    rows = [
        (
            shorten(each.node.hex()),
            format_units(each.stake),
            format_units(balances.get(each.node, 0)),
            ", ".join(names.get(model, shorten(model.hex())) for model in each.serves) or "-",
        )
        for each in shown.validators
    ]
    print_table(console, ("validator", "stake", "balance", "serves"), rows, right=frozenset({"stake", "balance"}))
