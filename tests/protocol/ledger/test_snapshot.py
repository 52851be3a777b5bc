"""Who may be drawn: frozen at the end of a period, in force for the next, kept as long as a job refers to it (L9 to L11)."""

import pytest
from msgspec.structs import replace

from protocol.jobs.committee import compute_candidates_root, draw
from protocol.jobs.settlement import Phase
from protocol.ledger.queries import get_candidates, get_job, get_settlement
from protocol.models import compute_model_id
from protocol.params import MINIMAL, UNIT
from protocol.transactions import Bond, Serve
from tests.protocol.builders import (
    FOREVER,
    TestChain,
    make_card,
    make_genesis,
    make_key,
    make_payload,
    make_request,
    start_chain,
)

PERIOD = MINIMAL.epoch_heights
MODEL = compute_model_id(make_card())


def stakes(chain: TestChain, height: int) -> dict[bytes, int]:
    snapshot = get_candidates(chain.ledger, height)
    assert snapshot is not None
    assert snapshot.root == compute_candidates_root(snapshot.candidates)
    return {candidate.node: candidate.weight_stake for candidate in snapshot.candidates.get(MODEL, ())}


@pytest.mark.parametrize("height", [0, 1, PERIOD - 1])
def test_bond_and_serve_act_from_the_next_period_on(height: int) -> None:
    chain = start_chain()
    chain.run(height)
    node = make_key("asker").public
    chain.step(chain.sign("asker", Bond(node, 1, FOREVER, 20 * UNIT)))
    if chain.header.height < PERIOD:
        chain.step(chain.sign("asker", Serve(node, 2, FOREVER, MODEL)))
        chain.run(PERIOD - chain.header.height)
    root = chain.header.candidates_root
    assert root == compute_candidates_root_of(chain, 0)
    chain.step()
    assert (
        chain.header.candidates_root == chain.ledger.chain.candidates_root == compute_candidates_root_of(chain, PERIOD)
    )
    assert (stakes(chain, PERIOD).get(node) == 20 * UNIT) == (height < PERIOD - 1)
    assert node not in stakes(chain, 0)


def compute_candidates_root_of(chain: TestChain, height: int) -> bytes:
    snapshot = get_candidates(chain.ledger, height)
    assert snapshot is not None
    return snapshot.root


def test_candidates_are_ordered_by_node() -> None:
    nodes = list(stakes(start_chain(), 0))
    assert nodes == sorted(nodes)


def test_a_bond_burned_below_the_least_is_no_candidate() -> None:
    chain = start_chain(make_genesis(stake=MINIMAL.min_bond))
    job = chain.submit()
    members = chain.members(job)
    chain.commit_all(job, dict.fromkeys(members, make_payload()))
    chain.reveal_all(job, dict.fromkeys(members[:2], make_payload()))
    chain.close_window(job)
    chain.run(PERIOD - chain.header.height % PERIOD)
    left = stakes(chain, chain.ledger.chain.snapshot_height)
    assert members[2] not in left
    assert set(members[:2]) <= set(left)


def test_the_two_newest_snapshots_are_kept_and_those_that_jobs_refer_to() -> None:
    chain = start_chain()
    chain.run(PERIOD)
    job = chain.submit(make_request(commit_ms=3_000_000))
    assert chain.view(job).phase is Phase.COMMITTING
    chain.run(4 * PERIOD)
    now = chain.ledger.chain.snapshot_height
    kept = [height for height in range(0, now + 1, PERIOD) if get_candidates(chain.ledger, height) is not None]
    assert kept == [PERIOD, now - PERIOD, now]


def test_a_draw_uses_the_snapshot_in_force_at_the_submission() -> None:
    chain = start_chain()
    rich = make_key("asker").public
    chain.step(chain.sign("asker", Bond(rich, 1, FOREVER, 900 * UNIT)))
    chain.step(chain.sign("asker", Serve(rich, 2, FOREVER, MODEL)))
    chain.run(PERIOD - 1 - chain.header.height)
    job = chain.submit()  # submitted at the last height of the period, drawn in the next
    view = chain.view(job)
    assert view.submit_height == PERIOD < chain.header.height
    assert view.beacon is not None
    drawn = {}
    for height in (0, PERIOD):
        snapshot = get_candidates(chain.ledger, height)
        assert snapshot is not None
        drawn[height] = draw(job, view.beacon, snapshot.candidates[MODEL], view.request.rule, 3, 3, lambda _: True)
    assert tuple(seat.drawn for seat in view.seats) == drawn[0].members
    assert drawn[0] != drawn[PERIOD]


def test_settled_jobs_are_forgotten_after_their_periods() -> None:
    chain = start_chain(make_genesis(params=replace(MINIMAL, retention_epochs=2)))
    settlement = chain.settle()
    last = PERIOD * (2 + -(-settlement.settle_height // PERIOD))
    assert settlement.settle_height % PERIOD
    chain.run(last - 1 - chain.header.height)
    assert get_settlement(chain.ledger, settlement.job) == settlement
    chain.run(1)
    assert get_settlement(chain.ledger, settlement.job) is None
    assert get_job(chain.ledger, settlement.job) is None


def test_what_settled_at_the_end_of_a_period_is_kept_exactly_as_many_periods() -> None:
    chain = start_chain()
    job = chain.submit()
    said = dict.fromkeys(chain.members(job), make_payload())
    chain.commit_all(job, said)
    chain.run(PERIOD - 1 - chain.header.height)
    chain.reveal_all(job, said)
    settlement = get_settlement(chain.ledger, job)
    assert settlement is not None
    assert settlement.settle_height == PERIOD
    chain.run(PERIOD - 1)
    assert get_settlement(chain.ledger, job) is not None
    chain.run(1)
    assert get_settlement(chain.ledger, job) is None
