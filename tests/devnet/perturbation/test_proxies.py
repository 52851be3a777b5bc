"""A proxy carries both ways, carries nothing while a node is cut off, and then all that was held back."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from devnet.perturbation.links import PEERS_VARIABLE
from devnet.perturbation.proxies import open_proxies
from node.config import load_config
from tests.devnet.fake_devnet import make_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devnet.devnet_file import DevnetNode
    from devnet.perturbation.links import Links

WAIT_S = 10
SILENCE_S = 0.1
CUT_ONES = [0, 1]


@contextmanager
def listening() -> Iterator[tuple[socket.socket, tuple[DevnetNode, ...]]]:
    """Two nodes, of which the second listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)
        here = make_node(0)
        yield server, (here, replace(make_node(1), p2p=f"{1:064x}@127.0.0.1:{server.getsockname()[1]}"))


def dial(links: Links) -> socket.socket:
    """From node 0 to node 1, as node 0's configuration says."""
    (peer,) = load_config(None, links.get_environment(0), {}).config.network.peer_addresses
    assert peer.node_id == bytes.fromhex(f"{1:064x}")
    return socket.create_connection(("127.0.0.1", int(peer.multiaddr.split("/")[4])), timeout=WAIT_S)


def is_silent(end: socket.socket) -> bool:
    end.settimeout(SILENCE_S)
    try:
        return not end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(WAIT_S)


def test_bytes_go_both_ways_and_an_end_is_passed_on() -> None:
    with listening() as (server, nodes), open_proxies(nodes) as links:
        assert PEERS_VARIABLE in links.get_environment(0)
        with dial(links) as near, server.accept()[0] as far:
            near.sendall(b"question")
            assert far.recv(100) == b"question"
            far.sendall(b"answer")
            assert near.recv(100) == b"answer"
            far.close()
            assert near.recv(100) == b""


@pytest.mark.parametrize("index", CUT_ONES)
def test_nothing_passes_while_either_end_is_cut_off_and_all_of_it_afterwards(index: int) -> None:
    with listening() as (server, nodes), open_proxies(nodes) as links, dial(links) as near, server.accept()[0] as far:
        links.cut(index)
        near.sendall(b"held")
        far.sendall(b"back")
        assert is_silent(far)
        assert is_silent(near)
        links.heal(index)
        assert (far.recv(100), near.recv(100)) == (b"held", b"back")


def test_with_both_cut_off_both_must_be_healed() -> None:
    with listening() as (server, nodes), open_proxies(nodes) as links, dial(links) as near, server.accept()[0] as far:
        for index in CUT_ONES:
            links.cut(index)
        near.sendall(b"held")
        links.heal(0)
        assert is_silent(far)
        links.heal(1)
        assert far.recv(100) == b"held"


def test_a_connection_made_while_cut_off_reaches_the_node_once_healed() -> None:
    with listening() as (server, nodes), open_proxies(nodes) as links:
        links.cut(1)
        with dial(links) as near:
            near.sendall(b"first")
            server.settimeout(SILENCE_S)
            with pytest.raises(TimeoutError):
                server.accept()
            server.settimeout(WAIT_S)
            links.heal(1)
            with server.accept()[0] as far:
                assert far.recv(100) == b"first"


def test_a_node_that_is_down_ends_the_connection_at_once() -> None:
    with listening() as (server, nodes), open_proxies(nodes) as links:
        server.close()
        with dial(links) as near:
            assert near.recv(100) == b""
