"""`quorate ask`: one question, answered by a committee, with the certificate in a file."""

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from node.commands import options
from node.faults import Fault, Trouble

if TYPE_CHECKING:
    from node.rpc_types import SettingsParams

DEFAULT_TIMEOUT_S: Final = 300.0
_PPM: Final = 1_000_000


def ask(
    prompt: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    model: Annotated[str, typer.Option("--model", help="The model's name or id.")] = "arith-s",
    rule: Annotated[
        str, typer.Option("--rule", metavar="majority|reputation", help="How seats are drawn.")
    ] = "majority",
    committee: Annotated[int, typer.Option("--committee", metavar="N", help="Number of seats: odd.")] = 3,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", metavar="N", help="The longest answer.")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", metavar="T", help="Sample, with this temperature.")
    ] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", metavar="P", help="Sample from this part only.")] = None,
    beam: Annotated[int | None, typer.Option("--beam", metavar="N", help="Search with so many beams.")] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Stop waiting after so many seconds.")
    ] = DEFAULT_TIMEOUT_S,
    max_fee: Annotated[
        float | None, typer.Option("--max-fee", metavar="UNITS", help="Pay no more than this, base fee included.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option("--request-id", metavar="ID", help="Asked again with the same id, it is the same job.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.qrc", help="The certificate. Default: JOB.qrc here.")
    ] = None,
    rpc: options.Rpc = None,
    home: options.Home = None,
    token_file: options.Token = None,
    as_json: options.Json = False,
) -> int:
    """Ask a question, keep the answer's certificate.

    Exit code 0: accepted; 7: failed, inconclusive or not settled in time.
    """
    from node.commands.answers import deliver, wait_settled
    from node.commands.connect import connect
    from node.rpc_types import JobSubmitParams, JobSubmitted

    _check_rule(rule)
    client = connect(rpc, home, token_file)
    params = JobSubmitParams(
        model=model,
        prompt=prompt,
        rule="reputation" if rule == "reputation" else "majority",
        seats=committee,
        settings=build_settings(max_tokens, temperature, top_p, beam),
        max_fee=None if max_fee is None else round(max_fee * _PPM),
        request_id=request_id or secrets.token_hex(16),
    )
    submitted = client.call("job_submit", params, JobSubmitted)
    state = wait_settled(client, submitted.job, time.monotonic() + timeout)
    return deliver(client, state, out, as_json=as_json)


def _check_rule(rule: str) -> None:
    if rule not in {"majority", "reputation"}:
        raise Fault(Trouble.USAGE, f"expected --rule majority or reputation, got {rule[:40]!r}")


def build_settings(
    max_tokens: int | None, temperature: float | None, top_p: float | None, beam: int | None
) -> "SettingsParams":
    """The settings that these options mean. Raises: Fault(USAGE) where they exclude each other or are out of range."""
    from node.rpc_types import SettingsParams

    sampled = temperature is not None or top_p is not None
    if sampled and beam is not None:
        raise Fault(Trouble.USAGE, "--beam searches and --temperature samples: expected one of them, got both")
    if max_tokens is not None and max_tokens < 1:
        raise Fault(Trouble.USAGE, f"expected --max-tokens of at least 1, got {max_tokens}")
    if beam is not None:
        if not 1 <= beam <= 16:
            raise Fault(Trouble.USAGE, f"expected --beam between 1 and 16, got {beam}")
        return SettingsParams("beam", beam, 0, _PPM, max_tokens)
    if not sampled:
        return SettingsParams(max_tokens=max_tokens)
    heat = round((1.0 if temperature is None else temperature) * _PPM)
    part = round((1.0 if top_p is None else top_p) * _PPM)
    if not 0 < heat <= 4 * _PPM:
        raise Fault(Trouble.USAGE, f"expected --temperature above 0 and at most 4, got {temperature}")
    if not 0 < part <= _PPM:
        raise Fault(Trouble.USAGE, f"expected --top-p above 0 and at most 1, got {top_p}")
    return SettingsParams("sample", 1, heat, part, max_tokens)
