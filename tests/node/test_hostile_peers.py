"""What a hostile peer sends: it is charged, then not heard for a while; the node goes on, and others are not charged for it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from node.api import OutputUnavailable
from node.network import DirectMessage, GossipMessage
from node.offences import BURST
from node.postbox import MAX_REFUSED
from node.wire import (
    FETCH_REQUEST_CODEC,
    OUTPUT_CHUNK_BYTES,
    TOPIC_CERTIFICATES,
    TOPIC_TRANSACTIONS,
    FetchOutput,
    FrameKind,
    OutputChunk,
    Status,
    TransactionBatch,
    encode_frame,
)
from protocol.certificate_format import decode_certificate
from protocol.codec import encode
from protocol.ledger.queries import get_account
from protocol.models import StopReason, TextOutput, compute_output_hash
from protocol.ordering.messages import QuorumCert, Vote, VoteKind
from protocol.transactions import Commit, Transfer, sign_transaction
from tests.node.harness import open_world
from tests.protocol.builders import make_hash, make_key, make_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.node.harness import LiveNode, World

JUNK = bytes(64)


def list_wrong_frames(victim: LiveNode) -> Iterator[bytes]:
    """Frames that no honest node sends, at least one of every kind."""
    yield b""
    yield b"\x00"
    yield b"\xff" * 40
    for kind in FrameKind:
        yield bytes((kind,))
        yield bytes((kind,)) + b"\xc1"
        yield bytes((kind,)) + b"\x90"
        yield bytes((kind,)) + b"\xdd\xff\xff\xff\xff"
        yield bytes((kind,)) + bytes(2 * 1024 * 1024)
        yield bytes((kind,)) + b"\x91" * 100_000
    view = victim.parts.ordering.state.view
    yield encode_frame(Vote(VoteKind.NOTAR, 0, view, make_hash("block"), 1, JUNK))
    yield encode_frame(Vote(VoteKind.NOTAR, 0, view, make_hash("block"), 200, JUNK))
    yield encode_frame(QuorumCert(VoteKind.FINAL, 0, view + 5, make_hash("block"), (0, 1, 2), (JUNK,) * 3))
    yield encode_frame(QuorumCert(VoteKind.FINAL, 0, 2**50, make_hash("block"), (0, 1, 2), (JUNK,) * 3))
    yield encode_frame(TransactionBatch((b"", b"\xc1")))
    yield encode_frame(TransactionBatch((bytes(16 * 1024),)))


async def send_slowly(world: World, victim: LiveNode, sender: bytes, frames: list[bytes]) -> None:
    """One after the other, no faster than offences are forgiven."""
    for frame in frames:
        world.hub.deliver(victim.id, DirectMessage(sender, frame))
        await trio.sleep(0.3)


async def test_every_wrong_frame_is_charged_to_its_sender_and_the_node_goes_on(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes) as world:
        await world.wait_height(2)
        victim, stranger = world.nodes[0], make_key("stranger").public
        frames = list(list_wrong_frames(victim))
        await send_slowly(world, victim, stranger, frames)
        charges = victim.count_charges()
        assert set(charges) == {stranger.hex()} and len(charges[stranger.hex()]) == len(frames)
        await world.wait_height(victim.height + 2)


async def test_random_and_mutilated_bytes_never_end_a_node(homes: Path, autojump_clock: object) -> None:
    draw = random.Random(7)
    async with open_world(homes) as world:
        await world.nodes[1].service.submit_job(make_request(), None)
        await world.wait_height(8)
        victim = world.nodes[0]
        real = [data for _, data in world.hub.sent if len(data) > 20][:200]
        for index in range(1_500):
            frame = bytearray(draw.choice(real))
            for _ in range(draw.randint(1, 4)):
                frame[draw.randrange(len(frame))] = draw.randrange(256)
            topic = draw.choice((TOPIC_TRANSACTIONS, TOPIC_CERTIFICATES))
            sender = make_hash(f"sender {index}")  # ever new ones, so that none is muted
            victim.push(DirectMessage(sender, bytes(frame)))
            victim.push(GossipMessage(topic, sender, bytes(frame[1:])))
            if index % 100 == 0:
                await victim.node.engine.wait_finalized()
        height = victim.height
        await world.wait_height(height + 3)
        assert not {other.id.hex() for other in world.nodes} & set(victim.count_charges())


async def test_a_steady_offender_is_not_heard_until_it_has_kept_still(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes) as world:
        await world.wait_height(1)
        victim, stranger = world.nodes[0], make_key("stranger").public
        for _ in range(1_000):
            victim.push(DirectMessage(stranger, b"\xff"))
        await victim.node.engine.wait_finalized()
        assert len(victim.list_events("peer_charged")) == BURST
        assert len(victim.list_events("peer_muted")) == 1
        status = encode_frame(Status(7, b"h" * 32, 1, 0, 9, ()))
        victim.push(DirectMessage(stranger, status))
        await victim.node.engine.wait_finalized()
        assert stranger not in victim.node.engine.statuses
        await trio.sleep(10)
        victim.push(DirectMessage(stranger, status))
        await victim.node.engine.wait_finalized()
        assert stranger in victim.node.engine.statuses


async def test_huge_batches_of_what_the_ledger_refuses_leave_nothing_behind(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes) as world:
        await world.wait_height(1)
        victim, poor = world.nodes[0], make_key("poor")
        chain = victim.ledger.constants.chain_id
        refused = [
            encode(sign_transaction(poor, chain, Transfer(poor.public, nonce, 99, victim.id, 5)))
            for nonce in range(1, 101)
        ]
        early = [
            encode(sign_transaction(poor, chain, Commit(poor.public, make_hash(f"job {index}"), make_hash("c"))))
            for index in range(100)
        ]
        victim.push(DirectMessage(poor.public, encode_frame(TransactionBatch((*refused, *early)))))
        await victim.node.engine.wait_finalized()
        mempool = victim.parts.postbox.mempool
        assert (len(mempool), len(mempool._early), victim.count_charges()) == (0, 0, {})


async def test_a_flood_of_refused_transactions_is_read_only_up_to_a_limit(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes) as world:
        await world.wait_height(1)
        victim, poor, asker = world.nodes[0], make_key("poor"), make_key("asker")
        chain = victim.ledger.constants.chain_id
        refused = encode(sign_transaction(poor, chain, Transfer(poor.public, 1, 99, victim.id, 5)))
        for _ in range(20):
            victim.push(DirectMessage(poor.public, encode_frame(TransactionBatch((refused,) * 100))))
        good = encode(sign_transaction(asker, chain, Transfer(asker.public, 1, 99, victim.id, 5)))
        victim.push(DirectMessage(world.nodes[1].id, encode_frame(TransactionBatch((good,)))))
        await victim.node.engine.wait_finalized()
        assert len(victim.list_events("transaction_refused")) <= 2 * MAX_REFUSED
        is_included = get_account(victim.ledger, asker.public).nonce == 1
        assert is_included or len(victim.parts.postbox.mempool) == 1, "others are heard"


async def test_a_transaction_with_a_wrong_signature_is_charged_to_whoever_hands_it_on(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes) as world:
        await world.wait_height(1)
        victim, asker = world.nodes[0], make_key("asker")
        body = Transfer(asker.public, 1, 99, victim.id, 5)
        forged = replace(sign_transaction(asker, victim.ledger.constants.chain_id, body), signature=JUNK)
        victim.push(DirectMessage(world.nodes[1].id, encode_frame(TransactionBatch((encode(forged),) * 50))))
        await victim.node.engine.wait_finalized()
        assert victim.count_charges() == {world.nodes[1].id.hex(): ["bad_signature"]}


OUTPUT = TextOutput(make_hash("model"), tuple(range(4)) * 1_000, "x" * (OUTPUT_CHUNK_BYTES + 1_000), StopReason.END)


async def test_an_output_comes_in_chunks_from_the_holder_that_tells_the_truth(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes) as world:
        asker, liar, forgetful, honest = world.nodes
        encoded, output_hash = encode(OUTPUT), compute_output_hash(OUTPUT)
        other = encode(replace(OUTPUT, text="y" * len(OUTPUT.text)))
        serve_output(world, liar, other)
        honest.parts.postbox._storage.store_output(output_hash, encoded, 0)
        holders = (liar.id, forgetful.id, honest.id)
        await world.wait_height(1)
        world.hub.requests.clear()
        assert await asker.service.fetch_output(output_hash, holders) == OUTPUT
        assert asker.count_charges() == {liar.id.hex(): ["bad_output"]}
        assert world.hub.requests[asker.id, honest.id] == 2
        assert await asker.service.fetch_output(output_hash, ()) == OUTPUT, "it is kept here from now on"


def serve_output(world: World, node: LiveNode, encoded: bytes, step: int = OUTPUT_CHUNK_BYTES, total: int = 0) -> None:
    """Let a node serve these bytes as every output, so many at once."""
    honest = world.hub.ports[node.id].handler

    async def answer(asker: bytes, request: bytes) -> bytes:
        match FETCH_REQUEST_CODEC.decode(request):
            case FetchOutput(offset=offset):
                return encode(OutputChunk(total or len(encoded), encoded[offset : offset + step]))
            case _:
                return await honest(asker, request)

    world.hub.ports[node.id].handler = answer


@pytest.mark.parametrize(
    "step, total", [(1, 0), (0, 0), (OUTPUT_CHUNK_BYTES, 2**31), (OUTPUT_CHUNK_BYTES, 100)], ids=str
)
async def test_a_holder_that_drips_or_claims_too_much_is_left_after_one_request(
    homes: Path, autojump_clock: object, step: int, total: int
) -> None:
    async with open_world(homes) as world:
        asker, liar = world.nodes[:2]
        serve_output(world, liar, encode(OUTPUT), step, total)
        await world.wait_height(1)
        world.hub.requests.clear()
        with pytest.raises(OutputUnavailable):
            await asker.service.fetch_output(compute_output_hash(OUTPUT), (liar.id,))
        assert world.hub.requests[asker.id, liar.id] == 1
        assert list(asker.count_charges()) == [liar.id.hex()]


async def test_a_certificate_comes_without_its_output_where_nobody_serves_that(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 5) as world:
        asker = world.nodes[0]
        job, _ = await asker.service.submit_job(make_request(), None)
        view = await asker.wait_settled(job)
        for node in world.nodes:
            node.parts.postbox._storage.drop_old(2**40)
        encoded = await asker.service.build_certificate(job)
        assert view.settlement is not None and decode_certificate(encoded).output is None
        assert asker.count_charges() == {}
