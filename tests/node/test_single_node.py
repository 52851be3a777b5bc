"""A network of one, by the engine that asks nobody: the node around it is the same, and so is what others can check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from node.disk import StorageFailure
from node.storage import Storage
from protocol.certificate import check_certificate
from protocol.jobs.agreement import Decision
from protocol.ordering.engine import SIMPLEX
from protocol.ordering.messages import QUORUM_CERT_CODEC
from protocol.ordering.single_node import SINGLE_NODE
from protocol.params import MINIMAL
from tests.node.harness import open_world
from tests.protocol.builders import make_genesis, make_request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from node.stored import BlockCommit
    from protocol.genesis import Genesis
    from tests.node.harness import LiveNode, World

PERIOD = MINIMAL.epoch_heights


def make_one() -> Genesis:
    """One validator, and the accounts of others."""
    params = replace(MINIMAL, idle_interval_ms=100)
    return make_genesis(("v0",), accounts=("asker", "v1"), params=params)


async def start_alone(world: World) -> LiveNode:
    operator = world.nodes[0]
    operator.engine = SINGLE_NODE
    await world.start(operator)
    return operator


async def test_one_node_orders_jobs_over_epochs_and_its_certificates_are_like_any(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 2, make_one(), running=0) as world:
        operator, follower = await start_alone(world), world.nodes[1]
        await world.start(follower)
        job, _ = await operator.service.submit_job(make_request(seats=1), None)
        report = check_certificate(await follower.wait_certificate(job), operator.genesis)
        assert (report.decision, report.text) == (Decision.ACCEPTED, "23+58=")
        await world.wait_height(3 * PERIOD + 2)
        for node in world.nodes:
            assert node.count_charges() == {}
            assert [event["epoch"] for event in node.list_events("epoch_started")][:3] == [1, 2, 3]
        cert = QUORUM_CERT_CODEC.decode(operator.storage.get_block(PERIOD).certificate)
        assert cert.signers == (0,)


async def test_the_engine_of_one_stops_by_name_when_the_set_grows_and_the_other_one_goes_on(
    homes: Path, autojump_clock: object
) -> None:
    async with open_world(homes, 2, make_one(), running=0) as world:
        operator, newcomer = await start_alone(world), world.nodes[1]
        await world.start(newcomer)
        await world.wait_height(2)
        await newcomer.become_validator()
        joined = newcomer.epoch + 2
        await world.wait_height(joined * PERIOD)
        assert "ordering.engine = simplex" in operator.parts.ordering.halted
        assert operator.height == joined * PERIOD
        await operator.stop()
        operator.engine = SIMPLEX
        await world.start(operator)
        await world.wait_height((joined + 1) * PERIOD + 1)
        assert operator.count_charges() == newcomer.count_charges() == {}


@pytest.mark.parametrize("engine", [SINGLE_NODE, SIMPLEX])
@pytest.mark.parametrize("height", [PERIOD - 1, PERIOD, PERIOD + 1])
async def test_a_block_that_was_signed_but_not_stored_is_the_one_that_is_stored_later(
    homes: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch, height: int, engine: object
) -> None:
    async with open_world(homes, 1, make_one(), running=0) as world:
        operator = await start_alone(world)
        await operator.wait_height(height - 1)
        lost: list[bytes] = []

        def lose(storage: Storage, commits: Sequence[BlockCommit], certificates: object) -> None:
            lost.extend(commit.block.hash for commit in commits)
            raise StorageFailure("the power went")

        with monkeypatch.context() as power:
            power.setattr(Storage, "commit_blocks", lose)
            await operator.wait_end()
        assert len(lost) == 1
        operator.engine = engine
        await world.start(operator)
        await operator.wait_height(height + PERIOD)
        assert operator.storage.get_block(height).hash == lost[0]
