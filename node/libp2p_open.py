"""How the network over libp2p is opened, and closed whatever happens in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from node.libp2p_hardening import DIRECT_PROTOCOL, FETCH_PROTOCOL, check_address, open_host
from node.libp2p_network import Libp2pNetwork
from node.libp2p_streams import ConnectionListener, guard_handler, unwrapped
from node.network import CHAIN_ID_BYTES, NetworkConfig, NetworkError, NetworkEvent


@asynccontextmanager
async def open_network(
    config: NetworkConfig, inbound: trio.MemorySendChannel[NetworkEvent]
) -> AsyncGenerator[Libp2pNetwork, None]:
    """An open network whose events go to inbound; all of it is closed on leaving.

    Raises: NetworkError if it cannot listen as configured.
    """
    if len(config.chain_id) != CHAIN_ID_BYTES:
        raise NetworkError(f"expected a chain id of {CHAIN_ID_BYTES} bytes, got {len(config.chain_id)}")
    for peer in config.peers:
        check_address(peer.multiaddr)
    network = Libp2pNetwork(config, inbound)
    listener = ConnectionListener(network.notice_connected, network.notice_disconnected)
    handlers = {
        DIRECT_PROTOCOL: guard_handler(network.accept_direct, network.report_fault),
        FETCH_PROTOCOL: guard_handler(network.accept_fetch, network.report_fault),
    }
    topics = tuple(network.wire_topic(topic.name) for topic in config.topics)
    listen = (config.listen_host, config.listen_port)
    # The host is closed after our own tasks and outside their cancelled scope: libp2p awaits while it closes, and a
    # Cancelled from there would take the place of whatever the caller raised.
    with unwrapped():
        async with (
            open_host(config.seed, listen, topics, network, listener, handlers, config.limits, config.timing) as host,
            trio.open_nursery() as nursery,
        ):
            network.start(host, nursery)
            try:
                yield network
            finally:
                nursery.cancel_scope.cancel()
