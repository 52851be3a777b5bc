"""The plot of `bench ledger`: throughput and finality over time. matplotlib, an optional dependency, is known here alone."""

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from node.commands.bench_figures import Seen
from node.commands.bench_job import get_percentile
from node.commands.bench_watch import BlockCount
from node.disk import disk_fault
from node.faults import Fault, Trouble


class _Axes(Protocol):
    def plot(self, x: Sequence[float], y: Sequence[float], *, label: str) -> object: ...
    def set_title(self, label: str) -> object: ...
    def set_xlabel(self, xlabel: str) -> object: ...
    def set_ylabel(self, ylabel: str) -> object: ...
    def set_ylim(self, *, bottom: float) -> object: ...
    def legend(self) -> object: ...


class _Figure(Protocol):
    def add_subplot(self, rows: int, columns: int, index: int) -> _Axes: ...
    def savefig(self, path: Path) -> object: ...


class _FigureModule(Protocol):
    def Figure(self, *, figsize: tuple[float, float], layout: str) -> _Figure: ...


def check_plot_possible() -> None:
    """Goes on where plots can be drawn: asked before minutes of measuring. Raises: Fault."""
    _load_matplotlib()


def draw_plot(path: Path, machine: str, curves: Sequence[Seen]) -> None:
    """A picture of the curves, in a file. Raises: Fault; StorageFailure."""
    figure = _load_matplotlib().Figure(figsize=(6.0 * len(curves), 7.0), layout="constrained")
    for column, curve in enumerate(curves, 1):
        counted, moments = _count_seconds(curve.blocks), curve.moments
        upper = figure.add_subplot(2, len(curves), column)
        upper.plot(range(len(counted)), counted, label="final transactions a second")
        _finish(upper, curve.name if column > 1 else f"{curve.name}\n{machine}", "1/s")
        lower = figure.add_subplot(2, len(curves), len(curves) + column)
        sampled = [moment for moment in moments[1:] if moment.finality_ms]
        times = [moment.at_s - moments[0].at_s for moment in sampled]
        for percent in (50, 99):
            shown = [get_percentile(sorted(moment.finality_ms), percent) for moment in sampled]
            lower.plot(times, shown, label=f"p{percent}")
        _finish(lower, "finality", "ms")
    try:
        figure.savefig(path)
    except OSError as error:
        raise disk_fault(path, error) from error


def _load_matplotlib() -> _FigureModule:
    try:
        return cast("_FigureModule", importlib.import_module("matplotlib.figure"))
    except ImportError as error:
        raise Fault(
            Trouble.USAGE,
            f"plots need matplotlib, which is not installed ({error})",
            cure="pip install 'quorate[plots]', or leave --plot out",
        ) from error


def _count_seconds(blocks: Sequence[BlockCount]) -> list[int]:
    if not blocks:
        return []
    first = blocks[0].time_ms
    counted: Counter[int] = Counter()
    for block in blocks:
        counted[(block.time_ms - first) // 1000] += block.transactions
    return [counted[second] for second in range(max(counted) + 1)]


def _finish(axes: _Axes, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("s")
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.legend()
