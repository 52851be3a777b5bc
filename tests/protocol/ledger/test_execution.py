"""The order of things inside a block (rules L5, L6) and the waiting for a beacon (J3)."""

import pytest
from msgspec.structs import replace

from protocol.codec import encode
from protocol.jobs.settlement import Phase
from protocol.ledger.queries import get_account, get_settlement
from protocol.params import MINIMAL
from protocol.transactions import compute_transaction_id
from tests.protocol.builders import TestChain, make_genesis, make_payload, make_request, start_chain


def count_blocks_until_drawn(chain: TestChain) -> int:
    signed = chain.ask(make_request(seats=1))
    job = compute_transaction_id(signed.body)
    chain.step(signed)
    for blocks in range(1, 99):
        assert chain.view(job).phase is Phase.SUBMITTED
        chain.step()
        if chain.view(job).phase is not Phase.SUBMITTED:
            return blocks
    raise AssertionError


def test_no_job_is_drawn_in_the_block_of_its_submission_even_by_a_lone_validator() -> None:
    chain = start_chain(make_genesis(validators=("v0",)))
    assert count_blocks_until_drawn(chain) == 1


def test_the_draw_waits_for_leaders_of_more_than_a_third() -> None:
    chain = start_chain()
    blocks = count_blocks_until_drawn(chain)
    views = [block.header.view for block in chain.blocks[-blocks:]]
    leaders = chain.ledger.chain.leaders[-blocks:]
    assert len(views) == blocks
    assert len(set(leaders)) == 2
    assert len(set(leaders[:-1])) == 1


@pytest.mark.parametrize("most", [1, 3])
def test_the_draw_waits_no_longer_than_the_most_blocks(most: int) -> None:
    validators = tuple(f"v{index}" for index in range(16))  # six of them weigh more than a third
    genesis = make_genesis(validators=validators, params=replace(MINIMAL, beacon_max_blocks=most))
    assert count_blocks_until_drawn(start_chain(genesis, names=[*validators, "asker"])) == most


def test_a_block_settles_before_it_draws_so_that_freed_bonds_count() -> None:
    fee = MINIMAL.min_bond // 2
    chain = start_chain(make_genesis(validators=("v0", "v1", "v2"), stake=MINIMAL.min_bond))
    job = chain.submit(make_request(fee=fee))
    members = chain.members(job)
    chain.commit_all(job, dict.fromkeys(members, make_payload()))
    chain.reveal_all(job, dict.fromkeys(members[:2], make_payload()))
    assert all(get_account(chain.ledger, node).locked == 2 * fee for node in members)
    second = chain.ask(make_request(fee=fee))
    refused = chain.build([encode(second)])
    assert refused.block.body == ()  # nobody's free bond covers it while the first is open
    chain.reveal_all(job, {members[2]: make_payload()})
    assert get_settlement(chain.ledger, job) is not None
    chain.step(second)


def test_an_account_transaction_sees_what_the_job_transactions_before_it_did() -> None:
    chain = start_chain(make_genesis(balance=100_000))
    job = chain.submit(make_request(fee=30_000))
    members = chain.members(job)
    chain.commit_all(job, dict.fromkeys(members, make_payload()))
    member = chain.names[members[0]]
    balance = get_account(chain.ledger, members[0]).balance
    earned = chain.transfer(member, "other", balance + 10_000 - MINIMAL.base_fee)
    chain.step(*(chain.reveal(job, node, make_payload()) for node in members), earned)
    proposer = chain.ledger.chain.leaders[-1]
    assert get_account(chain.ledger, members[0]).balance == (MINIMAL.base_fee // 2 if proposer == members[0] else 0)
