"""Runs a calibration's units and keeps what was measured in a journal, so that an interrupted calibration goes on where it was.

The journal is a line of JSON for each unit, after a first line that names the plan. A torn last line is dropped.
"""

import base64
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

from verifier.altered_weights import Rivalry
from verifier.calibrate_plan import HONEST, Size, Unit, draw_jobs, list_claim_lengths, list_lengths
from verifier.cheats import Written, build_writer, write_honestly, write_with_cheat
from verifier.engine import Engine
from verifier.likelihood import list_scores
from verifier.llama import Attention
from verifier.margin import ONE_NAT, Replay
from verifier.model import Model
from verifier.prefill import Passage, Reading, read_passages
from verifier.sampling import Integers
from verifier.sketch import measure_gaps


class CalibrationFailed(Exception):
    """A calibration that cannot go on, and why."""


class Packed(msgspec.Struct, frozen=True):
    """What one auditor's class measured: margins and gaps [jobs, tokens], scores [jobs, lengths] or nothing."""

    margins: str
    gaps: str
    scores: str


class Entry(msgspec.Struct, frozen=True):
    """The claims of one length of a unit."""

    unit: str
    kind: str
    executor: str
    number: int
    jobs: int
    tokens: int
    readings: dict[str, Packed]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Seen:
    """One auditor's view of a record's claims. Shapes: margins, gaps [jobs, tokens]; scores [jobs, lengths], no column if greedy"""

    margins: Integers
    gaps: Integers
    scores: Integers


@dataclass(frozen=True, slots=True)
class Record:
    """What was measured on claims of one kind and length. Units: seconds of the unit, by part; not part of any result"""

    unit: Unit
    tokens: int
    seen: Mapping[str, Seen]
    seconds: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Bench:
    """What units run on: the model in each executor's class, and each auditor's engine, by class name. The first is the reference."""

    models: Mapping[str, Model]
    auditors: Mapping[str, Engine]
    wide: str  # the auditor that reads only some units: float64
    coarse: frozenset[str]
    rivals: Rivalry
    size: Size
    seed: int

    @property
    def reference(self) -> str:
        return next(iter(self.models))


def run_units(
    bench: Bench, units: Sequence[Unit], journal: Path, plan: str, report: Callable[[Unit], None]
) -> list[Record]:
    """The records of all units, of which those in the journal are not run again. `report` is told of each one that is done.

    Raises: CalibrationFailed where the journal is another plan's or the model computes what is not finite
    """
    done = _open_journal(journal, plan)
    writer: tuple[str, Engine] | None = None
    with journal.open("ab") as file:
        for unit in units:
            if unit.name not in done:
                key = f"{unit.kind} {unit.executor}"
                if unit.kind != HONEST and (writer is None or writer[0] != key):
                    writer = key, build_writer(unit.kind, bench.models[unit.executor], bench.rivals)
                entries = list(_run_unit(bench, unit, None if unit.kind == HONEST else writer))
                file.write(msgspec.json.encode(entries) + b"\n")
                file.flush()
                done[unit.name] = entries
            report(unit)
    return [_unpack(unit, entry) for unit in units for entry in done[unit.name]]


def _run_unit(bench: Bench, unit: Unit, writer: tuple[str, Engine] | None) -> Iterator[Entry]:
    model = bench.models[unit.executor]
    jobs = draw_jobs(unit, bench.size, bench.seed, bench.models[bench.reference].engine)
    lengths = list_claim_lengths(unit.kind, jobs[0].tokens)
    started = perf_counter()
    if writer is None:
        written = write_honestly(model.engine, jobs)
    else:
        written = write_with_cheat(unit.kind, model.engine, writer[1], model.ends, jobs, lengths)
    writing = perf_counter() - started
    for length in lengths:
        claims = [one for one in written if len(one.tokens) == length]
        readings: dict[str, Packed] = {}
        seconds = {"writing": writing}
        for name in _choose_auditors(bench, unit):
            started = perf_counter()
            readings[name] = _read(bench, unit, name, claims)
            seconds[name] = perf_counter() - started
        yield Entry(unit.name, unit.kind, unit.executor, unit.number, len(claims), length, readings, seconds)


def _choose_auditors(bench: Bench, unit: Unit) -> list[str]:
    """Everybody reads honest units, float64 only some of both halves; cheats are read with attention written out alone."""
    if unit.kind == HONEST:
        is_wide = unit.number // 2 % bench.size.wide_every == 0
        return [name for name in bench.auditors if name != bench.wide or is_wide]
    eager = [name for name, engine in bench.auditors.items() if engine.compute_class.attention == Attention.EAGER]
    return [name for name in eager if name == bench.reference or name in bench.coarse]


def _read(bench: Bench, unit: Unit, auditor: str, claims: Sequence[Written]) -> Packed:
    slack = get_slack(unit.executor in bench.coarse or auditor in bench.coarse) / ONE_NAT
    # The surprise hardly depends on the class: one auditor's is enough.
    has_scores = auditor == bench.reference and claims[0].job.temperature_ppm > 0
    passages = [_build_passage(one, slack, has_scores=has_scores) for one in claims]
    readings: list[Reading] = []
    for reading in read_passages(bench.auditors[auditor], passages):
        if not isinstance(reading, Reading):
            raise CalibrationFailed(
                f"{unit.name}, read by {auditor}: {reading}; this model cannot be audited in that class"
            )
        readings.append(reading)
    gaps = [measure_gaps(one.codes, _get_codes(reading)) for one, reading in zip(claims, readings, strict=True)]
    lengths = list_lengths(len(claims[0].tokens))
    scores = [list_scores(reading.surprise, lengths) for reading in readings if reading.surprise is not None]
    empty = np.zeros((len(claims), 0), dtype=np.int64)
    return Packed(
        _pack(np.stack([reading.margins for reading in readings])),
        _pack(np.stack(gaps)),
        _pack(np.stack(scores) if scores else empty),
    )


def get_slack(is_coarse: bool) -> int:
    """By how much logits may differ at the edge of the nucleus. Units: 2^-16 nats"""
    return ONE_NAT // 2 if is_coarse else ONE_NAT // 1024


def _build_passage(written: Written, slack: float, *, has_scores: bool) -> Passage:
    job = written.job
    replay = Replay(job.seed, job.temperature_ppm, job.top_p_ppm, slack)
    return Passage(job.prompt, written.tokens, replay, job.sketch_seed, replay if has_scores else None)


def _get_codes(reading: Reading) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    assert reading.codes is not None
    return reading.codes


def _open_journal(path: Path, plan: str) -> dict[str, list[Entry]]:
    """What a journal holds; a new one where there is none. Raises: CalibrationFailed"""
    head = msgspec.json.encode({"plan": plan})
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    if not lines or (len(lines) == 1 and lines[0] != head):
        path.write_bytes(head + b"\n")
        return {}
    if lines[0] != head:
        raise CalibrationFailed(
            f"{path}: is the journal of another calibration; give another --out, or delete it to start anew"
        )
    done: dict[str, list[Entry]] = {}
    whole = len(head) + 1
    for line in lines[1:-1]:  # after the last newline is nothing, or what a crash has torn
        try:
            entries = msgspec.json.decode(line, type=list[Entry])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CalibrationFailed(
                f"{path}: is damaged after {len(done)} units ({error}); delete it to start anew"
            ) from error
        done[entries[0].unit] = entries
        whole += len(line) + 1
    with path.open("r+b") as file:
        file.truncate(whole)
    return done


def _unpack(unit: Unit, entry: Entry) -> Record:
    seen = {
        name: Seen(*(_load(part, entry.jobs) for part in (packed.margins, packed.gaps, packed.scores)))
        for name, packed in entry.readings.items()
    }
    return Record(unit, entry.tokens, seen, entry.seconds)


def _pack(values: Integers) -> str:
    return base64.b64encode(zlib.compress(values.astype("<i4").tobytes())).decode()


def _load(packed: str, rows: int) -> Integers:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype="<i4").astype(np.int64).reshape(rows, -1)
