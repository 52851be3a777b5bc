"""Broken rules, put into the real machine for the length of a `with`: a simulator that does not catch them proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final
from unittest.mock import patch

from protocol.block import Block, compute_header_hash
from protocol.errors import InvalidMessage, Rejection
from protocol.evidence import EvidenceKind
from protocol.ordering import certs, justification, replay, rules, simplex, votes
from protocol.ordering.effects import Broadcast, Persist
from protocol.ordering.events import Timer
from protocol.ordering.messages import Proposal, QuorumCert
from protocol.ordering.pace import compute_delay
from protocol.ordering.state import Context, Draft, SimplexState, ViewRecord
from protocol.units import ZERO_HASH, ChainId, Hash, NodeId
from protocol.validators import ValidatorSet, compute_weight
from protocol.voting import SignedProposal, Verify, Vote, VoteKind, vote_signing_bytes
from tests.simulation.node import SimulatedNode

REAL_TAKE_PROPOSAL: Final = simplex._take_proposal
REAL_IS_HOPELESS: Final = rules._is_hopeless
REAL_VOTE_NOTAR: Final = rules.vote_notar
REAL_PROPOSE: Final = rules.propose
REAL_CHECK_ORIGIN: Final = justification.check_proposal_origin
REAL_ACCEPT_VOTE: Final = certs.accept_vote
REAL_FIND_CONFLICT: Final = certs.find_vote_conflict


def take_every_proposal(draft: Draft, proposal: Proposal, peer: NodeId) -> None:
    """Double Notar: a second block of a view is treated like the first, and the own Notar for the first is forgotten."""
    view, own = proposal.view, draft.state.context.own
    record = draft.state.views.get(view)
    if own is not None and view > draft.state.tip.view and record is not None and record.signed is not None:
        block_hash = compute_header_hash(proposal.block.header)
        if record.signed.block_hash != block_hash:
            votes = {key: vote for key, vote in record.votes.items() if key != (VoteKind.NOTAR, own)}
            forgotten = ViewRecord(record.leader, votes=votes, notar=record.notar, null=record.null, final=record.final)
            draft.put_record(view, forgotten)
    REAL_TAKE_PROPOSAL(draft, proposal, peer)


def vote_final_after_null(draft: Draft, view: int) -> None:
    """Final after Null: having given up on the view is forgotten."""
    notar = draft.get_record(view).notar
    own = draft.get_own_vote(VoteKind.NOTAR, view)
    if notar is None or own is None or own.block_hash != notar.block_hash or notar.block_hash not in draft.state.blocks:
        return
    if draft.get_own_vote(VoteKind.FINAL, view) is None:
        rules._cast(draft, VoteKind.FINAL, view, notar.block_hash)


def vote_null_after_final(draft: Draft, view: int) -> None:
    """Null after Final: a timer gives up on the view before the current one as well, whatever was voted in it."""
    if view != draft.state.view or not REAL_IS_HOPELESS(draft, view):
        return
    for hopeless in (view, view - 1):
        if hopeless > draft.state.tip.view and draft.get_own_vote(VoteKind.NULL, hopeless) is None:
            rules._cast(draft, VoteKind.NULL, hopeless, ZERO_HASH)


def check_only_parent(state: SimplexState, proposal: Proposal, block_hash: Hash) -> None:
    """Gap unchecked: the parent's certificate is enough, whatever lies between it and the proposal."""
    justification._check_parent(state, proposal)
    if proposal.justification.parent is not None:
        justification._check_carried(state, proposal.justification.parent)


def vote_final_for_any_block(draft: Draft, view: int) -> None:
    """Own Notar dropped: Final for whatever is notarized, also against the own Notar (commonware asks only for no Null)."""
    notar = draft.get_record(view).notar
    if notar is None or notar.block_hash not in draft.state.blocks:
        return
    if draft.get_own_vote(VoteKind.NULL, view) is None and draft.get_own_vote(VoteKind.FINAL, view) is None:
        rules._cast(draft, VoteKind.FINAL, view, notar.block_hash)


def check_what_is_carried(state: SimplexState, proposal: Proposal, block_hash: Hash) -> None:
    """Justification incomplete: every carried certificate must be valid and of a view between, but some may be missing."""
    header, carried = proposal.block.header, proposal.justification
    justification._check_parent(state, proposal)
    for cert in carried.skipped if carried.parent is None else (carried.parent, *carried.skipped):
        if cert is not carried.parent and not header.parent_view < cert.view < header.view:
            raise InvalidMessage(Rejection.BAD_JUSTIFICATION, "proposal: a certificate of another view")
        justification._check_carried(state, cert)


def check_what_is_held(state: SimplexState, proposal: Proposal, block_hash: Hash) -> None:
    """Held instead of carried: the judge's own certificates decide, not those that came with the proposal."""
    header = proposal.block.header
    justification._check_parent(state, proposal)
    for view in range(header.parent_view + 1, header.view):
        record = state.views.get(view)
        if record is None or record.null is None:
            raise InvalidMessage(Rejection.BAD_JUSTIFICATION, f"proposal: no null certificate of view {view} here")


def check_nothing_carried(state: SimplexState, cert: QuorumCert) -> None:
    """Certificates unverified: what a proposal carries only has to name the right views."""


def check_cert_without_order(
    cert: QuorumCert, chain: ChainId, epoch: int, validators: ValidatorSet, verify: Verify, known: object = None
) -> None:
    """Signers repeated: every signature of a certificate is verified and counted, a second one of the same validator too."""
    if len(cert.signers) != len(cert.signatures):
        raise InvalidMessage(Rejection.MALFORMED, "certificate: as many signatures as signers")
    message = vote_signing_bytes(cert.kind, chain, cert.epoch, cert.view, cert.block_hash)
    for signer, signature in zip(cert.signers, cert.signatures, strict=True):
        if not verify(validators.members[signer].node, message, signature):
            raise InvalidMessage(Rejection.BAD_SIGNATURE, "certificate: a signature is wrong")
    if 3 * sum(validators.members[signer].weight for signer in cert.signers) <= 2 * validators.total_weight:
        raise InvalidMessage(Rejection.NO_QUORUM, "certificate: too little weight")


def is_half(validators: ValidatorSet, indexes: Iterable[int]) -> bool:
    """Quorum of more than a half."""
    return 2 * compute_weight(validators, indexes) > validators.total_weight


def is_two_thirds(validators: ValidatorSet, indexes: Iterable[int]) -> bool:
    """Quorum of two thirds, instead of more than that."""
    return 3 * compute_weight(validators, indexes) >= 2 * validators.total_weight


def check_origin_of_anybody(context: Context, proposal: Proposal, signed: SignedProposal, leader: int) -> None:
    """Leader unchecked: whoever signs a proposal leads its view."""
    REAL_CHECK_ORIGIN(context, proposal, signed, proposal.signer)


def find_any_conflict(first: Vote, second: Vote) -> EvidenceKind | None:
    """Evidence without conflict: a Notar and a Final of one view are an offence, whatever their block."""
    if {first.kind, second.kind} == {VoteKind.NOTAR, VoteKind.FINAL}:
        return EvidenceKind.NOTAR_AND_FINAL
    return REAL_FIND_CONFLICT(first, second)


def start_timers_since_last_block(draft: Draft) -> None:
    """Delay reset: D grows with the views since the last one that was notarized, final or not."""
    state = draft.state
    if state.context.own is None:
        return
    blocks = [view for view, record in state.views.items() if justification.get_notarized(record) is not None]
    delay = compute_delay(state.context.params, state.view, max(blocks, default=state.tip.view))
    start = max(draft.now_ms, state.tip.time_ms) + (0 if state.has_work else state.context.params.idle_interval_ms)
    draft.set_timer(Timer.PROPOSAL, start + 2 * delay)
    draft.set_timer(Timer.CERTIFICATE, start + 3 * delay)


def cast_then_log(draft: Draft, kind: VoteKind, view: int, block_hash: Hash) -> None:
    """Log after sending: the vote leaves before it is written."""
    vote = votes.sign_vote(draft.state.context, kind, view, block_hash)
    draft.effects += [Broadcast(vote), Persist(vote, durable=True)]
    certs.accept_vote(draft, vote)


def vote_notar_without_body(draft: Draft, view: int) -> None:
    """Body not durable: only the vote for it is."""
    REAL_VOTE_NOTAR(draft, view)
    draft.effects[:] = [e for e in draft.effects if not (isinstance(e, Persist) and isinstance(e.record, Block))]


def propose_without_log(draft: Draft, block: Block) -> None:
    """Proposal not in the log: after a restart the leader proposes anew."""
    REAL_PROPOSE(draft, block)
    draft.effects[:] = [e for e in draft.effects if not (isinstance(e, Persist) and isinstance(e.record, Proposal))]


def restore_all_but_null(draft: Draft, vote: Vote) -> None:
    """Null not recovered: a restart forgets having given up (commonware had this)."""
    if vote.kind != VoteKind.NULL:
        REAL_ACCEPT_VOTE(draft, vote)


def patch_rule(target: object, name: str, broken: object) -> Callable[[], AbstractContextManager[None]]:
    """A rule's replacement, as a context."""

    @contextmanager
    def broken_rule() -> Iterator[None]:
        with patch.object(target, name, broken):
            yield

    return broken_rule


MUTANTS: Final = {
    "double-notar": patch_rule(simplex, "_take_proposal", take_every_proposal),
    "final-after-null": patch_rule(simplex, "vote_final", vote_final_after_null),
    "null-after-final": patch_rule(simplex, "vote_null", vote_null_after_final),
    "no-wal": patch_rule(SimulatedNode, "keeps_wal", False),
    "gap-unchecked": patch_rule(simplex, "check_justification", check_only_parent),
    "justification-incomplete": patch_rule(simplex, "check_justification", check_what_is_carried),
    "held-not-carried": patch_rule(simplex, "check_justification", check_what_is_held),
    "certs-unverified": patch_rule(justification, "_check_carried", check_nothing_carried),
    "signers-repeated": patch_rule(simplex, "check_quorum_cert", check_cert_without_order),
    "quorum-half": patch_rule(votes, "is_quorum", is_half),
    "quorum-two-thirds": patch_rule(votes, "is_quorum", is_two_thirds),
    "own-notar-dropped": patch_rule(simplex, "vote_final", vote_final_for_any_block),
    "leader-unchecked": patch_rule(simplex, "check_proposal_origin", check_origin_of_anybody),
    "evidence-without-conflict": patch_rule(certs, "find_vote_conflict", find_any_conflict),
    "delay-reset": patch_rule(rules, "start_view_timers", start_timers_since_last_block),
    "log-after-send": patch_rule(rules, "_cast", cast_then_log),
    "body-not-durable": patch_rule(simplex, "vote_notar", vote_notar_without_body),
    "proposal-not-logged": patch_rule(simplex, "propose", propose_without_log),
    "null-not-recovered": patch_rule(replay, "accept_vote", restore_all_but_null),
}
"""Rule -> a context in which every honest node breaks it."""
