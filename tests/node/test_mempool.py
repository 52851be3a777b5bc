"""The mempool: what waits, in which order, for how long, and what it costs."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from node.mempool import EARLY_MS, FIRST_REPEAT_MS, LONGEST_REPEAT_MS, MAX_SENDER_EARLY, REPEAT_BYTES, Mempool
from protocol.codec import encode
from protocol.errors import InvalidMessage, InvalidTransaction, Rejection
from protocol.ledger.queries import list_duties
from protocol.params import MINIMAL
from protocol.transactions import Commit, SignedTransaction, Transfer, compute_transaction_id
from tests.protocol.builders import (
    START_MS,
    TestChain,
    make_genesis,
    make_hash,
    make_key,
    make_payload,
    make_request,
    start_chain,
)

NOW = START_MS


def open_pool(chain: TestChain) -> Mempool:
    return Mempool(chain.ledger.constants.chain_id, chain.genesis.params)


def admit(pool: Mempool, chain: TestChain, signed: SignedTransaction, *, now_ms: int = NOW, is_own: bool = False):
    return pool.admit(chain.ledger, encode(signed), now_ms, is_own=is_own)


def refuse(pool: Mempool, chain: TestChain, signed: SignedTransaction, now_ms: int = NOW) -> Rejection:
    with pytest.raises(InvalidTransaction) as caught:
        admit(pool, chain, signed, now_ms=now_ms)
    return caught.value.reason


def list_nonces(pool: Mempool, chain: TestChain) -> list[tuple[str, int]]:
    """Names and nonces of the candidates, in order."""
    from protocol.transactions import TRANSACTION_CODEC

    bodies = [TRANSACTION_CODEC.decode(encoded).body for encoded in pool.list_candidates(chain.ledger)]
    return [(chain.names[body.sender], body.nonce) for body in bodies if isinstance(body, Transfer)]


def test_a_transaction_waits_once_and_leaves_with_its_block() -> None:
    chain = start_chain()
    pool, signed = open_pool(chain), chain.transfer("asker", "other", 5)
    pending = admit(pool, chain, signed)
    assert pending is not None and pending.id in pool and encode(signed) in pool.verified
    assert admit(pool, chain, signed) is None
    chain.step(signed)
    included, beaten = pool.drop_final(chain.ledger, [(pending.id, signed.body)])
    assert (included, beaten, len(pool), pool.verified) == ([pending], [], 0, set())


def test_a_second_transaction_with_the_same_nonce_is_refused_until_a_block_decides() -> None:
    chain = start_chain()
    pool = open_pool(chain)
    first, second = chain.transfer("asker", "other", 5), chain.transfer("asker", "other", 6)
    admit(pool, chain, first, is_own=True)
    assert refuse(pool, chain, second) is Rejection.DUPLICATE
    chain.step(second)
    included, beaten = pool.drop_final(chain.ledger, [(compute_transaction_id(second.body), second.body)])
    assert included == [] and [pending.signed for pending in beaten] == [first]


def test_a_sender_has_a_bounded_number_of_transactions_waiting_but_its_commits_are_not_among_them() -> None:
    chain = start_chain()
    pool, limit = open_pool(chain), chain.genesis.params.max_sender_transactions
    for nonce in range(1, limit + 1):
        admit(pool, chain, chain.transfer("v0", "other", 5, nonce=nonce))
    assert refuse(pool, chain, chain.transfer("v0", "other", 5, nonce=limit + 1)) is Rejection.TOO_MANY
    job = chain.submit(make_request(seats=5))
    admit(pool, chain, chain.commit(job, make_key("v0").public, make_payload()))
    assert len(pool) == limit + 1


def test_pruning_keeps_a_long_row_of_one_sender() -> None:
    chain = start_chain()
    pool, limit = open_pool(chain), chain.genesis.params.max_sender_transactions
    for nonce in range(1, limit + 1):
        admit(pool, chain, chain.transfer("asker", "other", 5, nonce=nonce))
    assert pool.prune(chain.ledger) == [] and len(pool) == limit


def test_a_nonce_gap_beyond_the_limit_is_too_early_and_within_it_waits_unused() -> None:
    chain = start_chain()
    pool, gap = open_pool(chain), chain.genesis.params.nonce_gap
    assert refuse(pool, chain, chain.transfer("asker", "other", 5, nonce=gap + 1)) is Rejection.TOO_EARLY
    admit(pool, chain, chain.transfer("asker", "other", 5, nonce=gap))
    assert list_nonces(pool, chain) == []
    assert not pool.has_includable(b"tip", chain.ledger)
    assert pool.find_free_nonce(make_key("asker").public, 0) == 1
    admit(pool, chain, chain.transfer("asker", "other", 5, nonce=1))
    assert list_nonces(pool, chain) == [("asker", 1)]
    assert pool.has_includable(b"tip", chain.ledger)
    assert pool.find_free_nonce(make_key("asker").public, 0) == 2


def test_what_cannot_be_included_takes_nobodys_place_in_a_block() -> None:
    chain = start_chain()
    pool, gap = open_pool(chain), chain.genesis.params.nonce_gap
    for nonce in range(2, gap + 1):
        admit(pool, chain, chain.transfer("other", "asker", 5, nonce=nonce))
    admit(pool, chain, chain.transfer("asker", "other", 5, nonce=1))
    assert list_nonces(pool, chain) == [("asker", 1)]


def test_candidates_come_in_the_order_of_arrival_but_each_senders_by_nonce() -> None:
    chain = start_chain()
    pool = open_pool(chain)
    for sender, nonce in (("asker", 2), ("other", 1), ("asker", 1), ("v0", 1), ("asker", 3), ("other", 2)):
        admit(pool, chain, chain.transfer(sender, "v1", 5, nonce=nonce))
    expected = [("other", 1), ("asker", 1), ("asker", 2), ("v0", 1), ("asker", 3), ("other", 2)]
    assert list_nonces(pool, chain) == expected


def test_a_full_pool_gives_up_what_lacks_an_earlier_nonce_and_refuses_otherwise() -> None:
    size = len(encode(start_chain().transfer("asker", "other", 5)))
    chain = start_chain(make_genesis(params=replace(MINIMAL, max_mempool_bytes=4 * size + size // 2)))
    pool = open_pool(chain)
    for nonce in (2, 3, 4):
        admit(pool, chain, chain.transfer("other", "asker", 5, nonce=nonce))
    for nonce in (1, 2, 3):
        admit(pool, chain, chain.transfer("asker", "other", 5, nonce=nonce))
    assert len(pool) == 4 and list_nonces(pool, chain) == [("asker", 1), ("asker", 2), ("asker", 3)]
    admit(pool, chain, chain.transfer("asker", "other", 5, nonce=4))
    assert refuse(pool, chain, chain.transfer("asker", "other", 5, nonce=5)) is Rejection.TOO_MANY


def test_a_full_pool_still_takes_what_members_owe() -> None:
    chain = start_chain(make_genesis(params=replace(MINIMAL, max_mempool_bytes=1)))
    pool = open_pool(chain)
    job = chain.submit(make_request(seats=5))
    assert refuse(pool, chain, chain.transfer("asker", "other", 5)) is Rejection.TOO_MANY
    assert admit(pool, chain, chain.commit(job, chain.members(job)[0], make_payload())) is not None


def test_expired_transactions_are_pruned() -> None:
    chain = start_chain()
    pool, asker = open_pool(chain), make_key("asker")
    body = Transfer(asker.public, 1, 3, make_key("other").public, 5)
    admit(pool, chain, chain.sign("asker", body))
    chain.run(2)
    assert pool.prune(chain.ledger) == []
    chain.run(1)
    assert [pending.signed.body for pending in pool.prune(chain.ledger)] == [body]


def test_bytes_that_are_no_transaction_are_told_from_a_wrong_signature() -> None:
    chain = start_chain()
    pool, signed = open_pool(chain), chain.transfer("asker", "other", 5)
    with pytest.raises(InvalidMessage):
        pool.admit(chain.ledger, b"\xc1", NOW)
    assert refuse(pool, chain, replace(signed, signature=bytes(64))) is Rejection.BAD_SIGNATURE
    assert len(pool) == 0


def test_a_reveal_before_its_block_is_held_and_waits_once_the_block_is_there() -> None:
    chain = start_chain()
    pool = open_pool(chain)
    job = chain.submit(make_request())
    members = chain.members(job)
    reveal = chain.reveal(job, members[0], make_payload())
    assert refuse(pool, chain, reveal) is Rejection.TOO_EARLY
    assert pool.readmit(chain.ledger, NOW) == []
    chain.commit_all(job, dict.fromkeys(members, make_payload()))
    assert [pending.signed for pending in pool.readmit(chain.ledger, NOW)] == [reveal]
    assert pool.readmit(chain.ledger, NOW) == []
    assert pool.has_includable(b"tip", chain.ledger)


def test_what_stays_early_is_forgotten_in_time_and_bounded_a_member() -> None:
    chain = start_chain()
    pool, member = open_pool(chain), make_key("v0").public
    for index in range(MAX_SENDER_EARLY + 5):
        unknown = chain.sign("v0", Commit(member, make_hash(f"job {index}"), make_hash("commitment")))
        assert refuse(pool, chain, unknown) is Rejection.UNKNOWN_JOB
    assert len(pool._early) == MAX_SENDER_EARLY
    pool.readmit(chain.ledger, NOW + EARLY_MS)
    assert (len(pool._early), len(pool._early_by_author)) == (0, 0)


def test_what_comes_too_late_or_from_nobody_with_a_bond_is_not_held() -> None:
    chain = start_chain()
    pool = open_pool(chain)
    stranger = chain.sign("asker", Commit(make_key("asker").public, make_hash("job"), make_hash("commitment")))
    assert refuse(pool, chain, stranger) is Rejection.UNKNOWN_JOB
    job = chain.submit(make_request(seats=1))
    late = chain.commit(job, chain.members(job)[0], make_payload("other"))
    chain.commit_all(job, {chain.members(job)[0]: make_payload()})
    assert refuse(pool, chain, late) is Rejection.WRONG_PHASE
    assert pool._early == {}
    assert list_duties(chain.ledger, chain.members(job)[0])


def test_only_what_was_offered_here_is_repeated_ever_more_rarely_and_within_a_budget() -> None:
    chain = start_chain()
    pool = open_pool(chain)
    admit(pool, chain, chain.transfer("other", "asker", 5))
    own = admit(pool, chain, chain.transfer("asker", "other", 5), is_own=True)
    assert pool.take_repeats(NOW + FIRST_REPEAT_MS - 1) == []
    times = [ms for ms in range(0, 60_000, 1_000) if pool.take_repeats(NOW + ms) == [own]]
    assert times == [2_000, 6_000, 14_000, 30_000, 46_000]
    assert LONGEST_REPEAT_MS == 16_000
    big = make_request(prompt=b"x" * 8_000)
    for name in ("v0", "v1", "v2", "v3", "v4"):
        for nonce in (1, 2):
            signed = chain.sign(name, replace(chain.ask(big, sender=name).body, nonce=nonce))
            admit(pool, chain, signed, is_own=True)
    sent = pool.take_repeats(NOW + 61_000)
    assert sum(len(pending.encoded) for pending in sent) <= REPEAT_BYTES
    assert len({pending.id for pending in (*sent, *pool.take_repeats(NOW + 61_000))}) == 10


def test_on_one_state_no_transaction_is_judged_twice() -> None:
    chain = start_chain()
    pool = open_pool(chain)
    admit(pool, chain, chain.transfer("asker", "other", 5, nonce=2))
    assert not pool.has_includable(b"tip", chain.ledger)
    assert len(pool._unjudged) == 0
    admit(pool, chain, chain.transfer("other", "asker", 5, nonce=1))
    assert pool.has_includable(b"tip", chain.ledger)
    signed = chain.transfer("other", "asker", 5, nonce=1)
    chain.step(signed)
    pool.drop_final(chain.ledger, [(compute_transaction_id(signed.body), signed.body)])
    assert not pool.has_includable(b"next", chain.ledger)
