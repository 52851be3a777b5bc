"""Offences: a burst is charged, then nothing is heard, then the offender is heard again; strangers do not fill the memory."""

from __future__ import annotations

import io
from dataclasses import dataclass

from node.offences import BURST, FORGIVEN_MS, HEARD_AGAIN, MAX_OFFENDERS, Offences
from node.telemetry import Telemetry
from tests.protocol.builders import make_hash

PEER = make_hash("peer")


@dataclass
class HandClock:
    ms: int = 0

    def now_ms(self) -> int:
        return self.ms

    def now_us(self) -> int:
        return self.ms * 1_000


def open_offences() -> tuple[Offences, HandClock, Telemetry]:
    clock, telemetry = HandClock(), Telemetry(io.StringIO())
    return Offences(clock, telemetry), clock, telemetry


def test_offences_now_and_then_never_mute_a_peer() -> None:
    offences, clock, _ = open_offences()
    for _ in range(10 * BURST):
        offences.charge(PEER, "malformed", "text")
        clock.ms += FORGIVEN_MS
    assert not offences.is_muted(PEER)


def test_a_burst_mutes_a_peer_until_it_has_kept_still_and_no_other_peer() -> None:
    offences, clock, telemetry = open_offences()
    for _ in range(1_000):
        offences.charge(PEER, "malformed", "text")
    assert offences.is_muted(PEER) and not offences.is_muted(make_hash("other"))
    assert telemetry.stream.getvalue().count("peer_charged") == BURST
    clock.ms += (BURST - HEARD_AGAIN) * FORGIVEN_MS - 1
    assert offences.is_muted(PEER)
    clock.ms += 1
    assert not offences.is_muted(PEER)
    offences.charge(PEER, "malformed", "text")
    assert not offences.is_muted(PEER)


def test_ever_new_offenders_are_forgotten_oldest_first() -> None:
    offences, _, _ = open_offences()
    for _ in range(BURST):
        offences.charge(PEER, "malformed", "text")
    for index in range(MAX_OFFENDERS):
        offences.charge(make_hash(f"stranger {index}"), "malformed", "text")
    assert len(offences._levels) == MAX_OFFENDERS and not offences.is_muted(PEER)
