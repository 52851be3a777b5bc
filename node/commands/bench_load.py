"""The load of `bench ledger`: accounts of its own, funded by the nodes', and one sender a node that pays from them.

A node's account may have 64 transactions waiting, a network far more: so hundreds of fresh accounts send, in turn. Each transfer is
signed here, once, with the account's next nonce; an account's transfers all go to one node, which thus sees them in order.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Final

from node.faults import Fault, Reason, Trouble
from node.jsonrpc import MAX_BATCH
from node.rpc_client import NodeClient
from node.rpc_types import AccountParams, AccountResult, NodeStatus, Nothing, TransactionParams, TransactionResult
from protocol.codec import encode
from protocol.crypto import SigningKey
from protocol.errors import Rejection
from protocol.params import UNIT
from protocol.transactions import Transfer, sign_transaction
from protocol.units import ChainId, Height, NodeId

FUNDS: Final = 100 * UNIT  # 100,000 transfers of one micro-unit, fees included
VALID_HEIGHTS: Final = 10_000_000
FUNDING_S: Final = 60.0
FULL_WAIT_S: Final = 0.02
BRAKE_S: Final = 0.2  # a look costs the node more than a batch
LOOK_S: Final = 0.05
MAX_WAITING: Final = 2_048  # a saturated network shows no more by waiting more: only finality grows
_PASSED: Final[frozenset[Reason]] = frozenset({Rejection.DUPLICATE, Rejection.BAD_NONCE})


@dataclass(slots=True)
class Purse:
    """An account that pays, and its last used nonce."""

    key: SigningKey
    nonce: int = 0


@dataclass(slots=True)
class Tally:
    """What one sender did. Units: bytes of the last transfer, as submitted."""

    accepted: int = 0
    transfer_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True, slots=True)
class Network:
    """Which chain the transfers are for, and until when they may wait."""

    chain: ChainId
    valid_until: Height


@dataclass(frozen=True, slots=True)
class Pace:
    """So many transfers a second through one node; None: as many as it takes. Units: offset in seconds, so that the nodes take turns."""

    per_second: float | None
    offset_s: float


def make_purses(count: int) -> list[Purse]:
    """Fresh accounts."""
    return [Purse(SigningKey(os.urandom(32))) for _ in range(count)]


def read_network(client: NodeClient) -> Network:
    """The chain that a node is on."""
    status = client.call("node_status", Nothing(), NodeStatus)
    return Network(bytes.fromhex(status.chain_id), status.height + VALID_HEIGHTS)


def fund(client: NodeClient, network: Network, payer: SigningKey, purses: Sequence[Purse]) -> None:
    """Every purse is full, in a final block, paid by a node's account. Raises: Fault."""
    account = AccountParams(payer.public.hex())
    nonce = client.call("account_get", account, AccountResult).nonce
    for start in range(0, len(purses), MAX_BATCH):
        transfers: list[TransactionParams] = []
        for purse in purses[start : start + MAX_BATCH]:
            nonce += 1
            transfers.append(sign_transfer(network, payer, nonce, purse.key.public, FUNDS))
        for reply in client.call_all("tx_submit", transfers, TransactionResult):
            if isinstance(reply, Fault):
                raise reply
        _wait_used(client, account, nonce)


def send_transfers(client: NodeClient, network: Network, purses: Sequence[Purse], pace: Pace, stop: Event) -> Tally:
    """What was submitted through one node until the stop. Raises: Fault where the node does not answer."""
    tally, queue = Tally(), deque(purses)
    wait_room = _make_pacer(pace, stop) if pace.per_second is not None else _make_brake(client, stop)
    while (room := wait_room()) > 0:
        turn = [queue[index] for index in range(min(room, MAX_BATCH, len(queue)))]
        queue.rotate(-len(turn))
        transfers = [_draw(network, purse, queue[0].key.public) for purse in turn]
        tally.transfer_bytes = len(transfers[0].transaction)
        replies = client.call_all("tx_submit", transfers, TransactionResult)
        for purse, reply in zip(turn, replies, strict=True):
            _count(tally, purse, reply)
    return tally


def _draw(network: Network, purse: Purse, recipient: NodeId) -> TransactionParams:
    purse.nonce += 1
    return sign_transfer(network, purse.key, purse.nonce, recipient, 1)


def _count(tally: Tally, purse: Purse, reply: TransactionResult | Fault) -> None:
    if isinstance(reply, TransactionResult):
        tally.accepted += 1
        return
    tally.refused[str(reply.reason.value)] += 1
    if reply.reason not in _PASSED:
        purse.nonce -= 1  # the same one again in its next turn


def sign_transfer(network: Network, key: SigningKey, nonce: int, recipient: NodeId, amount: int) -> TransactionParams:
    """A transfer as it is submitted."""
    body = Transfer(key.public, nonce, network.valid_until, recipient, amount)
    return TransactionParams(encode(sign_transaction(key, network.chain, body)))


def _make_pacer(pace: Pace, stop: Event) -> Callable[[], int]:
    """How many are due now, at even distances; waits until one is. 0: it is over."""
    assert pace.per_second is not None, pace
    distance_s = 1 / pace.per_second
    began, sent = time.monotonic() + pace.offset_s, 0

    def wait_room() -> int:
        nonlocal sent
        if stop.wait(max(0.0, began + sent * distance_s - time.monotonic())):
            return 0
        due = min(MAX_BATCH, 1 + int((time.monotonic() - began - sent * distance_s) / distance_s))
        sent += due
        return due

    return wait_room


def _make_brake(client: NodeClient, stop: Event) -> Callable[[], int]:
    """A whole batch as long as not too many wait at this node for a block. 0: it is over."""
    waiting, looked = 0, 0.0

    def wait_room() -> int:
        nonlocal waiting, looked
        while not stop.is_set():
            if time.monotonic() - looked > BRAKE_S:
                status = client.call("node_status", Nothing(), NodeStatus)
                waiting, looked = status.waiting_transactions, time.monotonic()
            if waiting < MAX_WAITING:
                return MAX_BATCH
            stop.wait(FULL_WAIT_S)
        return 0

    return wait_room


def _wait_used(client: NodeClient, account: AccountParams, nonce: int) -> None:
    deadline = time.monotonic() + FUNDING_S
    while client.call("account_get", account, AccountResult).nonce < nonce:
        if time.monotonic() > deadline:
            raise Fault(Trouble.TIMED_OUT, f"the accounts that should send were not funded within {FUNDING_S:.0f} s")
        time.sleep(LOOK_S)
