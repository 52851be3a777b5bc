"""`quorate models`: the card of a model directory, which pins its files and is what networks know the model by."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from node.commands import options
from node.faults import Exit, Fault, Trouble

if TYPE_CHECKING:
    from protocol.models import ModelCard
    from verifier.model import Model

app = typer.Typer(help="Make and check model cards.", invoke_without_command=True)

_PROBE_TOKENS: Final = 32
_SLOWER: Final = 4  # windows grow with the card's time a token: another operator's machine may be so much slower


@app.callback()
def models(context: typer.Context) -> None:
    """Make and check model cards."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="A model in Hugging Face layout: causal, or of pictures.")
]
_Name = Annotated[str | None, typer.Option("--name", help="What people call it. Default: the directory's name.")]
_Dtype = Annotated[str, typer.Option("--dtype", metavar="float32|bfloat16", help="What it computes in.")]
_TokenMs = Annotated[
    int | None,
    typer.Option("--token-ms", metavar="MS", min=1, help=f"Time a token may take. Default: {_SLOWER} times as here."),
]


@app.command("card")
def card(
    directory: _Directory,
    name: _Name = None,
    dtype: _Dtype = "float32",
    token_ms: _TokenMs = None,
    as_json: options.Json = False,
) -> int:
    """Write DIR/card.json, or check the files against the one that is there.

    A card is never replaced: its hash is the model's id on every network that knows it.
    """
    from node.model_cards import load_checked_card
    from verifier.card import CARD_FILE

    if (directory / CARD_FILE).exists():
        made = load_checked_card(directory)
    else:
        made = _make_card(directory, name or directory.absolute().name.lower(), dtype, token_ms)
    _report(directory, made, as_json=as_json)
    return Exit.OK


@app.command("calibrate")
def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A directory with a card, or a shipped model's name.")],
    quick: Annotated[bool, typer.Option("--quick", help="Minutes in place of hours, and wider bounds.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides every job; the same seed, the same report.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: calibration/NAME. Goes on with what is there.")
    ] = None,
    smaller: Annotated[
        Path | None, typer.Option("--smaller", metavar="DIR", help="A model that might pass for this one.")
    ] = None,
    earlier: Annotated[
        Path | None, typer.Option("--earlier", metavar="FILE", help="The difference to its earlier weights.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option("--device", help="cpu, cuda or cuda:N; several are held to each other.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Signs the profile. Default: a key anybody can derive.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Run MODEL honestly and with every cheat, and write the signed tolerances and error rates that audits go by."""
    from node.commands.models_calibrate import CalibrateOptions, run_calibrate

    devices = tuple(device or ["cpu"])
    run_calibrate(CalibrateOptions(model, quick, seed, out, smaller, earlier, devices, key), as_json=as_json)
    return Exit.OK


def _make_card(directory: Path, name: str, dtype: str, token_ms: int | None) -> "ModelCard":
    """The card of a model that this machine could load. Raises: Fault(BAD_MODEL), and then there is no card."""
    from node.disk import disk_fault
    from protocol.digest import DigestFamily
    from verifier.card import CARD_FILE, SAMPLING_FILE, ModelRefused, write_card

    has_pictures = (directory / SAMPLING_FILE).is_file()
    family = DigestFamily.IMG_PDQ256 if has_pictures else DigestFamily.TEXT_MINHASH256
    try:
        made = write_card(directory, name, dtype, family, token_ms or 1)
        measured_ms = _try_model(directory)
        return made if token_ms is not None else write_card(directory, name, dtype, family, _SLOWER * measured_ms)
    except ModelRefused as error:
        (directory / CARD_FILE).unlink(missing_ok=True)
        raise Fault(
            Trouble.BAD_MODEL, str(error), cure="give a directory in Hugging Face layout of a supported architecture"
        ) from error
    except OSError as error:
        raise disk_fault(directory / CARD_FILE, error) from error


def _try_model(directory: Path) -> int:
    """How long a token took, or a picture, rounded up. Units: milliseconds. Raises: ModelRefused where the model cannot be run."""
    from verifier.draw import measure_drawing_ms
    from verifier.image_model import ImageModel
    from verifier.load import load_any_model
    from verifier.model import use_deterministic_settings

    use_deterministic_settings()
    model = load_any_model(directory)
    return measure_drawing_ms(model) if isinstance(model, ImageModel) else _measure_token(model)


def _measure_token(model: "Model") -> int:
    tokens = min(_PROBE_TOKENS, model.card.context_tokens - 1)
    _, cache = model.engine.compute_next([[0]], None)
    started = time.monotonic()
    for _ in range(tokens - 1):
        hidden, cache = model.engine.compute_next([[0]], cache)
        model.engine.compute_head(hidden)
    return max(1, -(-round((time.monotonic() - started) * 1000) // max(1, tokens - 1)))


def _report(directory: Path, made: "ModelCard", *, as_json: bool) -> None:
    from node.render import open_console, print_facts, print_json
    from protocol.models import compute_model_id

    model = compute_model_id(made).hex()
    if as_json:
        print_json({"directory": str(directory), "model": model, "name": made.name, "token_ms": made.token_ms})
        return
    facts = [
        ("directory", str(directory)),
        ("model", f"{made.name} · {made.dtype}"),
        ("id", model),
        ("context", f"{made.context_tokens:,} tokens"),
        ("windows", f"{made.token_ms} ms for each token that is asked for"),
    ]
    print_facts(open_console(), facts)
