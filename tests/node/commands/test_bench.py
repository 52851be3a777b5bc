"""What `quorate bench job` measures, against a node over real HTTP."""

from __future__ import annotations

import json

from node.commands.bench_job import list_new
from node.faults import Exit
from node.genesis_file import write_genesis
from tests.node.fake_node import FakeNode, serving


def test_bench_job_has_exactly_the_documented_keys_and_names_the_machine(quorate, tmp_path) -> None:
    node = FakeNode()
    write_genesis(tmp_path / "genesis.json", node.genesis)
    with serving(node) as url:
        where = ("--rpc", url, "--genesis", "genesis.json", "--model", "adder")
        code, out, err = quorate("bench", "job", *where, "--jobs", 2, "--warmup", 1, "--json")
    figures = json.loads(out)
    assert code == Exit.OK
    assert list(figures) == [
        *("answer_s", "generation_s", "overhead_s", "finality_ms", "node_rss_mb", "certificate_bytes"),
        "certificate_check_ms",
    ]
    assert list(figures["finality_ms"]) == ["p50", "p99"]
    assert "cores" in err
    assert "measuring: job 2 of 2" in err


def test_only_the_samples_that_are_new_count() -> None:
    assert list_new((1, 2, 3), (1, 2, 3, 4, 5)) == [4, 5]
    assert list_new((1, 2, 3), (3, 4)) == [4]
    assert list_new((), (4,)) == [4]
    assert list_new((1,), (1,)) == []


def test_bench_compare_counts_the_same_pairs_every_way(quorate) -> None:
    code, out, err = quorate("bench", "compare", "--pairs", 250_000, "--rounds", 1, "--json")
    figures = json.loads(out)
    assert code == Exit.OK
    assert list(figures) == [
        *("pairs", "comparer", "seconds", "over_numpy", "over_faiss", "numpy_seconds", "rss_mb"),
    ]
    assert figures["pairs"] == 250_000
    assert "cores" in err
