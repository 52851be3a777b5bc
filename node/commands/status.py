"""`quorate status`, `peers`, `balance`, `version`: what a node says about itself."""

from typing import TYPE_CHECKING, Annotated

import typer

from node.commands import options
from node.faults import Exit

if TYPE_CHECKING:
    from node.rpc_types import AccountResult


def status(
    rpc: options.Rpc = None, home: options.Home = None, token_file: options.Token = None, as_json: options.Json = False
) -> int:
    """Show a node, its chain, its models, and whether it is ready.

    Exit code 0: ready; 5: syncing or not ready.
    """
    from node.commands.connect import connect
    from node.render import print_json
    from node.rpc_types import ModelList, NodeStatus, Nothing

    client = connect(rpc, home, token_file)
    found = client.call("node_status", Nothing(), NodeStatus)
    models = client.call("model_list", Nothing(), ModelList).models
    if as_json:
        import msgspec

        print_json({**msgspec.structs.asdict(found), "models": models, "rpc": client.url})
    else:
        from node.commands.status_tables import print_status

        print_status(client.url, found, models)
    return Exit.OK if found.readiness.status == "ready" else Exit.NOT_READY


def peers(
    rpc: options.Rpc = None, home: options.Home = None, token_file: options.Token = None, as_json: options.Json = False
) -> int:
    """Show a node's peers, and why one is not connected."""
    from node.commands.connect import connect
    from node.render import print_json
    from node.rpc_types import Nothing, PeerList

    found = connect(rpc, home, token_file).call("net_peers", Nothing(), PeerList)
    if as_json:
        print_json(found)
    else:
        from node.commands.status_tables import print_peers

        print_peers(found.peers)
    return Exit.OK


def balance(
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="A node id; default: the node that is asked.")
    ] = None,
    rpc: options.Rpc = None,
    home: options.Home = None,
    token_file: options.Token = None,
    as_json: options.Json = False,
) -> int:
    """Show an account: what it can spend, and the stake it has bonded."""
    from node.commands.connect import connect
    from node.render import format_units, open_console, print_facts, print_json
    from node.rpc_types import AccountParams, AccountResult

    account = connect(rpc, home, token_file).call("account_get", AccountParams(node), AccountResult)
    if as_json:
        print_json(account)
        return Exit.OK
    facts = [
        ("account", account.node),
        ("balance", f"{format_units(account.balance)} units"),
        ("bonded", f"{format_units(account.bonded)} units ({format_units(account.locked)} held by open jobs)"),
        *(
            ("unbonding", f"{format_units(each.amount)} units, from height {each.height:,} on")
            for each in account.unbonding
        ),
        ("vote", _describe_vote(account)),
        ("last nonce", str(account.nonce)),
    ]
    print_facts(open_console(), facts)
    return Exit.OK


def _describe_vote(account: "AccountResult") -> str:
    from node.render import format_units

    if account.convicted:
        return "none, and never again: it was convicted of breaking a voting rule"
    if account.jailed_until_ms is not None:
        return "none in the sets to come: jailed for absence, until `quorate unjail`"
    if account.weight == account.next_weight:
        return f"{format_units(account.weight)} units" if account.weight else "none"
    return f"{format_units(account.weight)} units, {format_units(account.next_weight)} in the next epoch"


def version(as_json: options.Json = False) -> int:
    """Show which quorate this is."""
    import platform

    from node.render import print_json
    from node.version import get_version
    from protocol.params import PROTOCOL_VERSION

    if as_json:
        print_json(
            {"version": get_version(), "protocol": PROTOCOL_VERSION, "python": platform.python_version()},
        )
    else:
        typer.echo(f"quorate {get_version()}, protocol {PROTOCOL_VERSION}, Python {platform.python_version()}")
    return Exit.OK
