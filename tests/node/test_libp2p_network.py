"""The network between honest peers, over real loopback sockets."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import trio

from node.network import (
    CallbackFault,
    DirectMessage,
    FetchError,
    FetchFault,
    GossipMessage,
    Limits,
    Misbehaviour,
    NetworkConfig,
    NetworkError,
    Offence,
    PeerAddress,
    PeerDown,
    PeerRefused,
    PeerUp,
    Rate,
    Topic,
    Verdict,
)
from node.streams import FRAME_OVERHEAD
from tests.node.loopback import (
    QUICK,
    Running,
    check_alive,
    drain,
    free_ports,
    make_config,
    node_id,
    pair,
    running,
    wait_for_mesh,
)


async def test_peers_exchange_messages_of_every_size_in_order() -> None:
    largest = Limits().frame_bytes - FRAME_OVERHEAD
    async with pair() as (low, high):
        for size in (0, 1, 70_000, largest):
            assert low.network.send(node_id(1), b"x" * size)
            assert high.network.send(node_id(0), b"y" * size)
        for size in (0, 1, 70_000, largest):
            assert await high.expect(DirectMessage) == DirectMessage(node_id(0), b"x" * size)
            assert await low.expect(DirectMessage) == DirectMessage(node_id(1), b"y" * size)
        with pytest.raises(ValueError, match="a message has at most"):
            low.network.send(node_id(1), b"x" * (largest + 1))
        statistics = low.network.statistics().peers[0]
        assert (statistics.messages_in, statistics.messages_out, statistics.dropped_out) == (4, 4, 0)
        assert statistics.connected and statistics.software == "node 1"


async def test_four_nodes_that_dial_each_other_at_once_have_one_stream_a_pair() -> None:
    ports = free_ports(4)
    peers = [PeerAddress(node_id(i), f"/ip4/127.0.0.1/tcp/{port}") for i, port in enumerate(ports)]
    ready: list[Running] = []
    done = trio.Event()

    async def run(index: int) -> None:
        async with running(make_config(index, *peers, listen_port=ports[index])) as node:
            seen = {(await node.expect(PeerUp)).node_id for _ in range(3)}
            assert seen == {node_id(i) for i in range(4)} - {node_id(index)}
            ready.append(node)
            if len(ready) == 4:
                check_all_hear_each_other(ready)
                for each in ready:
                    for _ in range(3):
                        await each.expect(DirectMessage)
                    assert not any(isinstance(e, PeerDown) for e in drain(each))
                done.set()
            await done.wait()

    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            for index in range(4):
                nursery.start_soon(run, index)


def check_all_hear_each_other(nodes: list[Running]) -> None:
    for node in nodes:
        for peer in node.network.connected():
            assert node.network.send(peer, b"vote")


@pytest.mark.parametrize("restarted", [0, 1])
async def test_a_restarted_peer_is_back_whoever_opens_the_stream(restarted: int) -> None:
    stays = 1 - restarted
    (port,) = free_ports(1)
    address = PeerAddress(node_id(restarted), f"/ip4/127.0.0.1/tcp/{port}")
    async with running(make_config(stays, address)) as node:
        for round_number in range(2):
            async with running(make_config(restarted, listen_port=port)) as peer:
                assert (await node.expect(PeerUp)).node_id == node_id(restarted)
                await peer.expect(PeerUp)
                assert node.network.send(node_id(restarted), b"%d" % round_number)
                assert (await peer.expect(DirectMessage)).data == b"%d" % round_number
            assert (await node.expect(PeerDown)).node_id == node_id(restarted)
            assert not node.network.send(node_id(restarted), b"lost")
        assert node.network.statistics().peers[0].dropped_out == 2


@pytest.mark.parametrize(
    "change, reason", [({"protocol_version": 2}, "wrong protocol version"), ({"chain_id": b"d" * 32}, "wrong chain")]
)
async def test_another_version_or_chain_is_refused_by_name_on_both_sides_and_not_tried_again_at_once(
    change: dict[str, object], reason: str
) -> None:
    async with running(make_config(0)) as low, running(make_config(1, low.address, **change)) as high:
        first = await high.expect(PeerRefused)
        assert first.node_id == node_id(0) and reason in first.reason
        began = trio.current_time()
        assert reason in (await low.expect(PeerRefused)).reason
        assert low.network.connected() == high.network.connected() == frozenset()
        await high.expect(PeerRefused)
        assert trio.current_time() - began >= QUICK.mismatch_retry_s * 0.9


async def test_a_port_in_use_and_a_bad_address_are_refused_in_a_sentence() -> None:
    async with running(make_config(0)) as node:
        port = int(node.address.multiaddr.rpartition("/")[2])
        with pytest.raises(NetworkError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            await open_and_close(make_config(1, listen_port=port))
    with pytest.raises(NetworkError, match="expected an IP address to listen on"):
        await open_and_close(make_config(1, listen_host="nowhere"))
    with pytest.raises(NetworkError, match="expected an address such as"):
        await open_and_close(make_config(1, PeerAddress(node_id(0), "10.0.0.1:4001")))
    with pytest.raises(NetworkError, match="chain id of 32 bytes"):
        await open_and_close(make_config(1, chain_id=b""))


async def open_and_close(config: NetworkConfig) -> None:
    async with running(config):
        return


async def test_what_the_caller_raises_is_not_lost_with_the_network() -> None:
    with pytest.raises(KeyError, match="the caller's own"):
        async with running(make_config(0)):
            raise KeyError("the caller's own")


async def test_gossip_reaches_peers_that_are_not_connected_to_its_origin() -> None:
    async with (
        running(make_config(0)) as hub,
        running(make_config(1, hub.address)) as a,
        running(make_config(2, hub.address)) as b,
    ):
        for node in (hub, hub, a, b):
            await node.expect(PeerUp)
        await wait_for_mesh(hub, 2)
        a.network.publish("tx", b"batch")
        for node in (hub, b):
            assert await node.expect(GossipMessage) == GossipMessage("tx", node_id(1), b"batch")
        with pytest.raises(ValueError, match="not configured"):
            a.network.publish("other", b"batch")
        with pytest.raises(ValueError, match="gossip has at most"):
            a.network.publish("tx", b"x" * (Limits().gossip_bytes + 1))


async def test_ignored_gossip_stops_here_and_rejected_gossip_is_held_against_the_forwarder() -> None:
    async with pair() as (low, high):
        await wait_for_mesh(low, 1)
        await wait_for_mesh(high, 1)
        for data in (b"ignore", b"reject", b"good"):
            high.network.publish("tx", data)
        offence = await low.expect(Misbehaviour)
        assert (offence.node_id, offence.offence) == (node_id(1), Offence.REJECTED_GOSSIP)
        assert (await low.expect(GossipMessage)).data == b"good"


async def test_a_validator_that_raises_costs_the_message_and_not_the_node() -> None:
    def crash(origin: bytes, data: bytes) -> Verdict:
        raise KeyError("a bug")

    async with pair(lambda c: replace(c, topics=(Topic("tx", crash),))) as (low, high):
        await wait_for_mesh(high, 1)
        high.network.publish("tx", b"batch")
        assert "a bug" in (await low.expect(CallbackFault)).detail
        await check_alive(low, high)


async def test_a_request_is_answered_refused_or_fails_by_name() -> None:
    async with pair() as (low, high):
        ask = high.network.request
        assert await ask(node_id(0), b"abc", 5) == b"abcabc"
        assert len(await ask(node_id(0), b"0000524288", 5)) == Limits().response_bytes
        for request, timeout_s, fault, detail in (
            (b"refuse", 5, FetchFault.REFUSED, "no such thing here"),
            (b"crash", 5, FetchFault.BROKEN, ""),
            (b"0000524289", 5, FetchFault.BROKEN, ""),
            (b"hang", 0.1, FetchFault.TIMEOUT, "no answer within 0.1 s"),
        ):
            with pytest.raises(FetchError) as caught:
                await ask(node_id(0), request, timeout_s)
            assert caught.value.fault is fault and detail in caught.value.detail
        with pytest.raises(FetchError) as caught:
            await ask(node_id(5), b"abc", 5)
        assert caught.value.fault is FetchFault.NOT_CONNECTED
        assert "a bug" in (await low.expect(CallbackFault)).detail
        with pytest.raises(ValueError, match="a request has 1 to"):
            await ask(node_id(0), b"", 5)


async def test_more_requests_than_streams_a_connection_may_hold_are_answered_in_turn() -> None:
    async with pair(lambda c: replace(c, limits=replace(Limits(), fetch=Rate(10_000, 1 << 30)))) as (_low, high):
        answers: list[bytes] = []

        async def ask(number: int) -> None:
            answers.append(await high.network.request(node_id(0), b"%d" % number, 10))

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(ask, number)
        assert sorted(answers) == sorted(b"%d" % number * 2 for number in range(300))


async def test_a_flood_is_dropped_counted_and_reported_while_the_rest_goes_on() -> None:
    few = replace(Limits(), direct=Rate(messages_per_s=20, bytes_per_s=1 << 20, burst_s=1))
    async with pair(lambda c: replace(c, limits=few)) as (low, high):
        for _ in range(1_000):
            high.network.send(node_id(0), b"x")
        report = await low.expect(Misbehaviour)
        assert (report.node_id, report.offence) == (node_id(1), Offence.FLOOD)
        assert low.network.statistics().peers[0].dropped_in >= 900
        assert low.network.connected() == {node_id(1)}
        assert low.network.send(node_id(1), b"hello")
        assert (await high.expect(DirectMessage)).data == b"hello"


async def test_a_peer_that_goes_on_flooding_is_slowed_then_dropped_and_both_are_counted() -> None:
    few = replace(Limits(), direct=Rate(messages_per_s=20, bytes_per_s=1 << 20, burst_s=1))
    quick = replace(QUICK, flood_limit_s=0.1)
    async with pair(lambda c: replace(c, limits=few, timing=quick)) as (low, high):
        with trio.fail_after(20):
            while low.network.connected():
                high.network.send(node_id(0), b"x")
                await trio.lowlevel.checkpoint()
        counted = low.network.statistics().peers[0]
        assert counted.slowed_in > 0 and counted.dropped_in > 0
        assert (await low.expect(Misbehaviour)).offence is Offence.FLOOD
        await low.expect(PeerDown)


def test_the_network_brings_no_model_library_into_the_node_process() -> None:
    code = "import sys, node.libp2p_network; print(sorted({'torch', 'transformers', 'scipy', 'datasketch', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "[]"
