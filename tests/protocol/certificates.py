"""Certificates of jobs that ran on a small chain, made final by the votes of its validators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.block import compute_header_hash
from protocol.certificate_build import CertificateParts, build_certificate
from protocol.chain_file import encode_chain_file
from protocol.ledger.queries import get_candidates, prove_settlement
from protocol.models import StopReason, TextOutput, compute_model_id, compute_output_hash
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.transactions import TRANSACTION_CODEC, RevealPayload, Submit, compute_transaction_id
from protocol.trust import ChainStep, TrustedHeader, make_step
from protocol.voting import vote_signing_bytes
from tests.protocol.builders import TestChain, make_card, make_key, make_payload, make_request, start_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocol.block import Header
    from protocol.jobs.settlement import Settlement
    from protocol.ledger.draft import Ledger
    from protocol.transactions import JobRequest, SignedTransaction
    from protocol.units import JobId

ANSWER = TextOutput(compute_model_id(make_card()), (56, 49), "81", StopReason.END)


def right() -> RevealPayload:
    """A reveal of ANSWER."""
    made = make_payload("81")
    return RevealPayload(False, compute_output_hash(ANSWER), made.digest, made.sketch_root, made.confidence_ppm)


def make_final(
    chain: TestChain, header: Header, signers: Sequence[int] | None = None, view: int | None = None
) -> QuorumCert:
    """The votes of these validators (by default of all) of its epoch that make a block final."""
    members = chain.sets[header.valset_hash].members
    indexes = tuple(range(len(members))) if signers is None else tuple(signers)
    block_hash, at = compute_header_hash(header), header.view if view is None else view
    message = vote_signing_bytes(VoteKind.FINAL, header.chain_id, header.epoch, at, block_hash)
    keys = [make_key(chain.names[members[index].node]) for index in indexes]
    return QuorumCert(VoteKind.FINAL, header.epoch, at, block_hash, indexes, tuple(key.sign(message) for key in keys))


def list_steps(chain: TestChain) -> tuple[ChainStep, ...]:
    """All changes of the chain's validators."""
    steps = (
        make_step(header, make_final(chain, header), chain.sets[header.next_valset_hash], chain.genesis.params)
        for header in (block.header for block in chain.blocks)
    )
    return tuple(step for step in steps if step is not None)


def make_chain_file(chain: TestChain) -> bytes:
    """The chain file with all changes of the chain's validators."""
    return encode_chain_file(chain.ledger.constants.chain_id, list_steps(chain))


def trust_block(chain: TestChain, header: Header) -> TrustedHeader:
    """A header to be trusted."""
    return TrustedHeader(header, chain.sets[header.valset_hash], make_final(chain, header))


def collect_parts(
    chain: TestChain,
    ledger: Ledger,
    settlement: Settlement,
    *,
    blocks_later: int = 0,
    signers: Sequence[int] | None = None,
) -> CertificateParts:
    """What a node holds for a job; `ledger` is the state after the settlement's block, which is final `blocks_later` on."""
    headers = {block.header.height: block.header for block in chain.blocks}
    signed = [TRANSACTION_CODEC.decode(each) for block in chain.blocks for each in block.body]
    submit = next(each for each in signed if compute_transaction_id(each.body) == settlement.job)
    assert isinstance(submit.body, Submit)
    snapshot = get_candidates(ledger, settlement.snapshot_height)
    proved = prove_settlement(ledger, settlement.job)
    assert snapshot is not None and proved is not None
    last = settlement.settle_height + blocks_later
    return CertificateParts(
        genesis=chain.genesis,
        submit=submit,
        card=next(card for card in _list_cards(chain, signed) if compute_model_id(card) == submit.body.job.model),
        waiting=[headers[height] for height in range(settlement.submit_height, settlement.maturity_height + 1)],
        candidates=snapshot.candidates,
        transactions=signed,
        settled=[headers[height] for height in range(settlement.settle_height, last + 1)],
        settlement=proved[0],
        settlement_proof=proved[1],
        final=make_final(chain, headers[last], signers),
    )


def _list_cards(chain: TestChain, signed: Sequence[SignedTransaction]):
    yield from chain.genesis.models
    for each in signed:
        card = getattr(each.body, "card", None)
        if card is not None:
            yield card


def certify(
    answers: Callable[[int], RevealPayload] = lambda _: right(),
    request: JobRequest | None = None,
    chain: TestChain | None = None,
    output: TextOutput | None = ANSWER,
    signers: Sequence[int] | None = None,
) -> tuple[bytes, TestChain, Settlement]:
    """A job in which every member takes part, and its certificate."""
    chain = chain or start_chain()
    chain.run(3)
    settlement = chain.settle(request or make_request(), answers)
    return build_certificate(collect_parts(chain, chain.ledger, settlement, signers=signers), output), chain, settlement


def certify_settled(chain: TestChain, job: JobId, output: TextOutput | None = None) -> tuple[bytes, Settlement]:
    """The certificate of a job that settled in the chain's last block."""
    settlement = chain.view(job).settlement
    assert settlement is not None
    return build_certificate(collect_parts(chain, chain.ledger, settlement), output), settlement
