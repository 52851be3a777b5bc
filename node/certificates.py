"""Certificates of settled jobs: built as soon as a settlement is final, from stored blocks, and kept for good.

The state forgets a settlement after a few snapshot periods; the certificate is the part that stays. It is kept without its output,
which is attached when somebody asks for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from node.chain import FinalizedBlock, LoadBlock
from node.storage import Storage
from protocol.block import Block, Header
from protocol.certificate_build import CertificateParts, build_certificate
from protocol.certificate_format import attach_output, decode_certificate
from protocol.genesis import Genesis, compute_validator_set
from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import SETTLEMENT_CODEC, SeatEnd, Settlement
from protocol.ledger.draft import Ledger
from protocol.ledger.queries import CandidateSnapshot, get_candidates, get_job, list_models, prove_settlement
from protocol.models import Output
from protocol.ordering.messages import QUORUM_CERT_CODEC
from protocol.transactions import TRANSACTION_CODEC, SignedTransaction, Submit, compute_transaction_id
from protocol.trust import STEP_CODEC, TrustedHeader
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

    def __init__(self, storage: Storage, genesis: Genesis) -> None:
        self._storage: Final = storage
        self._genesis: Final = genesis
        self._owed: list[_Owed] = []

    def certify(
        self, blocks: Sequence[FinalizedBlock], before: Ledger, load_block: LoadBlock
    ) -> list[tuple[JobId, bytes]]:
        """The certificates that can be made with these final blocks, and could not before: to be stored together with them.

        A settlement waits for the first block with a FinalCert of its own.
        """
        made: list[tuple[JobId, bytes]] = []
        for block in blocks:
            for owed in self._owed:
                owed.headers.append(block.header)
            for job in block.settled:
                if self._is_too_old(job, block.ledger):
                    continue
                self._owed.append(_Owed(job, self._collect(job, block, before, load_block), [block.header]))
            if block.cert is not None:
                for owed in self._owed:
                    parts = owed.parts(settled=tuple(owed.headers), final=block.cert)
                    made.append((owed.job, build_certificate(parts)))
                self._owed.clear()
            before = block.ledger
        return made

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

    def build_trusted_header(self, height: Height | None) -> TrustedHeader | None:
        """A final block's header with its validators, for others to trust; without a height the last one's that has votes of its own.

        None where the block is not here.
        """
        storage = self._storage
        stored = storage.get_last_certified_block() if height is None else storage.get_block(height)
        if stored is None:
            return None
        header = stored.decode().header
        step = storage.get_step_before(header.epoch)
        validators = compute_validator_set(self._genesis) if step is None else STEP_CODEC.decode(step).validators
        final_cert = None if stored.certificate is None else QUORUM_CERT_CODEC.decode(stored.certificate)
        return TrustedHeader(header, validators, final_cert)

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
        return f"job {job.hex()[:12]} settled or began before this node did: ask another node for its certificate"

    def _is_too_old(self, job: JobId, ledger: Ledger) -> bool:
        """Whether a job was submitted before the block from which this node joined: what proves it is not here."""
        view = get_job(ledger, job)
        assert view is not None and view.settlement is not None, job.hex()
        return view.settlement.submit_height < self._storage.base_height

    def _collect(
        self, job: JobId, block: FinalizedBlock, before: Ledger, load_block: LoadBlock
    ) -> partial[CertificateParts]:
        """Everything but the way from the settlement's block to a FinalCert."""
        proved = prove_settlement(block.ledger, job)
        assert proved is not None, job.hex()
        encoded, proof = proved
        settlement = SETTLEMENT_CODEC.decode(encoded)
        submit = _find_submit(load_block(settlement.submit_height), job)
        assert isinstance(submit.body, Submit), job.hex()
        waiting = range(settlement.submit_height, settlement.maturity_height + 1)
        return partial(
            CertificateParts,
            genesis=self._genesis,
            submit=submit,
            card=list_models(block.ledger)[submit.body.job.model],
            waiting=tuple(load_block(height).header for height in waiting),
            candidates=_find_candidates(block.ledger, before, settlement.snapshot_height).candidates,
            transactions=tuple(_list_members(settlement, load_block)),
            settlement=encoded,
            settlement_proof=proof,
        )


def _find_candidates(ledger: Ledger, before: Ledger, height: Height) -> CandidateSnapshot:
    """The snapshot of a height: one that a block forgets is still in the state before it."""
    found = get_candidates(ledger, height) or get_candidates(before, height)
    assert found is not None, height  # open jobs hold their snapshot (rule L10)
    return found


def _find_submit(block: Block, job: JobId) -> SignedTransaction:
    return next(signed for signed in _decode(block) if compute_transaction_id(signed.body) == job)


def _list_members(settlement: Settlement, load_block: LoadBlock) -> Iterator[SignedTransaction]:
    """All transactions of the blocks in which members committed or revealed."""
    heights = {height for seat in settlement.seats for height in (seat.commit_height, seat.reveal_height)} - {0}
    for height in sorted(heights):
        yield from _decode(load_block(height))


def _decode(block: Block) -> Iterator[SignedTransaction]:
    return (TRANSACTION_CODEC.decode(encoded) for encoded in block.body)
