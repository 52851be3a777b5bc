"""`quorate chain` and `quorate checkpoint`: what certificates are judged by, where the genesis is not enough any more."""

from pathlib import Path
from typing import Annotated

import typer

from node.commands import options
from node.faults import Exit, Fault, Trouble


def chain(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.qrs", help="The chain file: new, or one to bring up to date.")
    ],
    rpc: options.Rpc = None,
    home: options.Home = None,
    token_file: options.Token = None,
    as_json: options.Json = False,
) -> int:
    """Fetch the changes of the validator set.

    `quorate verify --chain FILE` checks them, and then believes the validators of today.
    """
    from node.commands.chain_files import fetch_chain, load_known
    from node.commands.connect import connect
    from node.disk import replace_file
    from node.render import open_console, print_facts, print_json
    from node.rpc_types import NodeStatus, Nothing
    from protocol.chain_file import encode_chain_file

    client = connect(rpc, home, token_file)
    chain_id = bytes.fromhex(client.call("node_status", Nothing(), NodeStatus).chain_id)
    grown = fetch_chain(client, load_known(out, chain_id))
    content = encode_chain_file(grown.chain_id, grown.steps)
    replace_file(out, content)
    last = grown.steps[-1].header.epoch if grown.steps else None
    if as_json:
        print_json({"chain": str(out), "chain_id": chain_id.hex(), "steps": len(grown.steps), "last_epoch": last})
        return Exit.OK
    changes = (
        "the validators have never changed"
        if last is None
        else f"{len(grown.steps)}, the last at the end of epoch {last}"
    )
    print_facts(
        open_console(),
        [("chain file", f"{out} ({len(content):,} bytes)"), ("chain id", chain_id.hex()), ("changes", changes)],
    )
    return Exit.OK


def checkpoint(
    out: Annotated[Path, typer.Option("--out", metavar="FILE.qrt", help="The file of the trusted header.")],
    height: Annotated[
        int | None, typer.Option("--height", metavar="H", min=1, help="Of this block. Default: the last final one.")
    ] = None,
    rpc: options.Rpc = None,
    home: options.Home = None,
    token_file: options.Token = None,
    as_json: options.Json = False,
) -> int:
    """Write down a final block's header, to be trusted as a root beside the genesis.

    Ask a node that you trust, or compare the hash with people who run one: `quorate verify --trusted FILE` believes what it says.
    """
    from node.commands.connect import connect
    from node.disk import replace_file
    from node.render import format_time, open_console, print_facts, print_json
    from node.rpc_chain import CheckpointParams, CheckpointResult
    from protocol.block import compute_header_hash
    from protocol.chain_file import decode_trusted_header

    found = connect(rpc, home, token_file).call("checkpoint_get", CheckpointParams(height), CheckpointResult)
    header = decode_trusted_header(found.trusted_header).header
    if compute_header_hash(header).hex() != found.hash or (height is not None and header.height != height):
        raise Fault(Trouble.NOT_A_NODE, f"the node answers with another block than the one at height {found.height}")
    replace_file(out, found.trusted_header)
    if as_json:
        shown = {"height": header.height, "hash": found.hash, "epoch": header.epoch, "time_ms": header.time_ms}
        print_json({"trusted_header": str(out), "chain_id": header.chain_id.hex(), **shown})
        return Exit.OK
    facts = [
        ("trusted", f"{out} ({len(found.trusted_header):,} bytes)"),
        ("chain id", header.chain_id.hex()),
        ("block", f"{header.height:,} in epoch {header.epoch:,}, of {format_time(header.time_ms)}"),
        ("hash", found.hash),
    ]
    print_facts(open_console(), facts)
    typer.echo("compare the hash, on another way than this file came, with somebody whose node you trust:")
    typer.echo(f"  quorate checkpoint --height {header.height} --out FILE")
    return Exit.OK
