"""The RPC methods about jobs: asking, watching, and fetching what a job left."""

from typing import Final

import trio

from node.api import CertificateUnavailable, NodeSnapshot, OutputUnavailable
from node.faults import Fault, Trouble
from node.jsonrpc import Context
from node.rpc_types import (
    CertificateResult,
    JobList,
    JobListParams,
    JobParams,
    JobState,
    JobSubmitParams,
    JobSubmitted,
    JobWaitParams,
    OutputParams,
    OutputResult,
    Picture,
    StopName,
)
from node.rpc_views import describe_progress, find_models, view_job
from protocol.digest import IMAGE_FAMILIES
from protocol.errors import InvalidTransaction, Rejection
from protocol.jobs.life import compute_default_windows
from protocol.jobs.settlement import Phase
from protocol.ledger.queries import JobView, get_job, list_jobs, list_models
from protocol.models import (
    MAX_PROMPT_BYTES,
    GenerationSettings,
    ImageOutput,
    ModelCard,
    Output,
    SamplingKind,
    StopReason,
    TextOutput,
)
from protocol.transactions import MAX_SEATS, AgreementRule, JobRequest
from protocol.units import ModelId

DEFAULT_MAX_TOKENS: Final = 64
_RULES: Final = {"majority": AgreementRule.MAJORITY, "reputation": AgreementRule.REPUTATION}
_KINDS: Final = {"greedy": SamplingKind.GREEDY, "beam": SamplingKind.BEAM, "sample": SamplingKind.SAMPLE}
_STOPS: Final[dict[StopReason, StopName]] = {
    StopReason.END: "end",
    StopReason.LENGTH: "length",
    StopReason.CONTEXT: "context",
}


async def submit_job(context: Context, params: JobSubmitParams) -> JobSubmitted:
    """Asks the network; the job is signed and paid by this node's account."""
    snapshot = context.api.get_snapshot()
    _check_serving(snapshot)
    model, card = _find_model(snapshot, params.model)
    job = _build_request(snapshot, model, card, params)
    await context.prompts.check(model, card, params.prompt)
    base_fee = snapshot.ledger.constants.params.base_fee
    if params.max_fee is not None and job.fee + base_fee > params.max_fee:
        raise Fault(
            Trouble.FEE_ABOVE_MAXIMUM,
            f"{job.seats} seats cost {job.fee} and the base fee {base_fee}, above the maximum of {params.max_fee} micro-units",
        )
    name, repeated = await context.api.submit_job(job, params.request_id)
    return JobSubmitted(name.hex(), repeated, job.fee, base_fee, job.commit_ms, job.reveal_ms)


def _check_serving(snapshot: NodeSnapshot) -> None:
    if snapshot.halted:
        raise Fault(Trouble.HALTED, f"this node has stopped ordering blocks: {snapshot.halted}")
    if snapshot.sync_target is not None:
        raise Fault(
            Trouble.SYNCING,
            f"this node is at height {snapshot.header.height} and catches up to {snapshot.sync_target}",
        )


def _build_request(snapshot: NodeSnapshot, model: ModelId, card: ModelCard, params: JobSubmitParams) -> JobRequest:
    """The request with its defaults filled in; what it may hold beyond its form, the ledger judges."""
    prompt = params.prompt.encode()
    if len(prompt) > MAX_PROMPT_BYTES:
        raise InvalidTransaction(
            Rejection.PROMPT_TOO_LONG, f"a prompt holds at most {MAX_PROMPT_BYTES} bytes of UTF-8, got {len(prompt)}"
        )
    if not 0 <= params.seats <= MAX_SEATS:
        raise InvalidTransaction(
            Rejection.BAD_SEATS, f"a committee has an odd number of seats, at most {MAX_SEATS}, got {params.seats}"
        )
    constants = snapshot.ledger.constants.params
    settings = _build_settings(params, card)
    commit_ms, reveal_ms = compute_default_windows(constants, card, settings.max_tokens)
    return JobRequest(
        model=model,
        prompt=prompt,
        settings=settings,
        rule=_RULES[params.rule],
        seats=params.seats,
        fee=constants.min_seat_fee * params.seats if params.fee is None else params.fee,
        commit_ms=commit_ms if params.commit_ms is None else params.commit_ms,
        reveal_ms=reveal_ms if params.reveal_ms is None else params.reveal_ms,
    )


def _find_model(snapshot: NodeSnapshot, wanted: str) -> tuple[ModelId, ModelCard]:
    found = find_models(snapshot, wanted)
    if len(found) == 1:
        return found[0]
    known = ", ".join(sorted(card.name for card in list_models(snapshot.ledger).values())[:16]) or "none"
    if not found:
        raise InvalidTransaction(Rejection.UNKNOWN_MODEL, f"this network has no model {wanted!r}; it has: {known}")
    ids = ", ".join(sorted(model.hex()[:16] for model, _ in found))
    raise InvalidTransaction(
        Rejection.UNKNOWN_MODEL, f"{len(found)} models are called {wanted!r}: name one by its id ({ids})"
    )


def _build_settings(params: JobSubmitParams, card: ModelCard) -> GenerationSettings:
    given = params.settings
    return GenerationSettings(
        kind=_KINDS[given.kind],
        beams=given.beams,
        temperature_ppm=given.temperature_ppm,
        top_p_ppm=given.top_p_ppm,
        max_tokens=_default_tokens(card) if given.max_tokens is None else given.max_tokens,
    )


def _default_tokens(card: ModelCard) -> int:
    """As usual, and half of a small context at most: a question must find room beside its answer. A picture counts as one token."""
    if card.family in IMAGE_FAMILIES:
        return 1
    return max(1, min(DEFAULT_MAX_TOKENS, card.context_tokens // 2))


async def read_job(context: Context, params: JobParams) -> JobState:
    """A job as the last final block has it."""
    snapshot = context.api.get_snapshot()
    return view_job(snapshot, _find_job(snapshot, params.job))


def _find_job(snapshot: NodeSnapshot, job: str) -> JobView:
    view = get_job(snapshot.ledger, bytes.fromhex(job))
    if view is None:
        raise Fault(
            Rejection.UNKNOWN_JOB,
            f"the ledger at height {snapshot.header.height} holds no job {job[:16]}: not final yet, or forgotten",
        )
    return view


async def wait_job(context: Context, params: JobWaitParams) -> JobState:
    """The job once it is settled, once its progress is no longer `seen`, or after timeout_ms."""
    snapshot = context.api.get_snapshot()
    with trio.move_on_after(params.timeout_ms / 1000):
        while True:
            view = get_job(snapshot.ledger, bytes.fromhex(params.job))
            if view is not None and _has_moved(view, params.seen):
                break
            snapshot = await context.api.wait_block(snapshot.header.height)
    snapshot = context.api.get_snapshot()
    return view_job(snapshot, _find_job(snapshot, params.job))


def _has_moved(view: JobView, seen: str | None) -> bool:
    return view.phase is Phase.SETTLED or (seen is not None and describe_progress(view) != seen)


async def read_jobs(context: Context, params: JobListParams) -> JobList:
    """The newest jobs that the ledger still holds."""
    snapshot = context.api.get_snapshot()
    views = [view for job in list_jobs(snapshot.ledger) if (view := get_job(snapshot.ledger, job)) is not None]
    mine = [view for view in views if not params.mine or view.requester == snapshot.node]
    mine.sort(key=lambda view: (view.submit_height, view.job), reverse=True)
    return JobList(
        tuple(view_job(snapshot, view, with_capture=False) for view in mine[: params.limit]), len(mine) > params.limit
    )


async def read_certificate(context: Context, params: JobParams) -> CertificateResult:
    """A settled job's certificate, with the winning output attached; also of a job that the ledger has forgotten since."""
    try:
        certificate = await context.api.build_certificate(bytes.fromhex(params.job))
    except CertificateUnavailable as error:
        is_known = get_job(context.api.get_snapshot().ledger, bytes.fromhex(params.job)) is not None
        reason = Trouble.CERTIFICATE_UNAVAILABLE if is_known else Rejection.UNKNOWN_JOB
        raise Fault(reason, str(error)) from error
    except OutputUnavailable as error:
        raise Fault(Trouble.OUTPUT_UNAVAILABLE, str(error)) from error
    return CertificateResult(params.job, certificate)


async def read_output(context: Context, params: OutputParams) -> OutputResult:
    """An output of a job by its hash, from this node or any member that holds it."""
    view = _find_job(context.api.get_snapshot(), params.job)
    wanted = _choose_output(view, params.output_hash)
    holders = tuple(
        seat.member for seat in view.seats if seat.member and seat.reveal and seat.reveal.output_hash == wanted
    )
    if not holders:
        raise Fault(Trouble.OUTPUT_UNAVAILABLE, f"no member of this job has revealed an output {wanted.hex()[:16]}")
    try:
        output = await context.api.fetch_output(wanted, tuple(dict.fromkeys(holders)))
    except OutputUnavailable as error:
        raise Fault(Trouble.OUTPUT_UNAVAILABLE, str(error)) from error
    return _view_output(wanted.hex(), output)


def _view_output(name: str, output: Output) -> OutputResult:
    match output:
        case TextOutput():
            return OutputResult(name, output.model.hex(), output.text, output.tokens, _STOPS[output.stop])
        case ImageOutput():
            picture = Picture(output.width, output.height, output.channels, output.pixels)
            return OutputResult(name, output.model.hex(), picture=picture)


def _choose_output(view: JobView, output_hash: str | None) -> bytes:
    if output_hash is not None:
        return bytes.fromhex(output_hash)
    if view.settlement is None or not any(view.settlement.winner_hash):
        raise Fault(
            Trouble.OUTPUT_UNAVAILABLE,
            f"job {view.job.hex()[:16]} has no winning output",
            cure="give an output_hash, or wait",
        )
    return view.settlement.winner_hash
