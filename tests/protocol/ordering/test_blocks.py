"""R7: bodies and finality, and what other implementations got wrong about them."""

from __future__ import annotations

import pytest

from protocol.ordering.effects import (
    CatchUp,
    FetchBlock,
    Finalize,
    Halt,
)
from protocol.ordering.events import (
    BlockReceived,
    Synced,
)
from protocol.ordering.messages import VoteKind
from protocol.units import ZERO_HASH
from tests.protocol.ordering.rig import (
    FINAL,
    NOTAR,
    NULL,
    START_MS,
    Rig,
    hash_of,
    make_block,
    make_cert,
    node_id,
    tip_of,
    votes_in,
)

BLOCK_1 = make_block(1)
HASH_1 = hash_of(BLOCK_1)
OTHER_1 = make_block(1, salt=b"another")
BLOCK_2 = make_block(2, tip_of(BLOCK_1))
HASH_2 = hash_of(BLOCK_2)


# --- R7: finality


def test_r7_a_final_certificate_makes_its_block_and_all_ancestors_final() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.propose(BLOCK_2)
    cert = make_cert(FINAL, 2, HASH_2)
    assert Finalize((HASH_1, HASH_2), cert) in rig.cert(FINAL, 2, HASH_2)
    assert rig.state.tip == tip_of(BLOCK_2)
    assert rig.state.tip_cert == cert
    assert rig.state.blocks == {}


def test_r7_a_missing_ancestor_is_fetched_first() -> None:
    rig = Rig()
    rig.propose(BLOCK_2)
    effects = rig.cert(FINAL, 2, HASH_2)
    assert not any(isinstance(effect, Finalize) for effect in effects)
    assert HASH_1 in rig.state.wanted
    effects = rig.feed(BlockReceived(rig.now_ms, node_id(1), BLOCK_1))
    assert Finalize((HASH_1, HASH_2), make_cert(FINAL, 2, HASH_2)) in effects


def test_r7_a_missing_certified_body_is_fetched_from_those_who_voted_for_it() -> None:
    assert FetchBlock(HASH_1, tuple(node_id(i) for i in (1, 2, 3))) in Rig().cert(FINAL, 1, HASH_1)


@pytest.mark.parametrize("view, catches_up", [(8, False), (9, True)])
def test_r7_a_node_far_behind_catches_up_by_range(view: int, catches_up: bool) -> None:
    rig = Rig()
    effects = rig.cert(FINAL, view, HASH_1)
    assert (CatchUp(make_cert(FINAL, view, HASH_1)) in effects) is catches_up
    assert any(isinstance(effect, FetchBlock) for effect in effects) is not catches_up


@pytest.mark.parametrize("last, catches_up", [(8, False), (9, True)])
def test_r7_one_body_that_stays_missing_is_no_reason_to_stay_behind(last: int, catches_up: bool) -> None:
    rig, parent = Rig(), tip_of(BLOCK_1)
    for view in range(2, last + 1):
        block = make_block(view, parent)
        rig.propose(block)
        parent = tip_of(block)
    rig.cert(FINAL, 8, rig.state.views[8].proposal.block_hash)
    effects = rig.cert(FINAL, last, parent.block_hash)
    assert (CatchUp(make_cert(FINAL, last, parent.block_hash)) in effects) is catches_up


def test_r7_after_catching_up_the_machine_goes_on_from_the_new_tip() -> None:
    rig = Rig()
    far = make_block(20, tip_of(make_block(19)))
    cert = make_cert(FINAL, 20, hash_of(far))
    rig.cert(FINAL, 20, hash_of(far))
    rig.propose(next_block := make_block(21, tip_of(far), time_ms=START_MS + 150))
    rig.feed(Synced(rig.now_ms, cert, far.header))
    assert rig.state.tip == tip_of(far)
    assert rig.state.syncing is None
    assert Finalize((hash_of(next_block),), make_cert(FINAL, 21, hash_of(next_block))) in rig.cert(
        FINAL, 21, hash_of(next_block)
    )


def test_r7_two_final_blocks_of_one_view_halt_for_good() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.cert(FINAL, 1, HASH_1)
    effects = rig.cert(FINAL, 1, hash_of(OTHER_1))
    halts = [effect for effect in effects if isinstance(effect, Halt)]
    assert [cert.view for cert in halts[0].certs] == [1, 1]
    before = rig.state
    assert rig.propose(BLOCK_2) == []
    assert rig.state is before


def test_r7_a_final_branch_beside_the_final_block_halts() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    fork = make_block(3)
    rig.propose(fork, skipped=(1, 2))
    rig.cert(FINAL, 1, HASH_1)
    assert any(isinstance(effect, Halt) for effect in rig.cert(FINAL, 3, hash_of(fork)))


def test_r7_a_final_block_that_the_application_refuses_halts() -> None:
    rig = Rig()
    rig.accepts = False
    rig.propose(BLOCK_1)
    assert any(isinstance(effect, Halt) for effect in rig.cert(FINAL, 1, HASH_1))


def test_r7_an_old_final_certificate_of_the_same_chain_is_no_conflict() -> None:
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.propose(BLOCK_2)
    rig.cert(FINAL, 2, HASH_2)
    before = rig.state
    assert rig.cert(FINAL, 1, HASH_1) == []
    assert rig.state is before


# --- known faults of other implementations


def test_a_certificate_for_the_leaders_other_block_fetches_that_block_and_follows_it() -> None:
    rig = Rig()
    rig.propose(OTHER_1)  # this node was shown, and voted for, the block that lost
    effects = rig.cert(NOTAR, 1, HASH_1)
    assert any(isinstance(effect, FetchBlock) and effect.block_hash == HASH_1 for effect in effects)
    rig.feed(BlockReceived(rig.now_ms, node_id(2), BLOCK_1))
    assert votes_in(rig.propose(BLOCK_2)) == [(NOTAR, 2, HASH_2)]
    assert Finalize((HASH_1, HASH_2), make_cert(FINAL, 2, HASH_2)) in rig.cert(FINAL, 2, HASH_2)


@pytest.mark.parametrize("held", [NOTAR, NULL])
def test_split_certificates_do_not_lock_up(held: VoteKind) -> None:
    """Half the network holds the NotarCert of a view, half its NullCert: either half's proposal carries its own reason."""
    rig = Rig()
    rig.propose(BLOCK_1)
    rig.cert(held, 1, HASH_1 if held == NOTAR else ZERO_HASH)
    proposal = BLOCK_2 if held == NULL else make_block(2)
    assert (NOTAR, 2, hash_of(proposal)) in votes_in(rig.propose(proposal))
