"""How surely audits of pictures tell honest from dishonest: limits from one half of honest jobs, error rates from the other.

Everything follows from the model, the sizes and the seed, on the same machine. Every step of every job is replayed once per auditor's
class; from these errors follows what an audit of any number of drawn steps would have said. Each part is kept in a file when it is done,
so that an interrupted calibration goes on from there. verifier/image_report.py prints what came of it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from msgspec.structs import replace

from protocol.units import Hash
from verifier.altered_weights import load_rivals
from verifier.digests.images import HASHES, Pixels
from verifier.image_audit import PictureTolerance, compare_pixels, replay_steps
from verifier.image_cheats import CHEATS, KEPT_STEPS, Drawn, Sitting, build_image_writer, draw_honestly, draw_with_cheat
from verifier.image_model import ImageModel, load_image_model, load_sampling, load_transitions
from verifier.llama import Attention
from verifier.trajectory import commit_states, draw_steps

OPENED: Final = (1, 2, 4, 8, 25)
ROWS: Final = 8  # pictures of one batch; every fourth batch is drawn one by one
ALONE_EVERY: Final = 4
PART_JOBS: Final = 800
SAFETY: Final = 2  # a limit is so many times what the worst honest job of the setting half needed
LEAST_STEP: Final = (
    1024  # 2^-14 of the prediction: thirteen times under the least that int8 showed, room for other hardware's float32
)
HONEST: Final = "honest"
ANOTHER_SEED: Final = "another-seed"
DTYPES: Final = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: `jobs` honest ones in the card's own class, `cheating` of each other kind in each class that is asked for.

    `kept`: where finished parts are; they are of use for this plan alone, and their names say so.
    """

    directory: Path
    jobs: int
    cheating: int
    seed: int
    kept: Path


@dataclass(frozen=True, slots=True)
class Part:
    """Jobs of one kind in one class."""

    executor: str
    kind: str
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Judged:
    """One claim as one auditor's class measured it. Units: errors, one a step, as PictureTolerance"""

    kind: str
    executor: str
    auditor: str
    job: int
    errors: tuple[int, ...]
    pixels: int
    root: Hash


@dataclass(frozen=True, slots=True)
class Painted:
    """The hashes of a picture, whoever drew it, by family."""

    kind: str
    executor: str
    job: int
    hashes: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was run."""

    judged: list[Judged]
    painted: list[Painted]


def measure(plan: Plan, report: Callable[[str], None]) -> Measurements:
    """Runs honest and cheating executors of every class under auditors of every class. Raises: ModelRefused"""
    models = load_classes(plan.directory)
    plan.kept.mkdir(parents=True, exist_ok=True)
    found = Measurements([], [])
    for part in list_parts(plan, models):
        path = plan.kept / _name_part(plan, models, part)
        if not path.is_file():
            write_whole(path, msgspec.msgpack.encode(_measure_part(plan, models, part)))
        measured = msgspec.msgpack.decode(path.read_bytes(), type=Measurements)
        found.judged.extend(measured.judged)
        found.painted.extend(measured.painted)
        report(f"{part.kind} in {part.executor}: {part.first} to {part.end}")
    return found


def list_parts(plan: Plan, models: Mapping[str, ImageModel]) -> list[Part]:
    """Whose work is measured: honest work of every class, cheats where attention is written out."""
    plain = [name for name, model in models.items() if model.engine.compute_class.attention == Attention.EAGER]
    sizes = {(name, HONEST): plan.cheating for name in models} | dict.fromkeys(product(plain, CHEATS), plan.cheating)
    sizes |= {(plain[0], HONEST): plan.jobs, (plain[0], ANOTHER_SEED): plan.cheating}
    return [
        Part(name, kind, first, min(first + PART_JOBS, size))
        for (name, kind), size in sizes.items()
        for first in range(0, size, PART_JOBS)
    ]


def list_auditors(models: Mapping[str, ImageModel], executor: str, *, is_more: bool) -> list[str]:
    """Who audits this class's work: every class of its own number format, and of other formats the plain one; not of `is_more` jobs."""
    dtype = models[executor].engine.compute_class.dtype
    classes = {name: model.engine.compute_class for name, model in models.items()}
    return [
        name
        for name, each in classes.items()
        if each.dtype == dtype or (each.attention == Attention.EAGER and not is_more)
    ]


def write_whole(path: Path, content: bytes) -> None:
    """The file, all of it or none."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _name_part(plan: Plan, models: Mapping[str, ImageModel], part: Part) -> str:
    """The same name for the same work alone."""
    model = models[part.executor].id.hex()
    told = msgspec.json.encode((model, plan.seed, plan.cheating, part.executor, part.kind, part.first, part.end))
    return f"{part.kind}-{part.executor.replace('/', '-')}-{part.first}-{hashlib.sha256(told).hexdigest()[:12]}.part"


def _measure_part(plan: Plan, models: Mapping[str, ImageModel], part: Part) -> Measurements:
    name, kind = part.executor, part.kind
    writer = build_writer(plan.directory, kind, models[name])
    # Another seed is honest work for another job: of interest for its hashes alone.
    auditors = [] if kind == ANOTHER_SEED else list_auditors(models, name, is_more=part.first >= max(plan.cheating, 1))
    found = Measurements([], [])
    for sitting, first in list_sittings(plan, part):
        drawn = _draw(kind, models[name], writer, sitting)
        found.painted.extend(
            Painted(kind, name, first + row, hash_picture(one.pixels)) for row, one in enumerate(drawn)
        )
        for auditor in auditors:
            found.judged.extend(_judge(models[auditor], (kind, name, auditor), first, sitting, drawn))
    return found


def load_classes(directory: Path) -> dict[str, ImageModel]:
    """The model in every class that this machine has without a GPU, by the class's name."""
    loaded = [load_image_model(directory, dtype=dtype, attention=kind) for dtype, kind in product(DTYPES, Attention)]
    return {model.engine.compute_class.name: model for model in loaded}


def build_writer(directory: Path, kind: str, model: ImageModel) -> ImageModel:
    """The model that this kind of executor draws with."""
    if kind in {HONEST, ANOTHER_SEED}:
        return model
    declared = model.engine.compute_class
    smaller = load_rivals(directory).smaller
    rival = (
        None
        if smaller is None
        else load_image_model(smaller, dtype=declared.dtype, attention=Attention(declared.attention))
    )
    sampling = load_sampling(directory)
    kept, of = KEPT_STEPS
    return build_image_writer(
        kind, model, rival, load_transitions(directory, replace(sampling, steps=sampling.steps * kept // of))
    )


def list_sittings(plan: Plan, part: Part) -> Iterator[tuple[Sitting, int]]:
    """A part's jobs, in batches and some of them singly, and the number of each sitting's first."""
    for first in range(part.first, part.end, ROWS):
        batch = first // ROWS
        seeds = tuple(derive_seed(plan.seed, part.kind, job) for job in range(first, min(first + ROWS, part.end)))
        words = (str(batch % 10), str((batch + 1 + batch // 10 % 9) % 10))
        if batch % ALONE_EVERY:
            yield Sitting(*words, seeds), first
        else:
            for row, seed in enumerate(seeds):
                yield Sitting(*words, (seed,)), first + row


def derive_seed(seed: int, kind: str, job: int) -> Hash:
    """A job's seed; cheats and honest executors of all classes have the same jobs, so that pictures can be compared."""
    purpose = b"other" if kind == ANOTHER_SEED else b"same"
    return hashlib.sha256(b"image calibration" + purpose + seed.to_bytes(8, "big") + job.to_bytes(8, "big")).digest()


def _judge(
    auditor: ImageModel, names: tuple[str, str, str], first: int, sitting: Sitting, drawn: Sequence[Drawn]
) -> Iterator[Judged]:
    """Every step's error and the picture's, as this auditor measures them."""
    steps = range(len(auditor.transitions))
    condition = auditor.engine.encode_prompt(sitting.prompt)
    for row, (seed, one) in enumerate(zip(sitting.seeds, drawn, strict=True)):
        errors = replay_steps(auditor.engine, auditor.transitions, condition, seed, dict(enumerate(one.states)), steps)
        apart = compare_pixels(auditor.engine.decode(one.states[-1]), one.pixels)
        listed = tuple(errors[step] for step in steps)
        yield Judged(*names, first + row, listed, apart, commit_states(one.states).root)


def hash_picture(pixels: Pixels) -> dict[str, bytes]:
    """The picture's bits in every family."""
    return {name: np.packbits(compute(pixels)).tobytes() for name, compute in HASHES.items()}


def set_limits(measurements: Measurements) -> dict[tuple[str, str], PictureTolerance]:
    """The limits between each pair of classes, from the even jobs of honest executors."""
    limits: dict[tuple[str, str], PictureTolerance] = {}
    for found in measurements.judged:
        if found.kind == HONEST and found.job % 2 == 0:
            pair = (found.executor, found.auditor)
            before = limits.get(pair, PictureTolerance(LEAST_STEP, 0))
            worst = max(found.errors) * SAFETY
            limits[pair] = PictureTolerance(max(before.step, worst), max(before.pixels, found.pixels * SAFETY))
    return limits


def is_caught(found: Judged, limit: PictureTolerance, opened: int) -> bool:
    """Whether an audit that opens so many steps rejects the claim, softly or hard."""
    beacon = hashlib.sha256(b"beacon" + found.root + opened.to_bytes(2, "big")).digest()
    drawn = draw_steps(beacon, found.root, len(found.errors), opened)
    return max(found.errors[step] for step in drawn) > limit.step or found.pixels > limit.pixels


def _draw(kind: str, model: ImageModel, writer: ImageModel, sitting: Sitting) -> list[Drawn]:
    if kind in {HONEST, ANOTHER_SEED}:
        return draw_honestly(model, sitting)
    return draw_with_cheat(kind, model, writer, sitting)
