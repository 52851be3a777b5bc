"""Words and numbers as the command line shows them."""

from __future__ import annotations

import pytest

from node.render import clean, clip, format_duration, format_ppb, format_ppm, format_units


@pytest.mark.parametrize(
    "micro, shown",
    [(0, "0"), (1, "0.000001"), (2_500_000, "2.5"), (1_234_567_000_000, "1,234,567"), (-1_500_000, "-1.5")],
)
def test_money_is_shown_in_units(micro: int, shown: str) -> None:
    assert format_units(micro) == shown


def test_figures_are_shown_for_people() -> None:
    assert [format_ppm(ppm) for ppm in (0, 666_666, 1_000_000)] == ["0 %", "66.7 %", "100 %"]
    assert [format_ppb(ppb) for ppb in (0, 510, 104_000_000)] == ["0 %", "5.1e-05 %", "10.4 %"]
    assert [format_duration(ms) for ms in (12, 59_000, 61_000, 7_260_000, 90_000_000)] == [
        *("12 ms", "59 s", "1 min 1 s", "2 h 1 min", "1 d 1 h")
    ]


def test_text_from_the_network_cannot_command_the_terminal() -> None:
    assert clean("a\x1b[31mb\nc\u202ed") == "a\\u001b[31mb⏎c\\u202ed"
    assert clip("0123456789", 5) == "0123…"
