"""The frozen lists of who may be drawn (rules L9, L10): taken at the end of a period, in force for the heights of the next.

Weights that move with every block would let whoever builds a block move the draw.
"""

from protocol.jobs.committee import Candidate, compute_candidates_root
from protocol.jobs.reputation import (
    NEW_RECORD,
    RECORD_CODEC,
    compute_weight_executor,
    compute_weight_reputation,
    is_suspended,
)
from protocol.jobs.settlement import JOB_CODEC
from protocol.ledger.accounts import get_account
from protocol.ledger.draft import Draft
from protocol.ledger.entries import (
    CANDIDATES_CODEC,
    Candidates,
    Kind,
    Snapshot,
    candidates_key,
    conviction_key,
    record_key,
    snapshot_key,
)
from protocol.params import Params
from protocol.units import Hash, Height, Milliseconds, ModelId, NodeId


def is_snapshot_height(params: Params, height: Height) -> bool:
    """Whether the state after this height is frozen; the genesis is the first."""
    return height % params.epoch_heights == 0


def take_snapshot(draft: Draft, params: Params, height: Height, time_ms: Milliseconds) -> Hash:
    """The candidates root of the state as the draft has it; the lists and the root are written."""
    served: dict[ModelId, list[Candidate]] = {}
    for key in draft.list_keys(bytes((Kind.SERVE,))):
        model, node = key[1:33], key[33:]
        candidate = _compute_candidate(draft, params, node, height, time_ms)
        if candidate is not None:
            served.setdefault(model, []).append(candidate)
    lists = {model: tuple(candidates) for model, candidates in served.items()}
    for model, candidates in lists.items():
        draft.put(candidates_key(height, model), Candidates(candidates))
    root = compute_candidates_root(lists)
    draft.put(snapshot_key(height), Snapshot(root))
    return root


def get_candidates(draft: Draft, height: Height, model: ModelId) -> tuple[Candidate, ...]:
    """A model's candidates in the snapshot of a height."""
    found = draft.get(candidates_key(height, model), CANDIDATES_CODEC)
    return () if found is None else found.candidates


def forget_snapshots(draft: Draft) -> None:
    """Remove every snapshot but the two newest that no job, open or closed, still refers to."""
    heights = [int.from_bytes(key[1:], "big") for key in draft.list_keys(bytes((Kind.SNAPSHOT,)))]
    kept = set(heights[-2:])
    for kind in (Kind.OPEN_JOB, Kind.CLOSED_JOB):
        for key in draft.list_keys(bytes((kind,))):
            job = draft.get(key, JOB_CODEC)
            assert job is not None, key.hex()
            kept.add(job.snapshot_height)
    for height in heights:
        if height not in kept:
            draft.remove(snapshot_key(height))
            for key in draft.list_keys(bytes((Kind.CANDIDATES,)) + height.to_bytes(8, "big")):
                draft.remove(key)


def _compute_candidate(
    draft: Draft, params: Params, node: NodeId, height: Height, time_ms: Milliseconds
) -> Candidate | None:
    stake = get_account(draft, node).bonded
    record = draft.get(record_key(node), RECORD_CODEC) or NEW_RECORD
    if stake < params.min_bond or is_suspended(record, height, time_ms) or draft.has(conviction_key(node)):  # E5
        return None
    return Candidate(node, stake, compute_weight_reputation(stake, record), compute_weight_executor(stake, record))
