"""What peers did wrong, and whom this node stops listening to for a while.

A wrong message costs its sender nothing and this node a check; one that sends them steadily is not heard until it has kept still. The
measure leaks, so that a peer that is mended is heard again, and no single fault silences an honest one.
"""

from typing import Final

from node.telemetry import Level, Telemetry
from node.timers import Clock
from protocol.units import Milliseconds, NodeId

BURST: Final = 32  # offences at once before a peer is not heard; honest peers commit none
FORGIVEN_MS: Final = 250  # one offence is forgiven this often
HEARD_AGAIN: Final = BURST // 2
MAX_OFFENDERS: Final = 1_024  # strangers may come under ever new keys; the oldest are forgotten


class Offences:
    """The open account of every offender; owned by the engine."""

    def __init__(self, clock: Clock, telemetry: Telemetry) -> None:
        self._clock: Final = clock
        self._telemetry: Final = telemetry
        self._levels: dict[NodeId, tuple[float, Milliseconds]] = {}
        self._muted: set[NodeId] = set()

    def charge(self, peer: NodeId, reason: str, text: str) -> None:
        """Note that this peer sent what no honest node sends."""
        if self.is_muted(peer):
            return  # it is not heard: what it did was under way already
        level = self._compute_level(peer) + 1
        self._levels.pop(peer, None)
        self._levels[peer] = (level, self._clock.now_ms())
        self._telemetry.emit(Level.WARNING, "peer_charged", peer=peer, reason=reason, text=text)
        if level >= BURST:
            self._muted.add(peer)
            seconds = int((level - HEARD_AGAIN) * FORGIVEN_MS / 1000)
            self._telemetry.emit(Level.WARNING, "peer_muted", peer=peer, seconds=seconds)
        while len(self._levels) > MAX_OFFENDERS:
            oldest = next(iter(self._levels))
            del self._levels[oldest]
            self._muted.discard(oldest)

    def is_muted(self, peer: NodeId) -> bool:
        """Whether what this peer sends is dropped unread."""
        if peer not in self._muted:
            return False
        if self._compute_level(peer) > HEARD_AGAIN:
            return True
        self._muted.discard(peer)
        return False

    def _compute_level(self, peer: NodeId) -> float:
        level, since_ms = self._levels.get(peer, (0.0, 0))
        return max(0.0, level - (self._clock.now_ms() - since_ms) / FORGIVEN_MS)
