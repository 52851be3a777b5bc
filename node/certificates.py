"""Certificates of settled jobs: built as soon as a settlement is final, from stored blocks, and kept for good.

The state forgets a settlement after a few snapshot periods; the certificate is the part that stays. It is kept without its output,
which is attached when somebody asks for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from node.chain import FinalizedBlock
from node.storage import Storage
from protocol.block import Block, Header
from protocol.certificate_build import CertificateParts, build_certificate
from protocol.certificate_format import attach_output, decode_certificate
from protocol.genesis import Genesis
from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import SETTLEMENT_CODEC, SeatEnd, Settlement
from protocol.ledger.draft import Ledger
from protocol.ledger.queries import CandidateSnapshot, get_candidates, get_job, list_models, prove_settlement
from protocol.models import Output
from protocol.transactions import TRANSACTION_CODEC, SignedTransaction, Submit, compute_transaction_id
from protocol.units import Hash, Height, JobId, NodeId


@dataclass(frozen=True, slots=True)
class KeptCertificate:
    """A certificate without its output; `holders` revealed the winning one, and are empty where no answer won."""

    encoded: bytes
    winner_hash: Hash
    holders: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class _Owed:
    """A settled job's certificate as far as it can be made, and the headers from its settlement on: what lacks is a FinalCert."""

    job: JobId
    parts: partial[CertificateParts]  # without `settled` and `final`
    headers: list[Header]


class CertificateShelf:
    """The certificates of one node; owned by the engine, read by its interfaces."""

    def __init__(self, storage: Storage, genesis: Genesis, final: Ledger) -> None:
        self._storage: Final = storage
        self._genesis: Final = genesis
        self._before = final  # the state before the next block: a snapshot that a block forgets is still in it
        self._owed: list[_Owed] = []

    def keep(self, blocks: Sequence[FinalizedBlock]) -> None:
        """Build and keep the certificates of all jobs that these stored blocks settled, as soon as a block has its own FinalCert."""
        for block in blocks:
            for owed in self._owed:
                owed.headers.append(block.header)
            self._owed.extend(_Owed(job, self._collect(job, block), [block.header]) for job in block.settled)
            if block.cert is not None:
                for owed in self._owed:
                    parts = owed.parts(settled=tuple(owed.headers), final=block.cert)
                    self._storage.store_certificate(owed.job, build_certificate(parts))
                self._owed.clear()
            self._before = block.ledger

    def get(self, job: JobId) -> KeptCertificate | None:
        """A job's certificate, if it has settled here."""
        encoded = self._storage.get_certificate(job)
        if encoded is None:
            return None
        settlement = decode_certificate(encoded).settlement
        if settlement.decision is not Decision.ACCEPTED:
            return KeptCertificate(encoded, settlement.winner_hash, ())
        winners = [seat.holder for seat in settlement.seats if seat.end is SeatEnd.WINNING]
        holders = tuple(dict.fromkeys(node for node in winners if node is not None))
        return KeptCertificate(encoded, settlement.winner_hash, holders)

    @staticmethod
    def attach(kept: KeptCertificate, output: Output) -> bytes:
        """The certificate with the winning output in it."""
        return attach_output(kept.encoded, output)

    @staticmethod
    def explain_absence(job: JobId, ledger: Ledger) -> str:
        """Why there is no certificate of a job, and what to do."""
        view = get_job(ledger, job)
        if view is None:
            return (
                f"job {job.hex()[:12]} is not known here: check its id, or ask a node that was running when it settled"
            )
        if view.settlement is None:
            return f"job {job.hex()[:12]} has not settled yet (it is {view.phase.name.lower()}): wait for it"
        return f"job {job.hex()[:12]} settled before this node kept certificates: ask another node"

    def _collect(self, job: JobId, block: FinalizedBlock) -> partial[CertificateParts]:
        """Everything but the way from the settlement's block to a FinalCert."""
        proved = prove_settlement(block.ledger, job)
        assert proved is not None, job.hex()
        encoded, proof = proved
        settlement = SETTLEMENT_CODEC.decode(encoded)
        submit = self._find_submit(job, settlement.submit_height)
        assert isinstance(submit.body, Submit), job.hex()
        waiting = range(settlement.submit_height, settlement.maturity_height + 1)
        return partial(
            CertificateParts,
            genesis=self._genesis,
            submit=submit,
            card=list_models(block.ledger)[submit.body.job.model],
            waiting=tuple(self._load_header(height) for height in waiting),
            candidates=self._find_candidates(block.ledger, settlement.snapshot_height).candidates,
            transactions=tuple(self._load_members(settlement)),
            settlement=encoded,
            settlement_proof=proof,
        )

    def _find_candidates(self, ledger: Ledger, height: Height) -> CandidateSnapshot:
        found = get_candidates(ledger, height) or get_candidates(self._before, height)
        assert found is not None, height  # open jobs hold their snapshot (rule L10)
        return found

    def _find_submit(self, job: JobId, height: Height) -> SignedTransaction:
        return next(signed for signed in self._load_transactions(height) if compute_transaction_id(signed.body) == job)

    def _load_members(self, settlement: Settlement) -> Iterator[SignedTransaction]:
        """All transactions of the blocks in which members committed or revealed."""
        heights = {height for seat in settlement.seats for height in (seat.commit_height, seat.reveal_height)} - {0}
        for height in sorted(heights):
            yield from self._load_transactions(height)

    def _load_transactions(self, height: Height) -> Iterator[SignedTransaction]:
        return (TRANSACTION_CODEC.decode(encoded) for encoded in self._load_block(height).body)

    def _load_header(self, height: Height) -> Header:
        return self._load_block(height).header

    def _load_block(self, height: Height) -> Block:
        stored = self._storage.get_block(height)
        assert stored is not None, height
        return stored.decode()
