"""What this node owes the jobs it was drawn for: generate, keep, commit, reveal. Acts only on finalized blocks.

An answer and its salt are durable before the commit that binds them leaves the node, so that a crash between commit and reveal
costs nothing but time (rule J13). An engine error is revealed as an abstention, never as an empty output.
"""

import secrets
from collections.abc import Iterator
from typing import Final, Protocol

from node.inference import InferenceDone, InferenceFailed, InferenceRequest
from node.storage import Storage
from node.stored import StoredAnswer
from protocol.codec import Codec, encode
from protocol.ledger.draft import Ledger
from protocol.ledger.queries import GenerateDuty, JobView, RevealDuty, get_job, list_duties, list_jobs
from protocol.models import compute_output_hash
from protocol.transactions import Commit, Reveal, RevealPayload, compute_commitment
from protocol.units import ZERO_HASH, ChainId, Height, JobId, Milliseconds, NodeId

_PAYLOAD_CODEC: Final = Codec[RevealPayload](RevealPayload, 1024)
SERVED_SNAPSHOTS: Final = 2
FULL_CONFIDENCE_PPM: Final = 1_000_000
ABSTENTION: Final = RevealPayload(True, ZERO_HASH, None, ZERO_HASH, 0)


class Generations(Protocol):
    """Where answers are generated; each comes back as one event."""

    @property
    def queued(self) -> int:
        """How many requests wait."""
        ...

    @property
    def room(self) -> int:
        """How many more requests would not be refused."""
        ...

    def submit(self, request: InferenceRequest) -> None:
        """Ask for an answer."""
        ...


class Member:
    """This node's duties; owned by the engine, its answers are in storage."""

    def __init__(self, node: NodeId, chain: ChainId, storage: Storage) -> None:
        self._node: Final = node
        self._chain: Final = chain
        self._storage: Final = storage
        self._generating: set[JobId] = set()
        self._forgot_at = 0  # the snapshot period

    def list_due(self, ledger: Ledger, room: int) -> tuple[list[InferenceRequest], list[Commit | Reveal]]:
        """What to generate now (the most urgent, as many as there is room for), and which transactions this node owes.

        Owed on this finalized state; repeated until they are in. What finds no room is due again when there is some: an answer that comes
        late is worth more than an abstention in time.
        """
        duties = list_duties(ledger, self._node)
        self._generating.intersection_update(duty.job for duty in duties)
        requests: list[InferenceRequest] = []
        owed: list[Commit | Reveal] = []
        for duty in sorted(duties, key=_until_of):
            answer = self._storage.get_answer(duty.job)
            match duty:
                case GenerateDuty() if answer is not None:
                    owed.append(self._commit(answer))
                case GenerateDuty() if duty.job not in self._generating and len(requests) < room:
                    self._generating.add(duty.job)
                    requests.append(_make_request(duty))
                case RevealDuty() if answer is not None:
                    owed.append(Reveal(self._node, duty.job, _PAYLOAD_CODEC.decode(answer.payload), answer.salt))
                case _:
                    continue
        return requests, owed

    def keep_answer(self, event: InferenceDone | InferenceFailed, height: Height) -> None:
        """Make an answer durable; `list_due` then gives its Commit."""
        self._generating.discard(event.request_id)
        payload, output_hash, output = ABSTENTION, ZERO_HASH, b""
        if isinstance(event, InferenceDone):
            output_hash, output = compute_output_hash(event.output), encode(event.output)
            payload = RevealPayload(False, output_hash, event.digest, ZERO_HASH, FULL_CONFIDENCE_PPM)
        answer = StoredAnswer(event.request_id, encode(payload), secrets.token_bytes(32), output)
        self._storage.store_answer(answer, output_hash, height)

    def forget_old(self, final: Ledger) -> None:
        """Drop answers and outputs once their time is over: members serve outputs for two snapshot periods."""
        period, height = final.constants.params.epoch_heights, final.chain.height
        if height // period > self._forgot_at:
            self._forgot_at = height // period
            # An answer to an open job is what keeps this node's bond: it stays, however long the job takes.
            open_heights = (view.submit_height for view in _list_open_jobs(final))
            self._storage.drop_old(min((height - SERVED_SNAPSHOTS * period, *open_heights)))

    def _commit(self, answer: StoredAnswer) -> Commit:
        payload = _PAYLOAD_CODEC.decode(answer.payload)
        return Commit(
            self._node, answer.job, compute_commitment(self._chain, answer.job, self._node, payload, answer.salt)
        )


def _until_of(duty: GenerateDuty | RevealDuty) -> Milliseconds:
    return duty.until_ms


def _make_request(duty: GenerateDuty) -> InferenceRequest:
    return InferenceRequest(
        duty.job, duty.request.model, duty.request.prompt.decode(), duty.request.settings, duty.seed, duty.until_ms
    )


def _list_open_jobs(ledger: Ledger) -> Iterator[JobView]:
    for job in list_jobs(ledger):
        view = get_job(ledger, job)
        if view is not None and view.settlement is None:
            yield view
