"""Who votes in which epoch: joining, leaving, being convicted, and that what votes is at stake (V3 to V6, E2, U1)."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from protocol.codec import encode
from protocol.errors import InvalidTransaction, Rejection
from protocol.evidence import EvidenceKind
from protocol.ledger.epochs import get_validators
from protocol.ledger.queries import get_account, get_conviction, get_onion, get_standing
from protocol.ledger.state import check_transaction
from protocol.params import MINIMAL, UNIT
from protocol.transactions import RenewOnion, SignedTransaction, Unjail
from protocol.validators import MAX_VALIDATORS, Validator, ValidatorSet, compute_validator_set_hash
from tests.protocol.builders import FOREVER, TestChain, make_genesis, make_hash, make_key, start_chain
from tests.protocol.offences import convict, report

LENGTH = MINIMAL.epoch_heights
FIVE = ("v0", "v1", "v2", "v3", "v4")
EVERYBODY = (*FIVE, "asker", "other")
LENIENT = replace(MINIMAL, jail_share_ppm=333_333, jail_window_ms=800, jail_ms=500)
"""A fifth may be jailed."""


def list_names(chain: TestChain, epoch: int) -> tuple[str, ...]:
    """Who votes in an epoch, in the order of its table."""
    return tuple(chain.names[member.node] for member in get_validators(chain.ledger, epoch).members)


def get_weight(chain: TestChain, name: str, epoch: int) -> int:
    """A name's vote in an epoch."""
    members = get_validators(chain.ledger, epoch).members
    return sum(member.weight for member in members if chain.names[member.node] == name)


def join(chain: TestChain, name: str, amount: int = 50 * UNIT) -> None:
    """All that a newcomer has to do."""
    chain.step(chain.bond(name, amount))
    chain.step(chain.renew(name))


def refuse(chain: TestChain, signed: SignedTransaction) -> Rejection:
    with pytest.raises(InvalidTransaction) as refusal:
        check_transaction(chain.ledger, signed)
    return refusal.value.reason


# --- joining


def test_a_newcomer_votes_two_epochs_after_its_bond_and_its_onion() -> None:
    chain = start_chain()
    join(chain, "asker")
    for weights in ((0, 0), (0, 50 * UNIT)):
        standing = get_standing(chain.ledger, make_key("asker").public)
        assert (standing.weight, standing.next_weight) == weights
        chain.finish_epoch()
    assert get_standing(chain.ledger, make_key("asker").public).weight == 50 * UNIT
    assert [list_names(chain, epoch) for epoch in (0, 1, 2)] == [FIVE, FIVE, (*FIVE, "asker")]
    skip = next(skip for skip in range(99) if chain.get_leader(chain.header.view + 1 + skip) == "asker")
    chain.step(skip=skip)  # it reveals the first layer of its onion
    onion = get_onion(chain.ledger, make_key("asker").public)
    assert onion is not None and onion.renewals == 1 and onion.slots == onion.tip_slot == 1


@pytest.mark.parametrize("height, first", [(LENGTH, 2), (LENGTH + 1, 3)])
def test_the_boundary_is_the_last_block_to_join_in(height: int, first: int) -> None:
    chain = start_chain()
    chain.step(chain.bond("asker", 10 * UNIT))
    chain.run(height - 2)
    chain.step(chain.renew("asker"))
    assert chain.header.height == height
    chain.finish_epoch(3)
    assert [get_weight(chain, "asker", epoch) > 0 for epoch in range(5)] == [epoch >= first for epoch in range(5)]


def test_newcomers_follow_by_node_id_and_the_others_keep_their_places() -> None:
    chain = start_chain()
    for name in ("asker", "other"):
        join(chain, name, 500 * UNIT)
    chain.step(chain.unbond("v2", 100 * UNIT))
    chain.finish_epoch(2)
    newcomers = sorted(("asker", "other"), key=lambda name: make_key(name).public)
    assert list_names(chain, 2) == ("v0", "v1", "v3", "v4", *newcomers)


def test_a_bond_without_an_onion_and_an_onion_without_a_bond_do_not_vote() -> None:
    chain = start_chain()
    chain.step(chain.bond("asker", 50 * UNIT))
    assert refuse(chain, chain.renew("other")) is Rejection.NOT_BONDED
    chain.finish_epoch(2)
    assert list_names(chain, 3) == FIVE


def test_a_first_onion_is_registered_once_and_is_renewal_one() -> None:
    chain = start_chain()
    chain.step(chain.bond("asker", 50 * UNIT))
    node = make_key("asker").public
    for renewal, reason in ((0, Rejection.DUPLICATE), (2, Rejection.TOO_EARLY)):
        body = RenewOnion(node, chain.next_nonce("asker"), FOREVER, make_hash("tip"), renewal)
        assert refuse(chain, chain.sign("asker", body)) is reason
    chain.step(chain.renew("asker"))
    assert refuse(chain, chain.renew("asker")) is Rejection.DUPLICATE
    chain.finish_epoch(2)
    chain.step(chain.renew("asker"))
    onion = get_onion(chain.ledger, node)
    assert onion is not None and onion.renewals == 1 and onion.next is not None


def test_the_heaviest_hundred_vote_and_of_equals_those_with_the_smaller_ids() -> None:
    names = tuple(f"n{index}" for index in range(MAX_VALIDATORS))
    chain = start_chain(make_genesis(validators=names, stake=20 * UNIT), (*names, "asker", "other"))
    join(chain, "asker", 20 * UNIT)
    join(chain, "other", 20 * UNIT + 1)
    chain.finish_epoch(2)
    by_id = sorted((*names, "asker"), key=lambda name: make_key(name).public)[: MAX_VALIDATORS - 1]
    assert set(list_names(chain, 2)) == {*by_id, "other"}
    assert len(list_names(chain, 2)) == MAX_VALIDATORS


# --- leaving


def test_a_vote_follows_the_bond_two_epochs_later() -> None:
    chain = start_chain()
    chain.step(chain.unbond("v0", 30 * UNIT), chain.bond("v1", 7 * UNIT))
    chain.finish_epoch(2)
    for name, weights in (("v0", (100, 100, 70, 70)), ("v1", (100, 100, 107, 107)), ("v2", (100, 100, 100, 100))):
        assert [get_weight(chain, name, epoch) // UNIT for epoch in range(4)] == list(weights)


def test_who_leaves_votes_on_for_two_epochs_and_comes_back_with_the_same_onion() -> None:
    chain = start_chain()
    chain.step(chain.unbond("v0", 100 * UNIT))
    chain.finish_epoch(3)
    assert [get_weight(chain, "v0", epoch) > 0 for epoch in range(4)] == [True, True, False, False]
    left = get_onion(chain.ledger, make_key("v0").public)
    chain.step(chain.bond("v0", 10 * UNIT))
    chain.finish_epoch(2)
    back = get_onion(chain.ledger, make_key("v0").public)
    assert left == back and back is not None and back.slots > 0
    assert [get_weight(chain, "v0", epoch) > 0 for epoch in range(3, 6)] == [False, False, True]
    assert list_names(chain, 5)[-1] == "v0"
    skip = next(skip for skip in range(99) if chain.get_leader(chain.header.view + 1 + skip) == "v0")
    chain.step(skip=skip)  # its next layer, one slot later
    onion = get_onion(chain.ledger, make_key("v0").public)
    assert onion is not None and onion.tip_slot == back.slots + 1


def test_if_nobody_stays_the_last_ones_go_on() -> None:
    chain = start_chain()
    chain.step(*(chain.unbond(name, 100 * UNIT) for name in FIVE))
    chain.finish_epoch(4)
    assert list_names(chain, 5) == FIVE
    chain.step(chain.bond("v3", 10 * UNIT))
    chain.finish_epoch(2)
    assert list_names(chain, 6) == ("v3",)


def test_what_votes_is_at_stake_until_evidence_of_its_last_block_no_longer_counts() -> None:
    chain = start_chain()
    chain.step(chain.unbond("v0", 100 * UNIT))
    chain.finish_epoch(2)
    last = convict(chain, "v0")  # an offence in the last view it votes in
    chain.run(MINIMAL.evidence_max_heights - 1)
    chain.step(report(chain, "asker", last), after_ms=10**6)
    conviction = get_conviction(chain.ledger, make_key("v0").public)
    assert conviction is not None
    assert (conviction.stake, conviction.slashed) == (100 * UNIT, 60 * UNIT)


# --- being convicted


def test_a_convict_is_out_of_the_next_set_computed() -> None:
    chain = start_chain()
    chain.finish_epoch()
    chain.step(report(chain, "asker", convict(chain, "v3")))
    assert [get_weight(chain, "v3", epoch) > 0 for epoch in (1, 2)] == [True, True]
    chain.finish_epoch()
    assert list_names(chain, 3) == ("v0", "v1", "v2", "v4")
    assert refuse(chain, chain.bond("v3", UNIT)) is Rejection.CONVICTED
    assert refuse(chain, chain.renew("v3")) is Rejection.CONVICTED


def test_evidence_is_judged_by_the_table_of_its_own_epoch() -> None:
    chain = start_chain()
    chain.step(chain.unbond("v0", 100 * UNIT), chain.bond("asker", 200 * UNIT))
    chain.step(chain.renew("asker"))
    old = convict(chain, "v4")  # index 4 of five
    chain.finish_epoch(2)
    chain.step()
    assert list_names(chain, 2) == ("v1", "v2", "v3", "v4", "asker")
    new = convict(chain, "v4", EvidenceKind.TWO_FINAL)  # index 3
    assert (old.epoch, old.signer, new.epoch, new.signer) == (0, 4, 2, 3)
    for evidence, share_ppm in ((old, 200_000), (new, 166_666)):
        later = chain.fork()
        later.step(report(later, "other", evidence))
        conviction = get_conviction(later.ledger, make_key("v4").public)
        assert conviction is not None and (conviction.epoch, conviction.share_ppm) == (evidence.epoch, share_ppm)
    for wrong in (replace(new, signer=4), replace(old, epoch=2), replace(old, epoch=1)):
        assert refuse(chain, report(chain, "other", wrong)) is Rejection.BAD_PROOF
    ahead = replace(old, epoch=3)
    assert refuse(chain, report(chain, "other", ahead)) is Rejection.OUT_OF_RANGE


def test_an_offence_in_an_epochs_views_beyond_its_boundary_is_as_old_as_the_boundary() -> None:
    chain = start_chain()
    chain.finish_epoch()
    end = chain.header
    beyond = convict(chain, "v0", view=end.view + 50)
    chain.finish_epoch(5)
    assert chain.header.view < end.view + 50  # the next epochs count on from the boundary's view
    check_transaction(chain.ledger, report(chain, "asker", beyond))
    chain.step(after_ms=10**6)
    assert refuse(chain, report(chain, "asker", beyond)) is Rejection.EXPIRED
    check_transaction(chain.ledger, report(chain, "asker", convict(chain, "v0", view=end.view + 50)))


# --- whatever happens


@pytest.mark.parametrize("seed", range(8))
def test_every_set_is_what_the_state_at_the_boundary_two_epochs_before_says(seed: int) -> None:
    random, chain = Random(seed), start_chain(make_genesis(stake=30 * UNIT, params=LENIENT))
    expected = {epoch: get_validators(chain.ledger, 0) for epoch in (0, 1)}
    absent, jailed = "v0", list[str]()
    for epoch in range(12):
        absent = random.choice((absent, absent, *FIVE))
        for _ in range(LENGTH):
            wanted = [encode(signed) for signed in choose(random, chain)]
            alone = len(chain.validators.members) == 1
            built = chain.build(wanted, skip=random.randrange(3) if alone else chain.count_passed((absent,)))
            assert built.block.header.valset_hash == compute_validator_set_hash(expected[epoch])
            assert built.block.header.next_valset_hash == compute_validator_set_hash(expected[epoch + 1])
            chain.take(built.block)
        qualified = {name: weigh(chain, name) for name in EVERYBODY if weigh(chain, name)}
        before = [chain.names[member.node] for member in expected[epoch + 1].members]
        order = [name for name in before if name in qualified]
        order += sorted(qualified.keys() - set(before), key=lambda name: make_key(name).public)
        weights = tuple(Validator(make_key(name).public, qualified[name]) for name in order)
        expected[epoch + 2] = ValidatorSet(weights) if weights else expected[epoch + 1]
        assert get_validators(chain.ledger, epoch + 2) == expected[epoch + 2]
        jailed.extend(name for name in EVERYBODY if get_standing(chain.ledger, make_key(name).public).jailed_until_ms)
    assert jailed


def weigh(chain: TestChain, name: str) -> int:
    """A node's vote by the rules, from what queries say."""
    node = make_key(name).public
    bonded = get_account(chain.ledger, node).bonded
    is_good = get_onion(chain.ledger, node) is not None and get_conviction(chain.ledger, node) is None
    is_free = get_standing(chain.ledger, node).jailed_until_ms is None
    return bonded if is_good and is_free and bonded >= MINIMAL.min_bond else 0


def choose(random: Random, chain: TestChain) -> list[SignedTransaction]:
    """Something for the next block, valid or not."""
    name, amount = random.choice(EVERYBODY), random.choice((1, 10 * UNIT, 20 * UNIT, 30 * UNIT))
    match random.randrange(12):
        case 0 | 1 | 2:
            return [chain.bond(name, amount)]
        case 3 | 4:
            return [chain.unbond(name, amount)]
        case 5 | 6:
            return [chain.renew(name)]
        case 8 | 9:
            return [chain.sign(name, Unjail(make_key(name).public, chain.next_nonce(name), FOREVER))]
        case 7 if random.random() < 0.3 and name in list_names(chain, chain.header.epoch):
            return [report(chain, "asker", convict(chain, name))]
        case _:
            return []
