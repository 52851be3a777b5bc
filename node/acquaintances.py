"""Where validators listen, so that each can connect with all: a node may become one long after its operator wrote the configuration.

Every node says where it listens; validators hand on what those of this epoch and the next have said. An address is a hint: whoever answers
there has to prove its key. A wrong one costs a dial now and then, and gives way to another one that was told.
"""

import ipaddress
from collections.abc import Collection, Mapping
from typing import Final

from node.errands import Errands
from node.network import Network, PeerAddress
from node.wire import Addresses
from protocol.units import Milliseconds, NodeId

ASK_MS: Final = 10_000
DIAL_MS: Final = 15_000  # before another address is tried
MAX_CANDIDATES: Final = 4  # addresses of one node

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Acquaintances:
    """The addresses of validators; owned by the engine."""

    def __init__(self, node: NodeId, network: Network, errands: Errands, configured: Mapping[NodeId, str]) -> None:
        self._node: Final = node
        self._network: Final = network
        self._errands: Final = errands
        self._configured: Final = configured
        self._told: dict[NodeId, list[str]] = {}  # of validators only; the one that is tried comes first
        self._first_hand: dict[NodeId, str] = {}
        self._kept: dict[NodeId, Milliseconds] = {}  # since when
        self._wanted: frozenset[NodeId] = frozenset()
        self._asked_ms: Milliseconds = 0
        self._turn = 0
        self.listens: Final = next((text.partition("/p2p/")[0] for text in network.addresses), "")

    def hear(self, peer: NodeId, listens: str) -> None:
        """Note where a peer says that it listens itself."""
        address = _complete(listens, self._network.find_host(peer)) if peer in self._wanted else None
        if address is not None:
            self._first_hand[peer] = address
            self._told[peer] = [address]

    def take(self, teller: NodeId, addresses: Addresses) -> None:
        """Note where validators listen by a peer's word, where they have not said so themselves."""
        is_local = _is_loopback(self._network.find_host(teller))
        for node, text in addresses.known:
            if node not in self._wanted or node in self._first_hand or not _is_plausible(text, is_local=is_local):
                continue
            told = self._told.setdefault(node, [])
            if text not in told and len(told) < MAX_CANDIDATES:
                told.append(text)

    def list_known(self) -> Addresses:
        """What this node hands on: what validators said themselves, and what its operator configured."""
        known = {node: text for node, text in self._configured.items() if node in self._wanted} | self._first_hand
        if self._node in self._wanted and _is_plausible(self.listens, is_local=True):
            known[self._node] = self.listens
        return Addresses(tuple(sorted(known.items())))

    def seek(self, validators: Collection[NodeId], now_ms: Milliseconds) -> None:
        """Once a second: dial the validators that are not connected, ask where the others are, forget who is none any more."""
        wanted = frozenset(validators) - {self._node}
        if wanted != self._wanted:
            self._want(wanted)
        missing = self._wanted - self._network.connected() - self._configured.keys()
        for node in missing & self._told.keys():
            self._dial(node, now_ms)
        if missing - self._first_hand.keys() and now_ms >= self._asked_ms + ASK_MS:
            self._asked_ms = now_ms
            self._ask()

    def _want(self, wanted: frozenset[NodeId]) -> None:
        self._wanted = wanted | {self._node}
        self._network.expect(wanted)
        for node in self._kept.keys() - wanted:
            self._network.let_go(node)
        self._kept = {node: since for node, since in self._kept.items() if node in wanted}
        self._told = {node: told for node, told in self._told.items() if node in wanted}
        self._first_hand = {node: text for node, text in self._first_hand.items() if node in wanted}

    def _dial(self, node: NodeId, now_ms: Milliseconds) -> None:
        """Keep dialling one address; after a while in vain, the next that was told."""
        told = self._told[node]
        since = self._kept.get(node)
        if since is not None and now_ms < since + DIAL_MS:
            return
        if since is not None and len(told) > 1:
            self._network.let_go(node)
            told.append(told.pop(0))
        self._network.keep(PeerAddress(node, told[0]))
        self._kept[node] = now_ms

    def _ask(self) -> None:
        connected = self._network.connected()
        peers = sorted(self._wanted & connected) or sorted(connected)
        if peers:
            self._turn += 1
            self._errands.fetch_addresses(peers[self._turn % len(peers)])


def _complete(listens: str, observed: str | None) -> str | None:
    """Where a peer can be dialled that says to listen there, and whose connection comes from here; None where that is unknown."""
    parsed = _parse(listens)
    if parsed is None:
        return None
    claimed, port = parsed
    seen = None if observed is None else _normalize(observed)
    if claimed.is_unspecified or (seen is not None and seen.is_global and not claimed.is_global):
        return None if seen is None else _format(seen, port)
    if claimed.is_loopback and not _is_loopback(observed):
        return None
    return _format(claimed, port)


def _is_plausible(text: str, *, is_local: bool) -> bool:
    """Whether an address from hearsay may be dialled: never this machine's own, but where all of the network is on it."""
    parsed = _parse(text)
    if parsed is None or parsed[0].is_unspecified or parsed[0].is_multicast or parsed[0].is_link_local:
        return False
    return is_local or not parsed[0].is_loopback


def _parse(text: str) -> tuple[IpAddress, int] | None:
    parts = text.split("/")
    if len(parts) != 5 or parts[0] or parts[1] not in {"ip4", "ip6"} or parts[3] != "tcp" or not parts[4].isdecimal():
        return None
    try:
        host = ipaddress.ip_address(parts[2])
    except ValueError:
        return None
    port = int(parts[4]) if len(parts[4]) <= 5 else 0
    return (host, port) if 0 < port < 65_536 and host.version == int(parts[1][2]) else None


def _normalize(host: str) -> IpAddress | None:
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return parsed if mapped is None else mapped


def _is_loopback(host: str | None) -> bool:
    seen = None if host is None else _normalize(host)
    return seen is not None and seen.is_loopback


def _format(host: IpAddress, port: int) -> str:
    return f"/ip{host.version}/{host}/tcp/{port}"
