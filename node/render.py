"""How the command line shows things: ids short, money in units with separators, tables that fit 80 columns.

Results go to standard output, everything about how it went to standard error. Text from the network is untrusted: control
characters in it never reach the terminal, and no markup in it is interpreted.
"""

import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from protocol.params import UNIT

SHORT_ID: Final = 8
_MIN_WIDTH: Final = 80
_LAST_MS: Final = 253_402_300_800_000  # the year 10000

_STYLES: Final = {
    "accepted": "bold green",
    "valid": "bold green",
    "ready": "bold green",
    "inside": "green",
    "yes": "green",
    "ok": "green",
    "outside": "yellow",
    "inconclusive": "yellow",
    "syncing": "yellow",
    "open": "cyan",
    "failed": "bold red",
    "invalid": "bold red",
    "not ready": "bold red",
    "no": "red",
}


def open_console() -> Console:
    """A console on standard output; wide enough for the tables where it is no terminal. NO_COLOR is respected."""
    width = None if sys.stdout.isatty() else _MIN_WIDTH
    return Console(width=width, highlight=False, soft_wrap=False, markup=False)


def print_json(content: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.encode(content).decode() + "\n")
    sys.stdout.flush()


def print_note(text: str) -> None:
    """A line about how it goes, on standard error."""
    sys.stderr.write(f"{clean(text)}\n")
    sys.stderr.flush()


def clean(text: str) -> str:
    """The text in one line, without anything that a terminal would obey."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def shorten(identity: str | None) -> str:
    """The first 8 hex digits of an id."""
    return "-" if identity is None else identity[:SHORT_ID]


def clip(text: str, width: int) -> str:
    """The text in one line of at most this many characters."""
    line = clean(text)
    return line if len(line) <= width else f"{line[: width - 1]}…"


def format_units(micro: int) -> str:
    """Micro-units as units: 1,234.5."""
    whole, part = divmod(abs(micro), UNIT)
    sign = "-" if micro < 0 else ""
    fraction = f"{part:06d}".rstrip("0")
    return f"{sign}{whole:,}.{fraction}" if fraction else f"{sign}{whole:,}"


def format_ppm(ppm: int) -> str:
    """Parts per million as a percentage with at most one decimal."""
    return f"{ppm / 10_000:.1f}".removesuffix(".0") + " %"


def format_ppb(ppb: int) -> str:
    """Parts per billion as a percentage with two significant digits."""
    return f"{ppb / 10_000_000:.2g} %" if ppb < 10_000_000 else f"{ppb / 10_000_000:.1f} %"


def format_duration(milliseconds: int) -> str:
    """A time span in its two largest units."""
    seconds = milliseconds // 1000
    for unit, size, below, small in (("d", 86_400, 3_600, "h"), ("h", 3_600, 60, "min"), ("min", 60, 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // below} {small}"
    return f"{seconds} s" if seconds else f"{milliseconds} ms"


def format_time(milliseconds: int) -> str:
    """A time since the epoch, in UTC: 2030-01-31 12:00:00 UTC; far beyond any calendar in milliseconds."""
    if milliseconds >= _LAST_MS:
        return f"{milliseconds:,} ms"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def styled(text: str) -> Text:
    """A word in the colour of its meaning, any other text as it is."""
    return Text(clean(text), style=_STYLES.get(text.partition(" ·")[0], ""))


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line, the values aligned; a long value is broken at spaces only, so that ids can be copied."""
    rows = [(name, clean(value)) for name, value in facts]
    indent = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        style = _STYLES.get(value.partition(" ·")[0], "")
        for number, line in enumerate(_wrap(value, console.width - indent)):
            label = name if number == 0 else ""
            console.print(Text(f"{label:<{indent}}", style="dim") + Text(line, style=style), soft_wrap=True)


def print_list(console: Console, mark: str, lines: Iterable[str]) -> None:
    """Lines behind a mark each, indented."""
    for text in lines:
        for number, line in enumerate(_wrap(clean(text), console.width - 4)):
            console.print(Text(f"  {mark if number == 0 else ' '} {line}"), soft_wrap=True)


def _wrap(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def print_table(
    console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[str] = frozenset()
) -> None:
    """Rows under their columns; those named in `right` are numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(styled(cell) for cell in row))
    console.print(table)


class ProgressLine:
    """What is being waited for: one line that changes on a terminal, a new line for each new text elsewhere."""

    def __init__(self) -> None:
        self._live: Final = sys.stderr.isatty()
        self._shown = ""

    def show(self, text: str, detail: str = "") -> None:
        """Show the text; the detail (a count of seconds) only where the line can change in place."""
        line = clip(f"{text} {detail}".rstrip() if self._live else text, _MIN_WIDTH - 1)
        if line == self._shown:
            return
        self._shown = line
        sys.stderr.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._live and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _escape(character: str) -> str:
    return {"\n": "⏎", "\t": " ", "\r": "␍"}.get(character, f"\\u{ord(character):04x}")
