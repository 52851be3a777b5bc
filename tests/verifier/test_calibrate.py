"""A calibration of a small model: limits that honest jobs keep, cheats beyond them, the same result for a seed, whole or resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocol.jobs.verdicts import Verdict
from tests.verifier.audits import make_claim, sample
from verifier import calibrate as calibration
from verifier.altered_weights import Rivalry
from verifier.audit import Auditor, audit_claims
from verifier.calibrate import JOURNAL_FILE, Outcome, Wish, calibrate, derive_open_key
from verifier.calibrate_limits import compute_lower, compute_upper
from verifier.calibrate_plan import HONEST, Size, Unit, choose_tokens, list_lengths, list_units
from verifier.calibrate_plots import draw_plots, is_possible
from verifier.calibrate_report import write_cost, write_report
from verifier.calibrate_run import CalibrationFailed
from verifier.model import load_model
from verifier.tolerances import PROFILE_FILE, ProfileRefused, load_profile, look_up

SMALL = Size(jobs=3, honest_units=6, cheat_units=1, coarse_cheat_units=1, wide_every=3)


def make_wish(directory: Path, out: Path, seed: int = 1) -> Wish:
    return Wish(
        directory, ("cpu",), Rivalry(None, None), True, seed, out, "quorate models calibrate", derive_open_key(seed)
    )


@pytest.fixture(scope="module", autouse=True)
def _small() -> object:
    patch = pytest.MonkeyPatch()
    patch.setattr(calibration, "QUICK", SMALL)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibration")


@pytest.fixture(scope="module")
def outcome(untrained: Path, out: Path) -> Outcome:
    return calibrate(make_wish(untrained, out), lambda _: None, lambda _: None)


def test_the_profile_accepts_honest_claims_and_rejects_a_cheat(untrained: Path, out: Path, outcome: Outcome) -> None:
    model = load_model(untrained)
    auditor = Auditor(model, load_profile(out / PROFILE_FILE, model.id))
    honest = make_claim(replace(model, ends=frozenset[int]()), sample(32))
    blind = replace(auditor, model=replace(model, ends=frozenset[int]()))
    cheat = replace(honest, seed=bytes(32))
    verdicts = [finding.verdict for finding in audit_claims(blind, [honest, cheat])]
    assert verdicts == [Verdict.ACCEPT, Verdict.HARD_REJECT]
    assert outcome.profile.false_alarm.windows == SMALL.jobs * 3 * 4


def test_every_cheat_there_is_material_for_has_its_rates(outcome: Outcome) -> None:
    detection = outcome.profile.detection
    assert set(detection) == set(outcome.cheats)
    assert "checkpoint" not in detection
    assert detection["null-sketch"] == dict.fromkeys(detection["null-sketch"], 1.0)
    assert set(detection["noise"]) == {str(length) for length in list_lengths(choose_tokens(64))}
    for cell in outcome.profile.cells:
        assert cell.hard <= cell.caught <= cell.runs
        assert cell.lower95 <= cell.caught / max(cell.runs, 1) <= cell.upper95


def test_limits_do_not_rise_with_the_length_and_cover_what_set_them(outcome: Outcome) -> None:
    for limits in outcome.profile.tolerances:
        for table in (limits.margin_means, limits.distances):
            assert [limit for _, limit in table] == sorted((limit for _, limit in table), reverse=True)
    for record in outcome.records:
        if record.unit.sets_limits:
            for auditor, seen in record.seen.items():
                pair = (record.unit.executor, auditor)
                limits = next(one for one in outcome.profile.tolerances if (one.executor, one.auditor) == pair)
                assert seen.margins.max() <= limits.margin_largest
    assert look_up(((8, 5), (32, 3)), 4) == 5
    assert [look_up(((8, 5), (32, 3)), tokens) for tokens in (8, 31, 32, 99)] == [5, 5, 3, 3]


def test_the_same_seed_writes_the_same_profile_and_another_does_not(
    untrained: Path, tmp_path: Path, out: Path, outcome: Outcome
) -> None:
    calibrate(make_wish(untrained, tmp_path / "again"), lambda _: None, lambda _: None)
    assert (tmp_path / "again" / PROFILE_FILE).read_bytes() == (out / PROFILE_FILE).read_bytes()
    with pytest.raises(CalibrationFailed, match="another calibration"):
        calibrate(make_wish(untrained, out, seed=2), lambda _: None, lambda _: None)


def test_an_interrupted_calibration_goes_on_where_its_journal_ends(
    untrained: Path, tmp_path: Path, out: Path, outcome: Outcome
) -> None:
    lines = (out / JOURNAL_FILE).read_bytes().split(b"\n")
    journal = tmp_path / JOURNAL_FILE
    journal.write_bytes(b"\n".join([*lines[:-4], lines[-4][:100]]))  # torn in the middle of a line
    calibrate(make_wish(untrained, tmp_path), lambda _: None, lambda _: None)
    assert (tmp_path / PROFILE_FILE).read_bytes() == (out / PROFILE_FILE).read_bytes()
    assert len(journal.read_bytes().split(b"\n")) == len(lines)
    journal.write_bytes(b"\n".join([*lines[:2], b"{nonsense", *lines[2:]]))
    with pytest.raises(CalibrationFailed, match="damaged"):
        calibrate(make_wish(untrained, tmp_path), lambda _: None, lambda _: None)


def test_the_report_names_every_cheat_and_what_falls_short(outcome: Outcome, tmp_path: Path) -> None:
    plots = draw_plots(outcome, tmp_path) if is_possible() else []
    report = write_report(outcome, plots)
    assert all(f"| {cheat} |" in report for cheat in outcome.cheats)
    assert all((tmp_path / name).stat().st_size > 5000 and name in report for name, _ in plots)
    assert "## Below 0.999" in report
    assert "writing" in write_cost(outcome)


@pytest.mark.parametrize("change", ["model", "signature", "format", "sketch", "limit"])
def test_a_profile_that_is_not_as_signed_or_not_of_this_model_is_refused(
    untrained: Path, tmp_path: Path, out: Path, outcome: Outcome, change: str
) -> None:
    model = load_model(untrained)
    content = json.loads((out / PROFILE_FILE).read_bytes())
    if change == "model":
        with pytest.raises(ProfileRefused, match="profile of model"):
            load_profile(out / PROFILE_FILE, bytes(32))
        return
    if change == "signature":
        with pytest.raises(ProfileRefused, match="expected a signature of"):
            load_profile(out / PROFILE_FILE, model.id, [bytes(32)])
        content["signature"] = "00" * 64
    content["body"]["format"] = 2 if change == "format" else 1
    if change == "limit":
        content["body"]["tolerances"][0]["margin_largest"] += 1
    if change == "sketch":
        content["body"]["sketch"] = [9, 9]
    (tmp_path / PROFILE_FILE).write_text(json.dumps(content))
    with pytest.raises(ProfileRefused, match="signature is not"):
        load_profile(tmp_path / PROFILE_FILE, model.id)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 5000])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PROFILE_FILE).write_bytes(content)
    for path in (tmp_path / PROFILE_FILE, tmp_path / "nothing.json"):
        with pytest.raises(ProfileRefused):
            load_profile(path, bytes(32))


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    # The rule of three, and published intervals: 10 of 100 lies in 4.90 % to 17.62 %.
    assert compute_upper(0, 3000, 0.95) == pytest.approx(1 - 0.05 ** (1 / 3000), rel=1e-9)
    assert compute_upper(0, 3000, 0.95) < 0.001
    assert compute_lower(10, 100, 0.975) == pytest.approx(0.0490, abs=5e-5)
    assert compute_upper(10, 100, 0.975) == pytest.approx(0.1762, abs=5e-5)
    assert compute_lower(1024, 1024, 0.95) == pytest.approx(0.05 ** (1 / 1024), rel=1e-9)
    assert (compute_upper(5, 5, 0.95), compute_lower(0, 5, 0.95)) == (1.0, 0.0)


def test_a_plan_runs_cheats_together_and_both_halves_of_honest_units() -> None:
    units = list_units(SMALL, ["a", "b"], ["int8", "noise"], ["b"])
    kinds = [(unit.kind, unit.executor) for unit in units if unit.kind != HONEST]
    assert kinds == [("int8", "a"), ("int8", "b"), ("noise", "a"), ("noise", "b")]
    halves = [unit.sets_limits for unit in units if unit.kind == HONEST and unit.executor == "a"]
    assert halves == [True, False] * 3
    assert not Unit("int8", "a", 0).sets_limits
    assert [choose_tokens(context) for context in (24, 64, 256, 4096)] == [16, 32, 128, 128]
    assert np.all(np.diff(list_lengths(128)) > 0)
