"""What `quorate models calibrate` and `quorate bench audit` print, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node.commands.models_calibrate import find_directory
from node.faults import Exit, Fault
from verifier import calibrate
from verifier.calibrate_plan import Size

SMALL = Size(jobs=2, honest_units=2, cheat_units=1, coarse_cheat_units=0, wide_every=3)


def test_calibrate_prints_the_documented_keys_and_writes_profile_and_report(
    quorate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(calibrate, "QUICK", SMALL)
    code, out, _ = quorate("models", "calibrate", "arith-xs", "--quick", "--seed", 3, "--out", "here", "--json")
    figures = json.loads(out)
    assert code == Exit.OK
    assert set(figures["false_alarm"]) == {"rate", "upper95", "windows"}
    assert figures["false_alarm"]["windows"] == 2 * 4
    assert {"int8", "int4", "noise", "null-sketch"} <= set(figures["detection"])
    assert all(0 <= rate <= 1 for shares in figures["detection"].values() for rate in shares.values())
    written = {path.name for path in (tmp_path / "here").iterdir()}
    assert {"profile.json", "report.md", "cost.md", "journal.jsonl"} <= written
    report = (tmp_path / "here" / "report.md").read_text()
    assert "`quorate models calibrate arith-xs --quick --seed 3`" in report
    # What is there already is not run again, and another seed is not mixed with it.
    code, again, _ = quorate("models", "calibrate", "arith-xs", "--quick", "--seed", 3, "--out", "here")
    assert code == Exit.OK and "false alarms" in again
    code, _, err = quorate("models", "calibrate", "arith-xs", "--quick", "--seed", 4, "--out", "here")
    assert code == Exit.USAGE and "another calibration" in err


def test_a_model_is_found_by_path_or_shipped_name(tmp_path: Path) -> None:
    assert find_directory("code-2m").name == "code-2m"
    assert find_directory(str(find_directory("arith-s"))) == find_directory("arith-s")
    with pytest.raises(Fault, match="nor a shipped model"):
        find_directory(str(tmp_path))


def test_a_model_of_another_kind_is_refused(quorate) -> None:
    code, _, err = quorate("models", "calibrate", "no-such-model", "--quick")
    assert code == Exit.CONFIGURATION and "code-2m" in err


def test_bench_audit_has_the_documented_keys_and_names_the_machine(quorate) -> None:
    code, out, err = quorate("bench", "audit", "--tokens", 2, "--rounds", 1, "--json")
    figures = json.loads(out)
    assert code == Exit.OK
    assert list(figures)[:3] == ["audit_over_prefill", "generation_over_audit", "sketch_share"]
    assert all(figures[name] > 0 for name in list(figures)[:3])
    assert "cores" in err
