"""Jobs through whole nodes: what is asked at one node settles at all, however the members behave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.certificate import check_certificate
from protocol.codec import encode
from tests.node.harness import open_world
from tests.protocol.builders import make_request

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_job_asked_of_one_node_settles_on_all_and_its_certificate_verifies(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_world(tmp_path) as world:
        job, existed = await world.nodes[0].service.submit_job(make_request(), None)
        assert not existed
        for node in world.nodes:
            view = await node.wait_settled(job)
            assert view.settlement is not None
            report = check_certificate(await node.service.build_certificate(job), node.genesis)
            assert report.text == "23+58="
