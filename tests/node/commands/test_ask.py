"""The options of `quorate ask` as the settings that travel."""

from __future__ import annotations

import pytest

from node.commands.ask import build_settings
from node.faults import Exit, Fault


@pytest.mark.parametrize(
    "arguments, kind",
    [((None, None, None, None), "greedy"), ((9, None, None, 3), "beam"), ((9, 0.5, None, None), "sample")],
)
def test_options_become_settings(arguments: tuple, kind: str) -> None:
    assert build_settings(*arguments).kind == kind


@pytest.mark.parametrize(
    "arguments",
    [
        *((0, None, None, None), (10**9, None, None, None), (9, None, None, 17), (9, None, 1.5, None)),
        *((9, 0.0, None, None), (9, 0.5, None, 2), (9, float("nan"), None, None), (9, float("inf"), None, None)),
    ],
)
def test_settings_out_of_range_are_refused(arguments: tuple) -> None:
    with pytest.raises(Fault) as caught:
        build_settings(*arguments)
    assert caught.value.exit_code is Exit.USAGE
