"""What the demo tells a newcomer, in 80 columns."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from devnet.next_steps import name_command
from node.commands.answers import Answer, Member
from node.commands.verify import VerifyResult
from node.render import (
    clean,
    clip,
    format_ppb,
    format_ppm,
    format_units,
    open_console,
    print_facts,
    print_table,
    shorten,
)
from node.rpc_types import JobState

WIDTH: Final = 80
_INDENT: Final = 2


class Narrator:
    """Tells the demo on standard output, or not at all."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._console: Final = Console(quiet=True) if is_quiet else open_console()
        self._is_quiet: Final = is_quiet

    def open_play(self, validators: int, cheater: int) -> None:
        """Who plays."""
        self._title("quorate: answers that strangers can check")
        self._say(
            f"Starting {validators} validators on this machine: real processes, real sockets, each with a small language"
            " model of its own, arith-s, that adds two-digit numbers."
        )
        self._say(
            f"Node {cheater} cheats: it claims arith-s and is paid for it, but runs arith-xs, an eighth of the size and wrong"
            " about every second time. The others don't know."
        )

    def announce(self, number: int, of: int, prompt: str, rule: str, seats: int, via: int) -> None:
        """Which question comes, and how it is decided."""
        self._title(f"{number} of {of}   {prompt}")
        drawn = "by stake" if rule == "majority" else "by stake and record"
        self._say(
            f"Rule {rule}, {seats} seats drawn {drawn} by a beacon that nobody controls; asked through node {via}."
        )
        if seats > 3:
            self._say("Five seats, five equal nodes: here the draw takes everybody, the cheater too.")
        self._type(f'quorate ask "{prompt}" --rule {rule} --committee {seats}')

    def show_answer(self, answer: Answer, state: JobState, cheater: str, size: int) -> None:
        """Seat by seat, then the decision."""
        if self._is_quiet:
            return
        rows = [_make_row(index, member, cheater) for index, member in enumerate(answer.members)]
        print_table(
            self._console, ("seat", "node", "says", "distance", "result", ""), rows, right=frozenset({"distance"})
        )
        inside = sum(member.inside for member in answer.members)
        agreed = f"{inside} of {len(answer.members)} seats agree ({format_ppm(answer.agreement_ppm or 0)})"
        facts = [
            ("answer", clip(answer.text or "none", 60)),
            ("decision", f"{answer.status} · {agreed}"),
            ("capture", _describe_capture(state)),
            ("cost", f"{format_units(answer.fee)} units; {format_units(answer.balance)} left"),
            ("certificate", f"{size:,} bytes"),
        ]
        print_facts(self._console, facts)
        if all(member.node != cheater for member in answer.members):
            self._say("This time the draw left the cheater out.")

    def show_verified(self, code: int, verified: VerifyResult) -> None:
        """What the stranger found."""
        self._say("A stranger, with that file and the genesis, and no network:")
        self._type("quorate verify answer.qrc --genesis genesis.json")
        if not verified.valid:
            self._say(f"REFUSED with exit code {code}: {_explain(verified)}")
            return
        self._say(
            f"valid: {len(verified.recomputed)} things recomputed, {len(verified.attested)} attested by the signatures of more"
            " than two thirds of the stake."
        )

    def show_forgery(self, change: str, code: int, verified: VerifyResult) -> None:
        """What becomes of a changed certificate."""
        self._title("A forgery")
        self._say(f"The last certificate again, with {change}:")
        self._type("quorate verify forged.qrc --genesis genesis.json")
        self._say(f"exit code {code}: {_explain(verified)}")

    def close_play(self, broken: Sequence[str], seconds: float) -> None:
        """What was shown, and what to try next."""
        self._title(f"{'Not' if broken else 'All'} as claimed · {seconds:.0f} s · every process has been stopped")
        for claim in broken:
            self._say(f"NOT SO: {claim}")
        if broken:
            return
        quorate = name_command()
        self._say(
            "Three right answers, each with a certificate; the cheater earned nothing where it was drawn. A certificate says"
            " that a committee nobody could choose agreed. It is no proof of truth."
        )
        self._say("Try next:")
        self._type("make devnet", "the same network, to ask yourself; Ctrl-C stops it")
        self._type(f"{quorate} --help")

    def _title(self, text: str) -> None:
        self._console.print()
        self._console.print(Rule(Text(clean(text), style="bold"), align="left"), width=min(WIDTH, self._console.width))

    def _say(self, text: str) -> None:
        self._console.print(Text(clean(text)), width=min(WIDTH, self._console.width))

    def _type(self, command: str, meaning: str = "") -> None:
        line = Text(" " * _INDENT).append(f"$ {clean(command)}", style="bold cyan")
        if meaning:
            line.append(f"   {meaning}", style="dim")
        self._console.print(line)


def _explain(verified: VerifyResult) -> str:
    return "valid" if verified.fault is None else f"not valid. {verified.fault.message}"


def _describe_capture(state: JobState) -> str:
    """The chance that bad nodes had decided: exact for these candidates, and the bound for many small ones."""
    capture = state.capture
    if capture is None:
        return "unknown"
    bound = format_ppb(capture.binomial_ppb)
    exact = bound if capture.chance_ppb is None else format_ppb(capture.chance_ppb)
    share = format_ppm(capture.bad_share_ppm)
    return f"{exact} if {share} of these {state.candidates} nodes are bad, {bound} in a crowd"


def _make_row(index: int, member: Member, cheater: str) -> tuple[str, ...]:
    distance = "-" if member.digest_distance is None else f"{member.digest_distance} bits"
    result = "inside" if member.inside else "outside"
    note = "the cheater" if member.node == cheater else ""
    return (str(index + 1), shorten(member.node), clip(member.text or "-", 24), distance, result, note)
