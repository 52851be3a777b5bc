"""What `bench ledger` sees of the nodes while it loads them: their processes through /proc, their own samples through RPC."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from node.commands.bench_job import list_new
from node.faults import Fault, Trouble
from node.rpc_client import NodeClient
from node.rpc_types import BlockParams, BlockResult, NodeStatus, Nothing

_UTIME_FIELD: Final = 11  # of /proc/PID/stat, counted after the name; proc(5) calls it field 14
_STIME_FIELD: Final = 12


@dataclass(frozen=True, slots=True)
class Watched:
    """One node: its process and its RPC."""

    index: int
    pid: int
    client: NodeClient


@dataclass(frozen=True, slots=True)
class Cost:
    """What a node has used since it started. Units: seconds of processor time (in the kernel: `system_s`), milliseconds of waiting."""

    cpu_s: float
    system_s: float
    disk_wait_ms: int
    areas: Counter[str]


@dataclass(frozen=True, slots=True)
class Moment:
    """All nodes at one time. Units: monotonic seconds; bytes."""

    at_s: float
    height: int  # final at all of them
    view: int
    waiting: int
    rss: tuple[int, ...]
    finality_ms: tuple[int, ...]  # new since the moment before


@dataclass(frozen=True, slots=True)
class BlockCount:
    """One final block. Units: time_ms since the epoch."""

    time_ms: int
    transactions: int


@dataclass(slots=True)
class Watch:
    """Looks at all nodes now and then."""

    nodes: Sequence[Watched]
    moments: list[Moment] = field(default_factory=list[Moment])
    _seen: dict[int, tuple[int, ...]] = field(default_factory=dict[int, tuple[int, ...]])

    def look(self) -> Moment:
        """The nodes now, kept among the moments."""
        statuses = [node.client.call("node_status", Nothing(), NodeStatus) for node in self.nodes]
        fresh: list[int] = []
        for node, status in zip(self.nodes, statuses, strict=True):
            fresh.extend(list_new(self._seen.get(node.index, ()), status.finality_ms_recent))
            self._seen[node.index] = status.finality_ms_recent
        moment = Moment(
            time.monotonic(),
            min(status.height for status in statuses),
            max(status.view for status in statuses),
            max(status.waiting_transactions for status in statuses),
            tuple(status.rss_bytes for status in statuses),
            tuple(fresh),
        )
        self.moments.append(moment)
        return moment


def read_cost(node: Watched) -> Cost:
    """What a node has used so far."""
    status = node.client.call("node_status", Nothing(), NodeStatus)
    user_s, system_s = read_cpu_s(node.pid)
    return Cost(user_s + system_s, system_s, status.disk_wait_ms, Counter(status.cpu_samples))


def read_cpu_s(pid: int) -> tuple[float, float]:
    """Processor time of one process, (its own, the kernel's for it). Source: proc(5), /proc/PID/stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Fault(Trouble.NO_NODE_RUNNING, f"process {pid}, one of the nodes that are measured, has ended") from error
    fields = stat.rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[_UTIME_FIELD]) / ticks, int(fields[_STIME_FIELD]) / ticks


def compute_slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the least-squares line through points (x, y); 0 where all have one x."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def count_transactions(client: NodeClient, above: int, to: int) -> tuple[BlockCount, ...]:
    """The final blocks above one height up to another."""
    heights = range(above + 1, to + 1)
    blocks = [client.call("block_get", BlockParams(height), BlockResult) for height in heights]
    return tuple(BlockCount(block.time_ms, len(block.transactions)) for block in blocks)
