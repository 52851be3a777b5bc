"""Who is reached where."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protocol.units import NodeId

OBSERVERS = b"observers".ljust(32)  # the key under which `Addresses` lists those who only follow


class Addresses:
    """Which addresses a validator's key is reached at: one, or two for twins."""

    def __init__(self) -> None:
        self.by_node: dict[NodeId, list[int]] = {}

    def reach(self, node: NodeId) -> list[int]:
        return self.by_node.get(node, [])

    def list_others(self, own: NodeId) -> tuple[NodeId, ...]:
        """Everybody else who takes part or follows."""
        return tuple(node for node in self.by_node if node != own)
