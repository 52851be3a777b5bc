"""`quorate models calibrate`: honest and cheating runs of a model, and the signed profile that audits go by."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from node.disk import disk_fault
from node.faults import Fault, Trouble
from node.keys import load_key
from node.render import open_console, print_facts, print_json, print_note

if TYPE_CHECKING:
    from protocol.crypto import SigningKey
    from verifier.calibrate import Outcome, Wish
    from verifier.calibrate_plan import Unit

SHIPPED: Final = (
    Path(__file__).resolve().parents[2] / "devnet" / "models"
)  # lies beside the packages, and is never imported


@dataclass(frozen=True, slots=True)
class CalibrateOptions:
    """What the command line says."""

    model: str
    is_quick: bool
    seed: int
    out: Path | None
    smaller: Path | None
    earlier: Path | None
    devices: tuple[str, ...]
    key: Path | None


def run_calibrate(options: CalibrateOptions, *, as_json: bool) -> None:
    """Calibrates, writes profile, report and pictures, and prints the error rates.

    Raises: Fault
    """
    from verifier.calibrate import calibrate
    from verifier.calibrate_run import CalibrationFailed
    from verifier.card import ModelRefused
    from verifier.model import use_deterministic_settings

    use_deterministic_settings()
    wish = _build_wish(options)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("loading")

            def report(unit: "Unit") -> None:
                progress.update(task, advance=1, description=f"{unit.kind} in {unit.executor.split('/')[1]}")

            outcome = calibrate(wish, lambda total: progress.update(task, total=total), report)
        _write_reports(outcome, wish.out)
    except ModelRefused as error:
        raise Fault(Trouble.BAD_MODEL, str(error)) from error
    except CalibrationFailed as error:
        raise Fault(Trouble.USAGE, str(error)) from error
    except OSError as error:
        raise disk_fault(wish.out, error) from error
    _print(outcome, wish.out, as_json=as_json)


def find_directory(model: str) -> Path:
    """A model's directory, by its path or by the name of a shipped one. Raises: Fault"""
    from verifier.card import CARD_FILE

    for directory in (Path(model), SHIPPED / model):
        if (directory / CARD_FILE).is_file():
            return directory
    shipped = ", ".join(sorted(card.parent.name for card in SHIPPED.glob(f"*/{CARD_FILE}")))
    raise Fault(
        Trouble.BAD_MODEL,
        f"{model}: is no directory with a {CARD_FILE}, nor a shipped model",
        cure=f"write one with `quorate models card DIR`, or choose among {shipped}",
    )


def _build_wish(options: CalibrateOptions) -> "Wish":
    from verifier.altered_weights import Rivalry, load_rivals
    from verifier.calibrate import Wish, derive_open_key

    directory = find_directory(options.model)
    known = load_rivals(directory)
    rivals = Rivalry(options.smaller or known.smaller, options.earlier or known.earlier)
    key: SigningKey = derive_open_key(options.seed) if options.key is None else load_key(options.key, None).signing
    out = options.out or Path("calibration") / directory.absolute().name
    return Wish(
        directory, options.devices, rivals, options.is_quick, options.seed, out, _describe_command(options), key
    )


def _describe_command(options: CalibrateOptions) -> str:
    """The command that measures the same again."""
    words = ["quorate", "models", "calibrate", options.model]
    words += ["--quick"] if options.is_quick else []
    words += ["--seed", str(options.seed)]
    for name, value in (("--smaller", options.smaller), ("--earlier", options.earlier)):
        words += [] if value is None else [name, str(value)]
    words += [] if options.devices == ("cpu",) else [part for name in options.devices for part in ("--device", name)]
    return shlex.join(words)


def _write_reports(outcome: "Outcome", out: Path) -> None:
    from verifier.calibrate_plots import draw_plots, is_possible
    from verifier.calibrate_report import COST_FILE, REPORT_FILE, write_cost, write_report

    if not is_possible():
        print_note("no pictures: they need matplotlib; pip install 'quorate[plots]'")
    plots = draw_plots(outcome, out) if is_possible() else []
    (out / REPORT_FILE).write_text(write_report(outcome, plots), "utf-8")
    (out / COST_FILE).write_text(write_cost(outcome), "utf-8")


def _print(outcome: "Outcome", out: Path, *, as_json: bool) -> None:
    alarm, detection = outcome.profile.false_alarm, outcome.profile.detection
    if as_json:
        rates = {"rate": alarm.rate, "upper95": alarm.upper95, "windows": alarm.windows}
        print_json({"false_alarm": rates, "detection": detection, "directory": str(out)})
        return
    caught = [
        (cheat, "  ".join(f"{tokens}: {rate:.4f}" for tokens, rate in shares.items()))
        for cheat, shares in detection.items()
    ]
    bound = (
        f"{100 * alarm.rate:.3f} % of {alarm.windows} jobs, at most {100 * alarm.upper95:.3f} % with 95 % confidence"
    )
    print_facts(open_console(), [("false alarms", bound), *caught, ("written to", str(out))])
