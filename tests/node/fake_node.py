"""A node without engine, network and disk: a real ledger that one test drives, behind the interface that RPC reads.

Nothing moves by itself: each `wait_block` builds the next block, in which members do what they owe, so a waiting client gets on and
a run is the same every time.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING

import trio

from node.api import CertificateUnavailable, NodeSnapshot, OutputUnavailable, PeerView, WorkerView
from node.http_server import HttpConfig, open_http, serve_http
from node.jsonrpc import Context
from node.prompt_check import find_prompt_models
from node.rpc import REGISTRY
from protocol.block import compute_header_hash
from protocol.codec import encode
from protocol.errors import InvalidTransaction, Rejection
from protocol.genesis import compute_chain_id
from protocol.jobs.settlement import Phase
from protocol.ledger.queries import get_account, get_job, list_jobs, list_models
from protocol.ledger.state import check_transaction
from protocol.models import ImageOutput, StopReason, TextOutput, compute_model_id, compute_output_hash
from protocol.transactions import (
    JobRequest,
    RevealPayload,
    SignedTransaction,
    Submit,
    check_transaction_signature,
    compute_transaction_id,
)
from tests.protocol.builders import ABSTENTION, TestChain, make_card, make_key, make_payload, start_chain
from tests.protocol.certificates import certify_settled, list_steps, trust_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from protocol.genesis import Genesis
    from protocol.models import ModelCard, Output
    from protocol.trust import TrustedHeader
    from protocol.units import Hash, Height, JobId, Micro, ModelId, NodeId

OWN = "v0"
PICTURE = "a picture"
NOW_MS = 1_700_000_100_000


def make_output(text: str) -> Output:
    """What a member answered: a picture where that is the answer."""
    if text == PICTURE:
        return ImageOutput(compute_model_id(make_card()), 2, 1, 1, b"\x00\xff")
    return TextOutput(compute_model_id(make_card()), tuple(text.encode()), text, StopReason.END)


def reveal_of(text: str) -> RevealPayload:
    """A reveal of the output with this text."""
    made = make_payload(text)
    return RevealPayload(
        False, compute_output_hash(make_output(text)), made.digest, made.sketch_root, made.confidence_ppm
    )


@dataclass
class FakeNode:
    """One node. `answers` says what the holder of a seat answers: a text, or None for an abstention."""

    chain: TestChain = field(default_factory=start_chain)
    answers: Callable[[int], str | None] = lambda _: "81"
    is_stalled: bool = False
    sync_target: Height | None = None
    halted: str = ""
    worker_reason: str = ""
    seen_by: tuple[str, ...] = ("v1", "v2", "v3", "v4")
    lost: set[str] = field(default_factory=set)  # texts that nobody serves any more
    tick_ms: int = NOW_MS - 10
    model_directory: Path | None = None  # what the node can count prompts by
    fault: Exception | None = None  # raised by get_snapshot
    job_answers: dict[JobId, dict[NodeId, RevealPayload]] = field(default_factory=dict)
    certificates: dict[JobId, bytes] = field(default_factory=dict)
    request_ids: dict[str, JobId] = field(default_factory=dict)
    known: dict[Hash, Height] = field(default_factory=dict)  # transactions, and where they are

    @property
    def genesis(self) -> Genesis:
        return self.chain.genesis

    def get_snapshot(self) -> NodeSnapshot:
        if self.fault is not None:
            raise self.fault
        chain = self.chain
        return NodeSnapshot(
            node=make_key(OWN).public,
            chain_id=compute_chain_id(chain.genesis),
            chain_name=chain.genesis.name,
            header=chain.header,
            header_hash=compute_header_hash(chain.header),
            ledger=chain.ledger,
            epoch=chain.header.epoch,
            view=chain.header.view + 1,
            is_validator=True,
            signs_from=0,
            sync_target=self.sync_target,
            halted=self.halted,
            peers=tuple(self._view_peer(name) for name in ("v1", "v2", "v3", "v4")),
            worker=WorkerView(not self.worker_reason, self.worker_reason, ((self._model, "adder"),), 0),
            mempool_transactions=0,
            started_ms=NOW_MS - 65_000,
            tick_ms=self.tick_ms,
            finality_ms_recent=(40, 50),
            generation_ms_recent=(300,),
        )

    @property
    def _model(self) -> ModelId:
        return compute_model_id(make_card())

    def _view_peer(self, name: str) -> PeerView:
        seen = name in self.seen_by
        address = f"/ip4/127.0.0.1/tcp/40{name[1:]}"
        reason = "" if seen else "connection refused"
        return PeerView(make_key(name).public, address, seen, 2, 900, reason, seen, self.chain.header.height)

    async def submit_transaction(self, signed: SignedTransaction) -> Hash:
        transaction = compute_transaction_id(signed.body)
        if transaction in self.known:
            raise InvalidTransaction(Rejection.DUPLICATE, f"transaction {transaction.hex()[:12]} is waiting already")
        check_transaction(self.chain.ledger, signed)
        check_transaction_signature(self.chain.ledger.constants.chain_id, signed)
        self.chain.step(signed)
        self.known[transaction] = self.chain.header.height
        return transaction

    async def submit_job(self, job: JobRequest, request_id: str | None) -> tuple[JobId, bool]:
        if request_id is not None and request_id in self.request_ids:
            return self.request_ids[request_id], True
        signed = self.chain.ask(job, sender=OWN)
        name = await self.submit_transaction(signed)
        assert isinstance(signed.body, Submit)
        if request_id is not None:
            self.request_ids[request_id] = name
        return name, False

    async def wait_block(self, above: Height) -> NodeSnapshot:
        if self.is_stalled:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.chain.header.height <= above:
            self.advance()
        return self.get_snapshot()

    def advance(self) -> None:
        """The next block, with everything that members owe in it; a job that a window must end gets the time for it."""
        chain = self.chain
        due: list[SignedTransaction] = []
        after_ms = 50
        for job in list_jobs(chain.ledger):
            view = chain.view(job)
            if view.phase in {Phase.SUBMITTED, Phase.SETTLED}:
                continue
            said = self._say(job)
            move = chain.commit if view.phase is Phase.COMMITTING else chain.reveal
            owed = [node for node in chain.due(job) if node in said]
            due += [move(job, node, said[node]) for node in owed]
            if not owed:
                after_ms = 5_000
        chain.step(*due, after_ms=after_ms)
        for job in list_jobs(chain.ledger):
            settlement = chain.view(job).settlement
            if settlement is not None and settlement.settle_height == chain.header.height:
                output = next(
                    (made for made in self._outputs() if compute_output_hash(made) == settlement.winner_hash), None
                )
                self.certificates[job] = certify_settled(chain, job, output)[0]

    def _say(self, job: JobId) -> dict[NodeId, RevealPayload]:
        """What each member answers; one whose answer is "" says nothing at all."""
        if job not in self.job_answers:
            said: dict[NodeId, RevealPayload] = {}
            for index, seat in enumerate(self.chain.view(job).seats):
                text = self.answers(index)
                if seat.member is not None and text != "":
                    said[seat.member] = ABSTENTION if text is None else reveal_of(text)
            self.job_answers[job] = said
        return self.job_answers[job]

    def _outputs(self) -> list[Output]:
        return [make_output(text) for text in ("81", "80", "79", "78", "77", PICTURE) if text not in self.lost]

    def get_block(self, height: Height) -> tuple[bytes, Hash] | None:
        for block in self.chain.blocks:
            if block.header.height == height:
                return encode(block), compute_header_hash(block.header)
        return None

    def find_transaction(self, transaction: Hash) -> Height | None:
        return self.known.get(transaction)

    async def fetch_output(self, output_hash: Hash, holders: tuple[NodeId, ...]) -> Output:
        for output in self._outputs():
            if compute_output_hash(output) == output_hash:
                return output
        asked = ", ".join(holder.hex()[:8] for holder in holders) or "nobody"
        raise OutputUnavailable(
            f"output {output_hash.hex()[:12]}: asked {asked}, none served it: try again, or through another node"
        )

    async def build_certificate(self, job: JobId) -> bytes:
        if job not in self.certificates:
            known = get_job(self.chain.ledger, job) is not None
            why = "has not settled yet: wait for it" if known else "is not known here: check its id"
            raise CertificateUnavailable(f"job {job.hex()[:12]} {why}")
        return self.certificates[job]

    def get_steps(self, from_epoch: int) -> tuple[bytes, ...]:
        return tuple(encode(step) for step in list_steps(self.chain) if step.header.epoch >= from_epoch)[:1]

    def get_trusted_header(self, height: int | None) -> TrustedHeader | None:
        headers = {block.header.height: block.header for block in self.chain.blocks}
        header = headers.get(self.chain.header.height if height is None else height)
        return None if header is None else trust_block(self.chain, header)

    def get_card(self, model: ModelId) -> ModelCard | None:
        return list_models(self.chain.ledger).get(model)

    def get_balance(self) -> Micro:
        return get_account(self.chain.ledger, make_key(OWN).public).balance


def make_context(node: FakeNode) -> Context:
    """What RPC methods are given."""
    return Context(node, lambda: NOW_MS, find_prompt_models([node.model_directory] if node.model_directory else []))


@contextmanager
def serving(node: FakeNode, config: HttpConfig | None = None) -> Iterator[str]:
    """The URL at which the node's RPC is served, over real HTTP on a free port, from a thread of its own."""
    started: list[tuple[str, trio.lowlevel.TrioToken, trio.CancelScope]] = []
    chosen = config or HttpConfig()

    async def serve(ready: Callable[[], None]) -> None:
        opened = await open_http(chosen)
        with trio.CancelScope() as scope:
            started.append((opened.url, trio.lowlevel.current_trio_token(), scope))
            ready()
            await serve_http(opened, REGISTRY, make_context(node), chosen, lambda *_: None)

    from threading import Event

    ready = Event()
    thread = Thread(target=lambda: trio.run(serve, ready.set), daemon=True)
    thread.start()
    assert ready.wait(30)
    url, token, scope = started[0]
    try:
        yield url
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(30)
