"""How fast votes become final over the real network: processes, libp2p streams, signatures, fdatasync, busy workers.

Decides nothing for the product; it answers whether blocks can be final in time on this machine. The vote loop is
S-Simplex without faults: propose, Notar, certificate, Final; the next leader proposes as soon as it holds the
certificate, at least `pace` after the block before. Run: python -P -m node.bench_votes --nodes 4 --busy 0 --json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

_STARTED = time.perf_counter()

# These come after the clock: their import time is one of the figures.
import msgspec.msgpack  # noqa: E402
import nacl.bindings  # noqa: E402
import trio  # noqa: E402

from node.libp2p_network import Libp2pNetwork  # noqa: E402
from node.libp2p_open import open_network  # noqa: E402
from node.network import DirectMessage, NetworkConfig, NetworkEvent, PeerAddress, PeerUp  # noqa: E402

_IMPORT_S = time.perf_counter() - _STARTED

PROPOSE, NOTAR, FINAL, TRANSACTION = 1, 2, 3, 4
_CHAIN_ID = b"\x62" * 32
_BODY_BYTES = 1_000
_WARM_UP = 10
_STALL_S = 30.0
_BUSY_CODE = """
import os, sys
os.nice(int(sys.argv[1]))
import torch
torch.set_num_threads(1)
a = torch.randn(512, 512)
print("ready", flush=True)
while os.getppid() == int(sys.argv[2]):
    for _ in range(20):
        a = torch.nn.functional.normalize(a @ a)
"""

_Message: TypeAlias = tuple[int, int, bytes, int, list[bytes]]
_DECODER = msgspec.msgpack.Decoder(_Message)


@dataclass(frozen=True, slots=True)
class _Setup:
    """One node's part of a run."""

    index: int
    ports: list[int]
    rounds: int
    pace_s: float
    directory: str


@dataclass(slots=True)
class _Figures:
    """What one node measured. Units: milliseconds, megabytes"""

    vote_ms: list[float] = field(default_factory=list)
    transaction_ms: list[float] = field(default_factory=list)
    sync_ms: list[float] = field(default_factory=list)
    rtt_ms: list[float] = field(default_factory=list)
    cpu_ms_per_block: float = 0.0
    import_s: float = 0.0
    connect_s: float = 0.0
    rss_start_mb: float = 0.0
    rss_end_mb: float = 0.0


def _seed(index: int) -> bytes:
    return bytes([index + 1]) * 32


def _rss_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1_024
    raise RuntimeError("no VmRSS in /proc/self/status")


class _Voter:
    """A validator that always votes yes; owns its log of votes."""

    def __init__(self, setup: _Setup, network: Libp2pNetwork, figures: _Figures) -> None:
        self.setup, self.network, self.figures = setup, network, figures
        keys = [nacl.bindings.crypto_sign_seed_keypair(_seed(i)) for i in range(len(setup.ports))]
        self.public = [public for public, _ in keys]
        self.secret = keys[setup.index][1]
        self.index_of = {public: i for i, public in enumerate(self.public)}
        self.quorum = 2 * len(keys) // 3 + 1
        self.wal = os.open(Path(setup.directory) / f"votes-{setup.index}.wal", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.view = 1
        self.votes: dict[tuple[int, int], set[int]] = {}
        self.proposed_ns: dict[int, int] = {}
        self.contents: dict[int, list[bytes]] = {}
        self.pending: dict[bytes, None] = {}
        self.submitted: dict[bytes, float] = {}
        self.finals = 0
        self.cpu_start = 0.0
        self.finished = trio.Event()
        self.last_proposal_s = 0.0
        self.submit_scope: trio.Nursery

    def _log(self, record: bytes) -> None:
        os.write(self.wal, len(record).to_bytes(4, "big") + record)
        before = time.perf_counter()
        os.fdatasync(self.wal)
        self.figures.sync_ms.append((time.perf_counter() - before) * 1_000)

    def _sign(self, message: _Message) -> bytes:
        return nacl.bindings.crypto_sign(msgspec.msgpack.encode(message), self.secret)

    def _broadcast(self, signed: bytes) -> None:
        for public in self.public:
            if public != self.network.node_id:
                self.network.send(public, signed)

    def _vote(self, kind: int, view: int) -> None:
        signed = self._sign((kind, view, b"h" * 32, 0, []))
        self._log(signed if kind == FINAL else signed + b"b" * _BODY_BYTES)
        self._broadcast(signed)
        self.count(self.setup.index, kind, view)

    async def propose_when_due(self, view: int) -> None:
        """Proposes the view's block, no sooner than the pace allows."""
        await trio.sleep(max(0.0, self.last_proposal_s + self.setup.pace_s - trio.current_time()))
        transactions = list(self.pending)[:64]
        signed = self._sign((PROPOSE, view, os.urandom(_BODY_BYTES), time.monotonic_ns(), transactions))
        self._log(signed)
        self._broadcast(signed)
        self.take(self.setup.index, (PROPOSE, view, b"", time.monotonic_ns(), transactions))

    def receive(self, node_id: bytes, data: bytes) -> None:
        """Takes one message of a peer, after its signature."""
        self.take(self.index_of[node_id], _DECODER.decode(nacl.bindings.crypto_sign_open(data, node_id)))

    def take(self, sender: int, message: _Message) -> None:
        """Moves on by one message."""
        kind, view, _, at_ns, transactions = message
        if kind == TRANSACTION:
            self.pending.update(dict.fromkeys(transactions))
        elif kind == PROPOSE:
            self.last_proposal_s = trio.current_time()
            self.proposed_ns[view], self.contents[view] = at_ns, transactions
            self._vote(NOTAR, view)
        else:
            self.count(sender, kind, view)

    def count(self, sender: int, kind: int, view: int) -> None:
        """Counts a vote; a quorum moves the node on."""
        voters = self.votes.setdefault((kind, view), set())
        before = len(voters)
        voters.add(sender)
        if len(voters) != self.quorum or before == self.quorum:
            return
        if kind == NOTAR:
            self._vote(FINAL, view)
            self.view = view + 1
            if (view + 1) % len(self.public) == self.setup.index:
                self.submit_scope.start_soon(self.propose_when_due, view + 1)
        else:
            self._finalise(view)

    def _finalise(self, view: int) -> None:
        now_ns = time.monotonic_ns()
        self.finals += 1
        if self.finals == _WARM_UP:
            self.cpu_start = time.process_time()
        if self.finals > _WARM_UP and view in self.proposed_ns:
            self.figures.vote_ms.append((now_ns - self.proposed_ns[view]) / 1e6)
        for transaction in self.contents.pop(view, []):
            self.pending.pop(transaction, None)
            submitted = self.submitted.pop(transaction, None)
            if submitted is not None and self.finals > _WARM_UP:
                self.figures.transaction_ms.append((trio.current_time() - submitted) * 1_000)
        self.votes.pop((NOTAR, view - 20), None)
        self.votes.pop((FINAL, view - 20), None)
        if self.finals == self.setup.rounds + _WARM_UP:
            self.figures.cpu_ms_per_block = (time.process_time() - self.cpu_start) * 1_000 / self.setup.rounds
            self.finished.set()

    async def submit_for_ever(self) -> None:
        """One client of this node: a transaction at a time, at random moments."""
        randomness = random.Random(self.setup.index)
        while True:
            await trio.sleep(randomness.uniform(0.05, 0.3))
            transaction = os.urandom(16)
            self.submitted[transaction] = trio.current_time()
            self.pending[transaction] = None
            self._broadcast(self._sign((TRANSACTION, 0, b"", 0, [transaction])))


async def _run_node(setup: _Setup) -> _Figures:
    figures = _Figures(import_s=_IMPORT_S)
    send, receive = trio.open_memory_channel[NetworkEvent](1_000)
    public = [nacl.bindings.crypto_sign_seed_keypair(_seed(i))[0] for i in range(len(setup.ports))]
    config = NetworkConfig(
        seed=_seed(setup.index), chain_id=_CHAIN_ID, protocol_version=1, software="bench",
        listen_port=setup.ports[setup.index],
        peers=tuple(PeerAddress(key, f"/ip4/127.0.0.1/tcp/{port}") for key, port in zip(public, setup.ports, strict=True)),
    )  # fmt: skip
    async with open_network(config, send) as network, trio.open_nursery() as nursery:
        figures.rss_start_mb = _rss_mb()
        began = time.perf_counter()
        await _wait_for_peers(receive, len(setup.ports) - 1)
        figures.connect_s = time.perf_counter() - began
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        await _vote_until_done(_Voter(setup, network, figures), receive, nursery)
        figures.rtt_ms = [peer.rtt_ms for peer in network.statistics().peers if peer.rtt_ms is not None]
        figures.rss_end_mb = _rss_mb()
        print(json.dumps(asdict(figures)), flush=True)
        # Peers may still need this node's votes: leave together.
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()
    return figures


async def _wait_for_peers(events: trio.MemoryReceiveChannel[NetworkEvent], count: int) -> None:
    seen: set[bytes] = set()
    with trio.fail_after(60):
        while len(seen) < count:
            event = await events.receive()
            if isinstance(event, PeerUp):
                seen.add(event.node_id)


async def _vote_until_done(
    voter: _Voter, events: trio.MemoryReceiveChannel[NetworkEvent], nursery: trio.Nursery
) -> None:
    voter.submit_scope = nursery

    async def take_events() -> None:
        async for event in events:
            if isinstance(event, DirectMessage):
                voter.receive(event.node_id, event.data)

    nursery.start_soon(take_events)
    nursery.start_soon(voter.submit_for_ever)
    if voter.setup.index == 1 % len(voter.public):
        nursery.start_soon(voter.propose_when_due, 1)
    with trio.fail_after(_STALL_S + voter.setup.rounds * 1.0):
        await voter.finished.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def _processes(commands: Sequence[list[str]]) -> Generator[list[subprocess.Popen[str]], None, None]:
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    try:
        yield started
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(timeout=20)


def _read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a bench process ended with code {process.wait()}; see its error output above")
    return line


def _release(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2), "max": round(max(values), 2)}


def measure_votes(nodes: int, busy: int, rounds: int, pace_ms: int, nice: int, directory: str) -> dict[str, object]:
    """The figures of one run, over all nodes."""
    ports = _free_ports(nodes)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        setups = [_Setup(i, ports, rounds, pace_ms / 1_000, work) for i in range(nodes)]
        workers = [[sys.executable, "-P", "-c", _BUSY_CODE, str(nice), str(os.getpid())] for _ in range(busy)]
        voters = [[sys.executable, "-P", "-m", "node.bench_votes", "--setup", json.dumps(asdict(s))] for s in setups]
        with _processes(workers) as running_workers:
            for process in running_workers:
                _read_line(process)
            with _processes(voters) as running:
                for process in running:
                    _read_line(process)
                _release(running)
                figures = [_Figures(**json.loads(_read_line(process))) for process in running]
                _release(running)
    return _summarise(figures, nodes, busy, rounds, pace_ms, nice)


def _summarise(
    figures: list[_Figures], nodes: int, busy: int, rounds: int, pace_ms: int, nice: int
) -> dict[str, object]:
    return {
        "nodes": nodes,
        "busy": busy,
        "nice": nice,
        "rounds": rounds,
        "pace_ms": pace_ms,
        "vote_ms": _quantiles([v for f in figures for v in f.vote_ms]),
        "finality_ms": _quantiles([v for f in figures for v in f.transaction_ms]),
        "transactions": sum(len(f.transaction_ms) for f in figures),
        "fdatasync_ms": _quantiles([v for f in figures for v in f.sync_ms]),
        "cpu_ms_per_block_and_node": round(statistics.mean(f.cpu_ms_per_block for f in figures), 2),
        "rss_start_mb": round(max(f.rss_start_mb for f in figures), 1),
        "rss_end_mb": round(max(f.rss_end_mb for f in figures), 1),
        "import_s": round(statistics.median(f.import_s for f in figures), 2),
        "connect_s": round(max(f.connect_s for f in figures), 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }


def main() -> None:
    """Runs the bench, or one of its nodes."""
    parser = argparse.ArgumentParser(description="Measure finality of a bare vote loop over the real network.")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--busy", type=int, default=0, help="torch processes that compute beside the nodes")
    parser.add_argument("--nice", type=int, default=10, help="how much lower the busy processes' priority is")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--pace-ms", type=int, default=50, help="least time between two blocks")
    parser.add_argument("--dir", default=".", help="where the vote logs go: a real disk, or fdatasync means nothing")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.setup:
        trio.run(_run_node, _Setup(**json.loads(options.setup)))
        return
    result = measure_votes(options.nodes, options.busy, options.rounds, options.pace_ms, options.nice, options.dir)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
