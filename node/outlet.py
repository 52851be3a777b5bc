"""Where network events leave for the engine's one bounded channel.

Decides which events wait for room and which are lost without it; a receiver that has gone means the node is closing.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from node.network import NetworkEvent


class Outlet:
    """The sending side of the engine's channel."""

    def __init__(self, channel: trio.MemorySendChannel[NetworkEvent], on_gone: Callable[[], None]) -> None:
        self._channel = channel
        self._on_gone = on_gone
        self.dropped = 0

    async def deliver(self, event: NetworkEvent) -> None:
        """Returns when the event has found room."""
        try:
            await self._channel.send(event)
        except trio.BrokenResourceError:
            self._on_gone()

    def offer(self, event: NetworkEvent) -> bool:
        """Whether there was room; gossip and reports may be lost, and the loss is counted."""
        try:
            self._channel.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1
            return False
        except trio.BrokenResourceError:
            self._on_gone()
            return False
        return True
