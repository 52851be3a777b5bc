"""What a node may ask of a state, before, during and after a job."""

from protocol.codec import encode
from protocol.jobs.reputation import NEW_RECORD
from protocol.jobs.settlement import SETTLEMENT_CODEC, Phase, SeatEnd
from protocol.ledger.accounts import NOTHING
from protocol.ledger.entries import settlement_key
from protocol.ledger.queries import (
    find_model,
    get_account,
    get_candidates,
    get_job,
    get_record,
    get_settlement,
    list_duties,
    list_jobs,
    list_models,
    list_served_models,
    prove_settlement,
)
from protocol.merkle import check_inclusion
from protocol.models import compute_model_id
from protocol.transactions import compute_transaction_id
from tests.protocol.builders import ABSTENTION, make_card, make_hash, make_key, make_payload, make_request, start_chain

STRANGER = make_key("stranger").public


def test_what_nobody_knows_is_empty_or_none() -> None:
    ledger = start_chain().ledger
    assert get_account(ledger, STRANGER) == NOTHING
    assert get_record(ledger, STRANGER) == NEW_RECORD
    assert list_served_models(ledger, STRANGER) == ()
    assert list_duties(ledger, STRANGER) == ()
    assert find_model(ledger, "nothing") is None
    assert get_candidates(ledger, 5) is None
    for ask in (get_job, get_settlement, prove_settlement):
        assert ask(ledger, make_hash("no job")) is None


def test_models_are_found_by_name_and_listed_with_their_cards() -> None:
    ledger = start_chain().ledger
    card = make_card()
    assert find_model(ledger, card.name) == compute_model_id(card)
    assert list_models(ledger) == {compute_model_id(card): card}
    assert list_served_models(ledger, make_key("v0").public) == (compute_model_id(card),)


def test_a_job_is_shown_through_its_phases() -> None:
    chain = start_chain()
    signed = chain.ask()
    job = compute_transaction_id(signed.body)
    chain.step(signed)
    view = chain.view(job)
    assert (view.phase, view.submit_height, view.seats, view.beacon, view.window_ends_ms) == (
        Phase.SUBMITTED,
        1,
        (),
        None,
        None,
    )
    while chain.view(job).phase is Phase.SUBMITTED:
        chain.step()
    view = chain.view(job)
    assert view.maturity_height == chain.header.height
    assert view.beacon == chain.header.beacon
    assert view.window_ends_ms == chain.header.time_ms + make_request().commit_ms
    members = chain.members(job)
    chain.commit_all(job, dict.fromkeys(members[:1], make_payload()))
    assert [seat.committed for seat in chain.view(job).seats] == [True, False, False]
    chain.commit_all(job, {members[1]: make_payload(), members[2]: ABSTENTION})
    chain.reveal_all(job, {members[1]: make_payload()})
    seats = chain.view(job).seats
    assert [seat.revealed for seat in seats] == [False, True, False]
    assert seats[1].reveal == make_payload()
    assert {seat.end for seat in seats} == {None}
    chain.reveal_all(job, {members[0]: make_payload(), members[2]: ABSTENTION})
    view = chain.view(job)
    assert view.phase is Phase.SETTLED
    assert view.settlement == get_settlement(chain.ledger, job)
    assert [seat.end for seat in view.seats] == [SeatEnd.WINNING, SeatEnd.WINNING, SeatEnd.ABSTAINED]
    assert view.window_ends_ms is None
    assert list_jobs(chain.ledger) == (job,)


def test_a_settlement_is_proved_under_the_state_root_of_its_block_and_of_later_ones() -> None:
    chain = start_chain()
    settlement = chain.settle()
    for _ in range(2):
        proved = prove_settlement(chain.ledger, settlement.job)
        assert proved is not None
        encoded, proof = proved
        assert SETTLEMENT_CODEC.decode(encoded) == settlement
        key = settlement_key(settlement.job)
        assert check_inclusion(chain.header.state_root, key, encoded, proof)
        assert not check_inclusion(chain.header.state_root, key, encode(settlement.job), proof)
        chain.step()
