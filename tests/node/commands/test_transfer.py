"""`quorate transfer`: what it takes, and what it refuses before anything is signed. The way through a network: tests/devnet/test_machines.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.faults import Exit
from node.home import Home, store_api_address
from tests.node.fake_node import FakeNode, serving

NODE = "ab" * 32


def test_a_transfer_that_the_account_cannot_pay_is_refused(quorate) -> None:
    quorate("init", "--home", "a")
    with serving(FakeNode()) as url:
        store_api_address(Home(Path("a")), url)
        code, _, err = quorate("transfer", NODE, "0.000001", "--home", "a")
    assert (code, "1001 more are needed" in err) == (Exit.USAGE, True), err


@pytest.mark.parametrize("units", ["0", "-1", "0.0000001", "nan", "inf", "1e400", "1,5", "", "9" * 30])
def test_an_amount_that_is_none_is_bad_usage(quorate, units) -> None:
    code, _, err = quorate("transfer", "--home", "a", "--", NODE, units)
    assert (code, "expected an amount" in err) == (Exit.USAGE, True), err


@pytest.mark.parametrize("node", ["", "ab", NODE[:-1], NODE[:-1] + "g", NODE + "00"])
def test_a_recipient_that_is_no_node_id_is_bad_usage(quorate, node) -> None:
    code, _, err = quorate("transfer", "--home", "a", "--", node, "1")
    assert (code, "expected a node id" in err) == (Exit.USAGE, True), err


def test_without_a_running_node_nothing_is_sent(quorate) -> None:
    quorate("init", "--home", "a")
    assert quorate("transfer", NODE, "1", "--home", "a")[0] == Exit.UNREACHABLE
