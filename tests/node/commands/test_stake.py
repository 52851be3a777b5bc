"""The commands of an account that stakes, serves and votes, against a node over real HTTP: each ends in a final block or in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from node.cli import run_command
from node.faults import Exit
from node.home import Home, create_home, store_api_address
from node.keys import _encode_pem
from protocol.codec import encode
from protocol.evidence import EvidenceKind, build_vote_evidence
from protocol.genesis import compute_chain_id
from protocol.ledger.queries import (
    get_account,
    get_conviction,
    get_onion,
    list_models,
    list_served_models,
    list_unbonding,
)
from protocol.models import compute_model_id
from protocol.voting import VoteKind
from tests.node.fake_node import FakeNode, serving
from tests.protocol.builders import make_card, make_hash, make_key
from tests.protocol.offences import A, B, sign_vote

if TYPE_CHECKING:
    from collections.abc import Iterator

ARITH = Path(__file__).resolve().parents[3] / "devnet" / "models" / "arith-s"
ACCOUNT = make_key("asker").public
MODEL = compute_model_id(make_card())

Run = "Callable[..., tuple[int, dict[str, object]]]"


@pytest.fixture
def node() -> FakeNode:
    fake = FakeNode()
    fake.chain.run(1)
    return fake


@pytest.fixture
def quorate(node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command line in the home of the account, as JSON: exit code and answer."""
    home = create_home(tmp_path / "home")
    home.key.write_bytes(_encode_pem(make_hash("key asker"), None))
    home.key.chmod(0o600)

    def run(*arguments: str) -> tuple[int, dict[str, object]]:
        code = run_command([*arguments, "--home", str(home.root), "--json"])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, json.loads(captured.out)

    with serving(node) as url:
        store_api_address(Home(home.root), url)
        yield run


def test_a_bond_is_final_when_the_command_ends_and_comes_back_by_unbond(quorate: Run, node: FakeNode) -> None:
    code, out = quorate("bond", "60.5")
    assert (code, out["amount"], out["height"]) == (Exit.OK, 60_500_000, node.chain.header.height)
    assert get_account(node.chain.ledger, ACCOUNT).bonded == 60_500_000
    code, out = quorate("unbond", "50.5")
    assert code == Exit.OK
    assert [entry.amount for _, entry in list_unbonding(node.chain.ledger, ACCOUNT)] == [50_500_000]
    _, shown = quorate("balance", ACCOUNT.hex())
    assert [entry["amount"] for entry in shown["unbonding"]] == [50_500_000]


def test_a_validator_is_registered_once_after_its_bond(quorate: Run, node: FakeNode) -> None:
    code, out = quorate("register-validator")
    assert (code, out["error"]["reason"]) == (Exit.USAGE, "not_bonded")
    quorate("bond", "100")
    code, out = quorate("register-validator")
    assert (code, out["registered"]) == (Exit.OK, True)
    onion = get_onion(node.chain.ledger, ACCOUNT)
    assert onion is not None and onion.next is not None
    code, out = quorate("register-validator")
    assert (code, out["registered"], out["transaction"]) == (Exit.OK, True, None)


def test_a_model_is_registered_served_and_withdrawn_by_its_name(quorate: Run, node: FakeNode) -> None:
    code, out = quorate("register-model", str(ARITH))
    assert (code, out["name"]) == (Exit.OK, "arith-s")
    assert bytes.fromhex(str(out["model"])) in list_models(node.chain.ledger)
    code, out = quorate("serve", "arith-s")
    assert (code, out["error"]["reason"]) == (Exit.USAGE, "not_bonded")
    quorate("bond", "100")
    assert quorate("serve", "adder")[0] == quorate("serve", "arith-s")[0] == Exit.OK
    assert MODEL in list_served_models(node.chain.ledger, ACCOUNT)
    assert quorate("withdraw", MODEL.hex())[0] == Exit.OK
    assert MODEL not in list_served_models(node.chain.ledger, ACCOUNT)
    code, out = quorate("serve", "nothing")
    assert (code, out["error"]["reason"]) == (Exit.USAGE, "unknown_model")
    assert "adder, arith-s" in str(out["error"]["message"])


def test_evidence_from_a_file_convicts(quorate: Run, node: FakeNode, tmp_path: Path) -> None:
    chain_id = compute_chain_id(node.chain.genesis)
    votes = [sign_vote(make_key("v1"), chain_id, VoteKind.NOTAR, 1, each, 1) for each in (A, B)]
    file = tmp_path / "evidence"
    file.write_text(f"{encode(build_vote_evidence(EvidenceKind.TWO_NOTAR, *votes)).hex()}\n", "ascii")
    code, out = quorate("report", str(file))
    assert (code, out["signer"]) == (Exit.OK, 1)
    assert get_conviction(node.chain.ledger, make_key("v1").public) is not None
    file.write_text("deadbeef", "ascii")
    code, out = quorate("report", str(file))
    assert code == Exit.USAGE and "holds no evidence" in str(out["error"]["message"])
    assert quorate("report", str(tmp_path / "nowhere"))[0] == Exit.USAGE


def test_who_is_not_jailed_is_told_so(quorate: Run) -> None:
    code, out = quorate("unjail")
    assert (code, out["error"]["reason"]) == (Exit.USAGE, "not_jailed")


def test_a_transaction_that_no_block_takes_is_told_with_what_to_do(
    quorate: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.commands.sending.PATIENCE_S", 0.0)
    code, out = quorate("bond", "60")
    assert (code, out["error"]["reason"]) == (Exit.NO_ANSWER, "timed_out")
    assert "send nothing again" in str(out["error"]["cure"])


@pytest.mark.parametrize("amount", ["0", "1.0000001", "NaN", "1e99", "x"])
def test_an_amount_that_is_none_is_refused(quorate: Run, amount: str) -> None:
    code, out = quorate("bond", amount)
    assert code == Exit.USAGE
    assert "error" in out
