"""Calibration of a model of pictures: limits from one half, rates from the other, the same figures for the same seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.verifier.image_samples import write_untrained_images
from verifier.image_audit import PictureTolerance
from verifier.image_calibration import (
    ANOTHER_SEED,
    HONEST,
    LEAST_STEP,
    SAFETY,
    Judged,
    Measurements,
    Part,
    Plan,
    is_caught,
    list_sittings,
    measure,
    set_limits,
)
from verifier.image_cheats import CHEATS
from verifier.image_report import main, summarise


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models")
    write_untrained_images(home / "smaller", steps=5)
    (home / "rivals.json").write_text('{"drawing": {"smaller": "smaller"}}')
    return write_untrained_images(home / "drawing", steps=5)


@pytest.fixture(scope="module")
def found(directory: Path) -> Measurements:
    return measure(Plan(directory, 12, 4, 1, directory.parent / "kept"), lambda _: None)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    assert torch.get_num_threads() == 1


def make_judged(job: int, errors: list[int], pixels: int = 0, kind: str = HONEST) -> Judged:
    return Judged(kind, "a", "b", job, tuple(errors), pixels, bytes(32))


def test_every_kind_and_class_is_measured(found: Measurements) -> None:
    assert {each.kind for each in found.judged} == {HONEST, *CHEATS}
    assert {each.kind for each in found.painted} == {HONEST, ANOTHER_SEED, *CHEATS}
    assert len({each.executor for each in found.judged}) == 4
    own = [each for each in found.judged if each.kind == HONEST and each.executor == each.auditor]
    assert all(set(each.errors) == {0} and each.pixels == 0 for each in own)


def test_limits_come_from_even_jobs_alone() -> None:
    pair = ("a", "b")
    high = LEAST_STEP * 3
    judged = [make_judged(0, [5, high]), make_judged(1, [high * 9, 0]), make_judged(2, [7, 0], pixels=3)]
    assert set_limits(Measurements(judged, []))[pair] == PictureTolerance(high * SAFETY, 3 * SAFETY)
    cheating = [make_judged(0, [10**9], kind="int8")]
    assert set_limits(Measurements([make_judged(0, [5]), *cheating], []))[pair] == PictureTolerance(LEAST_STEP, 0)


def test_only_opened_steps_and_the_picture_count() -> None:
    limit = PictureTolerance(LEAST_STEP, 0)
    forged = make_judged(0, [0] * 24 + [10**6])
    assert is_caught(forged, limit, 25)
    caught = [is_caught(Judged(HONEST, "a", "b", 0, forged.errors, 0, bytes([n]) * 32), limit, 5) for n in range(200)]
    assert 0.1 < np.mean(caught) < 0.3
    assert is_caught(make_judged(0, [0] * 25, pixels=1), limit, 1)
    assert not is_caught(make_judged(0, [LEAST_STEP] * 25), limit, 25)


def test_jobs_are_numbered_once_and_some_are_drawn_alone(directory: Path) -> None:
    sittings = list(list_sittings(Plan(directory, 30, 4, 1, directory), Part("a", HONEST, 0, 30)))
    firsts = [first for _, first in sittings]
    assert firsts[0] == 0
    assert all(after - before == len(sitting.seeds) for (sitting, before), (_, after) in pairwise(sittings))
    assert [len(sitting.seeds) for sitting, _ in sittings] == [*[1] * 8, 8, 8, 6]
    assert all(sitting.prompt != sitting.other for sitting, _ in sittings)
    assert len({seed for sitting, _ in sittings for seed in sitting.seeds}) == 30


def test_an_interrupted_calibration_goes_on_and_the_same_seed_gives_the_same_figures(
    directory: Path, found: Measurements
) -> None:
    kept = directory.parent / "kept"
    parts = sorted(kept.iterdir())
    before = {path: path.stat().st_mtime_ns for path in parts}
    missing = [path for path in parts if path.name.startswith(("int8", "honest-quorate-float32-eager"))]
    for path in missing:
        path.unlink()
    again = measure(Plan(directory, 12, 4, 1, kept), lambda _: None)
    assert again == found
    assert summarise(again, set_limits(again)) == summarise(found, set_limits(found))
    assert len(missing) == 3
    assert {path for path in parts if path.stat().st_mtime_ns != before[path]} == set(missing)


def test_parts_of_another_plan_are_not_taken_over(directory: Path, found: Measurements) -> None:
    other = measure(Plan(directory, 2, 1, 2, directory.parent / "kept"), lambda _: None)
    assert {each.root for each in other.judged}.isdisjoint(each.root for each in found.judged)


def test_the_report_has_every_cell(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(directory), "--jobs", "4", "--cheating", "2", "--json", "--kept", str(directory.parent / "kept")])
    said = json.loads(capsys.readouterr().out)
    assert set(said["detection"]) == set(CHEATS)
    assert said["detection"]["repainted"]["1"] == 1.0
    assert said["false_alarm"]["rate"] == 0.0 and 0 < said["false_alarm"]["upper95"] <= 1
    assert said["false_alarm"]["windows"] == 2
