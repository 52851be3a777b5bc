"""R8: how long a view waits."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.ordering.effects import SetTimer
from protocol.ordering.events import Timer
from protocol.ordering.pace import compute_delay
from protocol.params import DEVNET
from tests.protocol.ordering.rig import NULL, Rig


@pytest.mark.parametrize(
    "view, final_view, delay_ms",
    [
        (1, 0, 100),
        (2, 0, 150),
        (3, 0, 225),
        (4, 0, 337),
        (5, 4, 100),
        (9, 8, 100),
        (9, 7, 150),
        (16, 0, 30_000),
        (10_000, 0, 30_000),
    ],
)
def test_r8_the_delay_grows_by_half_a_view_since_the_last_final_one_up_to_the_cap(
    view: int, final_view: int, delay_ms: int
) -> None:
    assert compute_delay(DEVNET, view, final_view) == delay_ms


def test_r8_the_delay_never_exceeds_its_cap_even_at_the_start() -> None:
    assert compute_delay(replace(DEVNET, base_delay_ms=50, max_delay_ms=20), 1, 0) == 20


def test_r8_skipped_views_lengthen_the_timers_of_the_next_one() -> None:
    rig = Rig()
    effects = rig.cert(NULL, 1)
    assert SetTimer(Timer.PROPOSAL, rig.now_ms + 300) in effects
    assert SetTimer(Timer.CERTIFICATE, rig.now_ms + 450) in effects
