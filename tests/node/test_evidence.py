"""Broken voting rules through whole nodes: what one node sees, the ledger of all punishes, once, and nobody honest pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from node.network import DirectMessage
from node.wire import TransactionBatch, encode_frame
from protocol.codec import encode
from protocol.errors import InvalidTransaction, Rejection
from protocol.evidence import EvidenceKind, build_vote_evidence
from protocol.ledger.queries import get_account, get_conviction
from protocol.params import UNIT
from protocol.transactions import Bond, Report, sign_transaction
from protocol.voting import VoteKind
from tests.node.harness import PATIENCE_S, open_world
from tests.protocol.builders import FOREVER, make_key
from tests.protocol.offences import A, B, sign_vote

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.harness import LiveNode


def tell_two_votes(victim: LiveNode, offender: str, signer: int) -> None:
    """Let one node see two Notar votes of a validator in a view to come."""
    key, view = make_key(offender), victim.parts.ordering.state.view + 4
    chain_id = victim.ledger.constants.chain_id
    for block_hash in (A, B):
        vote = sign_vote(key, chain_id, VoteKind.NOTAR, view, block_hash, signer)
        victim.push(DirectMessage(key.public, encode_frame(vote)))


async def wait_convicted(node: LiveNode, offender: str) -> None:
    with trio.fail_after(PATIENCE_S):
        while get_conviction(node.ledger, make_key(offender).public) is None:
            await node.node.engine.wait_finalized()


async def test_an_equivocator_is_convicted_by_all_and_whoever_saw_it_is_paid(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes) as world:
        await world.wait_height(2)
        witness = world.nodes[2]
        before = get_account(witness.ledger, witness.id).balance
        tell_two_votes(witness, "v0", 0)
        for node in world.nodes:
            await wait_convicted(node, "v0")
            assert (
                get_account(node.ledger, make_key("v0").public).bonded == 25 * UNIT
            )  # a quarter of the weight, three times
            assert [get_conviction(node.ledger, make_key(f"v{index}").public) for index in (1, 2, 3)] == [None] * 3
        conviction = get_conviction(witness.ledger, make_key("v0").public)
        assert conviction is not None and conviction.reporter == witness.id
        assert get_account(witness.ledger, witness.id).balance >= before + 75 * UNIT // 20
        await world.wait_height(witness.height + 8)  # it still votes and leads; what it did is in no second report
        assert not any(node.count_charges() for node in world.nodes if node.id != make_key("v0").public)


async def test_a_peer_that_hands_on_false_evidence_is_charged(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes) as world:
        await world.wait_height(1)
        victim, liar = world.nodes[0], make_key("stranger")
        chain_id = victim.ledger.constants.chain_id
        first, second = (sign_vote(make_key("v1"), chain_id, VoteKind.NOTAR, 1, each, 1) for each in (A, B))
        for other in (replace(second, signature=bytes(64)), second):
            evidence = build_vote_evidence(EvidenceKind.TWO_NOTAR, first, other)
            signed = sign_transaction(liar, chain_id, Report(liar.public, evidence))
            victim.push(DirectMessage(liar.public, encode_frame(TransactionBatch((encode(signed),)))))
        await wait_convicted(victim, "v1")
        assert victim.count_charges() == {liar.public.hex(): ["bad_signature"]}


async def test_a_convict_is_told_that_it_can_bond_no_more(homes: Path, autojump_clock: object) -> None:
    async with open_world(homes) as world:
        await world.wait_height(1)
        node, convict = world.nodes[0], make_key("v1")
        tell_two_votes(node, "v1", 1)
        await wait_convicted(node, "v1")
        signed = sign_transaction(convict, node.ledger.constants.chain_id, Bond(convict.public, 1, FOREVER, UNIT))
        with pytest.raises(InvalidTransaction, match="use another key") as refusal:
            await node.service.submit_transaction(signed)
        assert refusal.value.reason is Rejection.CONVICTED
