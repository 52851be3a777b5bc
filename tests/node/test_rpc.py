"""The registry's methods and the dispatcher, against a real ledger, without HTTP."""

from __future__ import annotations

from base64 import b64decode, b64encode

import msgspec
import pytest

from node.faults import CONSEQUENCES, Trouble
from node.jsonrpc import MAX_BATCH, answer
from node.rpc import METHODS, REGISTRY
from protocol.block import BLOCK_CODEC
from protocol.certificate import check_certificate
from protocol.codec import encode
from protocol.errors import Rejection
from protocol.models import compute_model_id
from tests.node.fake_node import FakeNode, make_context
from tests.protocol.builders import make_card, make_genesis, make_key, start_chain


async def send(node: FakeNode, body: object) -> object:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    reply = await answer(REGISTRY, make_context(node), raw)
    return msgspec.json.decode(reply) if reply else None


async def call(node: FakeNode, method: str, /, **params: object) -> dict:
    """The result of a call that succeeds."""
    reply = await send(node, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    assert "result" in reply, reply
    return reply["result"]


async def refused(node: FakeNode, method: str, /, **params: object) -> tuple[int, str]:
    """The code and the reason of a call that fails."""
    reply = await send(node, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    assert reply["error"]["data"]["cure"], reply
    return reply["error"]["code"], reply["error"]["data"]["reason"]


async def settle(node: FakeNode, **params: object) -> dict:
    """A job, asked and waited for."""
    job = (await call(node, "job_submit", **{"model": "adder", "prompt": "23+58=", **params}))["job"]
    return await call(node, "job_wait", job=job)


def test_every_reason_has_its_consequence() -> None:
    assert set(CONSEQUENCES) == {*Rejection, *Trouble}


def test_no_two_reasons_share_a_name() -> None:
    names = [reason.value for reason in CONSEQUENCES]
    assert len(names) == len(set(names))


def test_own_codes_stay_in_the_range_that_the_specification_leaves_free() -> None:
    spec = {-32700, -32600, -32601, -32602, -32603}
    for consequence in CONSEQUENCES.values():
        assert consequence.rpc in spec or -32099 <= consequence.rpc <= -32000


def test_the_issue_s_methods_are_all_there() -> None:
    named = {"job_submit", "job_get", "job_wait", "certificate_get", "output_get", "account_get", "block_get"}
    assert named | {"tx_submit", "node_status", "net_peers", "model_list"} <= set(REGISTRY)


async def test_a_settled_job_says_who_was_inside_and_what_it_cost() -> None:
    node = FakeNode(answers=lambda seat: "80" if seat == 1 else "81")
    state = await settle(node)
    assert (state["status"], state["phase"], state["agreement_ppm"]) == ("accepted", "settled", 666_666)
    assert [seat["inside"] for seat in state["seats"]] == [True, False, True]
    assert state["seats"][0]["digest_distance"] == 0 < state["seats"][1]["digest_distance"]
    assert state["cost"] == state["fee"] + node.genesis.params.base_fee
    assert state["capture"]["bad_share_ppm"] == 200_000


async def test_the_output_and_certificate_of_a_job_can_be_fetched() -> None:
    node = FakeNode()
    state = await settle(node)
    output = await call(node, "output_get", job=state["job"])
    assert (output["text"], output["stop"], output["output_hash"]) == ("81", "end", state["output_hash"])
    certificate = b64decode((await call(node, "certificate_get", job=state["job"]))["certificate"])
    assert check_certificate(certificate, node.genesis).text == "81"


async def test_an_inconclusive_job_gives_part_of_the_fee_back() -> None:
    state = await settle(FakeNode(answers=lambda seat: ("79", "80", "81")[seat]))
    assert state["status"] == "inconclusive"
    assert state["output_hash"] is None
    assert 0 < state["cost"] < state["fee"]


async def test_a_job_without_answers_fails() -> None:
    state = await settle(FakeNode(answers=lambda _: ""))
    assert state["status"] == "failed"
    assert {seat["state"] for seat in state["seats"]} == {"absent"}


async def test_job_wait_returns_as_soon_as_the_progress_has_changed() -> None:
    node = FakeNode()
    job = (await call(node, "job_submit", model="adder", prompt="1+1="))["job"]
    first = await call(node, "job_get", job=job)
    second = await call(node, "job_wait", job=job, seen=first["progress"])
    assert first["phase"] == "submitted"
    assert second["status"] == "open" and second["progress"] != first["progress"]


async def test_job_wait_answers_when_its_time_is_over(autojump_clock: object) -> None:
    node = FakeNode()
    job = (await call(node, "job_submit", model="adder", prompt="1+1="))["job"]
    node.is_stalled = True
    assert (await call(node, "job_wait", job=job, timeout_ms=30_000))["status"] == "open"


async def test_a_call_that_takes_too_long_is_answered_in_time(autojump_clock: object) -> None:
    node = FakeNode()
    job = (await call(node, "job_submit", model="adder", prompt="1+1="))["job"]
    node.is_stalled = True
    waits = [{"jsonrpc": "2.0", "id": i, "method": "job_wait", "params": {"job": job}} for i in range(3)]
    replies = await send(node, waits)
    assert "result" in replies[0]
    assert [reply["error"]["data"]["reason"] for reply in replies[1:]] == ["timed_out", "timed_out"]


async def test_a_repeated_request_id_is_the_same_job() -> None:
    node = FakeNode()
    first = await call(node, "job_submit", model="adder", prompt="1+1=", request_id="r1")
    second = await call(node, "job_submit", model="adder", prompt="1+1=", request_id="r1")
    assert (first["repeated"], second["repeated"]) == (False, True)
    assert first["job"] == second["job"]


async def test_a_model_is_found_by_name_by_id_and_by_the_start_of_its_id() -> None:
    model = compute_model_id(make_card()).hex()
    for name in ("adder", model, model[:8], model[:12].upper()):
        assert (await call(FakeNode(), "job_submit", model=name, prompt="1+1="))["job"]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"model": "none"}, "unknown_model"),
        ({"model": "ad"}, "unknown_model"),
        ({"prompt": ""}, "empty_prompt"),
        ({"prompt": "1" * 8193}, "prompt_too_long"),
        ({"seats": 0}, "bad_seats"),
        ({"seats": 2}, "bad_seats"),
        ({"seats": -1}, "bad_seats"),
        ({"seats": 103}, "bad_seats"),
        ({"fee": 1}, "fee_too_low"),
        ({"fee": 10**15}, "unaffordable"),
        ({"commit_ms": 1}, "bad_window"),
        ({"settings": {"max_tokens": 8, "beams": 2}}, "bad_settings"),
        ({"max_fee": 100}, "fee_above_maximum"),
    ],
)
async def test_a_job_that_cannot_be_is_refused_with_its_reason(change: dict[str, object], reason: str) -> None:
    params = {"model": "adder", "prompt": "1+1=", "seats": 3, **change}
    assert await refused(FakeNode(), "job_submit", **params) == (-32000, reason)


async def test_more_seats_than_the_serving_nodes_can_hold_are_refused() -> None:
    small = FakeNode(start_chain(make_genesis(validators=("v0", "v1"))))
    assert await refused(small, "job_submit", model="adder", prompt="1=", seats=3) == (-32000, "too_few_candidates")


async def test_a_node_that_catches_up_takes_no_jobs() -> None:
    assert await refused(FakeNode(sync_target=90), "job_submit", model="adder", prompt="1=") == (-32002, "syncing")


async def test_a_halted_node_takes_no_jobs() -> None:
    assert await refused(FakeNode(halted="two FinalCerts"), "job_submit", model="adder", prompt="1=") == (
        -32002,
        "halted",
    )


@pytest.mark.parametrize(
    "params, where",
    [
        ({"model": "adder"}, "prompt"),
        ({"model": "adder", "prompt": 5}, "$.prompt"),
        ({"model": "adder", "prompt": "1", "seats": "3"}, "$.seats"),
        ({"model": "adder", "prompt": "1", "seats": True}, "$.seats"),
        ({"model": "adder", "prompt": "1", "rule": "loudest"}, "$.rule"),
        ({"model": "adder", "prompt": "1", "colour": 1}, "colour"),
        ({"model": "adder", "prompt": "1", "settings": {"max_tokens": 0}}, "$.settings.max_tokens"),
        ({"model": "adder", "prompt": "1", "fee": -1}, "$.fee"),
        ({"model": "adder", "prompt": "1", "fee": 2**63}, "$.fee"),
    ],
)
async def test_wrong_types_are_refused_and_the_field_is_named(params: dict[str, object], where: str) -> None:
    reply = await send(FakeNode(), {"jsonrpc": "2.0", "id": 1, "method": "job_submit", "params": params})
    assert (reply["error"]["code"], reply["error"]["data"]["reason"]) == (-32602, "invalid_params")
    assert where in reply["error"]["message"]


@pytest.mark.parametrize(
    "method, params",
    [
        ("job_get", {"job": "00" * 32}),
        ("job_wait", {"job": "00" * 32, "timeout_ms": 0}),
        ("output_get", {"job": "00" * 32}),
        ("certificate_get", {"job": "00" * 32}),
    ],
)
async def test_an_unknown_job_is_said_to_be_unknown(method: str, params: dict[str, object]) -> None:
    assert await refused(FakeNode(), method, **params) == (-32001, "unknown_job")


async def test_a_certificate_before_the_settlement_is_unavailable() -> None:
    node = FakeNode()
    job = (await call(node, "job_submit", model="adder", prompt="1+1="))["job"]
    assert await refused(node, "certificate_get", job=job) == (-32003, "certificate_unavailable")
    assert await refused(node, "output_get", job=job) == (-32003, "output_unavailable")


async def test_an_output_that_nobody_serves_is_unavailable() -> None:
    node = FakeNode()
    state = await settle(node)
    node.lost.add("81")
    assert await refused(node, "output_get", job=state["job"]) == (-32003, "output_unavailable")


async def test_a_block_comes_in_words_and_in_its_bytes() -> None:
    node = FakeNode()
    job = (await call(node, "job_submit", model="adder", prompt="1+1="))["job"]
    block = await call(node, "block_get")
    assert [entry["kind"] for entry in block["transactions"]] == ["Submit"]
    assert block["transactions"][0]["id"] == job
    assert BLOCK_CODEC.decode(b64decode(block["block"])).header.height == block["height"] == 1
    assert await refused(node, "block_get", height=99) == (-32001, "unknown_block")


async def test_a_transaction_is_taken_once() -> None:
    node = FakeNode()
    signed = b64encode(encode(node.chain.transfer("asker", "other", 5))).decode()
    assert len((await call(node, "tx_submit", transaction=signed))["transaction"]) == 64
    assert await refused(node, "tx_submit", transaction=signed) == (-32000, "duplicate")


async def test_bytes_that_are_no_transaction_are_refused() -> None:
    assert await refused(FakeNode(), "tx_submit", transaction="AAAA") == (-32602, "malformed")
    assert await refused(FakeNode(), "tx_submit", transaction="?") == (-32602, "invalid_params")


async def test_a_forged_signature_is_refused() -> None:
    node = FakeNode()
    signed = node.chain.transfer("asker", "other", 5)
    forged = b64encode(encode(type(signed)(signed.body, bytes(64)))).decode()
    assert await refused(node, "tx_submit", transaction=forged) == (-32602, "bad_signature")


async def test_accounts_are_shown_and_unknown_ones_are_empty() -> None:
    own = await call(FakeNode(), "account_get")
    assert own["node"] == make_key("v0").public.hex()
    assert own["balance"] > 0
    assert own["bonded"] > 0
    assert (await call(FakeNode(), "account_get", node="00" * 32))["balance"] == 0


async def test_status_peers_and_models_are_told() -> None:
    node = FakeNode()
    node.chain.run(1)
    status = await call(node, "node_status")
    assert status["readiness"]["status"] == "ready"
    assert (status["peers_connected"], status["peers_seeing_me"], status["validators"]) == (4, 4, 5)
    assert status["rss_bytes"] > 10**6
    assert len((await call(node, "net_peers"))["peers"]) == 4
    assert (await call(node, "model_list"))["models"][0]["candidates"] == 5
    assert (await call(node, "job_list"))["jobs"] == []


@pytest.mark.parametrize(
    "change, failing, status",
    [
        ({}, set(), "ready"),
        ({"seen_by": ("v1", "v2", "v3")}, set(), "ready"),
        ({"seen_by": ("v1", "v2")}, {"peers"}, "not_ready"),
        ({"sync_target": 50}, {"tip"}, "syncing"),
        ({"halted": "why"}, {"ordering"}, "not_ready"),
        ({"worker_reason": "loading"}, {"worker"}, "not_ready"),
        ({"tick_ms": 0}, {"loop"}, "not_ready"),
    ],
)
async def test_readiness_names_every_check_that_fails(change: dict, failing: set[str], status: str) -> None:
    node = FakeNode(**change)
    node.chain.run(1)
    readiness = (await call(node, "node_status"))["readiness"]
    assert readiness["status"] == status
    failed = [check for check in readiness["checks"] if not check["ok"]]
    assert {check["name"] for check in failed} == failing
    assert all(check["reason"] and check["cure"] for check in failed)


async def test_discover_describes_every_method_with_its_schema_and_errors() -> None:
    document = await call(FakeNode(), "rpc.discover")
    assert document["openrpc"] == "1.3.2"
    assert [method["name"] for method in document["methods"]] == [*(method.name for method in METHODS), "rpc.discover"]
    submit = document["methods"][0]
    assert {param["name"] for param in submit["params"] if param["required"]} == {"model", "prompt"}
    schemas = document["components"]["schemas"]
    for method in document["methods"]:
        assert method["summary"]
        assert method["result"]["schema"]["$ref"].removeprefix("#/components/schemas/") in schemas
    assert "unaffordable" in {error["data"]["reason"] for error in submit["errors"]}


@pytest.mark.parametrize(
    "body, code, reason",
    [
        (b"{", -32700, "parse_error"),
        (b"", -32700, "parse_error"),
        (b"\xff\xfe", -32700, "parse_error"),
        (b"[" * 5_000, -32700, "parse_error"),
        (b"NaN", -32700, "parse_error"),
        (b"3", -32600, "invalid_request"),
        (b"[]", -32600, "invalid_request"),
        (b"{}", -32600, "invalid_request"),
        (b'{"jsonrpc":"1.0","id":1,"method":"node_status"}', -32600, "invalid_request"),
        (b'{"jsonrpc":"2.0","id":{},"method":"node_status"}', -32600, "invalid_request"),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600, "invalid_request"),
        (b'{"jsonrpc":"2.0","id":1,"method":"node_status","params":3}', -32600, "invalid_request"),
        (b'{"jsonrpc":"2.0","id":1,"method":"nothing"}', -32601, "unknown_method"),
        (b'{"jsonrpc":"2.0","id":1,"method":"job_get","params":["00"]}', -32602, "invalid_params"),
        (b'{"jsonrpc":"2.0","id":1,"method":"node_status","params":[1]}', -32602, "invalid_params"),
    ],
)
async def test_what_is_no_call_is_refused_by_the_specification_s_code(body: bytes, code: int, reason: str) -> None:
    reply = await send(FakeNode(), body)
    assert (reply["error"]["code"], reply["error"]["data"]["reason"]) == (code, reason)


async def test_parameters_may_come_by_position() -> None:
    node = FakeNode()
    job = (await call(node, "job_submit", model="adder", prompt="1+1="))["job"]
    reply = await send(node, {"jsonrpc": "2.0", "id": "a", "method": "job_get", "params": [job]})
    assert (reply["id"], reply["result"]["job"]) == ("a", job)


async def test_a_batch_is_answered_in_order_without_its_notifications() -> None:
    request = {"jsonrpc": "2.0", "method": "model_list"}
    replies = await send(FakeNode(), [{**request, "id": 1}, request, {**request, "id": 2}, 5])
    assert [reply["id"] for reply in replies] == [1, 2, None]


async def test_a_batch_over_the_limit_is_refused_whole() -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "model_list"}
    reply = await send(FakeNode(), [request] * (MAX_BATCH + 1))
    assert reply["error"]["data"]["reason"] == "batch_too_large"
    assert len(await send(FakeNode(), [request] * MAX_BATCH)) == MAX_BATCH


async def test_notifications_get_no_answer_even_when_they_fail() -> None:
    assert await send(FakeNode(), {"jsonrpc": "2.0", "method": "nothing"}) is None
    assert await send(FakeNode(), [{"jsonrpc": "2.0", "method": "nothing"}]) is None
