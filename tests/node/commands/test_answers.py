"""What an asker is told where the network decides, but the answer's text is not to be had."""

from __future__ import annotations

import json
from pathlib import Path

from node.faults import Exit
from protocol.certificate import check_certificate
from tests.node.fake_node import FakeNode, serving


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
