"""Gossip (meshsub 1.1) that no peer can end; a part of node/libp2p_hardening.py, whose table explains the fault numbers.

Decides which gossip bytes become a message and who is to blame for the others; leaves the verdict to the node's
validators, and mesh and forwarding to libp2p's router.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import libp2p.pubsub.gossipsub as gossipsub_module
import libp2p.pubsub.pubsub as pubsub_module
import nacl.bindings
import nacl.exceptions
import trio
from google.protobuf.message import DecodeError
from libp2p.abc import IHost, INetStream
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue

from node.libp2p_streams import PeerStream, log_only, reported
from node.network import Limits, Timing, Verdict, node_id_of
from node.streams import BadFrame, StreamBroken

_SIGNING_PREFIX = b"libp2p-pubsub:"
_SIGNATURE_BYTES = 64
_SEQUENCE_BYTES = 8
_MAX_SUBSCRIPTIONS = 64
# A repeat is known for this long; the application forgets none, since it dedupes by content.
_SEEN_S = 120
_QUEUE = 512
# Our signed address record is made anew after this long, in case an address has changed.
_RECORD_S = 30


class PublishQueue:
    """Our own messages on their way into gossip: bounded in bytes, the oldest give way."""

    __slots__ = ("_items", "_limit", "_size", "_wake", "dropped")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._items: deque[tuple[str, bytes]] = deque()
        self._size = 0
        self._wake = trio.Event()
        self.dropped = 0

    def push(self, topic: str, data: bytes) -> None:
        """Queues a message; what no longer fits is dropped, oldest first, and counted."""
        self._items.append((topic, data))
        self._size += len(data)
        while self._size > self._limit and len(self._items) > 1:
            self._size -= len(self._items.popleft()[1])
            self.dropped += 1
        self._wake.set()

    async def take(self) -> tuple[str, bytes]:
        """The oldest message and its topic, when there is one."""
        while not self._items:
            self._wake = trio.Event()
            await self._wake.wait()
        topic, data = self._items.popleft()
        self._size -= len(data)
        return topic, data


class GossipPort(Protocol):
    """What the gossip service needs of the node; implemented in node/libp2p_network.py."""

    async def admit(self, node_id: bytes, messages: int, size: int) -> bool:
        """Whether the peer may send these now; may wait a moment."""
        ...

    def judge(self, topic: str, origin: bytes, data: bytes) -> Verdict:
        """The node's verdict; delivers what it accepts."""
        ...

    def blame(self, node_id: bytes, detail: str, *, rejected: bool) -> None:
        """Holds a broken rule, or a rejected message, against the peer that sent it."""
        ...

    def report_fault(self, where: str, detail: str) -> None:
        """Reports an exception of our own."""
        ...


class HardenedPubsub(Pubsub):
    """Pubsub that no peer can end: reads, judges and delivers by itself, and leaves mesh and forwarding to the router."""

    def __init__(self, host: IHost, router: GossipSub, port: GossipPort, limits: Limits) -> None:
        super().__init__(
            host, router, strict_signing=True, seen_ttl=_SEEN_S, sweep_interval=30,
            max_inbound_rpc_size=limits.gossip_rpc_bytes,
        )  # fmt: skip
        self.counter = time.time_ns()  # fault 4
        self._port = port
        self._limits = limits
        self._own_id = node_id_of(host.get_id().to_bytes())

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Returns when the peer's gossip stream ends, for whatever reason."""  # faults 1 and 2
        peer_id = stream.muxed_conn.peer_id
        with reported(lambda detail: self._port.report_fault("gossip", detail)):
            source = PeerStream(stream)
            try:
                while True:
                    await self._read_rpc(source, peer_id)
            except StreamBroken as error:
                log_only(str(error))
            except (BadFrame, DecodeError) as error:
                self._port.blame(source.node_id, f"gossip stream: {error}", rejected=False)
        with reported(log_only):
            await stream.reset()

    async def _read_rpc(self, source: PeerStream, peer_id: ID) -> None:
        length = await source.read_varint(self._limits.gossip_rpc_bytes)
        content = await source.read_exactly(length)
        rpc = rpc_pb2.RPC()
        rpc.ParseFromString(content)
        if not await self._port.admit(source.node_id, max(1, len(rpc.publish)), length):
            return
        for message in rpc.publish:
            await self.push_msg(peer_id, message)
        if len(rpc.subscriptions) > _MAX_SUBSCRIPTIONS:
            raise BadFrame(f"expected at most {_MAX_SUBSCRIPTIONS} subscriptions, got {len(rpc.subscriptions)}")
        for subscription in rpc.subscriptions:
            if subscription.topicid in self.topic_ids or not subscription.subscribe:
                self.handle_subscription(peer_id, subscription)
        if rpc.HasField("control"):
            self._check_control(rpc.control)
            await self.router.handle_rpc(rpc, peer_id)

    def _check_control(self, control: rpc_pb2.ControlMessage) -> None:
        ids = sum(len(part.messageIDs) for parts in (control.ihave, control.iwant) for part in parts)
        ids += len(control.ihave) + len(control.iwant) + len(control.graft) + len(control.prune)
        if ids > self._limits.gossip_control_ids:
            raise BadFrame(f"expected at most {self._limits.gossip_control_ids} gossip controls, got {ids}")

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Judges, delivers and forwards one message; our own are only forwarded."""  # faults 2, 3, 7, 12
        message_id = msg.from_id + msg.seqno
        if self.seen_messages.has(message_id):
            return
        if msg_forwarder != self.my_id:
            fault = self._find_fault(msg)
            if fault is not None:
                self._port.blame(node_id_of(msg_forwarder.to_bytes()), fault, rejected=False)
                return
            self.seen_messages.add(message_id)
            if node_id_of(msg.from_id) == self._own_id:
                return  # we sent it before a restart, and they, who can't know, hand it back: no offence, and no news
            if self._judge(msg_forwarder, msg) is not Verdict.ACCEPT:
                return
        else:
            self.seen_messages.add(message_id)
        await self.router.publish(msg_forwarder, msg)

    def _find_fault(self, msg: rpc_pb2.Message) -> str | None:
        if len(msg.topicIDs) != 1 or msg.topicIDs[0] not in self.topic_ids:
            return "a gossip message for a topic nobody here asked for"
        if len(msg.data) > self._limits.gossip_bytes:
            return f"expected gossip of at most {self._limits.gossip_bytes} bytes, got {len(msg.data)}"
        if len(msg.seqno) != _SEQUENCE_BYTES or len(msg.signature) != _SIGNATURE_BYTES:
            return "a gossip message without sequence number or signature"
        try:
            origin = node_id_of(msg.from_id)
        except ValueError:
            return "a gossip message whose origin is no Ed25519 peer"
        return None if _is_signed(msg, origin) else "a gossip message with a wrong signature"

    def _judge(self, forwarder: ID, msg: rpc_pb2.Message) -> Verdict:
        verdict = Verdict.IGNORE
        with reported(lambda detail: self._port.report_fault(f"validator of {msg.topicIDs[0]}", detail)):  # fault 3
            verdict = self._port.judge(msg.topicIDs[0], node_id_of(msg.from_id), msg.data)
        if verdict is Verdict.REJECT:
            self._port.blame(node_id_of(forwarder.to_bytes()), f"rejected on {msg.topicIDs[0]}", rejected=True)
        return verdict


def _is_signed(msg: rpc_pb2.Message, origin: bytes) -> bool:
    bare = rpc_pb2.Message(data=msg.data, topicIDs=msg.topicIDs, from_id=msg.from_id, seqno=msg.seqno)
    try:
        nacl.bindings.crypto_sign_open(msg.signature + _SIGNING_PREFIX + bare.SerializeToString(), origin)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


class HardenedGossip(GossipSub):
    """GossipSub whose control handling and heartbeat survive anything, and that remembers no whole messages."""

    port: GossipPort

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        """Handles control messages; what raises is held against the sender."""
        node_id = node_id_of(sender_peer_id.to_bytes())
        with reported(lambda detail: self.port.blame(node_id, f"gossip control: {detail}", rejected=False)):
            await super().handle_rpc(rpc, sender_peer_id)

    async def heartbeat(self) -> None:
        """Never returns; starts again after a fault."""
        while True:
            with reported(lambda detail: self.port.report_fault("gossip heartbeat", detail)):
                await super().heartbeat()
            await trio.sleep(self.heartbeat_interval)

    def _prune_idontwant_entries(self) -> None:
        self.recent_message_deliveries.clear()  # fault 11; called once a heartbeat
        super()._prune_idontwant_entries()

    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:
        return True  # fault 11: push_msg has marked origin and number as seen, under the origin's signature


def _patch_gossip(limits: Limits) -> None:  # faults 6 and 10
    names = pubsub_module.__dict__
    names["RpcQueue"] = functools.partial(RpcQueue, max_size=_QUEUE, max_message_size=limits.gossip_rpc_bytes)
    make_record: Callable[[IHost], tuple[bytes, bool]] = names["env_to_send_in_RPC"]
    if not isinstance(make_record, _CachedRecord):
        cached = _CachedRecord(make_record)
        for module in (pubsub_module, gossipsub_module):
            module.__dict__.update(env_to_send_in_RPC=cached, maybe_consume_signed_record=_consume_nothing)


class _CachedRecord:
    """Makes the signed record of the host that asked last, at most every _RECORD_S."""

    def __init__(self, make_record: Callable[[IHost], tuple[bytes, bool]]) -> None:
        self._make_record = make_record
        self._records: dict[ID, tuple[float, bytes]] = {}

    def __call__(self, host: IHost) -> tuple[bytes, bool]:
        made, record = self._records.get(host.get_id(), (float("-inf"), b""))
        if time.monotonic() - made > _RECORD_S:
            record = self._make_record(host)[0]
            self._records[host.get_id()] = (time.monotonic(), record)
        return record, False


def _consume_nothing(msg: rpc_pb2.RPC, host: IHost, peer_id: ID) -> bool:
    """True: a peer's claims about its addresses are of no use to us, and so not worth a signature check."""
    return True


def make_gossip(host: IHost, port: GossipPort, limits: Limits, timing: Timing) -> tuple[HardenedPubsub, HardenedGossip]:
    """The gossip service and its router, not yet running."""
    _patch_gossip(limits)
    router = HardenedGossip(
        [PROTOCOL_ID_V11], degree=4, degree_low=3, degree_high=6, gossip_window=3, gossip_history=5,
        heartbeat_initial_delay=0.1, heartbeat_interval=timing.gossip_heartbeat_s,  # type: ignore[arg-type]
        prune_back_off=5, unsubscribe_back_off=2, do_px=False, adaptive_gossip_enabled=False,
        spam_protection_enabled=False, eclipse_protection_enabled=False,
    )  # fmt: skip
    router.port = port
    return HardenedPubsub(host, router, port, limits), router
