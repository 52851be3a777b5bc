"""How a run goes: one line that changes on a terminal, a new line for each thing that happens elsewhere; all on standard error."""

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from devnet.perturbation.report import Outcome
from node.render import clean


class Show:
    """Open from `with` to its end."""

    def __init__(self, seconds: float) -> None:
        console = Console(stderr=True, highlight=False, markup=False)
        if not console.is_terminal:
            console.width = max(console.width, 160)
        self._progress: Final = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn(),
            console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._bar: Final = self._progress.add_task("starting the nodes", total=seconds)
        self._began_s = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, began_s: float) -> None:
        """The load has begun. Units: monotonic seconds"""
        self._began_s = began_s

    def do(self, what: str) -> None:
        """What is being done now."""
        self._progress.update(self._bar, description=what)

    def move(self) -> None:
        """Time passes."""
        if self._began_s:
            self._progress.update(self._bar, completed=time.monotonic() - self._began_s)

    def tell(self, text: str) -> None:
        """Something that happened."""
        at = f"{time.monotonic() - self._began_s:6.1f} s  " if self._began_s else ""
        self._progress.console.print(clean(f"{at}{text}"), soft_wrap=True)

    def tell_outcome(self, outcome: Outcome) -> None:
        """How a perturbation went."""
        nodes = ",".join(map(str, outcome.nodes))
        recovered = (
            "not recovered"
            if outcome.recovery_s is None
            else f"recovered in {outcome.recovery_s:.1f} s (answering after {outcome.answers_s:.1f})"
        )
        problem = f"  !! {outcome.problem}" if outcome.problem else ""
        self.tell(
            f"{outcome.kind} ({outcome.way}, {nodes}): {outcome.blocks_meanwhile} blocks meanwhile, {recovered}{problem}"
        )
