"""What the wire may cost: sizes before structure before what is known before signatures, and a budget for every class of traffic."""

from __future__ import annotations

import importlib
import tracemalloc
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from types import UnionType
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
import trio
from msgspec.structs import replace as replace_fields

from node import fetch, libp2p_gossip, mempool
from node.libp2p_gossip import make_gossip
from node.libp2p_hardening import _make_host
from node.mempool import Mempool
from node.network import FetchError, FetchFault, Limits, Rate, Timing
from node.peers import make_peer
from node.rates import SLOW_S
from node.wire import (
    BATCH_CODEC,
    BLOCK_RANGE_CODEC,
    MAX_CHUNK_ENTRIES,
    MAX_RANGE_BLOCKS,
    SNAPSHOT_CHUNK_BYTES,
    SNAPSHOT_CHUNK_CODEC,
    BlockRange,
    FrameKind,
    SnapshotChunk,
    TransactionBatch,
    decode_frame,
    encode_frame,
)
from protocol.block import BLOCK_CODEC, MAX_BLOCK_BYTES, MAX_TRANSACTION_BYTES
from protocol.codec import Codec, Message, encode
from protocol.errors import InvalidMessage, InvalidTransaction, Rejection
from protocol.ordering.messages import MAX_QUORUM_CERT_BYTES, Proposal, QuorumCert, Vote
from protocol.params import DEVNET, INTERNET, MINIMAL
from protocol.transactions import Transfer
from tests.architecture import PACKAGES, load_sources
from tests.fuzz.served import get_served
from tests.fuzz.targets_gossip import TOPIC, _Port
from tests.fuzz.targets_wire import Received
from tests.node.loopback import SEEDS
from tests.node.test_libp2p_hardening import sign_gossip
from tests.protocol.builders import START_MS, make_key, start_chain
from tests.protocol.ordering.rig import (
    FINAL,
    NOTAR,
    NULL,
    Rig,
    hash_of,
    make_block,
    make_cert,
    make_proposal,
    make_vote,
    node_id,
)
from tests.protocol.ordering.test_simplex import make_event
from tests.vectors.samples import BLOCK

MAX_DEPTH = 7  # of a certificate's candidates; a proposal's skipped certificates are five arrays deep


# --- size


def list_codecs() -> Iterator[tuple[str, Codec[Message]]]:
    """Every codec of the product that a module binds to a name."""
    for source in load_sources():
        if source.package in PACKAGES and "Codec[" in source.text and source.path != "protocol/codec.py":
            for name, value in vars(importlib.import_module(source.module)).items():
                if isinstance(value, Codec):
                    yield f"{source.path}::{name}", value


CODECS = dict(list_codecs())


def test_the_sizes_are_those_of_the_plan() -> None:
    assert (MAX_TRANSACTION_BYTES, MAX_BLOCK_BYTES, MAX_QUORUM_CERT_BYTES) == (16 * 1024, 512 * 1024, 8 * 1024)
    assert CODECS["protocol/ordering/messages.py::VOTE_CODEC"]._limit == 256
    assert MAX_RANGE_BLOCKS == 64
    for params in (INTERNET, DEVNET, MINIMAL):
        assert (params.max_sender_transactions, params.nonce_gap) == (64, 16)
        assert (params.view_window_ahead, params.view_window_behind) == (8, 8)


@pytest.mark.parametrize("name", CODECS)
def test_what_is_too_large_is_refused_before_a_byte_of_it_is_read(name: str) -> None:
    blind = copy(CODECS[name])
    blind._decoder = None  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InvalidMessage) as refused:
        blind.decode(bytes(blind._limit + 1))
    assert refused.value.reason is Rejection.TOO_LARGE
    with pytest.raises(AttributeError):
        blind.decode(b"x")


@pytest.mark.parametrize(
    "message, codec, most_bytes",
    [
        (
            SnapshotChunk(tuple((i.to_bytes(2, "big"), b"") for i in range(MAX_CHUNK_ENTRIES)), None),
            SNAPSHOT_CHUNK_CODEC,
            2**20,
        ),
        (TransactionBatch((b"ab",) * 1024), BATCH_CODEC, 2**17),
        (replace_fields(BLOCK, body=(b"ab",) * 4096), BLOCK_CODEC, 2**19),
        (BlockRange((replace_fields(BLOCK, body=(b"ab",) * 2000),) * 64, (), None), BLOCK_RANGE_CODEC, 8 * 2**20),
    ],
    ids=lambda value: type(value).__name__,
)
def test_many_tiny_items_take_many_times_their_size_but_not_much_memory(
    message: Message, codec: Codec[Message], most_bytes: int
) -> None:
    encoded = encode(message)
    tracemalloc.start()
    codec.decode(encoded)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 4 * len(encoded) < peak < most_bytes


def test_a_chunk_of_a_state_never_has_as_many_entries_as_a_message_may() -> None:
    sizes = [len(key) + len(value) for key, value in get_served().snapshot.entries.items()]
    assert min(sizes) >= SNAPSHOT_CHUNK_BYTES // MAX_CHUNK_ENTRIES


# --- structure


def measure_depth(kind: object, above: tuple[object, ...] = ()) -> int:
    """How many arrays deep a value of this type can be."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in {Union, UnionType}:
        return max(measure_depth(each, above) for each in get_args(kind))
    if get_origin(kind) is tuple:
        return 1 + max(measure_depth(each, above) for each in get_args(kind) if each is not ...)
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return 0
    assert kind not in above, f"{kind.__name__} can hold itself: any depth"
    hints = get_type_hints(kind, include_extras=True)
    inner = (measure_depth(hints[name], (*above, kind)) for name in kind.__struct_fields__)
    return 1 + max(inner, default=0)


@pytest.mark.parametrize("name", CODECS)
def test_no_message_can_be_nested_deeper_than_its_type(name: str) -> None:
    assert 1 <= measure_depth(CODECS[name]._decoder.type) <= MAX_DEPTH


def test_a_type_that_holds_itself_is_seen() -> None:
    with pytest.raises(AssertionError, match="any depth"):
        measure_depth(Endless)


class Endless(msgspec.Struct):
    """Holds itself."""

    inner: tuple[Endless, ...]


@pytest.mark.parametrize("kind", FrameKind)
def test_nested_arrays_are_refused_at_the_first_one_too_many(kind: FrameKind) -> None:
    with pytest.raises(InvalidMessage):
        decode_frame(bytes((kind,)) + b"\x91" * 200)


# --- what is known, before signatures


@pytest.fixture
def verified() -> list[bytes]:
    """The messages whose signatures were looked at."""
    return []


def watch(rig: Rig, verified: list[bytes]) -> Rig:
    """The rig, with every signature check noted."""
    verify = rig.state.context.verify

    def check(public: bytes, message: bytes, signature: bytes) -> bool:
        verified.append(message)
        return verify(public, message, signature)

    rig.state = replace_fields(rig.state, context=replace(rig.state.context, verify=check))
    return rig


FIRST = make_block(1)
HASH = hash_of(FIRST)


@pytest.mark.parametrize(
    "message",
    [
        make_vote(NOTAR, 9 + 1, HASH, 1),  # beyond the window
        replace_fields(make_vote(NOTAR, 1, HASH, 1), signer=9),
        replace_fields(make_vote(NOTAR, 1, HASH, 1), epoch=7),
        replace_fields(make_vote(NULL, 1, bytes(32), 1), block_hash=HASH),
        make_cert(NOTAR, 1, HASH, (1, 2)),
        replace_fields(make_cert(NOTAR, 1, HASH), signers=(1, 1, 2)),
        replace_fields(make_cert(NOTAR, 1, HASH), signatures=(bytes(64),)),
        replace_fields(make_proposal(FIRST), signer=3),
    ],
    ids=lambda message: f"{type(message).__name__}",
)
def test_what_is_wrong_by_itself_costs_no_signature_check(
    message: Vote | QuorumCert | Proposal, verified: list[bytes]
) -> None:
    rig = watch(Rig(), verified)
    rig.feed(make_event(rig.now_ms, node_id(3), message))
    assert verified == []


@pytest.mark.parametrize(
    "make", [lambda: make_vote(NOTAR, 1, HASH, 1), lambda: make_cert(FINAL, 1, HASH), lambda: make_proposal(FIRST)]
)
def test_what_is_known_already_costs_no_signature_check(
    make: Callable[[], Vote | QuorumCert | Proposal], verified: list[bytes]
) -> None:
    rig = watch(Rig(), verified)
    rig.feed(make_event(rig.now_ms, node_id(3), make()))
    assert verified
    verified.clear()
    for _ in range(3):
        rig.feed(make_event(rig.now_ms, node_id(2), make()))
    assert verified == []


def test_of_a_view_one_proposal_and_one_that_contradicts_it_are_looked_at(verified: list[bytes]) -> None:
    rig = watch(Rig(), verified)
    costs = []
    for salt in (b"a", b"b", b"c", b"d"):
        verified.clear()
        rig.feed(make_event(rig.now_ms, node_id(1), make_proposal(make_block(1, salt=salt))))
        costs.append(len(verified))
    assert costs == [1, 1, 0, 0]


def test_the_votes_of_one_signer_in_one_view_are_bounded(verified: list[bytes]) -> None:
    rig = watch(Rig(), verified)
    for number in range(50):
        for kind in (NOTAR, FINAL):
            rig.feed(make_event(rig.now_ms, node_id(1), make_vote(kind, 3, bytes((number,)) * 32, 1)))
    assert len(rig.state.views[3].votes) == 2


# --- transactions


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The transactions whose signatures a mempool looked at."""
    found: list[object] = []
    original = mempool.check_transaction_signature

    def check(chain: bytes, signed: object) -> None:
        found.append(signed)
        original(chain, signed)

    monkeypatch.setattr(mempool, "check_transaction_signature", check)
    return found


def test_a_transaction_that_waits_already_is_neither_decoded_nor_checked_again(
    checked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = start_chain()
    pool = Mempool(chain.ledger.constants.chain_id, chain.genesis.params)
    encoded = encode(chain.transfer("asker", "other", 5))
    assert pool.admit(chain.ledger, encoded, START_MS) is not None
    monkeypatch.setattr(mempool, "TRANSACTION_CODEC", None)
    assert pool.admit(chain.ledger, encoded, START_MS) is None
    assert len(checked) == 1


@pytest.mark.parametrize("amount, nonce", [(10**15, 1), (5, 0), (5, 400)])
def test_what_the_ledger_refuses_costs_no_signature_check(checked: list[object], amount: int, nonce: int) -> None:
    chain = start_chain()
    pool = Mempool(chain.ledger.constants.chain_id, chain.genesis.params)
    body = Transfer(make_key("asker").public, nonce, 2**40, make_key("other").public, amount)
    with pytest.raises(InvalidTransaction):
        pool.admit(chain.ledger, encode(chain.sign("asker", body)), START_MS)
    assert checked == []


# --- gossip, as libp2p carries it


async def test_gossip_is_judged_by_topic_and_size_before_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[object] = []
    monkeypatch.setattr(libp2p_gossip, "_is_signed", lambda message, _origin: bool(signed.append(message)))
    pubsub, _ = make_gossip(_make_host(SEEDS[0], Limits(), Timing()), _Port(), Limits(gossip_bytes=10), Timing())
    pubsub.seen_messages.stop()  # its thread would outlive it
    pubsub.subscribed_topics_receive[TOPIC] = None
    assert "topic" in (pubsub._find_fault(sign_gossip(1, "other", b"x")) or "")
    assert "at most 10 bytes" in (pubsub._find_fault(sign_gossip(1, TOPIC, bytes(11))) or "")
    assert signed == []
    assert pubsub._find_fault(sign_gossip(1, TOPIC, bytes(10))) == "a gossip message with a wrong signature"
    assert len(signed) == 1


# --- budgets

FEW = Rate(messages_per_s=2, bytes_per_s=1_000, burst_s=1)


@pytest.mark.parametrize("name", ["direct", "gossip", "fetch"])
async def test_every_class_of_traffic_has_a_budget_of_its_own_and_both_measures_are_counted(
    name: str, autojump_clock: object
) -> None:
    peer = make_peer(node_id(1), None, replace(Limits(), **{name: FEW}))
    buckets = {each: getattr(peer, f"{each}_bucket") for each in ("direct", "gossip", "fetch")}
    assert [peer.spend(buckets[name], 1, 1) for _ in range(6)] == [0.0, 0.0, SLOW_S, SLOW_S, None, None]
    assert (peer.slowed_in, peer.dropped_in) == (2, 2)
    others = [bucket for each, bucket in buckets.items() if each != name]
    assert [peer.spend(bucket, 1, 1) for bucket in others] == [0.0, 0.0]
    await trio.sleep(7)
    assert peer.is_flooding(5) is (name != "fetch")  # who asks too much is refused, and served again when it asks less
    assert peer.spend(buckets[name], 1, 1) == 0.0
    assert not peer.is_flooding(5)


async def test_a_peer_over_its_budget_of_requests_is_told_that_this_node_is_busy() -> None:
    peer = make_peer(node_id(1), None, replace(Limits(), fetch=FEW))
    asked: list[bytes] = []

    async def answer(_node: bytes, request: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        asked.append(request)
        return b"answer"

    async def admit(size: int) -> bool:
        await trio.lowlevel.checkpoint()
        return peer.spend(peer.fetch_bucket, 1, size) is not None

    told: list[bytes] = []
    for _ in range(6):
        stream = Written(fetch.encode_frame(b"request"))
        await fetch.serve(stream, peer, answer, Limits(), admit)
        told.append(stream.told)
    assert len(asked) == 4
    assert all(b"busy" in reply for reply in told[4:]) and not any(b"busy" in reply for reply in told[:4])


class Written(Received):
    """A stream that remembers what was written to it."""

    told = b""

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.told += data


async def test_a_refusal_is_a_reason_to_ask_another_peer() -> None:
    async def open_stream() -> Received:
        await trio.lowlevel.checkpoint()
        return Received(fetch.encode_frame(bytes((fetch.REFUSAL,)) + b"busy"))

    with pytest.raises(FetchError) as refused:
        await fetch.ask(open_stream, b"request", 5, Limits())
    assert refused.value.fault is FetchFault.REFUSED


def test_every_frame_has_a_limit_of_its_own() -> None:
    """A vote's frame is not allowed what a proposal's is."""
    vote = encode_frame(make_vote(NOTAR, 1, HASH, 1))
    for kind in (FrameKind.VOTE, FrameKind.CERT, FrameKind.STATUS):
        with pytest.raises(InvalidMessage) as refused:
            decode_frame(bytes((kind,)) + vote[1:] + bytes(64 * 1024))
        assert refused.value.reason is Rejection.TOO_LARGE
