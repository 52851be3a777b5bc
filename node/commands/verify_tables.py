"""What `verify` prints for a valid certificate: the answer, its seats, what was recomputed, what is attested."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from node.render import (
    clip,
    format_ppb,
    format_ppm,
    format_units,
    open_console,
    print_facts,
    print_list,
    print_table,
    shorten,
)
from protocol.certificate import CertificateReport, MemberRow
from protocol.jobs.settlement import SeatEnd
from protocol.models import ImageOutput, compute_model_id

_ENDS: Final = {
    SeatEnd.EMPTY: "empty",
    SeatEnd.ABSENT: "absent",
    SeatEnd.SILENT: "silent",
    SeatEnd.ABSTAINED: "abstained",
    SeatEnd.OUTSIDE: "outside",
    SeatEnd.WINNING: "inside",
}


def print_report(path: Path, report: CertificateReport) -> None:
    """The certificate's content in one screen."""
    console = open_console()
    print_facts(console, _list_facts(path, report))
    rows = [_make_row(row) for row in report.members]
    columns = ("seat", "node", "output hash", "distance", "result")
    print_table(console, columns, rows, right=frozenset({"seat", "distance"}))
    console.print("recomputed here, trusting only the genesis:", style="dim")
    print_list(console, "✓", report.recomputed)
    console.print("attested by the quorum that signed the block:", style="dim")
    print_list(console, "·", report.attested)


def _list_facts(path: Path, report: CertificateReport) -> list[tuple[str, str]]:
    decision = report.decision.name.lower()
    inside = sum(row.inside for row in report.members)
    thin = " · a thin set" if report.is_thin else ""
    settled = datetime.fromtimestamp(report.settle_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    facts = [("certificate", f"{path}"), ("check", f"valid · {decision}")]
    facts.append(("question", clip(report.prompt.decode("utf-8", "replace"), 200)))
    if report.text is not None:
        facts.append(("answer", clip(report.text, 400) or "(empty)"))
    if isinstance(report.output, ImageOutput):
        facts.append(("answer", f"a picture of {report.output.width} x {report.output.height} (--picture FILE.png)"))
    facts += [
        ("job", report.job.hex()),
        ("model", f"{report.card.name} ({shorten(compute_model_id(report.card).hex())})"),
        (
            "agreement",
            f"{report.rule.name.lower()} of {len(report.members)} · {inside} seats agree ({format_ppm(report.agreement_ppm)})",
        ),
        (
            "capture",
            f"about {format_ppb(report.capture_ppb[0])} if 20 % of the candidates' weight is bad, {format_ppb(report.capture_ppb[1])} if 33 %",
        ),
        ("candidates", f"{format_ppm(report.candidate_share_ppm)} of all stake serves this model{thin}"),
        ("asker", f"{shorten(report.requester.hex())} · fee {format_units(report.fee)} units"),
        (
            "settled",
            f"height {report.settle_height:,} at {settled} UTC · signed by {format_ppm(report.final_weight_ppm)} of the stake",
        ),
    ]
    return facts


def _make_row(row: MemberRow) -> tuple[str, ...]:
    replaced = " (replacement)" if row.replaced is not None else ""
    return (
        str(row.seat + 1),
        shorten(None if row.node is None else row.node.hex()),
        "-" if row.output_hash is None else f"{row.output_hash.hex()[:16]}…",
        "-" if row.distance is None else f"{row.distance} bits",
        _ENDS[row.end] + replaced,
    )
