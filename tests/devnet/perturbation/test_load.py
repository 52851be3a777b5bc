"""A customer is told what is final by its node alone, and says the same again until it is, through crashes of that node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from devnet.perturbation.load import AGAIN_S, UNHEARD, UNHEARD_S, UNSEEN, Book, Customer, Habits
from node.commands.bench_load import Network, Purse, make_purses
from node.faults import Fault, Trouble
from node.rpc_client import NodeClient
from node.rpc_types import AccountParams, AccountResult, JobParams, JobState, JobSubmitted, TransactionParams
from protocol.errors import Rejection
from protocol.transactions import TRANSACTION_CODEC, Transfer, compute_transaction_id

if TYPE_CHECKING:
    from collections.abc import Sequence

JOB = "ab" * 32
SELDOM_S = 1_000_000.0
SETTLED = {
    "job": JOB, "status": "accepted", "phase": "settled", "progress": "", "model": "", "model_name": "", "prompt": "",
    "rule": "majority", "requester": "", "fee": 1, "cost": 1, "submit_height": 1, "maturity_height": 1,
    "settle_height": 1, "window_ends_ms": None, "agreement_ppm": None, "entropy_millibits": None, "output_hash": None,
    "seats": [], "candidates": 4, "candidate_share_ppm": 0, "capture": None,
}  # fmt: skip


class FakeNode(NodeClient):
    """A node that makes final what it is told to, and may be down."""

    def __init__(self) -> None:
        super().__init__("http://fake")
        self.is_down = False
        self.heard: list[bytes] = []
        self.nonces: dict[str, int] = {}
        self.jobs: dict[str, str] = {}

    def call(self, method: str, params: msgspec.Struct, result: type) -> object:
        if self.is_down:
            raise Fault(Trouble.UNREACHABLE, "no node answers")
        match params:
            case TransactionParams():
                self.heard.append(params.transaction)
                if self.heard.count(params.transaction) > 1:
                    raise Fault(Rejection.DUPLICATE, "known already")
                return result(transaction="")
            case AccountParams():
                return AccountResult(params.node or "", 0, 0, 0, self.nonces.get(params.node or "", 0))
            case JobParams():
                if params.job not in self.jobs:
                    raise Fault(Rejection.UNKNOWN_JOB, "there is no job")
                return msgspec.convert({**SETTLED, "status": self.jobs[params.job]}, JobState)
            case _:
                assert method == "job_submit", method
                return JobSubmitted(JOB, repeated=False, fee=1, base_fee=1, commit_ms=1, reveal_ms=1)

    def call_all(self, method: str, params: Sequence[msgspec.Struct], result: type) -> list:
        return [self.call(method, each, result) for each in params]

    def make_final(self) -> None:
        """Everything it has heard."""
        for encoded in self.heard:
            body = TRANSACTION_CODEC.decode(encoded).body
            assert isinstance(body, Transfer)
            self.nonces[body.sender.hex()] = body.nonce


class Town:
    """A customer, its node, and a clock that moves when told."""

    def __init__(self, *, purses: int = 1, transfer_s: float = 1.0, job_s: float = SELDOM_S) -> None:
        self.node = FakeNode()
        self.now = 0.0
        self.purses: list[Purse] = make_purses(purses)
        habits = Habits(transfer_s, job_s, 0.0)
        self._customer = Customer(2, self.node, Network(bytes(32), 1_000), self.purses, habits, lambda: self.now)

    def pass_time(self, seconds: float, *, is_open: bool = True) -> Book:
        until = self.now + seconds
        while self.now < until:
            self.now = max(min(until, self._customer.step(is_open=is_open)), self.now + 0.01)
        return self._customer.book


def test_a_transfer_is_acknowledged_when_the_node_shows_its_nonce_as_used_and_not_when_it_is_taken() -> None:
    town = Town(transfer_s=SELDOM_S)
    assert town.pass_time(1.0).acknowledged == []
    town.node.make_final()
    book = town.pass_time(1.0)
    (told,) = book.acknowledged
    body = TRANSACTION_CODEC.decode(town.node.heard[0]).body
    assert (told.transaction, told.node) == (compute_transaction_id(body).hex(), 2)
    assert 1_000 <= book.waited_ms[0] <= 1_500


def test_what_a_crash_may_have_lost_is_submitted_again_byte_by_byte() -> None:
    town = Town(transfer_s=SELDOM_S)
    town.node.is_down = True
    assert town.pass_time(1.0).unreachable > 1
    town.node.is_down = False
    book = town.pass_time(3 * AGAIN_S)
    assert len(town.node.heard) >= 2
    assert len(set(town.node.heard)) == 1
    assert book.submitted == 1
    assert book.refused == {}, "a repeat is no refusal"


def test_a_purse_pays_only_one_thing_at_a_time() -> None:
    town = Town(purses=2, transfer_s=0.1)
    book = town.pass_time(2.0)
    assert book.submitted == 2
    town.node.make_final()
    assert town.pass_time(0.5).submitted > 2
    assert [purse.nonce for purse in town.purses] == [2, 2]


def test_nothing_new_begins_once_the_load_has_ended() -> None:
    town = Town(purses=4, transfer_s=0.1, job_s=0.1)
    submitted = town.pass_time(0.25).submitted
    town.node.make_final()
    book = town.pass_time(2.0, is_open=False)
    assert book.submitted == submitted
    assert len(book.acknowledged) == submitted


def test_a_job_is_acknowledged_when_the_node_shows_it_and_followed_until_it_is_settled() -> None:
    town = Town(transfer_s=SELDOM_S, job_s=SELDOM_S)
    assert town.pass_time(2.0).jobs == {}
    town.node.jobs[JOB] = "open"
    assert town.pass_time(2.0).jobs == {JOB: "open"}
    town.node.jobs[JOB] = "accepted"
    book = town.pass_time(2.0)
    assert book.jobs == {JOB: "accepted"}
    assert [told.transaction for told in book.acknowledged] == [JOB]


def test_a_job_that_died_with_its_node_is_told_from_one_that_was_settled_and_forgotten() -> None:
    town = Town(transfer_s=SELDOM_S, job_s=SELDOM_S)
    assert town.pass_time(UNHEARD_S + 3).jobs == {JOB: UNHEARD}
    other = Town(transfer_s=SELDOM_S, job_s=SELDOM_S)
    other.node.jobs[JOB] = "open"
    other.pass_time(2.0)
    other.node.jobs.clear()
    assert other.pass_time(2.0).jobs == {JOB: UNSEEN}
