"""Ports are free, different, and not such as the system gives to outgoing connections."""

from __future__ import annotations

import socket
from pathlib import Path

from devnet.ports import LOOPBACK, find_free_ports, is_port_free


def test_ports_are_different_and_free() -> None:
    ports = find_free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_port_free(port) for port in ports)


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    assert first < 12_000 or max(find_free_ports(20)) < first


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        assert not is_port_free(server.getsockname()[1])
