"""How much one peer may send: a token bucket for messages and bytes that first slows, then drops.

Decides whether a message is taken, and after how long, and tells how long a flood has lasted; leaves the waiting, the counting and the
cutting off to the caller.
"""

from __future__ import annotations

from node.network import Rate

# While in debt the reader waits this long before each frame: enough to slow an honest burst, short enough that pings
# behind a flood are still answered.
SLOW_S = 0.02


class TokenBucket:
    """The open account of one peer in one class of traffic; may run into debt by one burst, then refuses."""

    __slots__ = ("_byte_tokens", "_flooded_since", "_message_tokens", "_rate", "_updated")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._message_tokens = rate.messages_per_s * rate.burst_s
        self._byte_tokens = rate.bytes_per_s * rate.burst_s
        self._updated = now
        self._flooded_since: float | None = None

    def take(self, messages: int, size: int, now: float) -> float | None:
        """Seconds to wait before using the message, or None if it has to be dropped."""
        self._refill(now)
        message_tokens = self._message_tokens - messages
        byte_tokens = self._byte_tokens - size
        most_messages, most_bytes = (
            each * self._rate.burst_s for each in (self._rate.messages_per_s, self._rate.bytes_per_s)
        )
        if message_tokens < -most_messages or byte_tokens < -most_bytes:
            self._flooded_since = now if self._flooded_since is None else self._flooded_since
            return None
        self._message_tokens, self._byte_tokens = message_tokens, byte_tokens
        if message_tokens < 0 or byte_tokens < 0:
            return SLOW_S
        self._flooded_since = None
        return 0.0

    def measure_flood(self, now: float) -> float:
        """For how many seconds messages have been dropped without the account coming out of its debt; 0 where none was."""
        return 0.0 if self._flooded_since is None else now - self._flooded_since

    def charge(self, size: int, now: float) -> None:
        """Takes bytes that are spent already; the next take pays for them."""
        self._refill(now)
        self._byte_tokens -= size

    def _refill(self, now: float) -> None:
        passed = max(0.0, now - self._updated)
        self._updated = now
        messages, size, burst_s = self._rate.messages_per_s, self._rate.bytes_per_s, self._rate.burst_s
        self._message_tokens = min(messages * burst_s, self._message_tokens + passed * messages)
        self._byte_tokens = min(size * burst_s, self._byte_tokens + passed * size)
