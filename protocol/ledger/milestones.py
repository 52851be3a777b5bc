"""How long ago a view was (rule E3): evidence names epoch and view, the limits of its age are in milliseconds and heights.

A few blocks are remembered, as many as an age needs to be told to a sixteenth. An offence counts from the first remembered block
that is not before its view: never older than it is, so nobody escapes by the rounding.
"""

from typing import Final

from protocol.ledger.draft import Draft
from protocol.ledger.entries import MILESTONES_CODEC, MILESTONES_KEY, Milestone, Milestones
from protocol.params import Params, compute_epoch
from protocol.units import Epoch, Height, Milliseconds, View

PARTS: Final = 16


def add_milestone(draft: Draft, block: Milestone) -> None:
    """Remember this block where the last remembered one is far enough behind, and forget what is too old to matter."""
    params = draft.base.constants.params
    known = _get(draft)
    if known and not _is_apart(params, known[-1], block):
        return
    kept = [
        milestone
        for milestone, later in zip(known, (*known, block)[1:], strict=True)
        if not is_too_old(
            params, later, block.height, block.time_ms
        )  # the newest that is too old says so of all before
    ]
    draft.put(MILESTONES_KEY, Milestones((*kept, block)))


def find_milestone(draft: Draft, epoch: Epoch, view: View) -> Milestone | None:
    """The first remembered block that is not before this view of this epoch; None where the view is after all of them.

    An epoch's views may go on beyond its boundary's, while the next epoch counts on from there: epochs order them.
    """
    params = draft.base.constants.params
    found = (each for each in _get(draft) if (compute_epoch(params, each.height), each.view) >= (epoch, view))
    return next(found, None)


def is_too_old(params: Params, milestone: Milestone, height: Height, time_ms: Milliseconds) -> bool:
    """Whether an offence of then can no longer be punished: both its time and its heights are over."""
    return (
        time_ms - milestone.time_ms > params.evidence_max_ms and height - milestone.height > params.evidence_max_heights
    )


def _is_apart(params: Params, last: Milestone, block: Milestone) -> bool:
    return (
        PARTS * (block.time_ms - last.time_ms) >= params.evidence_max_ms
        and PARTS * (block.height - last.height) >= params.evidence_max_heights
    )


def _get(draft: Draft) -> tuple[Milestone, ...]:
    found = draft.get(MILESTONES_KEY, MILESTONES_CODEC)
    return () if found is None else found.milestones
