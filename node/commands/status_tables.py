"""The tables of `status` and `peers`."""

from collections.abc import Iterable

from rich.console import Console

from node.render import (
    clean,
    format_duration,
    format_units,
    open_console,
    print_facts,
    print_table,
    shorten,
)
from node.rpc_types import ModelState, NodeStatus, PeerState


def print_status(url: str, status: NodeStatus, models: Iterable[ModelState]) -> None:
    """A node in one screen; the checks only where one fails."""
    console = open_console()
    print_facts(console, _list_facts(url, status))
    failed = [check for check in status.readiness.checks if not check.ok]
    for check in failed:
        console.print(f"  {check.name}: {clean(check.reason)} → {clean(check.cure)}", style="yellow")
    _print_models(console, models)


def _list_facts(url: str, status: NodeStatus) -> list[tuple[str, str]]:
    behind = "" if status.sync_target is None else f", catching up to {status.sync_target:,}"
    return [
        ("node", f"{shorten(status.node)} · {_describe_role(status)}"),
        ("state", status.readiness.status.replace("_", " ")),
        ("network", f"{status.chain_name} · chain {shorten(status.chain_id)} · {status.validators} validators"),
        ("epoch", f"{status.epoch:,}, up to height {status.epoch_end:,} · {_describe_vote(status)}"),
        ("height", f"{status.height:,}{behind} · view {status.view:,} · block {shorten(status.block_hash)}"),
        ("peers", f"{status.peers_connected} connected, {status.peers_seeing_me} of them see this node"),
        ("account", f"{format_units(status.balance)} units"),
        ("work", f"{status.open_jobs} open jobs, {status.waiting_transactions} waiting transactions"),
        ("worker", _describe_worker(status)),
        ("up", f"{format_duration(status.uptime_ms)} · {status.rss_bytes / 2**20:.0f} MiB · quorate {status.version}"),
        ("rpc", url),
    ]


def _describe_role(status: NodeStatus) -> str:
    match status.signing:
        case "yes":
            return "validator"
        case "no":
            return "follower"
        case "asking":
            return "observer: it asks the other validators what they remember of its votes, and signs when it knows"
        case "waiting":
            return f"observer: its votes were lost, so it signs again, by itself, from epoch {status.signing_from} on"


def _describe_vote(status: NodeStatus) -> str:
    if status.jailed_until_ms is not None:
        return "jailed for absence: `quorate unjail` ends it when its time is over"
    if not status.weight and not status.next_weight:
        return "no vote"
    now = f"{format_units(status.weight)} units vote" if status.weight else "no vote yet"
    if status.weight == status.next_weight:
        return now
    return f"{now}, {format_units(status.next_weight)} in the next"


def _describe_worker(status: NodeStatus) -> str:
    worker = status.worker
    if not worker.ready:
        return f"not ready: {worker.reason}"
    return f"{', '.join(worker.models) or 'no model'} · {worker.queued} queued"


def _print_models(console: Console, models: Iterable[ModelState]) -> None:
    rows = [
        (model.name, shorten(model.model), model.dtype, f"{model.context_tokens:,}", str(model.candidates))
        for model in models
    ]
    if rows:
        columns = ("model", "id", "dtype", "context", "nodes")
        print_table(console, columns, rows, right=frozenset({"context", "nodes"}))


def print_peers(peers: Iterable[PeerState]) -> None:
    """One row a peer."""
    rows = [
        (
            shorten(peer.node),
            "yes" if peer.connected else "no",
            "yes" if peer.sees_me else "no",
            "-" if peer.rtt_ms is None else f"{peer.rtt_ms} ms",
            "-" if peer.last_seen_ms is None else format_duration(peer.last_seen_ms),
            f"{peer.height:,}",
            peer.reason or _shorten_address(peer.address),
        )
        for peer in peers
    ]
    if not rows:
        open_console().print("no peers: `quorate init --peer ADDR` adds one", style="dim")
        return
    columns = ("peer", "connected", "sees us", "rtt", "heard", "height", "address or reason")
    print_table(open_console(), columns, rows, right=frozenset({"rtt", "height"}))


def _shorten_address(multiaddr: str) -> str:
    """HOST:PORT out of /ip4/HOST/tcp/PORT/p2p/…, anything else as it is."""
    parts = multiaddr.split("/")
    return f"{parts[2]}:{parts[4]}" if len(parts) > 4 and parts[3] == "tcp" else multiaddr
