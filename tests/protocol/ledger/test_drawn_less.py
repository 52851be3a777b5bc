"""Reliability in the draw, through real blocks: who misses seats gets fewer of them under `reputation`, and as many as ever by stake."""

from __future__ import annotations

from collections import Counter

import pytest

from protocol.jobs.settlement import Phase
from protocol.params import MINIMAL
from protocol.transactions import AgreementRule, Submit, compute_transaction_id
from protocol.units import Height, NodeId
from tests.protocol.builders import FOREVER, TestChain, make_key, make_payload, make_request, start_chain

LAZY = "v0"
JOBS = 60


def miss_seats(chain: TestChain, jobs: int) -> None:
    """Jobs for five seats in which the lazy node never commits; nobody is left to take its seat over."""
    lazy = make_key(LAZY).public
    for number in range(jobs):
        job = chain.submit(make_request(seats=5, fee=50_000, prompt=b"%d" % number))
        said = {node: make_payload() for node in chain.members(job) if node != lazy}
        chain.commit_all(job, said)
        chain.close_window(job, half=True)
        chain.close_window(job)
        chain.reveal_all(job, said)
        assert chain.view(job).settlement is not None


def count_drawn(chain: TestChain, rule: AgreementRule) -> Counter[NodeId]:
    """Who is drawn for many jobs of one seat that are submitted in one block."""
    nonce = chain.next_nonce("asker")
    bodies = [
        Submit(
            make_key("asker").public,
            nonce + number,
            FOREVER,
            make_request(seats=1, fee=1_000, rule=rule, prompt=b"draw %d" % number),
        )
        for number in range(JOBS)
    ]
    chain.step(*(chain.sign("asker", body) for body in bodies))
    jobs = [compute_transaction_id(body) for body in bodies]
    while any(chain.view(job).phase is Phase.SUBMITTED for job in jobs):
        chain.step()
    return Counter(node for job in jobs for node in chain.members(job))


def reach_next_snapshot(chain: TestChain) -> Height:
    chain.run(MINIMAL.epoch_heights - chain.ledger.chain.height % MINIMAL.epoch_heights)
    return chain.ledger.chain.snapshot_height


@pytest.mark.parametrize("rule, is_less", [(AgreementRule.REPUTATION, True), (AgreementRule.MAJORITY, False)])
def test_a_node_that_misses_seats_is_drawn_less_under_reputation_only(rule: AgreementRule, is_less: bool) -> None:
    chain, lazy = start_chain(), make_key(LAZY).public
    miss_seats(chain, 10)  # half of the window: one more would suspend it
    snapshot = reach_next_snapshot(chain)
    drawn = Counter[NodeId]()
    for skipped in range(5):  # other leaders, other beacons: five independent rounds of draws from one state
        fork = chain.fork()
        fork.step(skip=skipped)
        drawn += count_drawn(fork, rule)
        assert fork.ledger.chain.snapshot_height == snapshot
    assert drawn.total() == 5 * JOBS
    others = [count for node, count in drawn.items() if node != lazy]
    if is_less:  # a fifth by stake would be 60 of 300; its reliability of about 0.2 against 0.9 makes it about 15
        assert drawn[lazy] < min(others) // 2
    else:
        assert drawn[lazy] > min(others) // 2
