"""The load of `devnet perturb`: one customer a node, who pays and asks through it whatever happens to it.

A customer knows what a client of the RPC can know. A transfer is acknowledged as final when the customer's node shows its nonce as used,
a job when the node shows it. What was submitted to a node that then died is submitted again, the same bytes, until one of both holds.
"""

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from threading import Event
from typing import Final

from node.commands.bench_load import Network, Purse, sign_transfer
from node.faults import Fault, Reason, Trouble
from node.rpc_client import NodeClient
from node.rpc_types import (
    AccountParams,
    AccountResult,
    JobParams,
    JobState,
    JobSubmitParams,
    JobSubmitted,
    SettingsParams,
    TransactionParams,
    TransactionResult,
)
from protocol.errors import Rejection
from protocol.transactions import TRANSACTION_CODEC, compute_transaction_id

PURSES: Final = 32  # one transfer of each may be under way
POLL_S: Final = 0.2
_LEAST_WAIT_S: Final = 0.01
AGAIN_S: Final = 3.0
JOB_POLL_S: Final = 1.0
WINDOW_MS: Final = 3_000
QUESTION: Final = "23+58="
MODEL: Final = "arith-s"
MOST_JOBS: Final = 4  # under way for one customer
UNHEARD_S: Final = 30.0  # a job that no block had by then died with the node that was asked
UNHEARD: Final = "unheard"
UNSEEN: Final = "unseen"  # settled and forgotten by the ledger while its customer's node was away
_UNDER_WAY: Final[frozenset[Reason]] = frozenset({Rejection.DUPLICATE, Rejection.BAD_NONCE})


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A transaction that a node showed as final. Units: monotonic seconds."""

    transaction: str
    node: int
    at_s: float


@dataclass(slots=True)
class Book:
    """What one customer did and was told. Units: milliseconds from the first submission until the acknowledgement."""

    submitted: int = 0
    acknowledged: list[Acknowledged] = field(default_factory=list[Acknowledged])
    waited_ms: list[int] = field(default_factory=list[int])
    refused: Counter[str] = field(default_factory=Counter[str])
    jobs: dict[str, str] = field(default_factory=dict[str, str])  # job -> its status, or what else became of it
    unknown: int = 0  # transfers of which nothing is known in the end
    unreachable: int = 0  # calls that no node answered


@dataclass(slots=True)
class _Pending:
    """A transfer under way."""

    purse: Purse
    params: TransactionParams
    first_s: float
    last_s: float


@dataclass(slots=True)
class _Asked:
    """A job under way."""

    job: str
    asked_s: float


class _Act(Enum):
    """What a customer does again and again."""

    PAY = 0
    ASK = 1
    LOOK = 2
    LOOK_FOR_JOBS = 3


_LOOKS: Final = frozenset({_Act.LOOK, _Act.LOOK_FOR_JOBS})


@dataclass(frozen=True, slots=True)
class Habits:
    """Units: seconds between two transfers, and between two jobs, of this customer; offset so that customers take turns."""

    transfer_s: float
    job_s: float
    offset_s: float


class Customer:
    """Pays and asks through one node."""

    def __init__(
        self,
        node: int,
        client: NodeClient,
        network: Network,
        purses: Sequence[Purse],
        habits: Habits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node: Final = node
        self._client: Final = client
        self._network: Final = network
        self._sink: Final = purses[0].key.public  # who is paid
        self._idle: Final = deque(purses)
        self._habits: Final = habits
        self._clock: Final = clock
        self._pending: Final[dict[str, _Pending]] = {}  # by transaction
        self._asked: Final[list[_Asked]] = []
        self._due: Final[dict[_Act, float]] = {}
        self.book: Final = Book()

    def run(self, stop: Event, give_up: Event) -> Book:
        """Until the stop; then waits for what is under way, until told to give up. Never raises for what a node does or says."""
        while not give_up.is_set() and (self._is_waiting or not stop.is_set()):
            wake_s = self.step(is_open=not stop.is_set())
            give_up.wait(max(_LEAST_WAIT_S, wake_s - self._clock()))
        self.book.unknown = len(self._pending)
        return self.book

    def step(self, *, is_open: bool) -> float:
        """When it wants to be called again, after doing what is due now; `is_open`: it may begin something new."""
        now = self._clock()
        if not self._due:
            begin = now + self._habits.offset_s
            self._due.update({_Act.PAY: begin, _Act.ASK: begin, _Act.LOOK: now, _Act.LOOK_FOR_JOBS: now})
        for act, at_s in self._due.items():
            if at_s <= now and (is_open or act in _LOOKS):
                self._due[act] = max(at_s + self._get_pace(act), now - self._get_pace(act))
                try:
                    self._do(act)
                except Fault as fault:
                    self._note(fault)
        return min(at_s for act, at_s in self._due.items() if is_open or act in _LOOKS)

    @property
    def _is_waiting(self) -> bool:
        return bool(self._pending or self._asked)

    def _get_pace(self, act: _Act) -> float:
        match act:
            case _Act.PAY:
                return self._habits.transfer_s
            case _Act.ASK:
                return self._habits.job_s
            case _Act.LOOK:
                return POLL_S
            case _Act.LOOK_FOR_JOBS:
                return JOB_POLL_S

    def _do(self, act: _Act) -> None:
        match act:
            case _Act.PAY:
                self._pay()
            case _Act.ASK:
                self._ask()
            case _Act.LOOK:
                self._look_for_transfers()
            case _Act.LOOK_FOR_JOBS:
                self._look_for_jobs()

    def _note(self, fault: Fault) -> None:
        """A node that is down or behind is what this is about."""
        if fault.reason is Trouble.UNREACHABLE:
            self.book.unreachable += 1
        else:
            self.book.refused[str(fault.reason.value)] += 1

    def _pay(self) -> None:
        """One more transfer, where a purse has none under way."""
        if not self._idle:
            return
        purse = self._idle.popleft()
        purse.nonce += 1
        params = sign_transfer(self._network, purse.key, purse.nonce, self._sink, 1)
        name = compute_transaction_id(TRANSACTION_CODEC.decode(params.transaction).body).hex()
        now = self._clock()
        self._pending[name] = _Pending(purse, params, now, now)
        self.book.submitted += 1
        self._submit(params)

    def _submit(self, params: TransactionParams) -> None:
        try:
            self._client.call("tx_submit", params, TransactionResult)
        except Fault as fault:
            if fault.reason not in _UNDER_WAY:
                self._note(fault)

    def _look_for_transfers(self) -> None:
        if not self._pending:
            return
        pending = list(self._pending.items())
        accounts = [AccountParams(each.purse.key.public.hex()) for _, each in pending]
        replies = self._client.call_all("account_get", accounts, AccountResult)
        now = self._clock()
        for (name, each), reply in zip(pending, replies, strict=True):
            if isinstance(reply, Fault):
                self._note(reply)
            elif reply.nonce >= each.purse.nonce:
                self._acknowledge(name, each, now)
            elif now - each.last_s > AGAIN_S:
                each.last_s = now
                self._submit(each.params)

    def _acknowledge(self, name: str, pending: _Pending, now: float) -> None:
        del self._pending[name]
        self._idle.append(pending.purse)
        self.book.acknowledged.append(Acknowledged(name, self._node, now))
        self.book.waited_ms.append(round((now - pending.first_s) * 1000))

    def _ask(self) -> None:
        if len(self._asked) >= MOST_JOBS:
            return
        params = JobSubmitParams(
            model=MODEL, prompt=QUESTION, settings=SettingsParams(max_tokens=4),
            commit_ms=WINDOW_MS, reveal_ms=WINDOW_MS, request_id=secrets.token_hex(16),
        )  # fmt: skip
        self._asked.append(_Asked(self._client.call("job_submit", params, JobSubmitted).job, self._clock()))

    def _look_for_jobs(self) -> None:
        for asked in list(self._asked):
            status, now = self._read_status(asked.job), self._clock()
            if status is None:
                is_over = asked.job in self.book.jobs or now - asked.asked_s > UNHEARD_S
                status = UNSEEN if asked.job in self.book.jobs else UNHEARD
                if not is_over:
                    continue
            elif asked.job not in self.book.jobs:
                self.book.acknowledged.append(Acknowledged(asked.job, self._node, now))
            self.book.jobs[asked.job] = status
            if status != "open":
                self._asked.remove(asked)

    def _read_status(self, job: str) -> str | None:
        try:
            return self._client.call("job_get", JobParams(job), JobState).status
        except Fault as fault:
            if fault.reason is Rejection.UNKNOWN_JOB:
                return None
            raise
