"""What a broken voting rule costs (rules E1 to E9): who is convicted by a report, and how much of its stake is taken.

An attack is judged as a whole: every offence within the window raises what all offenders of the window lose, the earlier ones too.
"""

from typing import Final

from msgspec.structs import replace

from protocol.crypto import is_signature_valid
from protocol.errors import InvalidMessage, InvalidTransaction, Rejection
from protocol.evidence import Evidence, check_evidence
from protocol.ledger.accounts import credit, get_account, take_bond
from protocol.ledger.draft import Draft
from protocol.ledger.entries import CONVICTION_CODEC, Conviction, Kind, conviction_key
from protocol.ledger.epochs import find_validators, get_epoch
from protocol.ledger.milestones import find_milestone, is_too_old
from protocol.ledger.unbonding import sum_unbonding, take_unbonding
from protocol.params import Params
from protocol.transactions import Report
from protocol.units import Epoch, Height, Micro, Milliseconds, NodeId, PartsPerMillion
from protocol.validators import ValidatorSet

_PPM: Final = 1_000_000


def check_report(draft: Draft, body: Report, height: Height, time_ms: Milliseconds) -> NodeId:
    """Whom the report convicts in a block of this height and time. The reporter's own signature is not judged here.

    Raises: InvalidTransaction.
    """
    evidence = body.evidence
    validators = _get_table(draft, evidence.epoch)
    if evidence.signer >= len(validators.members):  # E2
        raise InvalidTransaction(
            Rejection.UNKNOWN_SIGNER,
            f"evidence: validator {evidence.signer} is not in the table of epoch {evidence.epoch}, which has {len(validators.members)}",
        )
    offender = validators.members[evidence.signer].node
    if is_convicted(draft, offender):  # E4
        raise InvalidTransaction(
            Rejection.DUPLICATE,
            f"validator {offender.hex()[:12]} is convicted already: nothing is left to report of it",
        )
    _check_age(draft, evidence, height, time_ms)
    try:
        check_evidence(evidence, draft.base.constants.chain_id, validators, is_signature_valid)  # E1
    except InvalidMessage as refusal:
        raise InvalidTransaction(refusal.reason, str(refusal)) from refusal
    return offender


def apply_report(draft: Draft, body: Report, height: Height, time_ms: Milliseconds) -> None:
    """Convict the offender, and take what it and the others of the window owe. Raises: InvalidTransaction; the draft is then as it was."""
    offender = check_report(draft, body, height, time_ms)
    evidence, validators = body.evidence, _get_table(draft, body.evidence.epoch)
    conviction = Conviction(
        kind=evidence.kind,
        epoch=evidence.epoch,
        view=evidence.view,
        height=height,
        time_ms=time_ms,
        reporter=body.reporter,
        share_ppm=validators.members[evidence.signer].weight * _PPM // validators.total_weight,
        stake=get_account(draft, offender).bonded + sum_unbonding(draft, offender),
        slashed=0,
    )
    draft.put(conviction_key(offender), conviction)
    _slash_window(draft, body.reporter, height, time_ms)


def is_convicted(draft: Draft, node: NodeId) -> bool:
    """Whether a node has ever broken a voting rule, as far as the ledger knows (E5)."""
    return draft.has(conviction_key(node))


def compute_slash_ppm(params: Params, attack_ppm: int) -> PartsPerMillion:
    """The part of its stake that each offender of an attack loses, by the attack's share of the voting weight (E6)."""
    return max(params.min_slash_ppm, min(_PPM, params.slash_factor * attack_ppm))


def _slash_window(draft: Draft, reporter: NodeId, height: Height, time_ms: Milliseconds) -> None:
    params = draft.base.constants.params
    attack = [
        (key[1:], conviction)
        for key in draft.list_keys(bytes((Kind.CONVICTION,)))
        if (conviction := _get_conviction(draft, key[1:])) and _is_in_window(params, conviction, height, time_ms)
    ]
    part_ppm = compute_slash_ppm(params, sum(conviction.share_ppm for _, conviction in attack))
    taken = sum(_slash(draft, node, conviction, conviction.stake * part_ppm // _PPM) for node, conviction in attack)
    reward = taken * params.reporter_share_ppm // _PPM  # E8
    credit(draft, reporter, reward)
    draft.burned += taken - reward


def _slash(draft: Draft, node: NodeId, conviction: Conviction, owed: Micro) -> Micro:
    """Take what is owed beyond what was taken before (E7): first what is on its way out, then the bond, held by jobs or not."""
    due = max(0, owed - conviction.slashed)
    taken = take_unbonding(draft, node, due)
    taken += take_bond(draft, node, due - taken)
    draft.put(conviction_key(node), replace(conviction, slashed=conviction.slashed + taken))
    return taken


def _is_in_window(params: Params, conviction: Conviction, height: Height, time_ms: Milliseconds) -> bool:
    return (
        time_ms - conviction.time_ms <= params.slash_window_ms
        or height - conviction.height <= params.slash_window_heights
    )


def _check_age(draft: Draft, evidence: Evidence, height: Height, time_ms: Milliseconds) -> None:
    params = draft.base.constants.params
    milestone = find_milestone(draft, evidence.epoch, evidence.view)
    if milestone is not None and is_too_old(params, milestone, height, time_ms):  # E3
        raise InvalidTransaction(
            Rejection.EXPIRED,
            f"evidence: view {evidence.view} of epoch {evidence.epoch} was {height - milestone.height} heights and {time_ms - milestone.time_ms} ms ago or longer, more than the {params.evidence_max_heights} and {params.evidence_max_ms} within which an offence is punished",
        )


def _get_table(draft: Draft, epoch: Epoch) -> ValidatorSet:
    """The validator table of an epoch whose offences count. Raises: InvalidTransaction."""
    now = get_epoch(draft.base)
    if epoch > now:  # E2
        raise InvalidTransaction(
            Rejection.OUT_OF_RANGE, f"evidence: expected an epoch up to the present {now}, got {epoch}"
        )
    validators = find_validators(draft, epoch)
    if validators is None:  # E3
        raise InvalidTransaction(
            Rejection.EXPIRED, f"evidence: epoch {epoch} was so long ago that its offences are no longer punished"
        )
    return validators


def _get_conviction(draft: Draft, node: NodeId) -> Conviction:
    conviction = draft.get(conviction_key(node), CONVICTION_CODEC)
    assert conviction is not None, node.hex()
    return conviction
