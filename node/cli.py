"""The `quorate` command: verbs, exit codes, and errors that say what failed, why, and what mends it.

A verb's file is imported only for its name and options; what it needs to run is imported when it runs, so that `--help` and `verify`
start fast and load neither torch nor libp2p. An unknown verb goes to `quorate-VERB` beside this program, as git does.
"""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from node.commands import (
    ask,
    bench,
    chain,
    genesis,
    init,
    jobs,
    ledger,
    models,
    run,
    serving,
    stake,
    status,
    transfer,
    verify,
)
from node.faults import Exit, Fault, Trouble, fault_of
from protocol.errors import Refusal

_VERB: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_VERBS: Final = {
    "init": init.init,
    "run": run.run,
    "status": status.status,
    "peers": status.peers,
    "ask": ask.ask,
    "balance": status.balance,
    "transfer": transfer.transfer,
    "bond": stake.bond,
    "unbond": stake.unbond,
    "register-validator": stake.register_validator,
    "unjail": stake.unjail,
    "register-model": serving.register_model,
    "serve": serving.serve,
    "withdraw": serving.withdraw,
    "report": stake.report,
    "verify": verify.verify,
    "chain": chain.chain,
    "checkpoint": chain.checkpoint,
    "version": status.version,
}
_GROUPS: Final = {
    "genesis": genesis.app,
    "models": models.app,
    "jobs": jobs.app,
    "ledger": ledger.app,
    "bench": bench.app,
}
_EXTERNAL: Final = {"devnet": "A network on this machine: up, down, status, logs, perturb, demo."}


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    arguments = sys.argv[1:]
    _hand_over(arguments)
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str]) -> int:
    """The exit code of one command line."""
    return run_app(_build_app(), "quorate", arguments)


def run_app(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """The exit code of one command line of this program; errors are told on standard error, with --json on standard output too."""
    as_json = "--json" in arguments
    try:
        code: object = app(args=list(arguments), prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else Exit.OK
    except Fault as fault:
        return _tell(fault, as_json=as_json)
    except Refusal as refusal:
        return _tell(fault_of(refusal), as_json=as_json)
    except typer.TyperException as error:
        return _tell(Fault(Trouble.USAGE, error.format_message().rstrip(".")), as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return _tell(Fault(Trouble.INTERRUPTED, "stopped by Ctrl-C"), as_json=as_json)


def _build_app() -> typer.Typer:
    app = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, invoke_without_command=True
    )
    app.callback()(_root)
    for name, command in _VERBS.items():
        app.command(name)(command)
    for name, group in _GROUPS.items():
        app.add_typer(group, name=name)
    for name, summary in _EXTERNAL.items():
        app.command(name, help=summary)(_missing)
    return app


def _root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Answers from generative models with certificates that anyone can check offline.

    Exit codes: 0 ok, 1 internal, 2 usage, 3 bad configuration, 4 node unreachable, 5 not ready or syncing, 6 verification says no,
    7 no answer, 8 key locked or permission, 9 incompatible version, 75 temporary.
    """
    if show_version:
        raise typer.Exit(status.version())
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _missing() -> None:
    raise Fault(
        Trouble.USAGE,
        "quorate-devnet is not installed beside quorate",
        cure="install the whole distribution: pip install quorate",
    )


def _hand_over(arguments: Sequence[str]) -> None:
    """Become quorate-VERB where the verb is none of ours. Raises nothing: an unknown verb is told as bad usage."""
    if not arguments or arguments[0] in _VERBS or arguments[0] in _GROUPS or not _VERB.fullmatch(arguments[0]):
        return
    for place in (Path(sys.argv[0]).resolve().parent, Path(sys.executable).parent):
        program = place / f"quorate-{arguments[0]}"
        if program.is_file() and os.access(program, os.X_OK):
            sys.stdout.flush()
            os.execv(program, [str(program), *arguments[1:]])  # noqa: S606 - no shell is meant
    if arguments[0] not in _EXTERNAL:
        near = difflib.get_close_matches(arguments[0], [*_VERBS, *_GROUPS, *_EXTERNAL], n=1)
        hint = f"quorate {near[0]}" if near else "quorate --help"
        fault = Fault(Trouble.USAGE, f"there is no verb {arguments[0]!r}", cure=f"try `{hint}`")
        sys.exit(_tell(fault, as_json="--json" in arguments))


def _tell(fault: Fault, *, as_json: bool) -> int:
    from node.render import print_json, print_note

    print_note(f"quorate: {fault.message} — {fault.cure}")
    if as_json:
        error = {
            "code": int(fault.exit_code),
            "reason": fault.reason.value,
            "message": fault.message,
            "cure": fault.cure,
        }
        print_json({"error": {**error, "job": fault.job} if fault.job else error})
    return fault.exit_code


if __name__ == "__main__":
    main()
