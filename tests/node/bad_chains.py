"""Bad inputs that need a past: nodes whose chain holds jobs and convictions, accounts that cannot pay, and chains on a damaged disk."""

from __future__ import annotations

import re
import sqlite3
from base64 import b64encode
from typing import TYPE_CHECKING

import httpx
from msgspec.structs import replace

from node.genesis_file import write_genesis
from node.home import Home, store_api_address
from node.storage import BlockCommit, encode_stored_block, open_storage
from node.vote_log import VoteLog
from node.wal import open_wal
from protocol.block import compute_header_hash
from protocol.codec import encode
from protocol.genesis import compute_chain_id
from protocol.ledger.queries import get_standing
from protocol.params import MINIMAL, UNIT
from protocol.transactions import Bond, Unjail
from tests.node.bad_inputs import Outcome, World, call
from tests.node.fake_node import FakeNode, serving
from tests.protocol.builders import FOREVER, TestChain, make_genesis, make_key, start_chain
from tests.protocol.offences import convict, report

if TYPE_CHECKING:
    from pathlib import Path

    from protocol.transactions import SignedTransaction

STRANGER = "ab" * 32


def make_busy() -> FakeNode:
    """A node of a network that works on as many jobs as it takes at once."""
    chain = start_chain(make_genesis(params=replace(MINIMAL, max_open_jobs=2)))
    for _ in range(2):
        chain.submit()
    return FakeNode(chain)


def offer(chain: TestChain, signed: SignedTransaction) -> Outcome:
    """What a node on this chain says to a transaction."""
    with serving(FakeNode(chain)) as url:
        return call(url, "tx_submit", transaction=b64encode(encode(signed)).decode())


def send_transaction(forge: bool) -> Outcome:
    node = FakeNode()
    signed = node.chain.transfer("asker", "other", 5)
    encoded = b64encode(encode(replace(signed, signature=bytes(64)) if forge else signed)).decode()
    with serving(node) as url:
        if forge:
            return call(url, "tx_submit", transaction=encoded)
        body = {"jsonrpc": "2.0", "id": 1, "method": "tx_submit", "params": {"transaction": encoded}}
        assert "result" in httpx.post(f"{url}/rpc", json=body, trust_env=False).json()
        return call(url, "tx_submit", transaction=encoded)


def submit_again(_: World) -> Outcome:
    chain = start_chain()
    signed = chain.ask()
    chain.step(signed)
    return offer(chain, signed)


def bond_after_conviction(_: World) -> Outcome:
    chain = start_chain()
    chain.run(2)
    chain.step(report(chain, "asker", convict(chain, "v1")))
    return offer(chain, chain.sign("v1", Bond(make_key("v1").public, chain.next_nonce("v1"), FOREVER, UNIT)))


def unjail(_: World, after_blocks: int) -> Outcome:
    """What a node says to one of ten that ends its jail so many blocks after it began, or without being in one."""
    names = tuple(f"v{index}" for index in range(10))
    chain = start_chain(make_genesis(validators=names), names)
    while after_blocks and get_standing(chain.ledger, make_key("v1").public).jailed_until_ms is None:
        chain.finish_epoch(absent=("v1",))
    chain.run(after_blocks)
    return offer(chain, chain.sign("v1", Unjail(make_key("v1").public, chain.next_nonce("v1"), FOREVER)))


def transfer(world: World, recipient: str = STRANGER, units: str = "0.000001") -> Outcome:
    """What the command says in a home whose account has nothing."""
    home = world.make_home()
    with serving(FakeNode()) as url:
        store_api_address(Home(home), url)
        return world.fail("transfer", recipient, units, "--home", home)


def transfer_too_much(world: World) -> Outcome:
    """What both sides say to an account that has nothing, which must be the same but for its name."""
    told = transfer(world)
    chain = start_chain()
    answered = offer(chain, chain.transfer("stranger", "other", 1))
    assert told.reason == answered.reason
    assert told.sentence.split(", but ")[0] == answered.sentence.split(", but ")[0]
    return Outcome(told.exit, answered.rpc, told.reason, told.sentence)


def ask_for_lost_text(world: World) -> Outcome:
    """How an accepted job ends whose text nobody serves, each time it is asked for; the RPC has the reason."""
    path = world.place / "lost.qrc"
    with serving(FakeNode(lost={"81"})) as url:
        code, out, err = world.run("ask", "23+58=", "--model", "adder", "--rpc", url, "--out", path)
        again = world.run("jobs", "wait", out["job"], "--rpc", url, "--out", path)[:2]
        reason = call(url, "output_get", job=out["job"]).reason
    assert again == (code, out)
    assert (out["status"], out["text"], path.exists()) == ("accepted", None, True)
    [line] = [line for line in err.splitlines() if line.startswith("quorate: accepted")]
    sentence, _, cure = line.removeprefix("quorate: ").partition(" — ")
    assert f"quorate jobs wait {out['job']}" in cure
    return Outcome(code, None, reason, sentence)


def fetch_lost_text(world: World) -> Outcome:
    with serving(FakeNode(lost={"81"})) as url:
        _, out, _ = world.run("ask", "23+58=", "--model", "adder", "--rpc", url, "--out", world.place / "lost.qrc")
        return call(url, "output_get", job=out["job"])


def store_chain(path: Path) -> None:
    """Three blocks in a database, as a node that has stopped leaves them."""
    chain = start_chain()
    storage = open_storage(path, compute_chain_id(chain.genesis))
    storage.store_genesis(compute_header_hash(chain.header), chain.ledger.entries)
    for amount in (1, 2, 3):
        before = chain.ledger.entries
        block = chain.step(chain.transfer("asker", "other", amount)).block
        after = chain.ledger.entries
        changed = {key: after.get(key) for key in {*before, *after} if before.get(key) != after.get(key)}
        stored = encode_stored_block(block, compute_header_hash(block.header), None)
        storage.commit_block(BlockCommit(stored, (), changed, (), (), 0))
    storage.close()


def check_damaged(world: World) -> Outcome:
    """What a check says of a chain that was whole before one bit in the body of block 2 changed."""
    home = Home(world.make_home())
    write_genesis(home.genesis, start_chain().genesis)
    store_chain(home.database)
    assert world.run("ledger", "check", "--home", home.root)[0] == 0
    with sqlite3.connect(home.database) as connection:
        [(value,)] = connection.execute("SELECT body FROM blocks WHERE height = 2")
        changed = bytes((*value[:-1], value[-1] ^ 1))
        connection.execute("UPDATE blocks SET body = ? WHERE height = 2", (changed,))
    connection.close()
    return world.fail("ledger", "check", "--home", home.root)


def import_lower_bound(world: World) -> Outcome:
    """What a home says that has signed further than a file knows."""
    home = Home(world.make_home())
    opened = open_wal(home.votes, compute_chain_id(make_genesis()))
    VoteLog(opened.wal, opened.records).raise_watermark((3, 70))
    opened.wal.close()
    file = world.place / "protection.json"
    assert world.run("ledger", "export-protection", "--out", file, "--home", home.root)[0] == 0
    file.write_text(re.sub(r"\b70\b", "69", file.read_text("utf-8")), "utf-8")  # a key may hold those digits, too
    return world.fail("ledger", "import-protection", file, "--home", home.root)


def export_lost_votes(world: World) -> Outcome:
    """What a home says whose vote log knows that it lacks votes."""
    home = Home(world.make_home())
    opened = open_wal(home.votes, compute_chain_id(make_genesis()))
    VoteLog(opened.wal, opened.records).permit(None)
    opened.wal.close()
    return world.fail("ledger", "export-protection", "--out", world.place / "protection.json", "--home", home.root)
