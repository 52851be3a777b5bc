"""`quorate-devnet`, reached as `quorate devnet …`: a network of real nodes on this machine."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from devnet.perturbation.isolation import Isolation
from devnet.wish import DEFAULT_NODES, parse_wish
from node.cli import run_app
from node.commands import options

DevnetHome: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="The devnet's directory. Default: quorate-devnet among the user's data."
    ),
]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="A network on this machine, of real nodes that run small models.",
)


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):  # so that both stay in order where they go to one file
        assert isinstance(stream, io.TextIOWrapper), stream
        stream.reconfigure(line_buffering=True)
    sys.exit(run_app(app, "quorate devnet", sys.argv[1:]))


@app.command()
def up(
    nodes: Annotated[
        int | None, typer.Option("--nodes", metavar="N", help=f"How many validators. Default: {DEFAULT_NODES}.")
    ] = None,
    home: DevnetHome = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave the nodes running and return.")] = False,
    cheat: Annotated[
        list[str] | None, typer.Option("--cheat", metavar="I=NAME", help="Let node I cheat: 4=small-model.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="Serve another shipped model as well.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Start a devnet: a new one, or the one that DIR holds. Without --detach, Ctrl-C stops it."""
    from devnet.commands import run_up

    wish = parse_wish(nodes, cheat or [], model or [])
    return run_up(_choose_home(home), wish, is_detached=detach, as_json=as_json)


@app.command()
def down(home: DevnetHome = None, as_json: options.Json = False) -> int:
    """Stop the nodes that `up` started, and nothing else."""
    from devnet.commands import run_down

    return run_down(_choose_home(home), as_json=as_json)


@app.command()
def status(home: DevnetHome = None, as_json: options.Json = False) -> int:
    """Show each node of a devnet. Exit code 0: all are ready; 5: some are not."""
    from devnet.commands import run_status

    return run_status(_choose_home(home), as_json=as_json)


@app.command()
def logs(
    node: Annotated[int | None, typer.Argument(metavar="[I]", help="One node's log only.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on showing what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", metavar="N", min=0, help="So many of the last lines.")] = 20,
    home: DevnetHome = None,
    as_json: options.Json = False,
) -> int:
    """Show what the nodes write about what happens."""
    from devnet.commands import run_logs

    return run_logs(_choose_home(home), node, lines, is_following=follow, as_json=as_json)


@app.command()
def perturb(
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="How many validators: 4, 7, 16.")] = 4,
    minutes: Annotated[
        float,
        typer.Option("--minutes", metavar="M", min=0.1, max=100_000, help="How long; 3 are enough for all kinds."),
    ] = 3.0,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="S", help="What happens when, and to whom. Default: another each time."),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home", metavar="DIR", help="Where the nodes' homes go, and stay. Default: here, and gone afterwards."
        ),
    ] = None,
    isolation: Annotated[
        Isolation,
        typer.Option("--isolation", help="How nodes are disconnected. auto: namespaces where they are allowed."),
    ] = Isolation.AUTO,
    rate: Annotated[
        float, typer.Option("--rate", min=0.1, max=1000, help="Transfers a second, over all nodes.")
    ] = 10.0,
    jobs: Annotated[float, typer.Option("--jobs", min=0.01, max=100, help="Jobs a second, over all nodes.")] = 0.5,
    as_json: options.Json = False,
) -> int:
    """Kill, halt, cut off and mislead validators of a devnet of its own under load; then judge all ledgers.

    Exit code 0: no fork, nothing lost, nobody slashed, every recovery within 10 s. 6: something of this does not hold.
    """
    from devnet.perturb import PerturbPlan, run_perturb
    from devnet.perturbation.stage import Load

    plan = PerturbPlan(nodes, minutes, seed, home, isolation, Load(rate, jobs))
    return run_perturb(plan, as_json=as_json)


@app.command()
def demo(as_json: options.Json = False) -> int:
    """Five validators, one of them cheating, answer three questions; each answer's certificate is checked by a stranger.

    Exit code 0: everything was as claimed.
    """
    from devnet.demo import run_demo

    return run_demo(as_json=as_json)


def _choose_home(home: Path | None) -> Path:
    from node.home import compute_default_home

    chosen = compute_default_home(os.environ).with_name("quorate-devnet") if home is None else home
    return chosen.absolute()


if __name__ == "__main__":
    main()
