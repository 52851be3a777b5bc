"""The engine of a network with one validator: it signs its own blocks, one certificate a block, and asks nobody.

A quorum of one is a quorum, so that followers and certificates need not know which engine made them. What it cannot do: go on when
the set grows; then it stops, and the node is started again with S-Simplex on the same log.
"""

from typing import ClassVar, Final

from msgspec.structs import replace

from protocol.block import Block, compute_header_hash
from protocol.ordering import effects as do
from protocol.ordering import events as happened
from protocol.ordering.engine import Engine
from protocol.ordering.messages import QuorumCert, Vote, VoteKind
from protocol.ordering.simplex import step as follow
from protocol.ordering.state import BlockStatus, HeldBlock, SimplexState, make_state, make_tip
from protocol.ordering.votes import sign_vote
from protocol.units import Hash, Milliseconds

_SEVERAL: Final = "the set has {} validators: start this node with ordering.engine = simplex, nothing is lost"


class SingleNode:
    """See Engine. Without a signing key it follows, as any observer does."""

    name: ClassVar[str] = "single-node"

    def step(self, state: SimplexState, event: happened.Event) -> tuple[SimplexState, tuple[do.Effect, ...]]:
        """See Engine."""
        context = event.context if isinstance(event, happened.EpochStarted | happened.MaySign) else state.context
        if state.is_halted or context.own is None:
            return follow(state, event)
        if len(context.validators.members) > 1:
            return replace(state, is_halted=True), (do.Halt(_SEVERAL.format(len(context.validators.members)), ()),)
        match event:
            case happened.Replayed(records=records):
                return _resume(replace(state, is_started=True, later=records), event.now_ms)
            case happened.EpochStarted():
                fresh = make_state(context, state.tip, state.tip_cert, event.now_ms)
                started = replace(fresh, is_started=True, has_work=state.has_work, later=state.later)
                return _resume(started, event.now_ms)
            case happened.MaySign():
                floor = max(state.view, context.floor + 1)
                return _schedule(replace(state, context=context, view=floor), event.now_ms)
            case happened.WorkChanged(pending=pending):
                return _schedule(replace(state, has_work=pending), event.now_ms)
            case happened.TimerFired(timer=happened.Timer.BUILD):
                return _build(state, event.now_ms)
            case happened.BuildDeclined(view=view) if view == state.view:
                return replace(state, deadlines={}), _wake(event.now_ms + context.params.idle_interval_ms)
            case happened.BlockBuilt(block=block) if _is_next(state, block):
                return _sign(state, block, event.now_ms)
            case happened.BlockChecked(block_hash=block_hash, valid=valid):
                return _take_verdict(state, block_hash, event.now_ms, valid=valid)
            case _:
                return state, ()  # nobody else has a say


def _resume(state: SimplexState, now_ms: Milliseconds) -> tuple[SimplexState, tuple[do.Effect, ...]]:
    """R10: a block whose certificate is in the log may have been seen by others: it is executed again before anything new is signed."""
    epoch, tip = state.context.epoch, state.tip
    blocks = {compute_header_hash(record.header): record for record in state.later if isinstance(record, Block)}
    for record in state.later:
        if isinstance(record, QuorumCert) and (record.epoch, record.view) > (epoch, tip.view) and not state.is_over:
            block = blocks.get(record.block_hash)
            if block is not None and block.header.parent_hash == tip.block_hash:
                held = HeldBlock(block, BlockStatus.CHECKING)
                return replace(state, blocks={record.block_hash: held}, syncing=record), (
                    do.CheckBlock(record.block_hash, block),
                )
    signed = [record.view for record in state.later if isinstance(record, Vote) and record.epoch == epoch]
    view = max(state.view, state.context.floor + 1, *(view + 1 for view in signed))
    return _schedule(replace(state, view=view), now_ms)


def _take_verdict(
    state: SimplexState, block_hash: Hash, now_ms: Milliseconds, *, valid: bool
) -> tuple[SimplexState, tuple[do.Effect, ...]]:
    cert = state.syncing
    if cert is None or cert.block_hash != block_hash:
        return state, ()
    if not valid:
        text = f"the log holds a certificate of view {cert.view} whose block this node's application refuses"
        return replace(state, is_halted=True), (do.Halt(text, (cert,)),)
    after, done = _finalize(replace(state, syncing=None), state.blocks[block_hash].block, cert, now_ms)
    resumed, more = _resume(after, now_ms)
    return resumed, (*done, *more)


def _schedule(state: SimplexState, now_ms: Milliseconds) -> tuple[SimplexState, tuple[do.Effect, ...]]:
    """The next block comes the pace after the last one where there is work, the idle interval after it where there is none."""
    if not state.is_started or state.is_over or state.syncing is not None:
        return state, ()
    params = state.context.params
    wait_ms = params.pace_ms if state.has_work else max(params.idle_interval_ms, params.pace_ms)
    at_ms = max(now_ms, state.tip.time_ms + wait_ms)
    return replace(state, deadlines={happened.Timer.BUILD: at_ms}), _wake(at_ms)


def _wake(at_ms: Milliseconds) -> tuple[do.Effect, ...]:
    return (do.SetTimer(happened.Timer.BUILD, at_ms),)


def _build(state: SimplexState, now_ms: Milliseconds) -> tuple[SimplexState, tuple[do.Effect, ...]]:
    deadline = state.deadlines.get(happened.Timer.BUILD, now_ms)
    if now_ms < deadline:
        return state, _wake(deadline)
    if not state.is_started or state.is_over or state.syncing is not None:
        return state, ()
    tip = state.tip
    not_before = tip.time_ms + state.context.params.pace_ms
    request = do.BuildBlock(state.view, tip.height + 1, tip.view, tip.block_hash, not_before)
    return replace(state, deadlines={}), (request,)


def _is_next(state: SimplexState, block: Block) -> bool:
    header = block.header
    return (header.view, header.parent_hash) == (state.view, state.tip.block_hash) and not state.is_over


def _sign(state: SimplexState, block: Block, now_ms: Milliseconds) -> tuple[SimplexState, tuple[do.Effect, ...]]:
    """The block and what makes it final go into the log before the certificate leaves or the block is stored."""
    block_hash = compute_header_hash(block.header)
    vote = sign_vote(state.context, VoteKind.FINAL, block.header.view, block_hash)
    cert = QuorumCert(VoteKind.FINAL, vote.epoch, vote.view, block_hash, (vote.signer,), (vote.signature,))
    logged = (do.Persist(block, durable=False), do.Persist(vote, durable=False), do.Persist(cert, durable=True))
    after, done = _finalize(state, block, cert, now_ms)
    scheduled, wake = _schedule(after, now_ms)
    return scheduled, (*logged, *done, *wake)


def _finalize(
    state: SimplexState, block: Block, cert: QuorumCert, now_ms: Milliseconds
) -> tuple[SimplexState, tuple[do.Effect, ...]]:
    tip = make_tip(cert.block_hash, block.header)
    after = replace(
        state, tip=tip, tip_cert=cert, tip_since_ms=now_ms, view=max(state.view, tip.view + 1), blocks={},
        finalized={tip.view: tip.block_hash}, entered_ms=now_ms,
    )  # fmt: skip
    done = (do.Finalize((cert.block_hash,), cert), do.Broadcast(cert))
    if after.is_over:
        return after, (*done, do.EndEpoch(tip, cert))
    return after, done


SINGLE_NODE: Final[Engine] = SingleNode()
