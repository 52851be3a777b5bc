"""`quorate verify`: whether a certificate proves its answer, offline, with nothing but the genesis."""

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from node.commands import options
from node.faults import CONSEQUENCES, Exit, Fault, Trouble
from protocol.errors import InvalidCertificate, Rejection

if TYPE_CHECKING:
    from protocol.certificate import CertificateReport

MAX_FILE_BYTES: Final = (
    8 * 1024 * 1024
)  # above what a certificate with its output may have, so that the check itself refuses


class VerifyFault(msgspec.Struct, frozen=True):
    """Why a certificate is refused."""

    reason: str
    message: str


class VerifyResult(msgspec.Struct, frozen=True):
    """What `verify --json` prints; everything but `valid` and `fault` is empty where the certificate is refused."""

    valid: bool
    decision: str | None = None
    text: str | None = None
    picture_sha256: str | None = None  # of the pixels
    job: str | None = None
    recomputed: tuple[str, ...] = ()
    attested: tuple[str, ...] = ()
    fault: VerifyFault | None = None


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE.qrc", help="The certificate.")],
    genesis: Annotated[Path, typer.Option("--genesis", metavar="FILE", help="The network's genesis: what is trusted.")],
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Put the certified picture in a file.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Check a certificate offline.

    It shows the answer, what was recomputed here, and what the network's quorum attests.

    Exit code 0: valid, accepted; 7: valid, failed or inconclusive; 6: invalid; 9: a newer format; 2: no such file.
    """
    from node.genesis_file import read_genesis
    from protocol.certificate import check_certificate

    encoded = _read_certificate(file)
    trusted = read_genesis(genesis)
    try:
        checked = check_certificate(encoded, trusted)
    except InvalidCertificate as refusal:
        return _report_invalid(file, refusal, as_json=as_json)
    if picture is not None:
        _write_picture(picture, checked)
    return _report_valid(file, checked, as_json=as_json)


def _write_picture(path: Path, report: "CertificateReport") -> None:
    from node.commands.answers import write_file
    from node.png import encode_png
    from protocol.models import ImageOutput

    if not isinstance(report.output, ImageOutput):
        raise Fault(
            Trouble.USAGE, "expected a certificate of a picture for --picture, got one with a text or no answer"
        )
    write_file(path, encode_png(report.output), "picture")


def _read_certificate(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            encoded = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = Trouble.PERMISSION if isinstance(error, PermissionError) else Trouble.NO_SUCH_FILE
        raise Fault(reason, f"the certificate {path} cannot be read: {error.strerror or error}") from error
    if len(encoded) > MAX_FILE_BYTES:
        raise Fault(Rejection.TOO_LARGE, f"{path} is no certificate: expected at most {MAX_FILE_BYTES} bytes, got more")
    return encoded


def _report_invalid(path: Path, refusal: InvalidCertificate, *, as_json: bool) -> int:
    from node.render import print_json, print_note

    if as_json:
        print_json(VerifyResult(valid=False, fault=VerifyFault(refusal.reason.value, str(refusal))))
    else:
        print_note(f"INVALID {path}: {refusal}")
    code = CONSEQUENCES[refusal.reason].exit
    return code if code is Exit.INCOMPATIBLE else Exit.INVALID


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
            )
        )
    else:
        from node.commands.verify_tables import print_report

        print_report(path, report)
    return Exit.OK if report.decision in {Decision.ACCEPTED, Decision.CHOSEN} else Exit.NO_ANSWER
