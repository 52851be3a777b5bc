"""A block's body: what fits, in which order, and what makes it invalid (rules L5, L14, T14)."""

import pytest
from msgspec.structs import replace

from protocol.block import MAX_BLOCK_BYTES, Block, compute_transactions_root
from protocol.codec import encode
from protocol.errors import InvalidBlock, InvalidTransaction, Rejection
from protocol.ledger.state import build_block, check_block
from protocol.transactions import sign_transaction
from tests.protocol.builders import (
    TestChain,
    make_hash,
    make_key,
    make_payload,
    make_request,
    start_chain,
)


@pytest.fixture(scope="module")
def chain() -> TestChain:
    """A chain a few blocks up; these tests do not move it."""
    chain = start_chain()
    chain.run(3)
    return chain


def refuse(chain: TestChain, block: Block) -> InvalidBlock:
    with pytest.raises(InvalidBlock) as refusal:
        check_block(chain.ledger, chain.header, block)
    return refusal.value


def test_what_is_invalid_is_left_out_and_named(chain: TestChain) -> None:
    good = encode(chain.transfer("asker", "other", 5))
    poor = encode(chain.transfer("other", "asker", 2**52))
    forged = encode(replace(chain.transfer("other", "asker", 5), signature=bytes(64)))
    later = encode(chain.transfer("asker", "other", 5, nonce=9))
    junk = b"junk"
    built = chain.build([junk, poor, forged, later, good, good])
    assert built.block.body == (good,)
    assert sorted(built.invalid) == sorted([junk, forged, poor])
    check_block(chain.ledger, chain.header, built.block)


def test_a_sender_s_transactions_are_taken_by_nonce_however_they_came(chain: TestChain) -> None:
    nonces = [3, 1, 2]
    signed = {nonce: encode(chain.transfer("asker", "other", 5, nonce=nonce)) for nonce in nonces}
    other = encode(chain.transfer("other", "asker", 5))
    built = chain.build([signed[3], other, signed[1], signed[2]])
    assert built.block.body == (signed[1], other, signed[2], signed[3])


def test_job_transactions_come_before_all_others() -> None:
    chain = start_chain()
    job = chain.submit()
    commit = encode(chain.commit(job, chain.members(job)[0], make_payload()))
    transfer = encode(chain.transfer("asker", "other", 5))
    built = chain.build([transfer, commit])
    assert built.block.body == (commit, transfer)
    body = (transfer, commit)
    swapped = Block(replace(built.block.header, tx_root=compute_transactions_root(body)), body)
    assert refuse(chain, swapped).reason is Rejection.BAD_BODY


@pytest.mark.parametrize("fault", ["junk", "forged", "poor", "twice", "other chain"])
def test_one_invalid_transaction_makes_the_block_invalid(chain: TestChain, fault: str) -> None:
    good = chain.transfer("asker", "other", 5)
    bad = {
        "junk": b"junk",
        "forged": encode(replace(good, signature=bytes(64))),
        "poor": encode(chain.transfer("asker", "other", 2**52, nonce=2)),
        "twice": encode(good),
        "other chain": encode(
            sign_transaction(make_key("other"), make_hash("x"), chain.transfer("other", "asker", 1).body)
        ),
    }[fault]
    body = (encode(good), bad)
    block = Block(replace(chain.build().block.header, tx_root=compute_transactions_root(body)), body)
    refusal = refuse(chain, block)
    assert refusal.reason is Rejection.BAD_BODY
    assert "transaction 1" in str(refusal)


def test_known_signatures_are_not_verified_again_and_unknown_ones_are(chain: TestChain) -> None:
    forged = encode(replace(chain.transfer("asker", "other", 5), signature=bytes(64)))
    context = chain.context([forged])
    built = build_block(chain.ledger, chain.header, context, verified={forged})
    assert built.block.body == (forged,)
    check_block(chain.ledger, chain.header, built.block, verified={forged})
    assert refuse(chain, built.block).reason is Rejection.BAD_BODY


def test_a_block_is_filled_up_to_its_limit_and_not_beyond(chain: TestChain) -> None:
    asks = []
    for nonce in range(1, 70):
        body = replace(chain.ask(make_request(prompt=b"x" * 8192)).body, nonce=nonce)
        asks.append(encode(chain.sign("asker", body)))
    built = build_block(chain.ledger, chain.header, chain.context(asks), verified=frozenset(asks))
    assert 0 < len(built.block.body) < len(asks)
    assert len(encode(built.block)) <= MAX_BLOCK_BYTES
    assert len(encode(built.block)) + len(asks[0]) + 1024 > MAX_BLOCK_BYTES
    check_block(chain.ledger, chain.header, built.block, verified=frozenset(asks))
    body = (*built.block.body, *asks[len(built.block.body) :])
    too_large = Block(replace(built.block.header, tx_root=compute_transactions_root(body)), body)
    assert refuse(chain, too_large).reason is Rejection.TOO_LARGE


def test_a_refusal_in_a_body_carries_its_cause(chain: TestChain) -> None:
    body = (encode(chain.transfer("asker", "other", 2**52)),)
    block = Block(replace(chain.build().block.header, tx_root=compute_transactions_root(body)), body)
    assert isinstance(refuse(chain, block).__cause__, InvalidTransaction)
