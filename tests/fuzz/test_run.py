"""The long run: resumable, honest about what it did, and red where something came out that is no refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import corpus, run
from tests.fuzz.measure import MAX_MS
from tests.fuzz.run import main, measure_again, report
from tests.fuzz.summary import Summary, load_summary, store_summary
from tests.fuzz.table import TARGETS
from tests.fuzz.target import Verdict

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_counts_what_it_did_and_goes_on_from_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for runs in (150, 150, 250):
        assert main(["hello", "--runs", str(runs), "--out", str(tmp_path), "--plain"]) == 0
        summary = json.loads((tmp_path / "hello.json").read_text())
        assert summary["runs"] == runs == sum(summary["refusals"].values())
    assert summary["chunks"] == 2 and summary["guided"] == 0
    assert "hello: 250 inputs (0 guided), 0 crashes" in capsys.readouterr().out
    assert main(["--table", "--out", str(tmp_path)]) == 0
    assert "| `hello` | 250 | 0 |" in capsys.readouterr().out


def test_a_run_of_another_seed_is_not_mixed_in(tmp_path: Path) -> None:
    store_summary(tmp_path / "hello.json", Summary("hello", 1, runs=5))
    with pytest.raises(ValueError, match="seed 1"):
        load_summary(tmp_path / "hello.json", "hello", 2)


def test_a_crash_a_slow_input_and_a_heavy_one_are_reported_and_make_the_run_red(
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = TARGETS["hello"]
    assert report(target, Summary("hello", 1, runs=1, slowest=[(MAX_MS, "00")], heaviest=[(10, "00")]))
    assert not report(target, Summary("hello", 1, crashes=[("KeyError: 1", "beef")]))
    assert not report(target, Summary("hello", 1, slowest=[(MAX_MS + 1, "beef")]))
    assert not report(target, Summary("hello", 1, heaviest=[(target.allowance + 1, "beef")]))
    assert capsys.readouterr().out.count("beef") == 3


def test_a_part_whose_process_dies_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "executable", "/bin/false")
    assert main(["hello", "--runs", "1", "--out", str(tmp_path), "--plain"]) == 1
    assert "ended with 1" in json.loads((tmp_path / "hello.json").read_text())["crashes"][0][0]


def test_what_was_slow_only_because_the_machine_was_busy_is_measured_again() -> None:
    summary = Summary("hello", 1, slowest=[(9_999.0, "00")])
    measure_again(TARGETS["hello"], summary)
    assert summary.slowest[0][0] < MAX_MS


def test_an_input_of_each_kind_is_kept_the_smallest_and_every_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    found = {
        Verdict("malformed", "a"): b"\x01\x02",
        Verdict("taken / taken"): b"\x03",
        Verdict("large"): bytes(corpus.MAX_KEPT_BYTES + 1),
    }
    corpus.store_inputs("x", found, [b"\xff"])
    assert corpus.load_inputs("x") == [b"\xff", b"\x03", b"\x01\x02"]
    assert corpus.load_inputs("nothing kept") == []


def test_a_fault_of_the_product_is_counted_and_kept_and_does_not_end_the_part(tmp_path: Path) -> None:
    from tests.fuzz.guided import Chunk, run_plain

    broken = replace(TARGETS["hello"], run=lambda content: str(1 // (len(content) % 3)))
    chunk = Chunk(broken, 60, 1, tmp_path)
    run_plain(chunk)
    part = load_summary(tmp_path / "hello.part", "hello", 1)
    assert part.runs == 60 and part.refusals["crash"] > 5
    assert [error for error, _ in part.crashes] == ["ZeroDivisionError: integer division or modulo by zero"]
