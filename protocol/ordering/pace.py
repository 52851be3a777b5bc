"""How long a view waits: rule R8's delay, and the timers of rules R1 and R9."""

from typing import Final

from msgspec.structs import replace

from protocol.ordering.events import Timer
from protocol.ordering.state import Draft, SimplexState
from protocol.params import Params
from protocol.units import Milliseconds, View

_MAX_STEPS: Final = 64  # 1.5^64 exceeds every cap that params allow


def compute_delay(params: Params, view: View, final_view: View) -> Milliseconds:
    """R8: D of a view, growing by half with every view since the last one known to be final.

    Counted from the final view, not from the last view without a skip: otherwise views that are notarized but never final would
    keep the delay too short for ever.
    """
    steps = min(max(view - final_view, 1) - 1, _MAX_STEPS)
    return min(params.base_delay_ms * 3**steps // 2**steps, params.max_delay_ms)


def compute_standstill_wait(state: SimplexState) -> Milliseconds:
    """R9: how long nothing may become final before this node repeats itself. An idle chain is not a stalled one."""
    params = state.context.params
    wait = max(params.resend_interval_ms, 4 * compute_delay(params, state.view, state.tip.view))
    return wait if state.has_work else wait + params.idle_interval_ms


def start_view_timers(draft: Draft) -> None:
    """R1: t_l and t_a from now, or, where there is nothing to order, from when an idle leader proposes."""
    state = draft.state
    if state.context.own is None:
        return
    delay = compute_delay(state.context.params, state.view, state.tip.view)
    start = max(draft.now_ms, state.tip.time_ms)  # a genesis of tomorrow starts the first view tomorrow
    if not state.has_work:
        start += state.context.params.idle_interval_ms
    draft.set_timer(Timer.PROPOSAL, start + 2 * delay)
    draft.set_timer(Timer.CERTIFICATE, start + 3 * delay)


def change_work(draft: Draft, pending: bool) -> None:
    """R1: work that shows up starts the timers; with the last work gone an idle leader gets its time, counted from the view's start.

    Without that every transaction would cost an empty view: the view behind its block begins before the block is final.
    """
    state = draft.state
    if state.has_work == pending:
        return
    draft.state = replace(state, has_work=pending)
    draft.touched.add(state.view)
    record = state.views.get(state.view)
    has_proposal = record is not None and record.proposal is not None
    if state.context.own is None or (has_proposal and not pending):
        return
    delay = compute_delay(state.context.params, state.view, state.tip.view)
    idle_start = max(state.entered_ms, state.tip.time_ms) + state.context.params.idle_interval_ms
    work_start = max(draft.now_ms, state.tip.time_ms)
    for timer, delays in ((Timer.PROPOSAL, 2), (Timer.CERTIFICATE, 3)):
        idle_deadline = idle_start + delays * delay
        earlier = min(work_start + delays * delay, state.deadlines.get(timer, idle_deadline))
        draft.set_timer(timer, earlier if pending else idle_deadline)
    standstill = draft.now_ms + compute_standstill_wait(draft.state)
    draft.set_timer(Timer.STANDSTILL, min(standstill, state.deadlines.get(Timer.STANDSTILL, standstill)))


def start_standstill_timer(draft: Draft) -> None:
    """R9: counted anew from every final block and from every repetition, which also limits their rate."""
    draft.set_timer(Timer.STANDSTILL, draft.now_ms + compute_standstill_wait(draft.state))


def compute_build_time(draft: Draft, parent_time_ms: Milliseconds) -> Milliseconds:
    """When the leader builds: the pace after the parent where there is work, the idle interval after it where there is none.

    Counted from the parent's time, but never longer than that from entering the view: a parent whose leader's clock runs ahead
    must not hold up the next one. Nobody builds what everybody would have to wait for: a genesis of tomorrow.
    """
    state = draft.state
    params = state.context.params
    interval = params.pace_ms if state.has_work else max(params.idle_interval_ms, params.pace_ms)
    start = max(min(parent_time_ms, state.entered_ms), parent_time_ms - params.clock_drift_ms)
    return start + interval


def compute_repeat_time(draft: Draft, block_time_ms: Milliseconds) -> Milliseconds:
    """R11: when the leader proposes the epoch's last block again: as a block on it, but its Final votes get half a delay first."""
    state = draft.state
    delay = compute_delay(state.context.params, state.view, state.tip.view)
    return max(compute_build_time(draft, block_time_ms), state.entered_ms + delay // 2)


def has_passed(draft: Draft, timer: Timer) -> bool:
    """Whether a running timer's deadline has come."""
    deadline = draft.state.deadlines.get(timer)
    return deadline is not None and draft.now_ms >= deadline
