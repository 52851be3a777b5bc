"""`quorate ask`: one question, answered by a committee, with the certificate in a file."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from node.commands import options
from node.faults import Fault, Trouble

if TYPE_CHECKING:
    from node.rpc_types import SettingsParams

DEFAULT_TIMEOUT_S: Final = 300.0
_PPM: Final = 1_000_000


_Prompt = Annotated[str | None, typer.Argument(metavar="[QUESTION]", help="What to ask.", show_default=False)]
_PromptOption = Annotated[
    str | None, typer.Option("--prompt", metavar="QUESTION", help="The same, for questions that begin with a dash.")
]
_Model = Annotated[str, typer.Option("--model", help="The model's name or id.")]
_Rule = Annotated[str, typer.Option("--rule", metavar="majority|reputation", help="How seats are drawn.")]
_Committee = Annotated[int, typer.Option("--committee", metavar="N", help="Number of seats: odd.")]
_MaxTokens = Annotated[int | None, typer.Option("--max-tokens", metavar="N", help="The longest answer.")]
_Temperature = Annotated[
    float | None, typer.Option("--temperature", metavar="T", help="Sample, with this temperature.")
]
_TopP = Annotated[float | None, typer.Option("--top-p", metavar="P", help="Sample from this part only.")]
_Beam = Annotated[int | None, typer.Option("--beam", metavar="N", help="Search with so many beams.")]
_Timeout = Annotated[float, typer.Option("--timeout", metavar="S", help="Stop waiting after so many seconds.")]
_MaxFee = Annotated[
    float | None, typer.Option("--max-fee", metavar="UNITS", help="Pay no more than this, base fee included.")
]
_RequestId = Annotated[
    str | None, typer.Option("--request-id", metavar="ID", help="Asked again with the same id, it is the same job.")
]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE.qrc|FILE.png",
        help="The certificate, or the picture where the answer is one; the other stands beside it. Default: JOB.qrc here.",
    ),
]


def ask(
    prompt: _Prompt = None,
    prompt_option: _PromptOption = None,
    model: _Model = "arith-s",
    rule: _Rule = "majority",
    committee: _Committee = 3,
    max_tokens: _MaxTokens = None,
    temperature: _Temperature = None,
    top_p: _TopP = None,
    beam: _Beam = None,
    timeout: _Timeout = DEFAULT_TIMEOUT_S,
    max_fee: _MaxFee = None,
    request_id: _RequestId = None,
    out: _Out = None,
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

    question = _choose_question(prompt, prompt_option)
    _check_words(rule, question)
    ceiling = None if max_fee is None else scale("--max-fee", max_fee, 0, 10**12)
    seconds = scale("--timeout", timeout, 0, 10**9) / _PPM
    client = connect(rpc, home, token_file)
    params = JobSubmitParams(
        model=model,
        prompt=question,
        rule="reputation" if rule == "reputation" else "majority",
        seats=committee,
        settings=build_settings(max_tokens, temperature, top_p, beam),
        max_fee=ceiling,
        request_id=request_id or secrets.token_hex(16),
    )
    submitted = client.call("job_submit", params, JobSubmitted)
    state = wait_settled(client, submitted.job, seconds)
    return deliver(client, state, out, as_json=as_json)


def _choose_question(argument: str | None, option: str | None) -> str:
    if argument is not None and option is not None:
        raise Fault(Trouble.USAGE, "expected one question, got two: one as the argument, one with --prompt")
    question = option if argument is None else argument
    if question is None:
        raise Fault(Trouble.USAGE, "expected a question, got none", cure="quorate ask QUESTION")
    return question


def _check_words(rule: str, prompt: str) -> None:
    if rule not in {"majority", "reputation"}:
        raise Fault(Trouble.USAGE, f"expected --rule majority or reputation, got {rule[:40]!r}")
    if not prompt.isascii() and any("\ud800" <= character <= "\udfff" for character in prompt):
        raise Fault(Trouble.USAGE, "expected a question in UTF-8, got bytes that are none")


def scale(option: str, value: float, least: float, most: float) -> int:
    """The value in millionths. Raises: Fault(USAGE) where it is out of range or no number."""
    if not least <= value <= most:  # not a number is in no range
        raise Fault(Trouble.USAGE, f"expected {option} between {least:g} and {most:g}, got {value:g}")
    return round(value * _PPM)


def build_settings(
    max_tokens: int | None, temperature: float | None, top_p: float | None, beam: int | None
) -> "SettingsParams":
    """The settings that these options mean. Raises: Fault(USAGE) where they exclude each other or are out of range."""
    from node.rpc_types import SettingsParams
    from protocol.models import MAX_BEAMS, MAX_OUTPUT_TOKENS, MAX_TEMPERATURE_PPM

    sampled = temperature is not None or top_p is not None
    if sampled and beam is not None:
        raise Fault(Trouble.USAGE, "--beam searches and --temperature samples: expected one of them, got both")
    if max_tokens is not None:
        scale("--max-tokens", max_tokens, 1, MAX_OUTPUT_TOKENS)
    if beam is not None:
        scale("--beam", beam, 1, MAX_BEAMS)
        return SettingsParams("beam", beam, 0, _PPM, max_tokens)
    if not sampled:
        return SettingsParams(max_tokens=max_tokens)
    heat = scale("--temperature", 1.0 if temperature is None else temperature, 1 / _PPM, MAX_TEMPERATURE_PPM / _PPM)
    part = scale("--top-p", 1.0 if top_p is None else top_p, 1 / _PPM, 1)
    return SettingsParams("sample", 1, heat, part, max_tokens)
