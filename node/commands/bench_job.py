"""What `bench job` measures, and how.

An answer's time runs from the call that submits it until its certificate is here. Generation is what members' workers took, read
from the nodes that can be asked (all of a devnet). Finality is measured by the node that is asked: a valid transaction received
until its FinalCert. A certificate is checked as `verify` does.
"""

import os
import platform
import secrets
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from node.commands.answers import wait_settled
from node.commands.connect import DEVNET_FILE, connect, list_devnet_nodes
from node.faults import Fault, Trouble
from node.genesis_file import read_genesis
from node.render import ProgressLine, open_console, print_facts
from node.rpc_client import NodeClient
from node.rpc_types import (
    CertificateResult,
    JobParams,
    JobSubmitParams,
    JobSubmitted,
    NodeStatus,
    Nothing,
)
from protocol.certificate import check_certificate
from protocol.genesis import Genesis

JOB_TIMEOUT_S: Final = 120.0
SYNC_SAMPLES: Final = 200


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure, and where."""

    home: Path | None
    rpc: str | None
    token_file: Path | None
    genesis: Path | None
    model: str
    committee: int
    jobs: int
    warmup: int


class Percentiles(msgspec.Struct, frozen=True):
    """Units: milliseconds."""

    p50: int
    p99: int


class Figures(msgspec.Struct, frozen=True):
    """Medians over the jobs that count, unless named otherwise."""

    answer_s: float
    generation_s: float
    overhead_s: float
    finality_ms: Percentiles
    node_rss_mb: float
    certificate_bytes: int
    certificate_check_ms: float


@dataclass(frozen=True, slots=True)
class _Sample:
    answer_s: float
    generation_s: float
    certificate_bytes: int
    check_ms: float


def measure_jobs(plan: BenchPlan) -> Figures:
    """The figures of a running network. Raises: Fault where a job gets no accepted answer."""
    client = connect(plan.rpc, plan.home, plan.token_file)
    observers = _list_observers(plan, client)
    genesis = read_genesis(_find_genesis(plan))
    questions = _list_questions(plan.warmup + plan.jobs)
    line = ProgressLine()
    for number in range(plan.warmup):
        line.show(f"warming up: job {number + 1} of {plan.warmup}")
        _measure_job(plan, client, observers, genesis, next(questions))
    before = client.call("node_status", Nothing(), NodeStatus)
    samples: list[_Sample] = []
    for number in range(plan.jobs):
        line.show(f"measuring: job {number + 1} of {plan.jobs}")
        samples.append(_measure_job(plan, client, observers, genesis, next(questions)))
    line.clear()
    after = client.call("node_status", Nothing(), NodeStatus)
    finality = sorted(list_new(before.finality_ms_recent, after.finality_ms_recent))
    return Figures(
        answer_s=round(statistics.median(each.answer_s for each in samples), 3),
        generation_s=round(statistics.median(each.generation_s for each in samples), 3),
        overhead_s=round(statistics.median(each.answer_s - each.generation_s for each in samples), 3),
        finality_ms=Percentiles(get_percentile(finality, 50), get_percentile(finality, 99)),
        node_rss_mb=round(after.rss_bytes / 1e6, 1),
        certificate_bytes=round(statistics.median(each.certificate_bytes for each in samples)),
        certificate_check_ms=round(statistics.median(each.check_ms for each in samples), 2),
    )


def _list_observers(plan: BenchPlan, client: NodeClient) -> list[NodeClient]:
    if plan.rpc is None and plan.home is not None and (plan.home / DEVNET_FILE).is_file():
        return [NodeClient(node.rpc) for node in list_devnet_nodes(plan.home)]
    return [client]


def _find_genesis(plan: BenchPlan) -> Path:
    if plan.genesis is not None:
        return plan.genesis
    if plan.home is None:
        raise Fault(
            Trouble.USAGE,
            "the certificates are checked against a genesis, and none was named",
            cure="give --genesis FILE or --home DIR",
        )
    return plan.home / "genesis.json"


def _list_questions(count: int) -> Iterator[str]:
    """Two-digit sums, no two alike within 1,000."""
    return (f"{10 + index * 7 % 90}+{10 + index * 11 % 90}=" for index in range(count))


def _measure_job(
    plan: BenchPlan, client: NodeClient, observers: Sequence[NodeClient], genesis: Genesis, question: str
) -> _Sample:
    before = [_read_generation(observer) for observer in observers]
    params = JobSubmitParams(model=plan.model, prompt=question, seats=plan.committee, request_id=secrets.token_hex(16))
    started = time.perf_counter()
    job = client.call("job_submit", params, JobSubmitted).job
    state = wait_settled(client, job, JOB_TIMEOUT_S, is_quiet=True)
    if state.status != "accepted":
        reason = Trouble.JOB_FAILED if state.status == "failed" else Trouble.JOB_INCONCLUSIVE
        raise Fault(reason, f"job {job[:16]} ended {state.status}: only accepted answers are measured")
    certificate = client.call("certificate_get", JobParams(job), CertificateResult).certificate
    answer_s = time.perf_counter() - started
    after = [_read_generation(observer) for observer in observers]
    taken = [value for old, new in zip(before, after, strict=True) for value in list_new(old, new)]
    checked = time.perf_counter()
    check_certificate(certificate, genesis)
    check_ms = (time.perf_counter() - checked) * 1000
    # The slowest member is whom the answer waits for.
    return _Sample(answer_s, max(taken, default=0) / 1000, len(certificate), check_ms)


def _read_generation(client: NodeClient) -> tuple[int, ...]:
    return client.call("node_status", Nothing(), NodeStatus).generation_ms_recent


def list_new(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """The samples behind those that were there before; a full queue drops its oldest, so the overlap is looked for."""
    for dropped in range(len(before) + 1):
        kept = len(before) - dropped
        if list(after[:kept]) == list(before[dropped:]):
            return list(after[kept:])
    return list(after)


def get_percentile(ordered: Sequence[int], percent: int) -> int:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0


def describe_machine(home: Path | None) -> str:
    """The machine in a line: processor, cores, memory, system, and what one fdatasync takes where the home is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    syncs = _measure_syncs(home if home is not None and home.is_dir() else Path.cwd())
    return (
        f"{_name_processor()} · {os.cpu_count()} cores · {memory:.0f} GiB · {platform.system()} {platform.release()} · "
        f"Python {platform.python_version()} · fdatasync p50 {syncs[0]:.2f} ms p99 {syncs[1]:.2f} ms"
    )


def _name_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _measure_syncs(directory: Path) -> tuple[float, float]:
    """p50 and p99 of writing 300 bytes durably. Units: milliseconds."""
    path = directory / f".quorate-bench-{os.getpid()}"
    taken: list[float] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for _ in range(SYNC_SAMPLES):
            started = time.perf_counter()
            os.write(descriptor, bytes(300))
            os.fdatasync(descriptor)
            taken.append((time.perf_counter() - started) * 1000)
    finally:
        os.close(descriptor)
        path.unlink()
    taken.sort()
    return taken[len(taken) // 2], taken[len(taken) * 99 // 100]


def print_figures(figures: Figures) -> None:
    """The figures with their units."""
    facts = [
        ("answer", f"{figures.answer_s:.3f} s, certified"),
        ("generation", f"{figures.generation_s:.3f} s by the slowest member"),
        ("overhead", f"{figures.overhead_s:.3f} s"),
        ("finality", f"p50 {figures.finality_ms.p50} ms, p99 {figures.finality_ms.p99} ms"),
        ("node process", f"{figures.node_rss_mb:.1f} MB"),
        ("certificate", f"{figures.certificate_bytes:,} bytes, checked in {figures.certificate_check_ms:.2f} ms"),
    ]
    print_facts(open_console(), facts)
