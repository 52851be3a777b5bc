"""`quorate verify`: whether a certificate proves its answer, offline, with nothing but the genesis or a header that is trusted."""

import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from node.commands import options
from node.faults import CONSEQUENCES, Exit, Fault, Trouble
from protocol.errors import InvalidCertificate, InvalidTrust, Rejection

if TYPE_CHECKING:
    from protocol.certificate import CertificateReport
    from protocol.certificate_report import TrustReport
    from protocol.genesis import Genesis
    from protocol.trust import Trust

MAX_FILE_BYTES: Final = (
    8 * 1024 * 1024
)  # above what a certificate with its output may have, so that the check itself refuses
_CURED: Final = frozenset({Rejection.MISSING_STEPS, Rejection.BAD_VALIDATORS, Rejection.BEFORE_TRUST})


class VerifyFault(msgspec.Struct, frozen=True):
    """Why a certificate is refused."""

    reason: str
    message: str


class VerifyTrust(msgspec.Struct, frozen=True):
    """What the check rests on. `stale`: older than `period_ms`, and `direct`: the trusted header is a block of this certificate itself."""

    root: str
    height: int
    hash: str
    time_ms: int
    age_ms: int
    period_ms: int
    stale: bool
    direct: bool
    steps: int
    advice: str
    block_height: int
    block_hash: str
    block_epoch: int


class VerifyResult(msgspec.Struct, frozen=True):
    """What `verify --json` prints; everything but `valid` and `fault` is empty where the certificate is refused."""

    valid: bool
    decision: str | None = None
    text: str | None = None
    picture_sha256: str | None = None  # of the pixels
    job: str | None = None
    recomputed: tuple[str, ...] = ()
    attested: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    trust: VerifyTrust | None = None
    fault: VerifyFault | None = None


_File = Annotated[Path, typer.Argument(metavar="FILE.qrc", help="The certificate.")]
_Genesis = Annotated[Path, typer.Option("--genesis", metavar="FILE", help="The network's genesis: what is trusted.")]
_Trusted = Annotated[
    Path | None, typer.Option("--trusted", metavar="FILE.qrt", help="Trust this header instead (`quorate checkpoint`).")
]
_Chain = Annotated[
    Path | None,
    typer.Option(
        "--chain", metavar="FILE.qrs", help="The changes of the validators. Default: the one beside FILE.qrc."
    ),
]
_Now = Annotated[
    str | None, typer.Option("--now", metavar="TIME", help="Judge the trust's age at this time, such as 2030-01-31.")
]
_Fresh = Annotated[
    bool, typer.Option("--fresh", help="Refuse where the trust is too old to hold its validators to it.")
]
_Picture = Annotated[
    Path | None, typer.Option("--picture", metavar="FILE.png", help="Put the certified picture in a file.")
]


def verify(
    file: _File,
    genesis: _Genesis,
    trusted: _Trusted = None,
    chain: _Chain = None,
    now: _Now = None,
    fresh: _Fresh = False,
    picture: _Picture = None,
    as_json: options.Json = False,
) -> int:
    """Check a certificate offline.

    It shows the answer, what was recomputed here, what the network's quorum attests, and how old the trust is that it rests on.

    Exit code 0: valid, accepted; 7: valid, failed or inconclusive; 6: invalid; 9: a newer format; 2: no such file.
    """
    from node.genesis_file import read_genesis
    from protocol.certificate import check_certificate

    now_ms = _parse_time(now)
    encoded = _read_file(file, "certificate", MAX_FILE_BYTES)
    network = read_genesis(genesis)
    try:
        root = _find_root(network, trusted)
        checked = check_certificate(encoded, root, _find_chain(file, root, chain), now_ms)
    except (InvalidCertificate, InvalidTrust) as refusal:
        return _report_invalid(file, refusal, as_json=as_json)
    if fresh and checked.trust.is_stale:
        raise Fault(
            Trouble.STALE_TRUST, f"{file} is valid, but {describe_staleness(checked.trust)}", cure=checked.trust.advice
        )
    if picture is not None:
        _write_picture(picture, checked)
    return _report_valid(file, checked, as_json=as_json)


def describe_staleness(trust: "TrustReport") -> str:
    """Why an old root is worth less."""
    from node.render import format_duration

    return (
        f"the {trust.root.value} is {format_duration(trust.age_ms)} old: after {format_duration(trust.period_ms)}"
        " nobody who voted then still answers with a stake for what is signed in their names"
    )


def _parse_time(given: str | None) -> int:
    if given is None:
        return time.time_ns() // 1_000_000
    try:
        parsed = datetime.fromisoformat(given)
    except ValueError as error:
        raise Fault(
            Trouble.USAGE, f"expected --now as in 2030-01-31 or 2030-01-31T12:00:00Z, got {given[:40]!r}"
        ) from error
    aware = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
    return max(0, round(aware.timestamp() * 1000))


def _find_root(genesis: "Genesis", trusted: Path | None) -> "Trust":
    from protocol.chain_file import MAX_TRUSTED_HEADER_BYTES, read_trust
    from protocol.trust import trust_genesis

    if trusted is None:
        return trust_genesis(genesis)
    return read_trust(genesis, _read_file(trusted, "trusted header", MAX_TRUSTED_HEADER_BYTES + 4))


def _find_chain(certificate: Path, root: "Trust", chain: Path | None) -> bytes | None:
    """The chain file that was named, or the one that `ask` keeps beside the certificates of this chain."""
    from protocol.chain_file import MAX_CHAIN_FILE_BYTES, name_chain_file

    beside = certificate.with_name(name_chain_file(root.chain))
    if chain is None and not beside.is_file():
        return None
    return _read_file(beside if chain is None else chain, "chain file", MAX_CHAIN_FILE_BYTES + 4)


def _write_picture(path: Path, report: "CertificateReport") -> None:
    from node.commands.answers import write_file
    from node.png import encode_png
    from protocol.models import ImageOutput

    if not isinstance(report.output, ImageOutput):
        raise Fault(
            Trouble.USAGE, "expected a certificate of a picture for --picture, got one with a text or no answer"
        )
    write_file(path, encode_png(report.output), "picture")


def _read_file(path: Path, what: str, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            encoded = file.read(limit + 1)
    except OSError as error:
        reason = Trouble.PERMISSION if isinstance(error, PermissionError) else Trouble.NO_SUCH_FILE
        raise Fault(reason, f"the {what} {path} cannot be read: {error.strerror or error}") from error
    if len(encoded) > limit:
        raise Fault(Rejection.TOO_LARGE, f"{path} is no {what}: expected at most {limit} bytes, got more")
    return encoded


def _report_invalid(path: Path, refusal: InvalidCertificate | InvalidTrust, *, as_json: bool) -> int:
    from node.render import print_json, print_note

    consequence = CONSEQUENCES[refusal.reason]
    is_curable = isinstance(refusal, InvalidCertificate) and refusal.reason in _CURED
    message = f"{refusal}: {consequence.cure}" if is_curable else str(refusal)
    if as_json:
        print_json(VerifyResult(valid=False, fault=VerifyFault(refusal.reason.value, message)))
    else:
        print_note(f"INVALID {path}: {message}")
    return consequence.exit if consequence.exit is Exit.INCOMPATIBLE else Exit.INVALID


def _report_valid(path: Path, report: "CertificateReport", *, as_json: bool) -> int:
    from protocol.jobs.agreement import Decision
    from protocol.models import ImageOutput

    if as_json:
        from node.render import print_json

        decision = report.decision.name.lower()
        job = report.job.hex()
        pixels = report.output.pixels if isinstance(report.output, ImageOutput) else None
        print_json(
            VerifyResult(
                valid=True,
                decision=decision,
                text=report.text,
                picture_sha256=None if pixels is None else sha256(pixels).hexdigest(),
                job=job,
                recomputed=report.recomputed,
                attested=report.attested,
                assumed=report.assumed,
                trust=_view_trust(report.trust),
            )
        )
    else:
        from node.commands.verify_tables import print_report

        print_report(path, report)
    if report.trust.is_stale:
        from node.render import print_note

        print_note(f"quorate: {describe_staleness(report.trust)} — {report.trust.advice}")
    return Exit.OK if report.decision in {Decision.ACCEPTED, Decision.CHOSEN} else Exit.NO_ANSWER


def _view_trust(trust: "TrustReport") -> VerifyTrust:
    return VerifyTrust(
        root=trust.root.value,
        height=trust.root_height,
        hash=trust.root_hash.hex(),
        time_ms=trust.root_ms,
        age_ms=trust.age_ms,
        period_ms=trust.period_ms,
        stale=trust.is_stale,
        direct=trust.is_direct,
        steps=trust.steps,
        advice=trust.advice,
        block_height=trust.final_height,
        block_hash=trust.final_hash.hex(),
        block_epoch=trust.final_epoch,
    )
