"""The ledger as a value: conservation under whatever happens, the same ledger from its entries, one local copy a block (M1)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.codec import encode
from protocol.errors import InvalidTransaction
from protocol.evidence import EvidenceKind
from protocol.jobs.life import list_bonded_nodes
from protocol.jobs.settlement import JOB_CODEC, Phase
from protocol.ledger.draft import Draft, Ledger, changed_entries, ledger_from_entries, list_keys
from protocol.ledger.entries import ACCOUNT_CODEC, CHAIN_CODEC, CHAIN_KEY, UNBONDING_CODEC, Account, Kind, account_key
from protocol.ledger.epochs import get_validators
from protocol.ledger.pay import compute_bond_at_risk
from protocol.ledger.queries import RevealDuty, get_account, list_duties, list_jobs
from protocol.ledger.state import check_transaction
from protocol.merkle import MerkleTree
from protocol.params import MINIMAL
from protocol.transactions import SignedTransaction, Transaction, Withdraw
from protocol.validators import index_of
from tests.protocol.builders import (
    ABSTENTION,
    FOREVER,
    TestChain,
    make_genesis,
    make_hash,
    make_key,
    make_payload,
    make_request,
    start_chain,
)
from tests.protocol.offences import convict, report

GENESIS = make_genesis(params=replace(MINIMAL, retention_epochs=4))
NAMES = ("v0", "v1", "v2", "v3", "v4", "asker", "other")


@dataclass(frozen=True)
class Happening:
    """One block's worth of chance: who does what, which members act, what they say, how late the block is."""

    kind: str
    who: int
    amount: int
    acting: int
    saying: int
    after_ms: int
    skip: int


happenings = st.builds(
    Happening,
    kind=st.sampled_from(
        ["act", "act", "act", "act", "wait", "ask", "ask", "transfer", "bond", "unbond", "withdraw", "report", "renew"]
    ),
    who=st.integers(0, len(NAMES) - 1),
    amount=st.sampled_from([0, 1, 7, 10_001, 33_333, 10**7, 10**9]),
    acting=st.one_of(st.just(127), st.sampled_from([127 - (1 << index) for index in range(7)]), st.integers(0, 127)),
    saying=st.sampled_from([0, 0, 1, 2, 3]),
    after_ms=st.sampled_from([50, 50, 1_000, 2_000, 5_000]),
    skip=st.integers(0, 2),
)


def list_wanted(chain: TestChain, chance: Happening) -> list[SignedTransaction]:
    """The transactions that this happening would like in the next block, valid or not."""
    name, other = NAMES[chance.who], NAMES[chance.acting % len(NAMES)]
    node = make_key(name).public
    match chance.kind:
        case "transfer":
            return [chain.transfer(name, other, chance.amount)]
        case "bond":
            return [chain.bond(name, chance.amount)]
        case "unbond":
            return [chain.unbond(name, chance.amount)]
        case "withdraw":
            return [chain.sign(name, Withdraw(node, chain.next_nonce(name), FOREVER, make_request().model))]
        case "report":
            offender = f"v{chance.who % 5}"
            if index_of(get_validators(chain.ledger, chain.header.epoch), make_key(offender).public) is None:
                return []
            return [report(chain, other, convict(chain, offender, EvidenceKind(1 + chance.saying)))]
        case "renew":
            return [chain.renew(name)]
        case "ask":
            return [chain.ask(make_request(seats=(1, 3, 5)[chance.saying % 3], fee=chance.amount + 5_000), sender=name)]
        case "act":
            return list_acts(chain, chance)
        case _:
            return []


def list_acts(chain: TestChain, chance: Happening) -> list[SignedTransaction]:
    acts: list[SignedTransaction] = []
    for index, node in enumerate(sorted(chain.names)):
        payload = (make_payload(), make_payload(str(index % 2)), make_payload(str(index)), ABSTENTION)[chance.saying]
        for duty in list_duties(chain.ledger, node) if chance.acting >> index & 1 else ():
            act = chain.reveal if isinstance(duty, RevealDuty) else chain.commit
            acts.append(act(duty.job, node, payload))
    return acts


def sum_everything(ledger: Ledger) -> int:
    """Every unit there is, read from the bytes of every entry."""
    accounts = [ACCOUNT_CODEC.decode(ledger.entries[key]) for key in list_keys(ledger, bytes((Kind.ACCOUNT,)))]
    jobs = [JOB_CODEC.decode(ledger.entries[key]) for key in list_keys(ledger, bytes((Kind.OPEN_JOB,)))]
    burned = CHAIN_CODEC.decode(ledger.entries[CHAIN_KEY]).burned
    waiting = [UNBONDING_CODEC.decode(ledger.entries[key]) for key in list_keys(ledger, bytes((Kind.UNBONDING,)))]
    owned = sum(each.balance + each.bonded for each in accounts) + sum(each.amount for each in waiting)
    return owned + sum(job.request.fee for job in jobs) + burned


def list_locks(ledger: Ledger) -> Mapping[bytes, int]:
    """What open jobs hold of each bond, counted from the jobs."""
    locks: Counter[bytes] = Counter()
    for key in list_keys(ledger, bytes((Kind.OPEN_JOB,))):
        job = JOB_CODEC.decode(ledger.entries[key])
        if job.phase is not Phase.SUBMITTED:
            locks.update(dict.fromkeys(list_bonded_nodes(job), compute_bond_at_risk(job.request, MINIMAL)))
    return locks


@settings(max_examples=60)
@given(st.lists(happenings, min_size=10, max_size=40))
def test_whatever_happens_conserves_every_unit_and_restores_from_its_entries(chances: list[Happening]) -> None:
    chain = start_chain(GENESIS)
    minted = chain.ledger.chain.minted
    chain.submit(make_request(seats=3 if len(chances) % 2 else 5, fee=50_001))
    stored = dict(chain.ledger.entries)
    for chance in chances:
        wanted = [encode(each) for each in list_wanted(chain, chance)]
        chain.take(chain.build(wanted, after_ms=chance.after_ms, skip=chance.skip).block)
        ledger = chain.ledger
        assert sum_everything(ledger) == minted == ledger.chain.minted
        locks = list_locks(ledger)
        assert all(get_account(ledger, node).locked == locks.get(node, 0) for node in chain.names)
        for key, value in changed_entries(ledger).items():
            if value is None:
                del stored[key]
            else:
                stored[key] = value
    restored = ledger_from_entries(chain.genesis, stored)
    assert restored.entries == chain.ledger.entries
    assert restored.worth == chain.ledger.worth
    assert restored.state_root == chain.ledger.state_root == MerkleTree.build(sorted(stored.items())).root
    assert list_jobs(restored) == list_jobs(chain.ledger)


@settings(max_examples=25)
@given(st.permutations(range(5)), st.permutations(range(5)))
def test_job_transactions_of_one_block_may_come_in_any_order(commits: list[int], reveals: list[int]) -> None:
    def settle(first: list[int], second: list[int]) -> object:
        chain = start_chain(GENESIS)
        job = chain.submit(make_request(seats=5, fee=50_000))
        members = chain.members(job)
        said = [make_payload(str(index // 3)) for index in range(5)]
        chain.commit_all(job, {members[index]: said[index] for index in first})
        chain.reveal_all(job, {members[index]: said[index] for index in second})
        settlement = chain.view(job).settlement
        assert settlement is not None
        return settlement

    assert settle(commits, reveals) == settle(list(range(5)), list(range(5)))


# --- the draft


def test_a_draft_reads_through_and_never_writes_into_its_base() -> None:
    base = start_chain(GENESIS).ledger
    draft, node = Draft(base), make_hash("newcomer")
    root, before = base.state_root, draft.list_keys(bytes((Kind.ACCOUNT,)))
    draft.put(account_key(node), Account(1, 0, 0, 0))
    assert draft.list_keys(bytes((Kind.ACCOUNT,))) == sorted([*before, account_key(node)])
    draft.remove(before[0])
    assert not draft.has(before[0])
    assert draft.get(before[0], ACCOUNT_CODEC) is None
    assert draft.list_keys(bytes((Kind.ACCOUNT,))) == sorted([*before[1:], account_key(node)])
    assert base.state_root == root
    assert account_key(node) not in base.entries


def test_minting_from_nothing_stops_the_node() -> None:
    base = start_chain(GENESIS).ledger
    draft = Draft(base)
    draft.put(account_key(make_hash("forger")), Account(1, 0, 0, 0))
    with pytest.raises(AssertionError):
        draft.seal(base.chain)


def test_a_refused_transaction_leaves_the_draft_as_it_was() -> None:
    chain = start_chain(GENESIS)
    bodies: list[Transaction] = [chain.transfer("asker", "other", 2**52).body, chain.ask(make_request(seats=2)).body]
    built = chain.build([encode(chain.sign("asker", body)) for body in bodies])
    assert built.block.body == ()
    assert built.ledger.state_root == chain.build().ledger.state_root
    for body in bodies:
        with pytest.raises(InvalidTransaction):
            check_transaction(chain.ledger, chain.sign("asker", body))


def test_what_did_not_change_is_not_written() -> None:
    chain = start_chain(GENESIS)
    chain.step()
    kinds = {key[0] for key in changed_entries(chain.ledger)}
    assert kinds == {Kind.CHAIN, Kind.ONION}
