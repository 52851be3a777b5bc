"""What whole nodes give a stranger when their validators change: certificates, the changes, headers to trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from node.join import JoinMode
from protocol.block import compute_header_hash
from protocol.certificate import check_certificate
from protocol.chain_file import encode_chain_file, follow_chain_file
from protocol.errors import InvalidCertificate, Rejection
from protocol.ledger.queries import get_job
from protocol.params import MINIMAL
from protocol.trust import STEP_CODEC, trust_genesis, trust_header, walk_steps
from tests.node.harness import World, open_world
from tests.protocol.builders import make_genesis, make_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.harness import LiveNode

QUICK = replace(MINIMAL, idle_interval_ms=100)
PERIOD = MINIMAL.epoch_heights
NAMES = ("v0", "v1", "v2", "v3")


def make_chain_file(node: LiveNode) -> bytes:
    return encode_chain_file(
        trust_genesis(node.genesis).chain, [STEP_CODEC.decode(step) for step in node.service.get_steps(0)]
    )


async def settle_after_a_change(world: World) -> tuple[bytes, int]:
    """The certificate of a job that was asked in the epoch in which a fifth validator begins to vote, and its height."""
    asker, newcomer = world.nodes[0], world.nodes[4]
    await world.wait_height(2)
    await newcomer.become_validator()
    for node in world.nodes:
        await node.wait_height((newcomer.epoch + 2) * PERIOD + 2)
    job, _ = await asker.service.submit_job(make_request(), None)
    view = await asker.wait_settled(job)
    assert view.settlement is not None
    return await asker.wait_certificate(job), view.settlement.settle_height


async def test_a_certificate_of_changed_validators_verifies_with_any_nodes_changes_or_header(
    homes: Path, autojump_clock: object
) -> None:
    genesis = make_genesis(NAMES, accounts=("asker", "v4"), params=QUICK)
    async with open_world(homes, 5, genesis) as world:
        certificate, height = await settle_after_a_change(world)
        with pytest.raises(InvalidCertificate) as caught:
            check_certificate(certificate, genesis)
        assert caught.value.reason is Rejection.MISSING_STEPS
        for node in world.nodes:
            await node.wait_height(height)
            report = check_certificate(certificate, genesis, make_chain_file(node))
            assert (report.text, report.trust.steps) == ("23+58=", 1)
            trusted = node.service.get_trusted_header(height)
            assert trusted is not None
            assert compute_header_hash(trusted.header) == node.storage.get_block(height).hash
            assert check_certificate(certificate, trust_header(genesis, trusted), make_chain_file(node)).trust.is_direct
        first = world.nodes[0].service.get_trusted_header(PERIOD)
        assert first is not None and first.final_cert is not None
        assert follow_chain_file(trust_header(genesis, first), make_chain_file(world.nodes[4])).step_count == 1
        last = world.nodes[0].service.get_trusted_header(None)
        assert last is not None and trust_header(genesis, last).root.height >= height
        assert world.nodes[0].service.get_trusted_header(2**40) is None


async def test_who_joined_from_a_snapshot_gives_the_same_changes_and_certificates_that_need_them(
    homes: Path, autojump_clock: object
) -> None:
    genesis = make_genesis(NAMES, accounts=("asker", "v4", "v5"), params=QUICK)
    async with open_world(homes, 6, genesis, running=5) as world:
        late = world.nodes[5]
        await settle_after_a_change(World(world.nodes[:5], world.hub, world.nursery))
        height = world.nodes[0].height
        late.join = JoinMode.ALWAYS
        await world.start(late)
        await late.wait_height(height + PERIOD)
        assert late.storage.base_height > PERIOD
        steps = [STEP_CODEC.decode(each) for each in late.service.get_steps(0)]
        assert walk_steps(trust_genesis(genesis), steps).step_count == 1
        assert late.service.get_trusted_header(1) is None  # it has no such block
        job, _ = await world.nodes[0].service.submit_job(make_request(), None)
        certificate = await late.wait_certificate(job)
        assert get_job(late.ledger, job) is not None
        report = check_certificate(certificate, genesis, make_chain_file(late))
        assert (report.trust.steps, report.text) == (1, "23+58=")


async def test_jobs_settle_and_are_certified_wherever_they_stand_in_an_epoch(
    homes: Path, autojump_clock: object
) -> None:
    genesis = make_genesis(NAMES, accounts=("asker", "v4"), params=QUICK)
    async with open_world(homes, 5, genesis) as world:
        asker, newcomer = world.nodes[0], world.nodes[4]
        await world.wait_height(2)
        await newcomer.become_validator()
        jobs = []
        for height in range(8, 32, 3):  # over the ends of epochs 1 to 3, with which the set changes once
            await asker.wait_height(height)
            jobs.append((await asker.service.submit_job(make_request(), None))[0])
        certificates = [await world.nodes[1].wait_certificate(job) for job in jobs]
        chain = make_chain_file(world.nodes[2])
        reports = [check_certificate(each, genesis, chain) for each in certificates]
        assert {report.trust.steps for report in reports} == {0, 1}
        assert len({report.trust.final_epoch for report in reports}) >= 3
        assert all(node.count_charges() == {} for node in world.nodes)
