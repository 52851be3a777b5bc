"""The open books on one peer: its queue, rates, session and counters.

Decides nothing but when a repeated offence is news; node/libp2p_network.py moves all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from node.network import Limits, Offence, PeerStatistics
from node.rates import TokenBucket
from node.streams import Outbox, Session, Traffic


@dataclass(slots=True, eq=False)
class Peer:
    """All that is open towards one peer; changed by node/libp2p_network.py only."""

    node_id: bytes
    address: str | None  # None: a guest
    outbox: Outbox
    direct_bucket: TokenBucket
    gossip_bucket: TokenBucket
    fetch_bucket: TokenBucket
    requests_out: trio.CapacityLimiter
    traffic: Traffic = field(default_factory=Traffic)
    session: Session | None = None
    session_lock: trio.Lock = field(default_factory=trio.Lock)
    up: bool = False
    is_learned: bool = False  # its address came from others, not from the configuration
    software: str = ""
    wake: trio.Event = field(default_factory=trio.Event)
    not_before: float = float("-inf")
    requests_in: int = 0
    dropped_out: int = 0
    dropped_in: int = 0
    slowed_in: int = 0
    gossip_in: int = 0
    fetches_served: int = 0
    offences: int = 0
    reported: dict[Offence, float] = field(default_factory=dict)

    def spend(self, bucket: TokenBucket, messages: int, size: int) -> float | None:
        """Seconds to wait before these messages may pass, or None where they are dropped; both are counted."""
        delay_s = bucket.take(messages, size, trio.current_time())
        if delay_s is None:
            self.dropped_in += messages
        elif delay_s > 0:
            self.slowed_in += messages
        return delay_s

    def is_flooding(self, limit_s: float) -> bool:
        """Whether this peer has been over its rates for so long that it will not mend by itself. What it fetches is not counted: that
        is refused, and costs it more than us."""
        now = trio.current_time()
        return max(bucket.measure_flood(now) for bucket in (self.direct_bucket, self.gossip_bucket)) >= limit_s

    def is_news(self, offence: Offence, interval_s: float) -> bool:
        """Counts an offence; whether it is the first of its kind for that long and so worth an event."""
        self.offences += 1
        now = trio.current_time()
        if now - self.reported.get(offence, float("-inf")) < interval_s:
            return False
        self.reported[offence] = now
        return True


def make_peer(node_id: bytes, address: str | None, limits: Limits) -> Peer:
    """A peer of which nothing is known yet; without an address it is a guest."""
    now = trio.current_time()
    return Peer(
        node_id,
        address,
        Outbox(limits.outbox_bytes),
        TokenBucket(limits.direct, now),
        TokenBucket(limits.gossip, now),
        TokenBucket(limits.fetch, now),
        trio.CapacityLimiter(limits.requests_out_per_peer),
    )


def snapshot(peer: Peer) -> PeerStatistics:
    """The peer's counters as they stand."""
    traffic = peer.traffic
    return PeerStatistics(
        peer.node_id, peer.address is not None, peer.up, peer.software, traffic.last_seen, traffic.rtt_ms,
        traffic.messages_in, traffic.messages_out, traffic.bytes_in, traffic.bytes_out,
        peer.dropped_out + peer.outbox.dropped, peer.dropped_in, peer.gossip_in, peer.fetches_served, peer.offences,
        peer.slowed_in,
    )  # fmt: skip
