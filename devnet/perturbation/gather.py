"""What the nodes have in the end: their chains through RPC, their disks through `quorate ledger` once they are stopped."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from devnet.devnet_file import DevnetNode
from devnet.interruption import Interruption
from devnet.perturbation.checks import BlockSeen, Estate
from devnet.quorate_process import run_quorate
from node.faults import Exit, Fault, Trouble
from node.rpc_client import NodeClient
from node.rpc_types import BlockParams, BlockResult

BATCH: Final = 16  # far from the largest reply, whatever is in the blocks of this load
_ENTRY_KIND_DIGITS: Final = 2  # the kind byte before the node id in an account's key


class _Head(msgspec.Struct, frozen=True):
    """The first line of an export."""

    height: int
    state_root: str


class _Request(msgspec.Struct, frozen=True):
    fee: int


class _Value(msgspec.Struct, frozen=True):
    """What of an entry is worth something; each kind has its own of these."""

    balance: int = 0
    bonded: int = 0
    burned: int = 0
    amount: int = 0
    request: _Request = _Request(0)


class _Entry(msgspec.Struct, frozen=True):
    """Any other line."""

    kind: str
    key: str
    value: msgspec.Raw


class Checked(msgspec.Struct, frozen=True):
    """What `quorate ledger check` says of a home."""

    height: Annotated[int, Meta(ge=0)]
    state_root: str


def read_chain(client: NodeClient, height: int) -> tuple[BlockSeen, ...]:
    """A node's final blocks from 1 up to this height; without those that it does not have. Raises: Fault."""
    seen: list[BlockSeen] = []
    for first in range(1, height + 1, BATCH):
        asked = [BlockParams(number) for number in range(first, min(first + BATCH, height + 1))]
        for reply in client.call_all("block_get", asked, BlockResult):
            if isinstance(reply, BlockResult):
                names = tuple(each.id for each in reply.transactions)
                seen.append(BlockSeen(reply.height, reply.hash, reply.state_root, names))
            elif reply.reason is not Trouble.UNKNOWN_BLOCK:
                raise reply
    return tuple(seen)


def check_disk(node: DevnetNode, interruption: Interruption) -> Checked:
    """What a stopped node's ledger is, judged block by block. Raises: Fault where it is damaged; Interrupted."""
    done = run_quorate(["ledger", "check", "--home", node.home, "--json"], Path(node.home), interruption)
    if done.code != Exit.OK:
        raise Fault(
            Trouble.DAMAGED_LEDGER,
            f"node {node.index}: `quorate ledger check` ended with exit code {done.code}: {done.told}",
        )
    return msgspec.json.decode(done.output, type=Checked)


def read_estate(node: DevnetNode, interruption: Interruption) -> Estate:
    """What a stopped node's state holds. Raises: Fault; Interrupted."""
    with tempfile.TemporaryDirectory(prefix="quorate-perturb-") as name:
        out = Path(name) / "state"
        done = run_quorate(["ledger", "export", "--home", node.home, "--out", str(out)], Path(name), interruption)
        if done.code != Exit.OK:
            raise Fault(
                Trouble.DAMAGED_LEDGER,
                f"node {node.index}: `quorate ledger export` ended with exit code {done.code}: {done.told}",
            )
        with out.open("rb") as lines:
            return add_up(lines)


def add_up(lines: Iterable[bytes]) -> Estate:
    """What an export says altogether."""
    every = iter(lines)
    head = msgspec.json.decode(next(every), type=_Head)
    held, burned = 0, 0
    bonds: dict[str, int] = {}
    convicted: list[str] = []
    for line in every:
        entry = msgspec.json.decode(line, type=_Entry)
        owner = entry.key[_ENTRY_KIND_DIGITS:]
        match entry.kind:
            case "chain":
                burned += _decode(entry).burned
            case "account":
                held += _decode(entry).balance + _decode(entry).bonded
                bonds[owner] = _decode(entry).bonded
            case "unbonding":
                held += _decode(entry).amount
            case "open-job":
                held += _decode(entry).request.fee
            case "conviction":
                convicted.append(owner)
            case _:
                continue
    return Estate(head.height, head.state_root, held, burned, bonds, tuple(convicted))


def _decode(entry: _Entry) -> _Value:
    return msgspec.json.decode(entry.value, type=_Value)
