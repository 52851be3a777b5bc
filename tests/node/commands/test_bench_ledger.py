"""What `bench ledger` makes of what it sees, and that its load reaches a node over real HTTP as transfers that are valid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import pytest

from node.commands.bench_figures import Seen, subtract_costs, sum_up
from node.commands.bench_load import Network, Pace, Tally, fund, make_purses, read_network, send_transfers
from node.commands.bench_watch import BlockCount, Cost, Moment, compute_slope
from node.faults import Exit
from node.rpc_client import NodeClient
from protocol.ledger.queries import get_account
from tests.node.fake_node import OWN, FakeNode, serving
from tests.protocol.builders import make_key

if TYPE_CHECKING:
    from protocol.transactions import SignedTransaction
    from protocol.units import Hash


def test_the_slope_is_that_of_the_least_squares_line() -> None:
    assert compute_slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert compute_slope([(0, 0), (1, 1), (2, 0)]) == pytest.approx(0)
    assert compute_slope([(1, 5), (1, 7)]) == 0


def test_a_stretch_counts_final_transactions_and_the_largest_node() -> None:
    moments = (
        Moment(10.0, 5, 7, 0, (100_000_000, 90_000_000), (999,)),
        Moment(12.0, 9, 12, 3, (101_000_000, 95_000_000), (40, 60)),
    )
    blocks = tuple(BlockCount(time_ms, 10) for time_ms in (0, 500, 1000, 1500))
    tallies = (Tally(30, 144, Counter({"too_many": 2})), Tally(20, 144))
    cost = Cost(0.5, 0.1, 400, Counter({"network": 3, "signatures": 1}))
    stretch = sum_up(Seen("steady", moments, blocks, tallies, (cost, cost)))
    assert (stretch.tx_per_s, stretch.offered_per_s, stretch.blocks, stretch.views) == (20.0, 25.0, 4, 5)
    assert (stretch.finality_ms.p50, stretch.finality_ms.p99) == (60, 60), "what was there before does not count"
    assert (stretch.rss_start_mb, stretch.rss_end_mb, stretch.refused) == (100.0, 101.0, {"too_many": 2})
    assert stretch.breakdown.cpu_percent == 25.0
    assert stretch.breakdown.disk_wait_percent == 20.0
    assert stretch.breakdown.cpu_by_area_percent == {"network": 75.0, "signatures": 25.0}


def test_costs_are_subtracted_area_by_area() -> None:
    after = Cost(2.0, 0.5, 30, Counter({"disk": 5, "rpc": 1}))
    before = Cost(1.0, 0.25, 10, Counter({"disk": 2}))
    assert subtract_costs(after, before) == Cost(1.0, 0.25, 20, Counter({"disk": 3, "rpc": 1}))


@dataclass
class StoppingNode(FakeNode):
    """Rings once so many transactions came."""

    stop: Event = field(default_factory=Event)
    until: int = 0

    async def submit_transaction(self, signed: SignedTransaction) -> Hash:
        if len(self.known) + 1 >= self.until:
            self.stop.set()
        return await super().submit_transaction(signed)


def test_funded_purses_pay_in_turn_with_nonces_that_no_transfer_skips() -> None:
    node = StoppingNode(until=2 + 7)
    purses = make_purses(2)
    with serving(node) as url:
        client = NodeClient(url)
        network = read_network(client)
        fund(client, network, make_key(OWN), purses)
        tally = send_transfers(client, network, purses, Pace(500.0, 0.0), node.stop)
    accounts = [get_account(node.chain.ledger, purse.key.public) for purse in purses]
    assert tally.refused == Counter()
    assert tally.accepted == sum(account.nonce for account in accounts) >= 7
    assert [account.nonce for account in accounts] == [purse.nonce for purse in purses]
    assert 100 < tally.transfer_bytes < 200


def test_a_refused_transfer_is_tried_again_with_the_same_nonce() -> None:
    node = StoppingNode(until=1)
    purses = make_purses(1)
    with serving(node) as url:
        client = NodeClient(url)
        tally = send_transfers(client, Network(bytes(32), 100), purses, Pace(500.0, 0.0), node.stop)
    assert tally.accepted == 0
    assert tally.refused.total() >= 1
    assert purses[0].nonce == 0


def test_what_is_not_a_devnet_is_refused_before_anything_is_measured(quorate, tmp_path) -> None:
    code, _, err = quorate("bench", "ledger", "--home", tmp_path)
    assert code == Exit.CONFIGURATION
    assert "devnet.json" in err
