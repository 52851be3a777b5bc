"""When a view was: told to a sixteenth of an offence's age, never older than it is, and in bounded room (E3)."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from protocol.ledger.draft import Draft
from protocol.ledger.entries import MILESTONES_CODEC, MILESTONES_KEY, Milestone
from protocol.ledger.milestones import PARTS, add_milestone, find_milestone, is_too_old
from protocol.params import MINIMAL, compute_epoch
from tests.protocol.builders import START_MS, make_genesis, start_chain

GENESIS = make_genesis()
steps = st.lists(st.tuples(st.integers(1, 5), st.sampled_from([50, 50, 200, 1_000, 10_000])), min_size=1, max_size=120)


@given(steps)
def test_no_offence_is_held_too_old_that_is_not_and_few_blocks_are_remembered(walk: list[tuple[int, int]]) -> None:
    draft = Draft(start_chain(GENESIS).ledger)
    blocks = [Milestone(0, 0, START_MS)]
    for views, after_ms in walk:
        last = blocks[-1]
        blocks.append(Milestone(last.height + 1, last.view + views, last.time_ms + after_ms))
        add_milestone(draft, blocks[-1])
        kept = draft.get(MILESTONES_KEY, MILESTONES_CODEC)
        assert kept is not None
        assert len(kept.milestones) <= PARTS + 2
        assert list(kept.milestones) == sorted(kept.milestones, key=lambda milestone: milestone.height)
    newest = blocks[-1]
    for before, block in pairwise(blocks):  # an offence in a view of this block, or one it skipped
        found = find_milestone(draft, compute_epoch(MINIMAL, block.height), before.view + 1)
        if found is None:
            continue
        assert found.height >= block.height or is_too_old(MINIMAL, block, newest.height, newest.time_ms)
        if is_too_old(MINIMAL, found, newest.height, newest.time_ms):
            assert is_too_old(MINIMAL, block, newest.height, newest.time_ms)


def test_a_view_after_all_remembered_blocks_is_not_old() -> None:
    assert find_milestone(Draft(start_chain(GENESIS).ledger), 0, 1) is None
