"""The running node as its interfaces see it: `NodeApi` over the engine's state and the storage of one node."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import trio

from node.api import CertificateUnavailable, NodeSnapshot, OutputUnavailable, PeerView, WorkerView
from node.certificates import CertificateShelf
from node.engine import Engine, EngineParts
from node.events import JobOffered, NodeEvent, TransactionOffered
from node.network import PeerStatistics
from node.storage import Storage
from node.telemetry import Level
from protocol.codec import encode
from protocol.errors import Refusal
from protocol.genesis import Genesis
from protocol.ledger.queries import get_account, list_models
from protocol.models import OUTPUT_CODEC, ModelCard, Output, compute_model_id
from protocol.transactions import JobRequest, SignedTransaction
from protocol.trust import TrustedHeader
from protocol.units import Epoch, Hash, Height, JobId, Micro, Milliseconds, ModelId, NodeId

MAX_STEPS_BYTES: Final = 4 * 1024 * 1024  # of one answer: in base 64 a third of what a reply may hold


@dataclass(frozen=True, slots=True)
class Service:
    """One node's face; all methods are for the trio thread that runs the node."""

    genesis: Genesis
    engine: Engine
    parts: EngineParts
    storage: Storage
    shelf: CertificateShelf
    events: trio.MemorySendChannel[NodeEvent]
    addresses: Mapping[NodeId, str]
    started_ms: Milliseconds

    def get_snapshot(self) -> NodeSnapshot:
        """The latest frozen snapshot; cheap."""
        parts, state = self.parts, self.parts.ordering.state
        final = parts.chain.final
        return NodeSnapshot(
            node=parts.node,
            chain_id=final.ledger.constants.chain_id,
            chain_name=self.genesis.name,
            header=final.header,
            header_hash=final.hash,
            ledger=final.ledger,
            epoch=state.context.epoch,
            view=state.view,
            is_validator=state.context.own is not None,
            signs_from=parts.signing.from_epoch,
            sync_target=self._estimate_target() if parts.catch_up.is_running else None,
            halted=parts.ordering.halted,
            peers=self._list_peers(),
            worker=self._view_worker(),
            mempool_transactions=len(parts.postbox.mempool),
            started_ms=self.started_ms,
            tick_ms=self.engine.tick_ms,
            finality_ms_recent=tuple(parts.telemetry.finality_ms),
            generation_ms_recent=tuple(parts.telemetry.generation_ms),
            cpu_samples=tuple(parts.telemetry.cpu_samples.items()),
            disk_wait_ms=parts.telemetry.disk_wait_us // 1000,
        )

    async def submit_transaction(self, signed: SignedTransaction) -> Hash:
        """The id of a transaction that the mempool took and gossips.

        Raises: InvalidTransaction where the ledger or the mempool refuses it.
        """
        reply, answer = trio.open_memory_channel[Hash | Refusal](1)
        await self.events.send(TransactionOffered(signed, reply))
        judged = await answer.receive()
        if isinstance(judged, Refusal):
            raise judged
        return judged

    async def submit_job(self, job: JobRequest, request_id: str | None) -> tuple[JobId, bool]:
        """The id of a job signed and paid by this node's account, and whether an earlier request with this id had made it already.

        Raises: InvalidTransaction.
        """
        reply, answer = trio.open_memory_channel[tuple[JobId, bool] | Refusal](1)
        await self.events.send(JobOffered(job, request_id, reply))
        judged = await answer.receive()
        if isinstance(judged, Refusal):
            raise judged
        return judged

    async def wait_block(self, above: Height) -> NodeSnapshot:
        """The snapshot once a block above this height is final (at once where one is)."""
        while self.parts.chain.final.header.height <= above:
            await self.engine.wait_finalized()
        return self.get_snapshot()

    def get_block(self, height: Height) -> tuple[bytes, Hash] | None:
        """A finalized block's canonical bytes and hash, or None where this node has none at that height."""
        stored = self.storage.get_block(height)
        return None if stored is None else (stored.encoded, stored.hash)

    def find_transaction(self, transaction: Hash) -> Height | None:
        """The height of the final block that a transaction is in, or None where it is in none that this node holds."""
        place = self.storage.get_transaction(transaction)
        return None if place is None else place.height

    async def fetch_output(self, output_hash: Hash, holders: tuple[NodeId, ...]) -> Output:
        """An output by its hash: from disk, or from any of the holders, checked against the hash.

        Raises: OutputUnavailable naming who was asked.
        """
        encoded = self.storage.get_output(output_hash)
        if encoded is not None:
            return OUTPUT_CODEC.decode(encoded)
        others = tuple(holder for holder in holders if holder != self.parts.node)
        output = await self.parts.errands.fetch_output(output_hash, others)
        if output is None:
            asked = ", ".join(holder.hex()[:8] for holder in others) or "nobody"
            raise OutputUnavailable(
                f"output {output_hash.hex()[:12]}: asked {asked}, none served it: try again, or through another node"
            )
        self.storage.store_output(output_hash, encode(output), self.parts.chain.final.header.height)
        return output

    async def build_certificate(self, job: JobId) -> bytes:
        """The certificate of a settled job, with the winning output attached where one won and somebody still serves it.

        Raises: CertificateUnavailable with the reason.
        """
        found = self.shelf.get(job)
        if found is None:
            raise CertificateUnavailable(self.shelf.explain_absence(job, self.parts.chain.final.ledger))
        if not found.holders:
            return found.encoded
        try:
            return self.shelf.attach(found, await self.fetch_output(found.winner_hash, found.holders))
        except OutputUnavailable as error:  # members serve for two snapshot periods; the proof stays valid without it
            self.parts.telemetry.emit(Level.INFO, "output_not_attached", job=job, reason=str(error))
            return found.encoded

    def get_steps(self, from_epoch: Epoch) -> tuple[bytes, ...]:
        """The changes of the validator set at the end of this epoch and later ones, encoded: as many as one answer holds."""
        return self.storage.get_steps(from_epoch, MAX_STEPS_BYTES)

    def get_trusted_header(self, height: Height | None) -> TrustedHeader | None:
        """A final block's header with the validators of its epoch, the last certified one's where no height is given; None without it."""
        return self.shelf.build_trusted_header(height)

    def get_card(self, model: ModelId) -> ModelCard | None:
        """A registered model's card."""
        return list_models(self.parts.chain.final.ledger).get(model)

    def get_balance(self) -> Micro:
        """The spendable balance of this node's account."""
        return get_account(self.parts.chain.final.ledger, self.parts.node).balance

    def _estimate_target(self) -> Height:
        """How far catching up probably goes: what validators of more than a third of the weight claim, so that one honest one does.

        Heights that peers claim are hints; what ends catching up is a certificate.
        """
        validators = self.parts.ordering.state.context.validators
        claims = [
            (known[1].final_height, member.weight)
            for member in validators.members
            if (known := self.engine.statuses.get(member.node)) is not None
        ]
        lowest = self.parts.chain.final.header.height + 1
        weight = 0
        for height, claimant_weight in sorted(claims, reverse=True):
            weight += claimant_weight
            if 3 * weight > validators.total_weight:
                return max(lowest, height)
        return lowest

    def _view_worker(self) -> WorkerView:
        models = tuple((compute_model_id(card), card.name) for card in self.engine.worker_models)
        return WorkerView(not self.engine.worker_down, self.engine.worker_down, models, self.parts.generations.queued)

    def _list_peers(self) -> tuple[PeerView, ...]:
        return tuple(self._view_peer(statistics) for statistics in self.parts.network.statistics().peers)

    def _view_peer(self, statistics: PeerStatistics) -> PeerView:
        node = statistics.node_id
        known = self.engine.statuses.get(node)
        rtt = statistics.rtt_ms
        return PeerView(
            node=node,
            address=self.addresses.get(node, ""),
            connected=statistics.connected,
            rtt_ms=None if rtt is None else round(rtt),
            last_seen_ms=None if known is None else self.engine.tick_ms - known[0],
            reason="" if statistics.connected else self.engine.down_reasons.get(node, "not connected yet"),
            sees_me=known is not None and self.parts.node in known[1].sees,
            height=0 if known is None else known[1].final_height,
            slowed=statistics.slowed_in,
            dropped=statistics.dropped_in,
            offences=statistics.offences,
        )
