"""`quorate verify` where the validators have changed: which root, how old it is, which files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from node.faults import Exit
from node.genesis_file import write_genesis
from protocol.block import compute_header_hash
from protocol.chain_file import encode_trusted_header, name_chain_file
from tests.protocol.builders import START_MS
from tests.protocol.certificates import make_chain_file, trust_block
from tests.protocol.changing import EPOCH, certify_changing, find_place, waits_over_the_change

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from protocol.block import Header
    from protocol.jobs.settlement import Settlement
    from tests.protocol.builders import TestChain

    Run = Callable[..., tuple[int, str, str]]

EARLY = ("--now", "2023-11-14T22:13:21Z")  # a second after the genesis of the tests


def make_case() -> tuple[bytes, TestChain, Settlement]:
    """A certificate that waited over a change of the validators, its chain, its settlement."""
    return certify_changing(*find_place(waits_over_the_change))


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A directory with a certificate that waited over a change of the validators, and the genesis."""
    encoded, chain, _ = make_case()
    (tmp_path / "x.qrc").write_bytes(encoded)
    write_genesis(tmp_path / "genesis.json", chain.genesis)
    return tmp_path


def verify(quorate: Run, *options: object) -> tuple[int, dict, str]:
    """(exit code, what --json says, standard error)"""
    code, out, err = quorate("verify", "x.qrc", "--genesis", "genesis.json", "--json", *options)
    return code, json.loads(out), err


def get_header(height: int) -> Header:
    chain = make_case()[1]
    return next(block.header for block in chain.blocks if block.header.height == height)


def write_trusted(desk: Path, height: int) -> Path:
    (desk / "trusted.qrt").write_bytes(encode_trusted_header(trust_block(make_case()[1], get_header(height))))
    return desk / "trusted.qrt"


def test_missing_changes_are_told_with_the_command_that_fetches_them(quorate: Run, desk: Path) -> None:
    code, out, err = quorate("verify", desk / "x.qrc", "--genesis", "genesis.json")
    assert (code, out) == (Exit.INVALID, "")
    assert "other validators than the genesis and 0 steps lead to" in err
    assert "quorate chain --out FILE" in err


def test_a_named_chain_file_and_the_one_beside_the_certificate_lead_on(quorate: Run, desk: Path) -> None:
    chain = make_case()[1]
    (desk / "elsewhere").write_bytes(make_chain_file(chain))
    named = verify(quorate, "--chain", "elsewhere", *EARLY)
    assert (named[0], named[1]["trust"]["steps"], named[1]["trust"]["root"]) == (Exit.OK, 2, "genesis")
    (desk / name_chain_file(chain.ledger.constants.chain_id)).write_bytes(make_chain_file(chain))
    assert verify(quorate, *EARLY) == named
    assert named[2] == ""


def test_the_root_its_age_and_the_block_are_shown(quorate: Run, desk: Path) -> None:
    chain = make_case()[1]
    (desk / "c").write_bytes(make_chain_file(chain))
    code, out, _ = quorate("verify", "x.qrc", "--genesis", "genesis.json", "--chain", "c", *EARLY)
    settlement = make_case()[2]
    assert code == Exit.OK
    assert "genesis, 1 s old · 2 changes of the validators since" in out.replace("genesis, 2 s", "genesis, 1 s")
    assert f"{settlement.settle_height} in epoch 4" in out
    assert compute_header_hash(get_header(settlement.settle_height)).hex() in out.split()
    assert "✓ validators: 2 changes of the set since the genesis" in out
    assert max(len(line) for line in out.splitlines() if "x.qrc" not in line) <= 80


def test_a_trusted_header_stands_in_for_the_steps_before_it(quorate: Run, desk: Path) -> None:
    write_trusted(desk, 3 * EPOCH + 2)
    code, report, _ = verify(quorate, "--trusted", "trusted.qrt", *EARLY)
    assert (code, report["fault"]["reason"]) == (Exit.INVALID, "missing_steps")
    (desk / "c").write_bytes(make_chain_file(make_case()[1]))
    code, report, _ = verify(quorate, "--trusted", "trusted.qrt", "--chain", "c", *EARLY)
    trust = report["trust"]
    assert (code, trust["root"], trust["height"], trust["steps"]) == (Exit.OK, "trusted header", 3 * EPOCH + 2, 1)
    assert trust["hash"] == compute_header_hash(get_header(3 * EPOCH + 2)).hex()


def test_old_trust_is_told_on_standard_error_and_refused_on_request(quorate: Run, desk: Path) -> None:
    (desk / "c").write_bytes(make_chain_file(make_case()[1]))
    code, report, err = verify(quorate, "--chain", "c", "--now", "2030-01-31")
    assert (code, report["valid"], report["trust"]["stale"]) == (Exit.OK, True, True)
    assert "still answers with a stake" in err
    assert f"quorate checkpoint --height {report['trust']['block_height']}" in err
    assert any("too old to punish" in line for line in report["assumed"])
    code, report, err = verify(quorate, "--chain", "c", "--now", "2030-01-31", "--fresh")
    assert (code, report["error"]["reason"]) == (Exit.INVALID, "stale_trust")


def test_the_block_of_the_certificate_as_somebody_trusted_has_it_is_never_too_old(quorate: Run, desk: Path) -> None:
    (desk / "c").write_bytes(make_chain_file(make_case()[1]))
    write_trusted(desk, make_case()[2].settle_height)
    code, report, err = verify(quorate, "--chain", "c", "--trusted", "trusted.qrt", "--fresh")
    assert (code, report["trust"]["direct"], report["trust"]["stale"], err) == (Exit.OK, True, False, "")
    _, out, _ = quorate("verify", "x.qrc", "--genesis", "genesis.json", "--chain", "c", "--trusted", "trusted.qrt")
    assert "this very chain of blocks" in out


def test_the_age_is_judged_at_the_time_that_is_given(quorate: Run, desk: Path) -> None:
    (desk / "c").write_bytes(make_chain_file(make_case()[1]))
    for given in ("2023-11-15", "2023-11-15T00:00:00Z", "2023-11-15T01:00:00+01:00"):
        trust = verify(quorate, "--chain", "c", "--now", given)[1]["trust"]
        assert START_MS + trust["age_ms"] == 1_700_006_400_000
    assert verify(quorate, "--chain", "c", "--now", "1066-10-14")[1]["trust"]["age_ms"] < 10_000


def test_a_file_that_cannot_be_read_is_no_trust(quorate: Run, desk: Path) -> None:
    for option in ("--chain", "--trusted"):
        code, report, _ = verify(quorate, option, "none")
        assert (code, report["error"]["reason"]) == (Exit.USAGE, "no_such_file")
