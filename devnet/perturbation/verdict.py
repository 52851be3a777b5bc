"""The judgement on a run: everything that was gathered against everything that must hold, and the report of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from devnet.perturbation.checks import (
    BlockSeen,
    Estate,
    compute_lost_bonds,
    compute_missing_units,
    find_forks,
    find_lost,
    find_missing_heights,
    find_unequal_states,
)
from devnet.perturbation.load import UNHEARD, UNSEEN, Book
from devnet.perturbation.report import (
    Jobs,
    NodeEnd,
    Outcome,
    PerturbReport,
    Transfers,
    sum_up_recovery,
)
from devnet.perturbation.sightings import Sightings
from node.commands.bench_job import Percentiles, get_percentile

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Setting:
    """What the run was."""

    nodes: int
    minutes: float
    seed: int
    isolation: str
    machine: str
    minted: int  # micro-units in the genesis
    bonds: Mapping[str, int]  # of the genesis' validators


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known after it. `disk_faults`: what `quorate ledger` found wrong with the stopped nodes' disks."""

    outcomes: Sequence[Outcome]
    books: Sequence[Book]
    sightings: Sightings
    chains: Mapping[int, Sequence[BlockSeen]]
    estates: Sequence[Estate]
    disk_faults: Sequence[str]
    in_trouble: Sequence[NodeEnd]
    killed: Sequence[int]


def judge(setting: Setting, evidence: Evidence) -> PerturbReport:
    """The report; `ok` where nothing at all is wrong."""
    sightings, books = evidence.sightings, evidence.books
    height = max((block.height for chain in evidence.chains.values() for block in chain), default=0)
    forks = find_forks(evidence.chains, sightings.looks)
    unequal = find_unequal_states(evidence.chains)
    lost = find_lost([each for book in books for each in book.acknowledged], evidence.chains)
    missing = compute_missing_units(setting.minted, evidence.estates)
    convicted = {node for estate in evidence.estates for node in estate.convicted}
    problems = [
        *(f"fork: {fork}" for fork in forks),
        *(f"unequal states: {each}" for each in unequal),
        *(f"lost: {each}" for each in lost),
        *([f"lost: {missing} micro-units of {setting.minted}"] if missing else []),
        *(f"slashed though honest: {node}" for node in sorted(convicted)),
        *find_missing_heights(evidence.chains, height),
        *_list_troubles(evidence),
    ]
    newest = max(evidence.estates, key=lambda estate: estate.height, default=None)
    waited = sorted(each for book in books for each in book.waited_ms)
    finality = sorted(sightings.finality_ms)
    return PerturbReport(
        ok=not problems,
        forks=len(forks),
        lost=len(lost) + missing,
        honest_slashed=len(convicted),
        recovery_s=sum_up_recovery(evidence.outcomes),
        perturbations=tuple(evidence.outcomes),
        finality_ms=Percentiles(get_percentile(finality, 50), get_percentile(finality, 99)),
        acknowledged_ms=Percentiles(get_percentile(waited, 50), get_percentile(waited, 99)),
        fees_lost_to_crashes=0 if newest is None else compute_lost_bonds(setting.bonds, newest),
        unequal_states=len(unequal),
        lost_transactions=len(lost),
        lost_micro=missing,
        transfers=_count_transfers(books),
        jobs=_count_jobs(books),
        blocks=height,
        views=sightings.views,
        nodes=setting.nodes,
        minutes=setting.minutes,
        seed=setting.seed,
        isolation=setting.isolation,
        machine=setting.machine,
        rss_mb=tuple(round(points[-1][1] / MEGABYTE, 1) for _, points in sorted(sightings.rss.items())),
        nodes_in_trouble=tuple(evidence.in_trouble),
        problems=tuple(problems),
    )


def _list_troubles(evidence: Evidence) -> Iterator[str]:
    """What was wrong on the way, whatever the ledgers are like."""
    for each in evidence.outcomes:
        if each.problem:
            yield f"perturbation {each.number}, {each.kind}: {each.problem}"
    for node in evidence.in_trouble:
        yield f"node {node.node} {node.what}"
    for index in evidence.killed:
        yield f"node {index} had to be killed in the end"
    for index, why in sorted({(look.node, look.halted) for look in evidence.sightings.looks if look.halted}):
        yield f"node {index} halted: {why}"
    yield from evidence.disk_faults
    if not evidence.outcomes:
        yield "nothing was perturbed: there was no time for it"
    if not any(book.acknowledged for book in evidence.books):
        yield "no transaction was ever acknowledged"


def _count_transfers(books: Sequence[Book]) -> Transfers:
    refused: Counter[str] = Counter()
    for book in books:
        refused.update(book.refused)
    return Transfers(
        submitted=sum(book.submitted for book in books),
        acknowledged=sum(len(book.waited_ms) for book in books),
        unknown=sum(book.unknown for book in books),
        unreachable_calls=sum(book.unreachable for book in books),
        refused=dict(refused),
    )


def _count_jobs(books: Sequence[Book]) -> Jobs:
    ends = Counter(status for book in books for status in book.jobs.values())
    return Jobs(
        asked=ends.total(),
        accepted=ends["accepted"],
        failed=ends["failed"],
        inconclusive=ends["inconclusive"],
        open=ends["open"],
        unseen=ends[UNSEEN],
        unheard=ends[UNHEARD],
    )
