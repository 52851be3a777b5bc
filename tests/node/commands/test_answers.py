"""What an asker gets: text or picture, certificate, and word of what is not to be had."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from node.faults import Exit
from node.genesis_file import write_genesis
from protocol.certificate import check_certificate
from tests.node.fake_node import PICTURE, FakeNode, serving


def test_an_accepted_answer_whose_text_nobody_serves_is_no_success_but_keeps_its_certificate(quorate) -> None:
    node = FakeNode(lost={"81"})
    node.chain.run(1)
    with serving(node) as url:
        code, out, err = quorate("ask", "23+58=", "--model", "adder", "--rpc", url, "--out", "x.qrc", "--json")
        answer = json.loads(out)
        assert (code, answer["status"], answer["text"]) == (Exit.TEMPORARY, "accepted", None)
        assert f"quorate jobs wait {answer['job']}" in err
        assert check_certificate(Path("x.qrc").read_bytes(), node.genesis).text is None

        node.lost.clear()
        code, out, _ = quorate("jobs", "wait", answer["job"], "--rpc", url, "--out", "x.qrc", "--json")
        assert (code, json.loads(out)["text"]) == (Exit.OK, "81")


@pytest.mark.parametrize(
    "out, certificate, picture",
    [
        ("seven.png", "seven.qrc", "seven.png"),
        ("seven.qrc", "seven.qrc", "seven.png"),
        ("a/b.PNG", "a/b.qrc", "a/b.PNG"),
    ],
)
def test_a_picture_and_its_certificate_stand_side_by_side(quorate, out: str, certificate: str, picture: str) -> None:
    node = FakeNode(answers=lambda _: PICTURE)
    node.chain.run(1)
    Path("a").mkdir()
    with serving(node) as url:
        code, said, _ = quorate("ask", "--prompt", "7", "--model", "adder", "--rpc", url, "--out", out, "--json")
    answer = json.loads(said)
    assert (code, answer["text"], answer["certificate"], answer["picture"]) == (Exit.OK, None, certificate, picture)
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    write_genesis(Path("genesis.json"), node.genesis)
    code, said, _ = quorate("verify", certificate, "--genesis", "genesis.json", "--picture", "again.png", "--json")
    assert (code, json.loads(said)["picture_sha256"]) == (Exit.OK, sha256(b"\x00\xff").hexdigest())
    assert Path("again.png").read_bytes() == Path(picture).read_bytes()


def test_a_text_that_was_to_be_a_picture_keeps_its_certificate_beside(quorate) -> None:
    node = FakeNode()
    node.chain.run(1)
    with serving(node) as url:
        code, out, err = quorate("ask", "23+58=", "--model", "adder", "--rpc", url, "--out", "x.png", "--json")
    assert (code, json.loads(out)["text"], json.loads(out)["certificate"]) == (Exit.OK, "81", "x.qrc")
    assert "the answer is no picture" in err and not Path("x.png").exists()
    write_genesis(Path("genesis.json"), node.genesis)
    code, _, err = quorate("verify", "x.qrc", "--genesis", "genesis.json", "--picture", "x.png")
    assert code == Exit.USAGE and "got one with a text" in err


@pytest.mark.parametrize("words", [(), ("1+1=", "--prompt", "2+2=")])
def test_a_question_is_asked_once(quorate, words: tuple[str, ...]) -> None:
    code, _, err = quorate("ask", *words)
    assert code == Exit.USAGE and "expected" in err
