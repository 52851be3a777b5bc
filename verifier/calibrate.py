"""Calibrates a model: honest and cheating runs, limits from one half, error rates from the other, a signed profile.

Everything but the seconds follows from the model, the seed and the size, on the same machine.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.crypto import SigningKey
from verifier import sketch
from verifier.altered_weights import Rivalry, get_llama_engine
from verifier.calibrate_limits import measure_cells, measure_false_alarms, set_tolerances
from verifier.calibrate_plan import FULL, HONEST, QUICK, Size, Unit, list_units
from verifier.calibrate_run import Bench, Record, run_units
from verifier.cheats import list_possible
from verifier.classes import ComputeClass
from verifier.engine import Engine, widen_engine
from verifier.llama import Attention
from verifier.model import DTYPES, Model, load_model
from verifier.probe import probe_engine
from verifier.tolerances import FORMAT, PROFILE_FILE, Cell, ClassRecord, ProfileBody, encode_profile

JOURNAL_FILE: Final = "journal.jsonl"
_KEY_PURPOSE: Final = b"quorate calibration key 1"


@dataclass(frozen=True, slots=True)
class Wish:
    """What to calibrate, on which devices, the reference first. `command`: how to say it again."""

    directory: Path
    devices: tuple[str, ...]
    rivals: Rivalry
    is_quick: bool
    seed: int
    out: Path
    command: str
    key: SigningKey


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: the profile as written, and all that was measured."""

    profile: ProfileBody
    records: Sequence[Record]
    reference: str
    cheats: Sequence[str]


def calibrate(wish: Wish, begin: Callable[[int], None], report: Callable[[Unit], None]) -> Outcome:
    """Runs what the journal does not have yet and writes the profile. `begin` is told how many units there are.

    Raises: ModelRefused · CalibrationFailed · OSError where the directory cannot be written
    """
    wish.out.mkdir(parents=True, exist_ok=True)
    size = QUICK if wish.is_quick else FULL
    bench = open_bench(wish, size)
    model = bench.models[bench.reference]
    cheats = list_possible(model, wish.rivals)
    coarse = sorted(name for name in bench.coarse if name.split("/")[2] == Attention.EAGER)
    units = list_units(size, list(bench.models), cheats, coarse)
    begin(len(units))
    plan = describe_plan(wish, model, size, units)
    records = run_units(bench, units, wish.out / JOURNAL_FILE, plan, report)
    profile = build_profile(wish, bench, records)
    (wish.out / PROFILE_FILE).write_bytes(encode_profile(profile, wish.key))
    return Outcome(profile, records, bench.reference, cheats)


def open_bench(wish: Wish, size: Size) -> Bench:
    """The model in every class that these devices have, the card's own first, and the engines that audit."""
    first = load_model(wish.directory, wish.devices[0])
    wide = widen_engine(get_llama_engine(first))
    card = first.card.dtype
    models: dict[str, Model] = {}
    for device in wish.devices:
        for dtype in (card, *(name for name in DTYPES if name != card)):
            for attention in Attention:
                model = load_model(wish.directory, device, dtype=dtype, attention=attention)
                models[model.engine.compute_class.name] = model
    auditors: dict[str, Engine] = {name: model.engine for name, model in models.items()}
    auditors[wide.compute_class.name] = wide
    coarse = frozenset(name for name, engine in auditors.items() if not engine.compute_class.is_exact)
    return Bench(models, auditors, wide.compute_class.name, coarse, wish.rivals, size, wish.seed)


def build_profile(wish: Wish, bench: Bench, records: Sequence[Record]) -> ProfileBody:
    """The profile that the records make."""
    executors = [model.engine.compute_class for model in bench.models.values()]
    auditors = [engine.compute_class for engine in bench.auditors.values()]
    tolerances = set_tolerances(records, executors, auditors)
    cells = measure_cells(records, tolerances)
    model = bench.models[bench.reference]
    return ProfileBody(
        format=FORMAT,
        model=model.id.hex(),
        name=model.card.name,
        sketch=(sketch.FAMILY, sketch.VERSION),
        command=wish.command,
        classes=tuple(_record_class(engine) for engine in bench.auditors.values()),
        tolerances=tolerances,
        false_alarm=measure_false_alarms(records, tolerances),
        detection=tabulate_detection(cells, bench.reference),
        cells=tuple(cells),
    )


def tabulate_detection(cells: Sequence[Cell], reference: str) -> dict[str, dict[str, float]]:
    """Cheat, then tokens, to the share that was caught, where executor and auditor compute in the card's own class."""
    table: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell.cheat != HONEST and cell.executor == cell.auditor == reference and cell.runs:
            table.setdefault(cell.cheat, {})[str(cell.tokens)] = round(cell.caught / cell.runs, 6)
    return table


def describe_plan(wish: Wish, model: Model, size: Size, units: Sequence[Unit]) -> str:
    """What a journal belongs to: another model, seed, size or class makes another."""
    rivals = [
        path.read_bytes()
        for path in (wish.rivals.earlier, wish.rivals.smaller and wish.rivals.smaller / "card.json")
        if path
    ]
    parts = [model.id.hex(), str(wish.seed), repr(size), *(unit.name for unit in units)]
    return hashlib.sha256(b"\0".join([*(part.encode() for part in parts), *rivals])).hexdigest()


def derive_open_key(seed: int) -> SigningKey:
    """A key that anybody can derive: its signature shows that a file is whole, and vouches for nothing."""
    return SigningKey(hashlib.sha256(_KEY_PURPOSE + str(seed).encode()).digest())


def _record_class(engine: Engine) -> ClassRecord:
    one: ComputeClass = engine.compute_class
    return ClassRecord(one.engine, one.dtype, one.attention, one.hardware, probe_engine(engine).hex())
