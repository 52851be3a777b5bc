"""`quorate jobs`: list, show, wait for jobs, and fetch their certificates again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from node.commands import options
from node.faults import Exit, Fault, Trouble

if TYPE_CHECKING:
    from node.rpc_client import NodeClient

app = typer.Typer(help="List, show and wait for jobs.", no_args_is_help=False, invoke_without_command=True)

UNKNOWN_S: Final = 10.0  # a job that was just asked for is in a block by then

Job = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, or the start of it.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE.qrc", help="Write the certificate here.")]


@app.callback()
def jobs(context: typer.Context) -> None:
    """List, show and wait for jobs."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("ls")
def list_jobs(
    mine: Annotated[bool, typer.Option("--mine", help="Only those that this node's account asked.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=256, help="At most so many.")] = 32,
    rpc: options.Rpc = None,
    home: options.Home = None,
    token_file: options.Token = None,
    as_json: options.Json = False,
) -> int:
    """List the jobs that the ledger still holds, newest first."""
    from node.commands.connect import connect
    from node.render import clip, open_console, print_json, print_note, print_table, shorten
    from node.rpc_types import JobList, JobListParams

    found = connect(rpc, home, token_file).call("job_list", JobListParams(limit, mine), JobList)
    if as_json:
        print_json(found)
        return Exit.OK
    rows = [
        (shorten(job.job), job.model_name, clip(job.prompt, 22), f"{job.rule} of {len(job.seats)}", job.status)
        for job in found.jobs
    ]
    print_table(open_console(), ("job", "model", "question", "rule", "status"), rows)
    if found.more:
        print_note("there are more: --limit shows up to 256")
    return Exit.OK


@app.command("show")
def show_job(
    job: Job,
    out: Out = None,
    rpc: options.Rpc = None,
    home: options.Home = None,
    token_file: options.Token = None,
    as_json: options.Json = False,
) -> int:
    """Show a job as it stands; with --out also fetch its certificate."""
    from node.commands.answers import write_certificate
    from node.commands.connect import connect
    from node.commands.job_tables import print_job
    from node.render import print_json, print_note
    from node.rpc_types import CertificateResult, JobParams, JobState
    from protocol.errors import Rejection

    client = connect(rpc, home, token_file)
    name = find_job(client, job)
    if out is not None:
        certificate = client.call("certificate_get", JobParams(name), CertificateResult).certificate
        chain = write_certificate(client, out, certificate)
        print_note(f"certificate: {out}" if chain is None else f"certificate: {out}, to be given along with {chain}")
    try:
        state = client.call("job_get", JobParams(name), JobState)
    except Fault as fault:
        if out is None or fault.reason is not Rejection.UNKNOWN_JOB:
            raise
        print_note("the ledger has forgotten the job since; its certificate says how it ended")
        return Exit.OK
    if as_json:
        print_json(state)
    else:
        print_job(state)
    return Exit.OK


@app.command("wait")
def wait_job(
    job: Job,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", help="Stop waiting after so many seconds.")] = 300,
    out: Out = None,
    rpc: options.Rpc = None,
    home: options.Home = None,
    token_file: options.Token = None,
    as_json: options.Json = False,
) -> int:
    """Wait until a job is settled, and deliver its answer as `ask` does."""
    from node.commands.answers import deliver, wait_settled
    from node.commands.ask import scale
    from node.commands.connect import connect

    seconds = scale("--timeout", timeout, 0, 10**9) / 1_000_000
    client = connect(rpc, home, token_file)
    state = wait_settled(client, find_job(client, job), seconds, unknown_s=UNKNOWN_S)
    return deliver(client, state, out, as_json=as_json)


def find_job(client: "NodeClient", given: str) -> str:
    """The id of the job that starts with these hex digits. Raises: Fault(USAGE | UNKNOWN_JOB)."""
    from node.rpc_types import JobList, JobListParams
    from protocol.errors import Rejection

    wanted = given.lower()
    if not wanted or len(wanted) > 64 or set(wanted) - set("0123456789abcdef"):
        raise Fault(Trouble.USAGE, f"expected a job's id in up to 64 hex digits, got {given[:80]!r}")
    if len(wanted) == 64:
        return wanted
    listed = client.call("job_list", JobListParams(256), JobList).jobs
    found = [each.job for each in listed if each.job.startswith(wanted)]
    if not found:
        raise Fault(Rejection.UNKNOWN_JOB, f"the ledger holds no job whose id starts with {wanted}")
    if len(found) > 1:
        raise Fault(Trouble.USAGE, f"{len(found)} jobs start with {wanted}: give more digits")
    return found[0]
