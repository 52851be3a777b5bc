"""What travels through the heap of events: messages, requests and answers, and what a process sets for itself."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.block import Block
from protocol.ordering.effects import OrderingMessage
from protocol.ordering.events import Timer
from protocol.ordering.messages import QuorumCert
from protocol.units import Hash, NodeId


@dataclass(frozen=True, slots=True)
class Letter:
    """A message on its way, with who sent it."""

    source: int
    peer: NodeId
    message: OrderingMessage


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a body, or, of an epoch, for certificates of views or the final blocks above a height."""

    source: int
    block_hash: Hash | None = None
    views: tuple[int, ...] = ()
    above_height: int | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, or the final blocks above a height with the last one's certificate."""

    peer: NodeId
    blocks: tuple[Block, ...]
    cert: QuorumCert | None


@dataclass(frozen=True, slots=True)
class Ring:
    """A timer's time, as it was set; a later setting makes it void."""

    timer: Timer
    at_ms: int
    life: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Time to ask the next peer: for a body, or for the range that a CatchUp wants."""

    life: int
    block_hash: Hash | None
    peers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Crash:
    """The process dies, at once or within a step after that many more effects, and comes back later."""

    effects: int
    down_ms: int


@dataclass(frozen=True, slots=True)
class Restart:
    """The process comes back."""


@dataclass(frozen=True, slots=True)
class Submit:
    """A client's transaction."""

    transaction: bytes
