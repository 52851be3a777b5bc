"""What `verify` prints for a valid certificate: the answer, its seats, what was recomputed, what is attested."""

from pathlib import Path
from typing import Final

from node.render import (
    clip,
    format_duration,
    format_ppb,
    format_ppm,
    format_time,
    format_units,
    open_console,
    print_facts,
    print_list,
    print_table,
    shorten,
)
from protocol.certificate_report import CertificateReport, MemberRow, TrustReport
from protocol.jobs.settlement import SeatEnd
from protocol.models import ImageOutput, compute_model_id
from protocol.trust import RootKind

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
    console.print(f"recomputed here, trusting only the {report.trust.root.value}:", style="dim")
    print_list(console, "✓", report.recomputed)
    console.print("attested by the quorum that signed the block:", style="dim")
    print_list(console, "·", report.attested)
    if report.assumed:
        console.print("not shown by anything, but taken for granted:", style="dim")
        print_list(console, "?", report.assumed)


def _list_facts(path: Path, report: CertificateReport) -> list[tuple[str, str]]:
    decision = report.decision.name.lower()
    inside = sum(row.inside for row in report.members)
    thin = " · a thin set" if report.is_thin else ""
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
            f"height {report.settle_height:,} at {format_time(report.settle_ms)} · signed by {format_ppm(report.final_weight_ppm)} of the stake",
        ),
        (
            "block",
            f"{report.trust.final_height:,} in epoch {report.trust.final_epoch:,}, {report.trust.final_hash.hex()}",
        ),
        ("trust", _describe_trust(report.trust)),
    ]
    return facts


def _describe_trust(trust: TrustReport) -> str:
    if trust.is_direct:
        return f"{trust.root.value} of height {trust.root_height:,}: this very chain of blocks"
    root = trust.root.value if trust.root is RootKind.GENESIS else f"{trust.root.value} of height {trust.root_height:,}"
    changes = {0: "", 1: " · 1 change of the validators since"}.get(
        trust.steps, f" · {trust.steps} changes of the validators since"
    )
    return f"{root}, {format_duration(trust.age_ms)} old{' · too old' if trust.is_stale else ''}{changes}"


def _make_row(row: MemberRow) -> tuple[str, ...]:
    replaced = " (replacement)" if row.replaced is not None else ""
    return (
        str(row.seat + 1),
        shorten(None if row.node is None else row.node.hex()),
        "-" if row.output_hash is None else f"{row.output_hash.hex()[:16]}…",
        "-" if row.distance is None else f"{row.distance} bits",
        _ENDS[row.end] + replaced,
    )
