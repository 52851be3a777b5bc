"""What an export holds is added up from its lines alone."""

from __future__ import annotations

import json

from devnet.perturbation.gather import add_up

NODE, OTHER = "ab" * 32, "cd" * 32


def line(kind: str, key: str, /, **value: object) -> bytes:
    return json.dumps({"kind": kind, "key": key, "value": value}).encode() + b"\n"


def test_units_are_counted_wherever_a_state_holds_them_and_nowhere_else() -> None:
    lines = [
        b'{"chain_id": "00", "height": 7, "hash": "11", "time_ms": 3, "state_root": "22", "entries": 8}\n',
        line("chain", "01", height=7, minted=9_999, burned=5),
        line("account", "02" + NODE, balance=100, bonded=10, locked=3, nonce=1),
        line("account", "02" + OTHER, balance=1, bonded=0, locked=0, nonce=0),
        line("unbonding", "0d" + NODE + "07", amount=20, release_ms=1),
        line("open-job", "09" + OTHER, job="x", request={"fee": 300, "seats": 3}),
        line("closed-job", "0a" + OTHER, job="y", request={"fee": 4_000, "seats": 3}),
        line("conviction", "0f" + NODE, kind="double-notar", slashed=9),
        b'{"kind": "99", "key": "63", "value": "a kind that is not known here"}\n',
    ]
    estate = add_up(lines)
    assert (estate.height, estate.state_root) == (7, "22")
    assert (estate.held, estate.burned) == (100 + 10 + 1 + 20 + 300, 5)
    assert estate.bonds == {NODE: 10, OTHER: 0}
    assert estate.convicted == (NODE,)
