"""Bodies and finality: holding what is needed, having it executed in order, and rule R7."""

from msgspec.structs import replace

from protocol.block import Block, Header, compute_header_hash, compute_transactions_root
from protocol.errors import InvalidMessage, Rejection
from protocol.ordering.context import Context
from protocol.ordering.effects import CatchUp, CheckBlock, FetchBlock, Finalize, Halt
from protocol.ordering.epochs import end_epoch
from protocol.ordering.events import Timer
from protocol.ordering.messages import QuorumCert
from protocol.ordering.pace import start_standstill_timer
from protocol.ordering.state import BlockStatus, Draft, HeldBlock, Tip, make_tip
from protocol.units import Hash, NodeId, View


def hold_block(draft: Draft, block_hash: Hash, block: Block, status: BlockStatus, peers: tuple[NodeId, ...]) -> None:
    """Keeps a body whose hash and transactions root are known to fit, and asks for its parent where that is missing."""
    if block_hash in draft.state.blocks:
        return
    draft.put_block(block_hash, HeldBlock(block, status))
    if block_hash in draft.state.wanted:
        wanted = {key: view for key, view in draft.state.wanted.items() if key != block_hash}
        draft.state = replace(draft.state, wanted=wanted)
    want_block(draft, block.header.parent_hash, block.header.parent_view, peers)
    check_next(draft, block_hash)


def want_block(draft: Draft, block_hash: Hash, view: View, peers: tuple[NodeId, ...]) -> None:
    """Asks these peers for a body above the final tip that is not held, once; rule R9 repeats it."""
    state = draft.state
    if view <= state.tip.view or block_hash in state.blocks or block_hash in state.wanted or not peers:
        return
    if state.syncing is not None and view <= state.syncing.view:
        return  # it comes with the range: asking back from parent to parent would fetch the whole chain once more
    draft.state = replace(state, wanted=state.wanted | {block_hash: view})
    draft.effects.append(FetchBlock(block_hash, peers))


def accept_fetched(draft: Draft, block: Block, peer: NodeId) -> None:
    """Holds the answer to a FetchBlock; an answer that nobody waits for changes nothing.

    Raises: InvalidMessage(BAD_BODY).
    """
    block_hash = compute_header_hash(block.header)
    if block_hash not in draft.state.wanted:
        return
    if compute_transactions_root(block.body) != block.header.tx_root:
        raise InvalidMessage(Rejection.BAD_BODY, "block: the body is not the one that its header commits to")
    signers = get_signers(draft, block.header.parent_view)
    peers = (peer, *(node for node in signers if node != peer))
    hold_block(draft, block_hash, block, BlockStatus.HELD, peers)


def get_signers(draft: Draft, view: View) -> tuple[NodeId, ...]:
    """Who signed that a block of this view is good, and so holds its body; every validator where nothing is known."""
    context, record = draft.state.context, draft.state.views.get(view)
    cert = None if record is None else record.notar if record.notar is not None else record.final
    if cert is None:
        return context.peers
    return tuple(context.validators.members[signer].node for signer in cert.signers if signer != context.own)


def get_executed(draft: Draft, block_hash: Hash) -> Tip | None:
    """A block whose state the application has: the final tip, or a valid one above it."""
    tip = draft.state.tip
    if block_hash == tip.block_hash:
        return tip
    held = draft.state.blocks.get(block_hash)
    if held is None or held.status != BlockStatus.VALID:
        return None
    return make_tip(block_hash, held.block.header)


def check_next(draft: Draft, block_hash: Hash) -> None:
    """Has a held body executed as soon as its parent is."""
    held = draft.state.blocks[block_hash]
    parent = get_executed(draft, held.block.header.parent_hash)
    if held.status != BlockStatus.HELD or parent is None:
        return
    if not is_child(parent, held.block.header, draft.state.context):
        set_verdict(draft, block_hash, valid=False)
        return
    draft.put_block(block_hash, replace(held, status=BlockStatus.CHECKING))
    draft.effects.append(CheckBlock(block_hash, held.block))


def is_child(parent: Tip, header: Header, context: Context) -> bool:
    """What ordering itself asks of a header: of this epoch, one height up, a later view, at least the pace later."""
    return (
        header.epoch == context.epoch
        and header.height <= context.boundary
        and header.parent_view == parent.view < header.view
        and header.height == parent.height + 1
        and header.time_ms >= parent.time_ms + context.params.pace_ms
    )


def set_verdict(draft: Draft, block_hash: Hash, *, valid: bool) -> None:
    """The application's verdict on a body; its children come next."""
    held = draft.state.blocks.get(block_hash)
    if held is None or held.status in (BlockStatus.VALID, BlockStatus.INVALID):
        return
    status = BlockStatus.VALID if valid else BlockStatus.INVALID
    draft.put_block(block_hash, replace(held, status=status))
    for view in () if valid else draft.list_proposing(block_hash):
        draft.put_record(view, replace(draft.get_record(view), is_refused=True))
    if valid:
        check_children(draft, block_hash)


def check_children(draft: Draft, block_hash: Hash) -> None:
    """Has the held children of an executed block executed, and lets a leader that waited for it build."""
    draft.touched.add(draft.state.view)
    for child_hash, held in tuple(draft.state.blocks.items()):
        if held.block.header.parent_hash == block_hash:
            check_next(draft, child_hash)


def finalize(draft: Draft) -> None:
    """R7: the highest FinalCert whose whole path down to the final tip is held and executed becomes final."""
    if draft.state.syncing is not None:
        return
    views = sorted((view for view, record in draft.state.views.items() if record.final is not None), reverse=True)
    for view in views:
        cert = draft.state.views[view].final
        if view <= draft.state.tip.view or draft.state.is_halted or cert is None:
            return
        path = _find_path(draft, cert)
        if path and all(draft.state.blocks[block_hash].status == BlockStatus.VALID for block_hash in path):
            draft.effects.append(Finalize(path, cert))
            move_tip(draft, make_tip(path[-1], draft.state.blocks[path[-1]].block.header), cert, path)
            return


def _find_path(draft: Draft, cert: QuorumCert) -> tuple[Hash, ...]:
    """The blocks from above the tip to the certified one, oldest first; none where one is missing, which is then asked for."""
    state = draft.state
    path: list[Hash] = []
    block_hash, view = cert.block_hash, cert.view
    while block_hash != state.tip.block_hash:
        if view <= state.tip.view:  # R7: never revert
            text = (
                f"view {cert.view} is final on a branch that does not contain the final block of view {state.tip.view}"
            )
            halt(draft, text, cert)
            return ()
        held = state.blocks.get(block_hash)
        if held is None:
            _fetch_path(draft, block_hash, view, cert)
            return ()
        if held.status == BlockStatus.INVALID:
            halt(draft, f"a quorum made a block of view {view} final that this node's application refuses", cert)
            return ()
        path.append(block_hash)
        block_hash, view = held.block.header.parent_hash, held.block.header.parent_view
    return tuple(reversed(path))


def _fetch_path(draft: Draft, block_hash: Hash, view: View, cert: QuorumCert) -> None:
    """Asks for one body where the gap is small, for the whole range where this node is far behind.

    Behind is counted from what is final, not from the missing body: its own fetch may have failed while the others went on. Who has
    heard of a later epoch is behind, too.
    """
    is_far = cert.view - draft.state.tip.view > draft.state.context.params.view_window_behind
    if is_far or draft.state.ahead:
        draft.state = replace(draft.state, syncing=cert)
        draft.effects.append(CatchUp(cert))
        return
    peers = get_signers(draft, view)
    want_block(draft, block_hash, view, peers if view == cert.view else _merge(peers, get_signers(draft, cert.view)))


def _merge(first: tuple[NodeId, ...], second: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    return (*first, *(node for node in second if node not in first))


def move_tip(draft: Draft, tip: Tip, cert: QuorumCert, path: tuple[Hash, ...]) -> None:
    """The new final tip; what lies below it is dropped, up to the views that are kept for evidence. It may be the epoch's last."""
    state = draft.state
    horizon = tip.view - state.context.params.view_window_behind
    headers = {block_hash: state.blocks[block_hash].block.header for block_hash in path}
    finalized = {view: block_hash for view, block_hash in state.finalized.items() if view >= horizon}
    if path:
        finalized |= {header.view: block_hash for block_hash, header in headers.items() if header.view >= horizon}
    else:
        finalized = {tip.view: tip.block_hash}  # what came between is not known here
    draft.state = replace(
        state,
        tip=tip,
        tip_cert=cert,
        tip_since_ms=draft.now_ms,
        finalized=finalized,
        views={view: record for view, record in state.views.items() if view >= horizon},
        blocks={key: held for key, held in state.blocks.items() if held.block.header.view > tip.view},
        wanted={key: view for key, view in state.wanted.items() if view > tip.view},
    )
    start_standstill_timer(draft)
    end_epoch(draft)


def halt(draft: Draft, text: str, cert: QuorumCert) -> None:
    """Stops for good: the certificates prove why."""
    state = draft.state
    certs = (cert,) if state.tip_cert is None else (state.tip_cert, cert)
    draft.state = replace(state, is_halted=True)
    draft.effects.append(Halt(text, certs))


def wake_clock(draft: Draft, header: Header) -> bool:
    """Whether a header's time is near enough to this node's clock; otherwise it waits for the clock, it is not refused."""
    state = draft.state
    at_ms = header.time_ms - state.context.params.clock_drift_ms
    if at_ms <= draft.now_ms:
        return True
    draft.set_timer(Timer.CLOCK, min(at_ms, state.deadlines.get(Timer.CLOCK, at_ms)))
    return False
