"""A calibration in pictures, where matplotlib is installed (the extra `plots`), which is known here alone."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np

from verifier.calibrate import Outcome
from verifier.calibrate_limits import is_harmless, measure_all
from verifier.calibrate_plan import HONEST
from verifier.calibrate_run import Record
from verifier.sketch import DISTANCE_UNITS, compute_distance
from verifier.tolerances import Tolerance, look_up

DOTS_PER_INCH: Final = 110


class _Axes(Protocol):
    def plot(self, *points: object, label: str, marker: str = "", markersize: float = 3) -> object: ...
    def hist(
        self,
        x: Sequence[float],
        *,
        bins: list[float],
        weights: list[float],
        histtype: str,
        label: str,
        linewidth: float,
    ) -> object: ...
    def barh(self, y: list[str], width: list[float]) -> object: ...
    def axvline(self, x: float, *, color: str, linestyle: str, label: str) -> object: ...
    def set(self, **settings: object) -> object: ...
    def set_xscale(self, scale: str, **settings: float) -> object: ...
    def legend(self, *, fontsize: int, loc: str = "best") -> object: ...


class _Figure(Protocol):
    def add_subplot(self, rows: int, columns: int, index: int) -> _Axes: ...
    def savefig(self, path: Path, *, dpi: int, metadata: dict[str, None]) -> object: ...


class _FigureModule(Protocol):
    def Figure(self, *, figsize: tuple[float, float], layout: str) -> _Figure: ...


def is_possible() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_plots(outcome: Outcome, directory: Path) -> list[tuple[str, str]]:
    """(file name, title) of each picture, drawn into the directory."""
    pairs = [pair for pair in outcome.profile.tolerances if pair.executor == outcome.reference]
    own = next(pair for pair in pairs if pair.auditor == outcome.reference)
    coarse = next((pair for pair in pairs if "/bfloat16/" in pair.auditor), own)
    drawn = [
        _draw_roc(outcome, own, directory / "roc.png", "Receiver operating characteristic in the card's class"),
        _draw_roc(
            outcome,
            coarse,
            directory / "roc-coarse.png",
            f"Receiver operating characteristic as {coarse.auditor} sees it",
        ),
        _draw_distances(outcome, own, directory / "distances.png", "Sketch distances inside the card's class"),
        _draw_distances(
            outcome, coarse, directory / "distances-coarse.png", f"Sketch distances as {coarse.auditor} sees them"
        ),
        _draw_lengths(outcome, directory / "lengths.png"),
        _draw_cost(outcome, directory / "cost.png"),
    ]
    return [(path.name, title) for path, title in drawn]


def _collect(outcome: Outcome, pair: Tolerance) -> dict[str, list[Record]]:
    """By kind, the reported records that this pair's auditor has read."""
    found: dict[str, list[Record]] = {}
    for record in outcome.records:
        if record.unit.executor == pair.executor and pair.auditor in record.seen and not record.unit.sets_limits:
            found.setdefault(record.unit.kind, []).append(record)
    return found


def _draw_roc(outcome: Outcome, pair: Tolerance, path: Path, title: str) -> tuple[Path, str]:
    """True against false positives as all limits are scaled together; the profile's own limits are scale 1."""
    ratios = {
        kind: np.array([_measure_worst(record, job, pair) for record in records for job in _list_jobs(record, pair)])
        for kind, records in _collect(outcome, pair).items()
    }
    honest = ratios.pop(HONEST)
    scales = np.concatenate(([0.0], np.geomspace(1e-3, 1e4, 400)))
    figure, axes = _start(7, 5)
    for kind, found in ratios.items():
        if not found.size:
            continue  # none of a few texts was forged
        points = [((honest > scale).mean(), (found > scale).mean()) for scale in scales]
        axes.plot([x for x, _ in points], [y for _, y in points], label=f"{kind}, {(found > 1).mean():.3f} at scale 1")
    axes.set(xlabel="honest claims rejected", ylabel="claims of the cheat rejected", xlim=(-0.02, 1), ylim=(0, 1.03))
    axes.legend(fontsize=7, loc="lower right")
    return _finish(figure, path), title


def _draw_distances(outcome: Outcome, pair: Tolerance, path: Path, title: str) -> tuple[Path, str]:
    figure, axes = _start(7, 4.5)
    bins = np.concatenate(([0.0], np.geomspace(1 / DISTANCE_UNITS, 8192, 120)))
    tokens = 1
    for kind, records in _collect(outcome, pair).items():
        tokens = max(tokens, *(record.tokens for record in records))
        longest = [record for record in records if record.tokens == tokens]
        found = [
            compute_distance(gaps) / DISTANCE_UNITS for record in longest for gaps in record.seen[pair.auditor].gaps
        ]
        width = 2.0 if kind == HONEST else 1.0
        axes.hist(
            found,
            bins=bins.tolist(),
            weights=[1 / len(found)] * len(found),
            histtype="step",
            label=kind,
            linewidth=width,
        )
    limit = look_up(pair.distances, tokens) / DISTANCE_UNITS
    axes.axvline(limit, color="black", linestyle="--", label=f"limit {limit:.1f}")
    axes.axvline(2 * limit, color="black", linestyle=":", label="hard")
    axes.set_xscale("symlog", linthresh=1 / DISTANCE_UNITS)
    axes.set(xlim=(0, 8192))
    axes.set(xlabel=f"sketch distance of {tokens} tokens, code steps", ylabel="share of claims")
    axes.legend(fontsize=7)
    return _finish(figure, path), title


def _draw_lengths(outcome: Outcome, path: Path) -> tuple[Path, str]:
    figure, axes = _start(7, 4.5)
    for cheat, shares in outcome.profile.detection.items():
        axes.plot([int(tokens) for tokens in shares], list(shares.values()), marker="o", markersize=3, label=cheat)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="tokens", ylabel="caught", ylim=(0, 1.03))
    axes.legend(fontsize=7)
    return _finish(figure, path), "Detection against length in the card's class"


def _draw_cost(outcome: Outcome, path: Path) -> tuple[Path, str]:
    totals: dict[str, list[float]] = {}
    for record in outcome.records:
        if record.unit.kind == HONEST and record.unit.executor == outcome.reference:
            for part, seconds in record.seconds.items():
                totals.setdefault(part, []).append(1000 * seconds / _count_any(record))
    means: Mapping[str, float] = {part: sum(found) / len(found) for part, found in totals.items()}
    figure, axes = _start(7, 3)
    axes.barh(list(means), list(means.values()))
    axes.set(xlabel="milliseconds a job, in batches, on a shared machine")
    return _finish(figure, path), "What writing a job and reading it took"


def _measure_worst(record: Record, job: int, pair: Tolerance) -> float:
    results = measure_all(record.seen[pair.auditor], job, record.tokens, pair)
    return max(result.value / max(result.limit, 1) for result in results)


def _list_jobs(record: Record, pair: Tolerance) -> list[int]:
    """The jobs that were forged, or all of an honest record."""
    own = record.seen.get(record.unit.executor)
    return [
        job for job in range(len(record.seen[pair.auditor].margins)) if not is_harmless(record, own, job, record.tokens)
    ]


def _count_any(record: Record) -> int:
    return len(next(iter(record.seen.values())).margins)


def _start(width: float, height: float) -> tuple[_Figure, _Axes]:
    # Figures of their own, without pyplot, which would look for a screen.
    module = cast("_FigureModule", importlib.import_module("matplotlib.figure"))
    figure = module.Figure(figsize=(width, height), layout="tight")
    return figure, figure.add_subplot(1, 1, 1)


def _finish(figure: _Figure, path: Path) -> Path:
    # Without the program's version and the date, equal pictures are equal files.
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
    return path
