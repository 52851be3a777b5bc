"""What a state says to each transaction: a table of what is refused, why, and the words its sender reads."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from protocol.digest import DigestFamily
from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.state import check_transaction
from protocol.models import GenerationSettings, SamplingKind, compute_model_id, greedy
from protocol.params import MINIMAL, UNIT
from protocol.transactions import (
    Bond,
    JobRequest,
    RegisterModel,
    Serve,
    SignedTransaction,
    Submit,
    Transaction,
    Transfer,
    compute_transaction_id,
)
from tests.protocol.builders import (
    FOREVER,
    TestChain,
    make_card,
    make_genesis,
    make_hash,
    make_key,
    make_payload,
    make_request,
    make_synthetic_card,
    start_chain,
)

ASKER, OTHER, V0 = (make_key(name).public for name in ("asker", "other", "v0"))
BASE = MINIMAL.base_fee
RICHES = 1000 * UNIT


@pytest.fixture(scope="module")
def chain() -> TestChain:
    """A chain at its genesis; tests of admission do not move it."""
    return start_chain()


def refuse(chain: TestChain, name: str, body: Transaction, **options: int) -> InvalidTransaction:
    with pytest.raises(InvalidTransaction) as refusal:
        check_transaction(chain.ledger, chain.sign(name, body), **options)
    return refusal.value


def make_transfer(**changes: int) -> Transfer:
    return replace(Transfer(ASKER, 1, FOREVER, OTHER, 5), **changes)


# --- every account transaction (T1 to T4)


@pytest.mark.parametrize(
    "changes, reason, words",
    [
        ({"nonce": 0}, Rejection.BAD_NONCE, "the next of"),
        ({"nonce": MINIMAL.nonce_gap + 1}, Rejection.TOO_EARLY, "send the ones before it first"),
        ({"valid_until": 0}, Rejection.EXPIRED, "the next block is 1"),
        ({"amount": 0}, Rejection.ZERO_AMOUNT, "at least 1"),
        ({"amount": RICHES - BASE + 1}, Rejection.UNAFFORDABLE, "1 more are needed"),
    ],
)
def test_what_no_account_transaction_may_be(
    chain: TestChain, changes: dict[str, int], reason: Rejection, words: str
) -> None:
    refusal = refuse(chain, "asker", make_transfer(**changes))
    assert refusal.reason is reason
    assert words in str(refusal)


@pytest.mark.parametrize("changes", [{"nonce": MINIMAL.nonce_gap}, {"valid_until": 1}, {"amount": RICHES - BASE}])
def test_the_limits_themselves_are_allowed(chain: TestChain, changes: dict[str, int]) -> None:
    check_transaction(chain.ledger, chain.sign("asker", make_transfer(**changes)))


def test_the_nonce_after_the_last_that_waits_is_allowed_beyond_the_gap(chain: TestChain) -> None:
    signed = chain.sign("asker", make_transfer(nonce=41))
    check_transaction(chain.ledger, signed, pending_nonce=40)
    assert refuse(chain, "asker", make_transfer(nonce=42), pending_nonce=40).reason is Rejection.TOO_EARLY


def test_a_used_nonce_is_refused() -> None:
    chain = start_chain()
    chain.step(chain.transfer("asker", "other", 5))
    assert refuse(chain, "asker", make_transfer()).reason is Rejection.BAD_NONCE


# --- Bond, Serve, RegisterModel (T5 to T7)


@pytest.mark.parametrize("amount, reason", [(0, Rejection.ZERO_AMOUNT), (MINIMAL.min_bond - 1, Rejection.NOT_BONDED)])
def test_a_first_bond_is_at_least_the_least(chain: TestChain, amount: int, reason: Rejection) -> None:
    assert refuse(chain, "asker", Bond(ASKER, 1, FOREVER, amount)).reason is reason
    check_transaction(chain.ledger, chain.sign("asker", Bond(ASKER, 1, FOREVER, MINIMAL.min_bond)))
    check_transaction(chain.ledger, chain.sign("v0", Bond(V0, 1, FOREVER, 1)))  # tops up an earlier one


def test_who_may_announce_to_serve(chain: TestChain) -> None:
    model = make_request().model
    assert refuse(chain, "asker", Serve(ASKER, 1, FOREVER, model)).reason is Rejection.NOT_BONDED
    assert refuse(chain, "v0", Serve(V0, 1, FOREVER, model)).reason is Rejection.DUPLICATE
    unknown = refuse(chain, "v0", Serve(V0, 1, FOREVER, make_hash("nothing")))
    assert unknown.reason is Rejection.UNKNOWN_MODEL
    assert f"known are adder ({model.hex()[:12]})" in str(unknown)


@pytest.mark.parametrize(
    "card, reason",
    [
        (make_card(), Rejection.MODEL_EXISTS),
        (make_card(vocabulary=300), Rejection.MODEL_EXISTS),  # another model of the same name
        (make_card("loose", tolerance_bits=1), Rejection.BAD_CARD),
        (make_card("image", family=DigestFamily.SYNTHETIC64, tolerance_bits=65), Rejection.BAD_CARD),
    ],
)
def test_cards_that_are_not_registered(chain: TestChain, card: object, reason: Rejection) -> None:
    assert refuse(chain, "asker", RegisterModel(ASKER, 1, FOREVER, card)).reason is reason


def test_a_new_card_is_registered_served_and_asked(chain: TestChain) -> None:
    chain = chain.fork()
    card = make_synthetic_card(64)
    chain.step(chain.sign("asker", RegisterModel(ASKER, 1, FOREVER, card)))
    for name in ("v0", "v1", "v2"):
        node = make_key(name).public
        chain.step(chain.sign(name, Serve(node, 1, FOREVER, compute_model_id(card))))
    refused = refuse(chain, "asker", Submit(ASKER, 2, FOREVER, make_request(card)))
    assert refused.reason is Rejection.TOO_FEW_CANDIDATES  # not before the next snapshot
    chain.run(MINIMAL.epoch_heights - chain.header.height)
    chain.submit(make_request(card))


def test_a_picture_is_asked_for_as_its_card_draws_it(chain: TestChain) -> None:
    chain = chain.fork()
    card = make_card("drawer", family=DigestFamily.IMG_PDQ256)
    chain.step(chain.sign("asker", RegisterModel(ASKER, 1, FOREVER, card)))
    for name in ("v0", "v1", "v2"):
        chain.step(chain.sign(name, Serve(make_key(name).public, 1, FOREVER, compute_model_id(card))))
    chain.run(MINIMAL.epoch_heights - chain.header.height)
    for settings in (greedy(2), GenerationSettings(SamplingKind.SAMPLE, 1, 1, 1_000_000, 1)):
        refused = refuse(chain, "asker", Submit(ASKER, 2, FOREVER, replace(make_request(card), settings=settings)))
        assert refused.reason is Rejection.BAD_SETTINGS
        assert "drawer draws pictures" in str(refused)
    chain.submit(replace(make_request(card), settings=greedy(1)))


# --- Submit (T8 to T13, J2)

BAD_REQUESTS: list[tuple[str, Callable[[JobRequest], JobRequest], Rejection, str]] = [
    ("unknown model", lambda r: replace(r, model=make_hash("x")), Rejection.UNKNOWN_MODEL, "known are adder"),
    ("empty prompt", lambda r: replace(r, prompt=b""), Rejection.EMPTY_PROMPT, "ask something"),
    ("prompt too long", lambda r: replace(r, prompt=b"x" * (64 * 128 + 1)), Rejection.PROMPT_TOO_LONG, "64 tokens"),
    ("no text", lambda r: replace(r, prompt=b"\xff"), Rejection.MALFORMED, "UTF-8"),
    ("no room", lambda r: replace(r, settings=greedy(64)), Rejection.BAD_SETTINGS, "at most 63"),
    (
        "beams with greedy",
        lambda r: replace(r, settings=replace(greedy(8), beams=2)),
        Rejection.BAD_SETTINGS,
        "expected 1, got 2",
    ),
    (
        "temperature with greedy",
        lambda r: replace(r, settings=replace(greedy(8), temperature_ppm=1)),
        Rejection.BAD_SETTINGS,
        "for sampling only",
    ),
    (
        "sampling at 0",
        lambda r: replace(r, settings=GenerationSettings(SamplingKind.SAMPLE, 1, 0, 1_000_000, 8)),
        Rejection.BAD_SETTINGS,
        "above 0",
    ),
    ("zero seats", lambda r: replace(r, seats=0), Rejection.BAD_SEATS, "take 1"),
    ("even seats", lambda r: replace(r, seats=4), Rejection.BAD_SEATS, "take 5"),
    ("fee too low", lambda r: replace(r, fee=2_999), Rejection.FEE_TOO_LOW, "the least for 3 seats is 3000"),
    ("unaffordable", lambda r: replace(r, fee=RICHES), Rejection.UNAFFORDABLE, "1000 more are needed"),
    ("more than bonds cover", lambda r: replace(r, fee=51 * UNIT), Rejection.TOO_FEW_CANDIDATES, "a lower fee"),
    ("commit too short", lambda r: replace(r, commit_ms=279), Rejection.BAD_WINDOW, "must be 280 to"),
    ("commit too long", lambda r: replace(r, commit_ms=3_600_001), Rejection.BAD_WINDOW, "to 3600000"),
    ("reveal too short", lambda r: replace(r, reveal_ms=199), Rejection.BAD_WINDOW, "must be 200 to"),
]


@pytest.mark.parametrize("change, reason, words", [case[1:] for case in BAD_REQUESTS], ids=[c[0] for c in BAD_REQUESTS])
def test_a_question_that_cannot_be_asked(
    chain: TestChain, change: Callable[[JobRequest], JobRequest], reason: Rejection, words: str
) -> None:
    refusal = refuse(chain, "asker", Submit(ASKER, 1, FOREVER, change(make_request())))
    assert refusal.reason is reason
    assert words in str(refusal)


GOOD_REQUESTS: list[Callable[[JobRequest], JobRequest]] = [
    lambda r: r,
    lambda r: replace(r, prompt=b"x" * 8192),
    lambda r: replace(r, settings=greedy(63), commit_ms=830),
    lambda r: replace(r, settings=GenerationSettings(SamplingKind.SAMPLE, 1, 1, 1, 8)),
    lambda r: replace(r, settings=GenerationSettings(SamplingKind.BEAM, 4, 0, 1_000_000, 8)),
    lambda r: replace(r, seats=1, fee=1_000),
    lambda r: replace(r, seats=5, fee=5_000),
    lambda r: replace(r, commit_ms=280, reveal_ms=200),
    lambda r: replace(r, commit_ms=3_600_000, reveal_ms=3_600_000),
    lambda r: replace(r, fee=50 * UNIT),  # twice that is the whole bond
]


@pytest.mark.parametrize("change", GOOD_REQUESTS)
def test_a_question_at_the_limits_is_asked(chain: TestChain, change: Callable[[JobRequest], JobRequest]) -> None:
    check_transaction(chain.ledger, chain.sign("asker", Submit(ASKER, 1, FOREVER, change(make_request()))))


def test_seats_are_no_more_than_the_serving_nodes_can_hold() -> None:
    chain = start_chain(make_genesis(validators=("v0", "v1", "v2")))
    check_transaction(chain.ledger, chain.ask(make_request(seats=3)))
    refusal = refuse(chain, "asker", chain.ask(make_request(seats=5, fee=50_000)).body)
    assert refusal.reason is Rejection.TOO_FEW_CANDIDATES
    assert "5 seats need 5 serving nodes" in str(refusal)
    assert "there are 3" in str(refusal)
    check_transaction(chain.ledger, chain.ask(make_request(seats=9, fee=90_000)))  # three seats each


def test_an_unaffordable_fee_names_what_is_there_and_what_is_needed() -> None:
    chain = start_chain(make_genesis(balance=30_000))
    refusal = refuse(chain, "asker", Submit(ASKER, 1, FOREVER, make_request(fee=30_000)))
    assert refusal.reason is Rejection.UNAFFORDABLE
    assert f"costs {30_000 + BASE} micro-units" in str(refusal)
    assert "has 30000: 1000 more are needed" in str(refusal)


def test_a_second_submit_of_the_same_job_is_a_duplicate() -> None:
    chain = start_chain()
    signed = chain.ask()
    chain.step(signed)
    refusal = refuse(chain, "asker", signed.body)
    assert refusal.reason is Rejection.DUPLICATE
    assert compute_transaction_id(signed.body).hex()[:12] in str(refusal)


def test_the_network_takes_only_so_many_open_jobs_at_once() -> None:
    chain = start_chain(make_genesis(params=replace(MINIMAL, max_open_jobs=2)))
    chain.submit()
    chain.submit()
    refusal = refuse(chain, "asker", chain.ask().body)
    assert refusal.reason is Rejection.BUSY


# --- job transactions (T15)


def test_job_transactions_need_an_open_job() -> None:
    chain = start_chain()
    settlement = chain.settle()
    member = settlement.seats[0].holder
    assert member is not None
    late, unknown = (chain.commit(job, member, make_payload()) for job in (settlement.job, make_hash("no job")))
    assert refuse(chain, chain.names[member], late.body).reason is Rejection.WRONG_PHASE
    assert refuse(chain, chain.names[member], unknown.body).reason is Rejection.UNKNOWN_JOB


def test_job_transactions_pay_no_base_fee_and_use_no_nonce() -> None:
    chain = start_chain()
    job = chain.submit()
    before = {node: (chain.next_nonce(chain.names[node])) for node in chain.members(job)}
    supply_burned = chain.ledger.chain.burned
    chain.commit_all(job, dict.fromkeys(chain.members(job), make_payload()))
    assert {node: chain.next_nonce(chain.names[node]) for node in chain.members(job)} == before
    assert chain.ledger.chain.burned == supply_burned


def test_admission_leaves_the_state_alone(chain: TestChain) -> None:
    root = chain.ledger.state_root
    signed: SignedTransaction = chain.ask()
    check_transaction(chain.ledger, signed)
    assert chain.ledger.state_root == root
