"""An epoch of two heights: block 1 of view 1, block 2 of view 2 (LAST); the next one has the same four validators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace as replace_context

from msgspec.structs import replace

from protocol.block import Block
from protocol.ordering.context import Context
from protocol.ordering.effects import (
    Effect,
)
from protocol.ordering.events import (
    CertReceived,
    EpochStarted,
    ProposalReceived,
    Record,
    VoteReceived,
)
from protocol.ordering.messages import Justification, Proposal, QuorumCert
from protocol.params import DEVNET
from protocol.validators import compute_leader
from protocol.voting import Vote
from tests.protocol.ordering.rig import (
    CHAIN,
    FINAL,
    NOTAR,
    VALIDATORS,
    Rig,
    hash_of,
    make_block,
    make_cert,
    make_context,
    node_id,
    sign_proposal,
    tip_of,
)

FIRST = make_block(1)
LAST = make_block(2, tip_of(FIRST), salt=b"body")
OTHER = make_block(2, tip_of(FIRST), salt=b"other")
LAST_HASH = hash_of(LAST)
END = make_cert(FINAL, 2, LAST_HASH)
AGAIN = Justification(make_cert(NOTAR, 2, LAST_HASH), ())
DELAY_MS = DEVNET.base_delay_ms


def repeat(
    view: int, justification: Justification = AGAIN, block: Block = LAST, body: tuple[bytes, ...] = ()
) -> Proposal:
    """A re-proposal by the leader of a view."""
    return sign_proposal(replace(block, body=body), justification, view % 4, view)


def make_rig(own: int | None = 0, records: tuple[Record, ...] = ()) -> Rig:
    return Rig(own, boundary=2, records=records)


def make_notarized(own: int | None = 0) -> Rig:
    """The last block is notarized and not final, the machine is in view 3."""
    rig = make_rig(own)
    rig.propose(FIRST)
    rig.cert(NOTAR, 1, hash_of(FIRST))
    rig.cert(FINAL, 1, hash_of(FIRST))
    rig.propose(LAST)
    rig.cert(NOTAR, 2, LAST_HASH)
    assert (rig.state.view, rig.state.tip.height) == (3, 1)
    return rig


def make_over(own: int | None = 0) -> Rig:
    """The last block is final."""
    rig = make_notarized(own)
    rig.cert(FINAL, 2, LAST_HASH)
    return rig


def make_next(own: int | None = 0, epoch: int = 1) -> Context:
    """The epoch on LAST: another seed of leaders, the same table."""
    start = tip_of(LAST)
    return replace_context(make_context(own), epoch=epoch, seed=bytes(32), start=start, start_cert=END, boundary=4)


def start_next(rig: Rig, own: int | None = 0) -> list[Effect]:
    return rig.feed(EpochStarted(rig.now_ms, make_next(own)))


def lead_next(view: int) -> int:
    return compute_leader(VALIDATORS, CHAIN, 1, bytes(32), view)


def receive(rig: Rig, message: Proposal | Vote | QuorumCert, peer: int = 1) -> list[Effect]:
    match message:
        case Proposal():
            return rig.feed(ProposalReceived(rig.now_ms, node_id(peer), message))
        case Vote():
            return rig.feed(VoteReceived(rig.now_ms, node_id(peer), message))
        case QuorumCert():
            return rig.feed(CertReceived(rig.now_ms, node_id(peer), message))


def count(effects: Iterable[Effect], kind: type[Effect]) -> int:
    return sum(isinstance(effect, kind) for effect in effects)
