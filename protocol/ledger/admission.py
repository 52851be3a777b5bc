"""What a state says to a transaction (rules T1 to T13, U1, U5, E5, B6): one check for each kind; nothing here writes.

The sentences are what the person at the command line reads: what was checked, expected, got, and what to do.
"""

from itertools import islice
from typing import Final, TypeAlias, assert_never

from protocol.digest import DIGEST_BYTES, IMAGE_FAMILIES, DigestFamily
from protocol.errors import InvalidTransaction, Rejection
from protocol.jobs.committee import compute_seat_cap
from protocol.jobs.life import compute_windows
from protocol.jobs.reputation import NEW_RECORD, RECORD_CODEC, is_suspended
from protocol.ledger.accounts import compute_free_bond, get_account
from protocol.ledger.attendance import check_unjail
from protocol.ledger.draft import Draft
from protocol.ledger.entries import (
    CARD_CODEC,
    MAX_MODEL_NODES,
    MAX_MODELS,
    MAX_NODE_MODELS,
    NAMED_CODEC,
    Kind,
    card_key,
    closed_job_key,
    name_key,
    open_job_key,
    record_key,
    serve_key,
)
from protocol.ledger.onions import check_renewal
from protocol.ledger.pay import compute_bond_at_risk
from protocol.ledger.slashing import is_convicted
from protocol.ledger.snapshot import get_candidates
from protocol.ledger.unbonding import check_unbond
from protocol.models import GenerationSettings, ModelCard, SamplingKind, compute_model_id
from protocol.params import Params
from protocol.transactions import (
    Bond,
    JobRequest,
    RegisterModel,
    RenewOnion,
    Serve,
    Submit,
    Transfer,
    Unbond,
    Unjail,
    Withdraw,
    compute_transaction_id,
)
from protocol.units import Height, Micro, Milliseconds, ModelId, NodeId

_SHOWN_MODELS: Final = 8
MOST_TOKEN_BYTES: Final = 128
"""No tokenizer in use has a longer token, so a longer prompt is too long for certain; below that only the worker's count decides."""

AccountBody: TypeAlias = Transfer | Bond | Serve | RegisterModel | Submit | Unbond | Withdraw | RenewOnion | Unjail


def check_account_transaction(draft: Draft, body: AccountBody, height: Height, *, latest_nonce: int) -> None:
    """Accept what may be in a block of this height, or after other transactions of its sender up to `latest_nonce`.

    Raises: InvalidTransaction.
    """
    account = get_account(draft, body.sender)
    params = draft.base.constants.params
    _check_nonce(draft, body, account.nonce, latest_nonce)
    if body.valid_until < height:  # T2
        raise InvalidTransaction(
            Rejection.EXPIRED,
            f"valid until height {body.valid_until}, but the next block is {height}: sign it again with a later one",
        )
    needed = params.base_fee + _compute_cost(body)
    match body:
        case Transfer():
            _check_amount(body.amount)
        case Bond():
            _check_amount(body.amount)
            _check_unconvicted(draft, body)
            _check_bond(params, account.bonded + body.amount)
        case Serve():
            _check_unconvicted(draft, body)
            _check_serve(draft, body, account.bonded)
        case RegisterModel():
            check_card(body.card)
            _check_registration(draft, body.card)
        case Submit():
            _check_request(draft, body.job)
        case Unbond():
            _check_amount(body.amount)
            check_unbond(draft, body, height)
        case Withdraw():
            _check_withdrawal(draft, body)
        case RenewOnion():
            _check_unconvicted(draft, body)
            check_renewal(draft, body)
        case Unjail():
            _check_unconvicted(draft, body)
            check_unjail(draft, body)
        case _:
            assert_never(body)
    if account.balance < needed:  # T3
        raise InvalidTransaction(
            Rejection.UNAFFORDABLE,
            f"{type(body).__name__} costs {needed} micro-units (base fee {params.base_fee} included), but {body.sender.hex()[:12]} has {account.balance}: {needed - account.balance} more are needed",
        )
    if isinstance(body, Submit):
        _check_room(draft, body.job, height)


def _compute_cost(body: AccountBody) -> Micro:
    """What leaves the sender's balance besides the base fee."""
    match body:
        case Transfer() | Bond():
            return body.amount
        case Submit():
            return body.job.fee
        case Serve() | RegisterModel() | Unbond() | Withdraw() | RenewOnion() | Unjail():
            return 0


def _check_nonce(draft: Draft, body: AccountBody, used: int, latest: int) -> None:
    if body.nonce <= used:  # T1
        if isinstance(body, Submit) and _has_job(draft, body):
            raise InvalidTransaction(
                Rejection.DUPLICATE,
                f"job {compute_transaction_id(body).hex()[:12]} was submitted already: ask for its state",
            )
        raise InvalidTransaction(
            Rejection.BAD_NONCE, f"nonce {body.nonce} is used up: the next of {body.sender.hex()[:12]} is {used + 1}"
        )
    if body.nonce > latest:
        raise InvalidTransaction(
            Rejection.TOO_EARLY,
            f"nonce {body.nonce} is too far ahead: the next of {body.sender.hex()[:12]} is {used + 1}, and up to {latest} is held; send the ones before it first",
        )


def _has_job(draft: Draft, body: Submit) -> bool:
    job = compute_transaction_id(body)
    return draft.has(open_job_key(job)) or draft.has(closed_job_key(job))


def _check_amount(amount: Micro) -> None:
    if amount == 0:  # T4
        raise InvalidTransaction(Rejection.ZERO_AMOUNT, "the amount is 0: give at least 1 micro-unit")


def _check_unconvicted(draft: Draft, body: Bond | Serve | RenewOnion | Unjail) -> None:
    if is_convicted(draft, body.sender):  # E5
        raise InvalidTransaction(
            Rejection.CONVICTED,
            f"{body.sender.hex()[:12]} has broken a voting rule and never has stake or duties again: use another key",
        )


def _check_bond(params: Params, bonded: Micro) -> None:
    if bonded < params.min_bond:  # T5
        raise InvalidTransaction(
            Rejection.NOT_BONDED,
            f"a bond is at least {params.min_bond} micro-units, this one would be {bonded}: bond more at once",
        )


def _check_serve(draft: Draft, body: Serve, bonded: Micro) -> None:
    params = draft.base.constants.params
    get_card(draft, body.model)  # T6
    if bonded < params.min_bond:
        raise InvalidTransaction(
            Rejection.NOT_BONDED,
            f"who serves a model needs a bond of {params.min_bond} micro-units, {body.sender.hex()[:12]} has {bonded}: bond first",
        )
    if draft.has(serve_key(body.model, body.sender)):
        raise InvalidTransaction(
            Rejection.DUPLICATE, f"{body.sender.hex()[:12]} serves model {body.model.hex()[:12]} already"
        )
    if len(draft.list_keys(bytes((Kind.SERVE,)) + body.model)) >= MAX_MODEL_NODES:
        raise InvalidTransaction(
            Rejection.BUSY, f"a model is served by at most {MAX_MODEL_NODES} nodes, and {body.model.hex()[:12]} is"
        )
    models = (key[1:] for key in draft.list_keys(bytes((Kind.CARD,))))
    if sum(draft.has(serve_key(model, body.sender)) for model in models) >= MAX_NODE_MODELS:
        raise InvalidTransaction(
            Rejection.BUSY, f"a node serves at most {MAX_NODE_MODELS} models, and {body.sender.hex()[:12]} does"
        )


def _check_withdrawal(draft: Draft, body: Withdraw) -> None:
    if not draft.has(serve_key(body.model, body.sender)):  # U5
        raise InvalidTransaction(
            Rejection.NOT_A_MEMBER, f"{body.sender.hex()[:12]} does not serve model {body.model.hex()[:12]}"
        )


def get_card(draft: Draft, model: ModelId) -> ModelCard:
    """A registered card. Raises: InvalidTransaction(UNKNOWN_MODEL), naming the known ones."""
    card = draft.get(card_key(model), CARD_CODEC)
    if card is None:
        known = ", ".join(f"{name} ({other.hex()[:12]})" for name, other in _list_names(draft))
        raise InvalidTransaction(
            Rejection.UNKNOWN_MODEL, f"no model {model.hex()[:12]} is registered: known are {known or 'none yet'}"
        )
    return card


def _list_names(draft: Draft) -> list[tuple[str, ModelId]]:
    """The first few registered models by name: an error names no more, since whoever makes it costs us the reading."""
    keys = draft.list_keys(bytes((Kind.NAME,)))[:_SHOWN_MODELS]
    named = ((key[1:].decode(), draft.get(key, NAMED_CODEC)) for key in keys)
    return [(name, entry.model) for name, entry in named if entry is not None]


def check_card(card: ModelCard) -> None:
    """Accept a card that jobs can be decided by (T7). Raises: InvalidTransaction(BAD_CARD)."""
    if card.family is DigestFamily.SYNTHETIC64:
        most = 8 * DIGEST_BYTES[card.family]
        if card.tolerance_bits > most:
            raise InvalidTransaction(
                Rejection.BAD_CARD,
                f"a tolerance of {card.tolerance_bits} bits is more than the {most} that a {card.family.name} digest has",
            )
    elif card.tolerance_bits != 0:
        raise InvalidTransaction(
            Rejection.BAD_CARD,
            f"outputs of family {card.family.name} agree by equal hashes only: the tolerance must be 0 bits, got {card.tolerance_bits}",
        )


def _check_registration(draft: Draft, card: ModelCard) -> None:
    model = compute_model_id(card)
    if draft.has(card_key(model)):
        raise InvalidTransaction(
            Rejection.MODEL_EXISTS, f"model {card.name} ({model.hex()[:12]}) is registered already: serve it"
        )
    taken = draft.get(name_key(card.name), NAMED_CODEC)
    if taken is not None:  # one name, one model, so that people can ask for it by name
        raise InvalidTransaction(
            Rejection.MODEL_EXISTS,
            f"the name {card.name} belongs to model {taken.model.hex()[:12]}: choose another",
        )
    if len(draft.list_keys(bytes((Kind.CARD,)))) >= MAX_MODELS:
        raise InvalidTransaction(Rejection.BUSY, f"the ledger holds at most {MAX_MODELS} models, and it does")


# --- Submit


def _check_request(draft: Draft, job: JobRequest) -> None:
    params = draft.base.constants.params
    card = get_card(draft, job.model)  # T6
    _check_prompt(job.prompt, card)
    _check_settings(job.settings, card)
    _check_seats(job)
    _check_fee(job, params)
    _check_windows(job, params, card)


def _check_room(draft: Draft, job: JobRequest, height: Height) -> None:
    params = draft.base.constants.params
    _check_candidates(draft, job, height)
    if len(draft.list_keys(bytes((Kind.OPEN_JOB,)))) >= params.max_open_jobs:  # T12
        raise InvalidTransaction(
            Rejection.BUSY,
            f"{params.max_open_jobs} jobs are open, the most this network works on at once: submit again when some have settled",
        )


def _check_prompt(prompt: bytes, card: ModelCard) -> None:
    if not prompt:  # T8
        raise InvalidTransaction(Rejection.EMPTY_PROMPT, "the prompt is empty: ask something")
    most = card.context_tokens * MOST_TOKEN_BYTES
    if len(prompt) > most:
        raise InvalidTransaction(
            Rejection.PROMPT_TOO_LONG,
            f"the prompt has {len(prompt)} bytes, more than {most} cannot be {card.context_tokens} tokens, the context of {card.name}: shorten it (below that the worker's token count decides)",
        )
    try:
        prompt.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTransaction(
            Rejection.MALFORMED, f"the prompt is no UTF-8 text: {error.reason} at byte {error.start}"
        ) from error


def _check_settings(settings: GenerationSettings, card: ModelCard) -> None:
    wrong = _find_wrong_setting(settings, card)
    if wrong is not None:  # T9
        raise InvalidTransaction(Rejection.BAD_SETTINGS, wrong)


def _find_wrong_setting(settings: GenerationSettings, card: ModelCard) -> str | None:
    if settings.max_tokens >= card.context_tokens:
        return f"max_tokens {settings.max_tokens} leaves no room for a prompt in the {card.context_tokens} tokens of {card.name}'s context: ask for at most {card.context_tokens - 1}"
    if card.family in IMAGE_FAMILIES and (settings.kind is not SamplingKind.GREEDY or settings.max_tokens != 1):
        return f"{card.name} draws pictures, and its card says how: expected greedy and 1 token, got {settings.kind.name.lower()} and {settings.max_tokens}"
    if settings.kind is not SamplingKind.BEAM and settings.beams != 1:
        return f"beams are for beam search only: expected 1, got {settings.beams}"
    if settings.kind is SamplingKind.SAMPLE:
        if settings.temperature_ppm == 0 or settings.top_p_ppm == 0:
            return "sampling needs a temperature and a top-p above 0: use greedy for a temperature of 0"
        return None
    if (settings.temperature_ppm, settings.top_p_ppm) != (0, 1_000_000):
        return f"temperature and top-p are for sampling only: expected 0 and 1000000 ppm, got {settings.temperature_ppm} and {settings.top_p_ppm}"
    return None


def _check_seats(job: JobRequest) -> None:
    if job.seats % 2 == 0:  # T10
        raise InvalidTransaction(
            Rejection.BAD_SEATS, f"a committee has an odd number of seats, got {job.seats}: take {job.seats + 1}"
        )


def _check_fee(job: JobRequest, params: Params) -> None:
    least = job.seats * params.min_seat_fee
    if job.fee < least:  # T13
        raise InvalidTransaction(
            Rejection.FEE_TOO_LOW, f"the fee is {job.fee} micro-units, the least for {job.seats} seats is {least}"
        )


def _check_windows(job: JobRequest, params: Params, card: ModelCard) -> None:
    windows = compute_windows(params, card, job.settings.max_tokens)
    if windows.least_commit_ms > windows.most_ms:  # J2
        raise InvalidTransaction(
            Rejection.BAD_WINDOW,
            f"{job.settings.max_tokens} tokens need a commit window of {windows.least_commit_ms} ms, more than the {windows.most_ms} allowed: ask for fewer tokens",
        )
    for name, least, got in (
        ("commit", windows.least_commit_ms, job.commit_ms),
        ("reveal", windows.least_reveal_ms, job.reveal_ms),
    ):
        if not least <= got <= windows.most_ms:
            raise InvalidTransaction(
                Rejection.BAD_WINDOW,
                f"the {name} window must be {least} to {windows.most_ms} ms for {job.settings.max_tokens} tokens, got {got}",
            )


def _check_candidates(draft: Draft, job: JobRequest, height: Height) -> None:
    chain = draft.base.chain
    cap = compute_seat_cap(job.seats, draft.base.constants.params.seat_cap_divisor)
    needed = -(-job.seats // cap)
    candidates = get_candidates(draft, chain.snapshot_height, job.model)
    able = (each for each in candidates if is_able(draft, each.node, job, height, chain.time_ms))
    found = sum(1 for _ in islice(able, needed))
    if found < needed:  # T11
        raise InvalidTransaction(
            Rejection.TOO_FEW_CANDIDATES,
            f"{job.seats} seats need {needed} serving nodes whose free bond covers this fee (at most {cap} seats each), there are {found}: take fewer seats or a lower fee",
        )


def is_able(draft: Draft, node: NodeId, job: JobRequest, height: Height, time_ms: Milliseconds) -> bool:
    """Whether a candidate may be drawn now: its free bond covers the job, it is neither suspended nor convicted (J15)."""
    account = get_account(draft, node)
    record = draft.get(record_key(node), RECORD_CODEC) or NEW_RECORD
    at_risk = compute_bond_at_risk(job, draft.base.constants.params)
    if is_suspended(record, height, time_ms) or is_convicted(draft, node):
        return False
    return compute_free_bond(account) >= at_risk
