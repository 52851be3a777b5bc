"""From a submitted job to what the asker sees: waiting, the outputs, the decision, the certificate."""

import errno
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

import msgspec

from node.commands.chain_files import keep_chain
from node.faults import Exit, Fault, Trouble
from node.png import encode_png
from node.render import (
    ProgressLine,
    clip,
    format_ppb,
    format_ppm,
    format_units,
    open_console,
    print_facts,
    print_json,
    print_note,
    print_table,
    shorten,
)
from node.rpc_client import NodeClient
from node.rpc_types import (
    MAX_WAIT_MS,
    AccountParams,
    AccountResult,
    CertificateResult,
    JobParams,
    JobState,
    JobWaitParams,
    OutputParams,
    OutputResult,
    SeatState,
)
from protocol.certificate_format import decode_certificate
from protocol.errors import Rejection
from protocol.models import ImageOutput, Output, TextOutput

CERTIFICATE_SUFFIX: Final = ".qrc"
PICTURE_SUFFIX: Final = ".png"
_POLL_MS: Final = 1_000  # so that the progress line counts seconds
_OUTPUT_WIDTH: Final = 34
_PHASES: Final = {
    "submitted": "waiting for the beacon that draws the committee",
    "committing": "members generate and commit",
    "revealing": "members reveal",
    "settled": "settled",
}


class Member(msgspec.Struct, frozen=True):
    """One seat's answer; the text is null where the member gave none or nobody serves it."""

    node: str | None
    text: str | None
    digest_distance: int | None
    inside: bool


class Answer(msgspec.Struct, frozen=True):
    """What `ask` and `jobs wait` report; text, or picture's file, and certificate are null where there is no answer to certify.

    `chain` is the file of the validators' changes beside the certificate, null where there were none.
    """

    job: str
    status: str
    text: str | None
    rule: str
    agreement_ppm: int | None
    fee: int
    balance: int
    members: tuple[Member, ...]
    certificate: str | None
    chain: str | None
    picture: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The files that an answer was put in."""

    certificate: Path | None = None
    chain: Path | None = None
    picture: Path | None = None


def wait_settled(
    client: NodeClient, job: str, timeout_s: float, *, unknown_s: float = inf, is_quiet: bool = False
) -> JobState:
    """The job once it is settled, with a progress line until then (none where it is to be quiet).

    Raises: Fault(TIMED_OUT) where it takes longer than timeout_s, or where Ctrl-C ends the waiting; the job goes on.
    Fault(UNKNOWN_JOB) where the ledger does not hold it within unknown_s.
    """
    line = ProgressLine()
    deadline = time.monotonic() + timeout_s
    started = time.monotonic()
    seen = ""  # no progress is called so: the first answer comes at once
    try:
        while True:
            left_ms = round((deadline - time.monotonic()) * 1000)
            if left_ms <= 0:
                raise _goes_on(job, f"no answer within {time.monotonic() - started:.0f} s")
            state = _poll(client, job, seen, min(left_ms, _POLL_MS, MAX_WAIT_MS))
            if state is not None and state.status != "open":
                return state
            seen = "" if state is None else state.progress
            passed_s = time.monotonic() - started
            if state is None and passed_s > unknown_s:
                raise Fault(
                    Rejection.UNKNOWN_JOB, f"no block holds job {job[:16]}: it was never asked, or is forgotten"
                )
            if not is_quiet:
                line.show(_describe(job, state), f"· {passed_s:.0f} s")
    except KeyboardInterrupt as interrupt:
        raise _goes_on(job, "stopped waiting") from interrupt
    finally:
        line.clear()


def _goes_on(job: str, why: str) -> Fault:
    return Fault(Trouble.TIMED_OUT, f"{why}; job {job} goes on", cure=f"quorate jobs wait {job}", job=job)


def _poll(client: NodeClient, job: str, seen: str, wait_ms: int) -> JobState | None:
    """The job's state; None while it waits for its block."""
    try:
        return client.call("job_wait", JobWaitParams(job, wait_ms, seen), JobState)
    except Fault as fault:
        if fault.reason is not Rejection.UNKNOWN_JOB:
            raise
        return None


def _describe(job: str, state: JobState | None) -> str:
    if state is None:
        return f"job {shorten(job)}: waiting for its block"
    committed = sum(seat.state in {"committed", "revealed", "abstained"} for seat in state.seats)
    revealed = sum(seat.state in {"revealed", "abstained"} for seat in state.seats)
    counts = {"committing": f" ({committed} of {len(state.seats)})", "revealing": f" ({revealed} of {committed})"}
    return f"job {shorten(job)}: {_PHASES[state.phase]}{counts.get(state.phase, '')}"


def deliver(client: NodeClient, state: JobState, out: Path | None, *, as_json: bool) -> int:
    """Prints a settled job, writes its certificate (and picture) where there is an answer, and says the exit code."""
    accepted = state.status == "accepted"
    written = Written()
    certificate = b""
    winner = None
    if accepted:
        certificate = client.call("certificate_get", JobParams(state.job), CertificateResult).certificate
        winner = decode_certificate(certificate).output
        written = _write_answer(client, certificate, winner, out, state.job)
    texts = _fetch_texts(client, state, winner)
    balance = client.call("account_get", AccountParams(state.requester), AccountResult).balance
    answer = _build_answer(state, texts, balance, written)
    if as_json:
        print_json(answer)
    else:
        print_answer(state, answer, len(certificate))
    if not accepted:
        return Exit.NO_ANSWER
    return Exit.OK if answer.text is not None or answer.picture is not None else _tell_output_missing(state.job)


def _write_answer(client: NodeClient, certificate: bytes, winner: Output | None, out: Path | None, job: str) -> Written:
    """Where the certificate is, and beside it the picture, if the answer is one: --out names either, by its ending.

    Raises: Fault(CANNOT_WRITE | DISK_FULL).
    """
    named = out if out is not None else Path(f"{job}{CERTIFICATE_SUFFIX}")
    path = named.with_suffix(CERTIFICATE_SUFFIX) if named.suffix.lower() == PICTURE_SUFFIX else named
    chain = write_certificate(client, path, certificate)
    if not isinstance(winner, ImageOutput):
        if path != named:
            print_note(f"quorate: the answer is no picture; its certificate is in {path}")
        return Written(path, chain)
    picture = named if path != named else path.with_suffix(PICTURE_SUFFIX)
    write_file(picture, encode_png(winner), "picture")
    return Written(path, chain, picture)


def _tell_output_missing(job: str) -> int:
    """A success whose answer is empty would be taken for one: the job is settled, but its output is still to be had."""
    print_note(
        "quorate: accepted, but no member that this node reaches serves the answer, so the certificate proves its hash alone — "
        f"add the members as peers (`quorate init --peer ADDR`), then `quorate jobs wait {job}`"
    )
    return Exit.TEMPORARY


def _fetch_texts(client: NodeClient, state: JobState, winner: Output | None) -> dict[str, str]:
    """The text of each revealed output, by its hash: the winner's out of the certificate, others where somebody serves them."""
    texts: dict[str, str] = {}
    if isinstance(winner, TextOutput) and state.output_hash is not None:
        texts[state.output_hash] = winner.text
    elif winner is not None:
        return texts  # a picture's fellows are pictures
    for output_hash in dict.fromkeys(seat.output_hash for seat in state.seats if seat.output_hash is not None):
        if output_hash in texts:
            continue
        try:
            output = client.call("output_get", OutputParams(state.job, output_hash), OutputResult)
        except Fault as fault:
            # On a busy network the ledger may have forgotten the job by now.
            if fault.reason not in {Trouble.OUTPUT_UNAVAILABLE, Rejection.UNKNOWN_JOB}:
                raise
            print_note(f"quorate: {fault.message}")
        else:
            if output.text is not None:
                texts[output_hash] = output.text
    return texts


def write_certificate(client: NodeClient, path: Path, certificate: bytes) -> Path | None:
    """The chain file that goes with a certificate, if any, after both are written. Raises: Fault(CANNOT_WRITE | DISK_FULL)."""
    write_file(path, certificate, "certificate")
    return keep_chain(client, path.parent, decode_certificate(certificate).chain_id)


def write_file(path: Path, content: bytes, what: str) -> None:
    """Puts a part of the answer in a file. Raises: Fault(CANNOT_WRITE | DISK_FULL)."""
    try:
        path.write_bytes(content)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        why = f"the {what} cannot be written to {path}: {error.strerror or error}"
        cure = "free some space, then fetch it with `quorate jobs wait JOB --out FILE`" if full else ""
        raise Fault(Trouble.DISK_FULL if full else Trouble.CANNOT_WRITE, why, cure=cure) from error


def _build_answer(state: JobState, texts: dict[str, str], balance: int, written: Written) -> Answer:
    return Answer(
        job=state.job,
        status=state.status,
        text=texts.get(state.output_hash) if state.output_hash is not None else None,
        rule=state.rule,
        agreement_ppm=state.agreement_ppm,
        fee=state.cost if state.cost is not None else state.fee,
        balance=balance,
        members=tuple(_view_member(seat, texts) for seat in state.seats),
        certificate=None if written.certificate is None else str(written.certificate),
        chain=None if written.chain is None else str(written.chain),
        picture=None if written.picture is None else str(written.picture),
    )


def _view_member(seat: SeatState, texts: dict[str, str]) -> Member:
    text = texts.get(seat.output_hash) if seat.output_hash is not None else None
    return Member(seat.node, text, seat.digest_distance, inside=bool(seat.inside))


def print_answer(state: JobState, answer: Answer, certificate_bytes: int) -> None:
    """The answer, the decision with its chance of capture, the cost, and one row a seat."""
    console = open_console()
    facts = [("question", clip(state.prompt, 200))]
    if answer.text is not None:
        facts.append(("answer", clip(answer.text, 400) or "(empty)"))
    if answer.picture is not None:
        facts.append(("answer", f"a picture, in {answer.picture}"))
    facts += [
        ("decision", _describe_decision(state)),
        ("capture", describe_capture(state)),
        ("cost", f"{format_units(answer.fee)} units, {format_units(answer.balance)} left"),
    ]
    if answer.certificate is not None:
        facts.append(("certificate", f"{answer.certificate} ({certificate_bytes:,} bytes)"))
    if answer.chain is not None:
        facts.append(("chain file", f"{answer.chain}: the validators have changed; it goes with the certificate"))
    print_facts(console, facts)
    print_seats(
        state, {seat.output_hash: member.text for seat, member in zip(state.seats, answer.members, strict=True)}
    )


def print_seats(state: JobState, texts: dict[str | None, str | None]) -> None:
    """One row a seat: who, what, how far from the winner, inside or outside."""
    print_table(
        open_console(),
        ("seat", "node", "output", "distance", "result"),
        [_make_row(seat, texts.get(seat.output_hash)) for seat in state.seats],
        right=frozenset({"seat", "distance"}),
    )


def _make_row(seat: SeatState, text: str | None) -> tuple[str, ...]:
    output = f"{seat.output_hash[:16]}…" if seat.output_hash is not None else "-"
    shown = output if text is None else clip(text, _OUTPUT_WIDTH)
    if seat.state == "revealed" and seat.inside is not None:
        result = "inside" if seat.inside else "outside"
    else:
        result = seat.state
    replaced = " (replacement)" if seat.replaced else ""
    distance = "-" if seat.digest_distance is None else f"{seat.digest_distance} bits"
    return (str(seat.seat + 1), shorten(seat.node), shown or "(empty)", distance, result + replaced)


def _describe_decision(state: JobState) -> str:
    inside = sum(seat.inside is True for seat in state.seats)
    seats = len(state.seats)
    rest = f"{state.rule} of {seats}"
    match state.status:
        case "accepted":
            thin = " · by a thin set: under a third of all stake" if state.candidate_share_ppm < 333_333 else ""
            return f"accepted · {rest} · {inside} of {seats} seats agree ({format_ppm(state.agreement_ppm or 0)}){thin}"
        case "failed":
            abstained = sum(seat.state == "abstained" for seat in state.seats)
            why = "too few members answered in time"
            if abstained:
                why = f"{abstained} seats abstained: the question may be too long for the model"
            return f"failed · {rest} · {why}; most of the fee comes back"
        case "inconclusive":
            return f"inconclusive · {rest} · the members disagreed; half of the fee comes back"
        case _:
            return f"{state.status} · {rest}"


def describe_capture(state: JobState) -> str:
    """The chance that bad nodes decide: exact for these candidates, beside the bound for any."""
    capture = state.capture
    if capture is None:
        return "unknown"
    exact = (
        "" if capture.chance_ppb is None else f"{format_ppb(capture.chance_ppb)} with these {state.candidates} nodes, "
    )
    bound = f"{format_ppb(capture.binomial_ppb)} by the binomial bound"
    return f"{exact}{bound}, if {format_ppm(capture.bad_share_ppm)} of their weight is bad"
