"""Certificates whose validators have changed, judged with too little, too much or the wrong thing at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from node.genesis_file import write_genesis
from protocol.chain_file import encode_chain_file, encode_trusted_header
from protocol.trust import trust_genesis
from tests.node.bad_inputs import Outcome
from tests.protocol.builders import make_genesis
from tests.protocol.certificates import make_chain_file, trust_block
from tests.protocol.changing import EPOCH, certify_changing, find_place, settled, waits_over_the_change

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.node.bad_inputs import World


def write_case(world: World) -> Path:
    """A certificate whose validators have changed twice since the genesis, which lies beside it."""
    encoded, chain, _ = certify_changing(*find_place(waits_over_the_change))
    write_genesis(world.place / "genesis.json", chain.genesis)
    path = world.place / "changed.qrc"
    path.write_bytes(encoded)
    return path


def write_header(world: World, epoch: int) -> Path:
    """The trusted header of an epoch's second block."""
    chain = settled(5, 2)[0]
    header = next(block.header for block in chain.blocks if block.header.height == epoch * EPOCH + 2)
    path = world.place / "trusted.qrt"
    path.write_bytes(encode_trusted_header(trust_block(chain, header)))
    return path


def judge(world: World, certificate: Path, *options: object) -> Outcome:
    """What `verify` says to this certificate with these options."""
    code, report, _ = world.run("verify", certificate, "--genesis", world.place / "genesis.json", *options)
    assert report["valid"] is False
    return Outcome(code, None, report["fault"]["reason"], report["fault"]["message"])


def judge_without_steps(world: World) -> Outcome:
    return judge(world, write_case(world))


def judge_with_an_altered_chain_file(world: World) -> Outcome:
    path = world.place / "altered.qrs"
    certificate = write_case(world)
    content = make_chain_file(certify_changing(*find_place(waits_over_the_change))[1])
    path.write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
    return judge(world, certificate, "--chain", path)


def judge_with_another_chains_file(world: World) -> Outcome:
    path = world.place / "other.qrs"
    certificate = write_case(world)
    path.write_bytes(encode_chain_file(trust_genesis(make_genesis(stake=200_000_000)).chain, ()))
    return judge(world, certificate, "--chain", path)


def judge_with_a_certificate_for_a_chain_file(world: World) -> Outcome:
    certificate = write_case(world)
    return judge(world, certificate, "--chain", certificate)


def judge_by_a_later_header(world: World) -> Outcome:
    certificate = write_case(world)
    return judge(world, certificate, "--trusted", write_header(world, 5))


def judge_by_an_altered_header(world: World) -> Outcome:
    certificate, path = write_case(world), write_header(world, 3)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
    return judge(world, certificate, "--trusted", path)


def judge_long_after(world: World) -> Outcome:
    certificate = write_case(world)
    (world.place / "chain.qrs").write_bytes(make_chain_file(certify_changing(*find_place(waits_over_the_change))[1]))
    options = ("--chain", world.place / "chain.qrs", "--now", "2030-01-31", "--fresh")
    return world.fail("verify", certificate, "--genesis", world.place / "genesis.json", *options)


def judge_at_no_time(world: World) -> Outcome:
    certificate = write_case(world)
    return world.fail("verify", certificate, "--genesis", world.place / "genesis.json", "--now", "tomorrow")


CASES: Final[dict[str, Callable[[World], Outcome]]] = {
    "validators have changed, no chain file": judge_without_steps,
    "chain file altered": judge_with_an_altered_chain_file,
    "chain file of another chain": judge_with_another_chains_file,
    "other file given as chain file": judge_with_a_certificate_for_a_chain_file,
    "certificate older than the trusted header": judge_by_a_later_header,
    "trusted header altered": judge_by_an_altered_header,
    "trust too old, with --fresh": judge_long_after,
    "time that is none": judge_at_no_time,
}
