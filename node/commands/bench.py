"""`quorate bench`: speed and size of a running network, and of the vote loop alone; never a test, always with the machine's name."""

from pathlib import Path
from typing import Annotated, Final

import typer

from node.commands import options
from node.faults import Exit

app = typer.Typer(help="Measure speed and size.", invoke_without_command=True)

BUSY_NICE: Final = 10  # workers run at a lower priority than their node


@app.callback()
def bench(context: typer.Context) -> None:
    """Measure speed and size."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("job")
def job(
    home: options.Home = None,
    rpc: options.Rpc = None,
    token_file: options.Token = None,
    genesis: Annotated[
        Path | None, typer.Option("--genesis", metavar="FILE", help="Default: the one in the home.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="The model's name or id.")] = "arith-s",
    committee: Annotated[int, typer.Option("--committee", metavar="N", help="Number of seats: odd.")] = 5,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=1000, help="Jobs that count.")] = 20,
    warmup: Annotated[int, typer.Option("--warmup", min=0, max=100, help="Jobs before, which do not count.")] = 3,
    as_json: options.Json = False,
) -> int:
    """Ask a running network 20 questions, after 3 to warm up, and measure answers, finality and certificates."""
    from node.commands.bench_job import BenchPlan, describe_machine, measure_jobs, print_figures
    from node.render import print_json, print_note

    print_note(describe_machine(home))
    figures = measure_jobs(BenchPlan(home, rpc, token_file, genesis, model, committee, jobs, warmup))
    if as_json:
        print_json(figures)
    else:
        print_figures(figures)
    return Exit.OK


@app.command("ledger")
def ledger(
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="A running devnet. Default: one for this run alone.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=16, help="Validators of the run's own devnet.")] = 4,
    directory: Annotated[
        Path,
        typer.Option("--dir", metavar="DIR", help="Where that devnet goes: a real disk, or fdatasync means nothing."),
    ] = Path(),
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=10_000, help="Transfers a second, all nodes.")] = 50,
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=86_400, help="Length of each load.")] = 60,
    blocks: Annotated[
        int, typer.Option("--blocks", min=0, max=10_000_000, help="Keep that rate until so many blocks are final.")
    ] = 0,
    saturate: Annotated[bool, typer.Option("--saturate", help="Then load it with as much as it takes.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw how it went.")] = None,
    as_json: options.Json = False,
) -> int:
    """Load a devnet with real transfers: finality, throughput, processor time, memory, and where the time goes."""
    from node.commands.bench_figures import print_ledger_figures
    from node.commands.bench_job import describe_machine
    from node.commands.bench_ledger import LedgerPlan, measure_ledger
    from node.commands.bench_plot import check_plot_possible, draw_plot
    from node.render import print_json, print_note

    if plot is not None:
        check_plot_possible()
    machine = describe_machine(home or directory)
    print_note(machine)
    run = measure_ledger(LedgerPlan(home, directory, nodes, rate, seconds, blocks, saturate))
    if plot is not None:
        draw_plot(plot, machine, run.seen)
    if as_json:
        print_json(run.figures)
    else:
        print_ledger_figures(run.figures)
    return Exit.OK


@app.command("votes")
def votes(
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=16, help="Validators, each a process.")] = 4,
    busy: Annotated[int, typer.Option("--busy", min=0, max=16, help="Busy torch processes beside them.")] = 0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100_000, help="Blocks to make final.")] = 300,
    pace_ms: Annotated[int, typer.Option("--pace-ms", min=0, max=10_000, help="Least time between blocks.")] = 50,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where vote logs go: a real disk, or fdatasync means nothing.")
    ] = Path(),
    as_json: options.Json = False,
) -> int:
    """Measure the vote loop alone: processes, libp2p streams, signatures, fdatasync."""
    from node.bench_votes import measure_votes
    from node.render import open_console, print_facts, print_json

    figures = measure_votes(nodes, busy, rounds, pace_ms, BUSY_NICE, str(directory))
    if as_json:
        print_json(figures)
    else:
        print_facts(open_console(), [(name, str(value)) for name, value in figures.items()])
    return Exit.OK


@app.command("compare")
def compare(
    pairs: Annotated[
        int, typer.Option("--pairs", min=1_000, max=10**12, help="Pairs of 64-bit digests.")
    ] = 1_000_000_000,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100, help="How often; medians are shown.")] = 5,
    as_json: options.Json = False,
) -> int:
    """Count digest pairs within a tolerance, beside bare numpy and bare faiss in the same run."""
    from node.commands.bench_compare import measure_comparison, print_comparison
    from node.commands.bench_job import describe_machine
    from node.render import print_json, print_note

    print_note(describe_machine(Path()))
    figures = measure_comparison(pairs, rounds)
    if as_json:
        print_json(figures)
    else:
        print_comparison(figures)
    return Exit.OK


@app.command("audit")
def audit(
    tokens: Annotated[int, typer.Option("--tokens", min=1, max=32_768, help="Tokens generated and audited.")] = 256,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100, help="How often; medians are shown.")] = 3,
    size: Annotated[
        str, typer.Option("--size", metavar="44m|500m", help="The model's size; weights are random.")
    ] = "44m",
    dtype: Annotated[str, typer.Option("--dtype", metavar="float32|bfloat16", help="What it computes in.")] = "float32",
    as_json: options.Json = False,
) -> int:
    """Audit what a model of random weights wrote, beside a bare prefill and beside writing it, on one thread."""
    from node.commands.bench_audit import measure_audit, print_audit
    from node.commands.bench_job import describe_machine
    from node.render import print_json, print_note

    print_note(describe_machine(Path()))
    figures = measure_audit(tokens, rounds, size, dtype)
    if as_json:
        print_json(figures)
    else:
        print_audit(figures)
    return Exit.OK
