"""With a namespace each, a node that is cut off hears nothing and is not heard; afterwards nothing of it is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from devnet.perturbation.isolation import Isolation, choose_isolation
from devnet.perturbation.links import HOST_VARIABLE
from devnet.perturbation.namespaces import explain_no_namespaces, open_namespaces
from node.config import load_config
from tests.devnet.fake_devnet import make_node

NODES = tuple(replace(make_node(index), p2p=f"{index:064x}@127.0.0.1:7550") for index in range(2))
SEND_DATAGRAM = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 7550))"
WAIT_DATAGRAM = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("0.0.0.0", 7550))
print("listening", flush=True)
for line in sys.stdin:
    end.settimeout(float(line))
    try:
        print(end.recv(10), flush=True)
    except TimeoutError:
        print("nothing", flush=True)
"""


def test_a_node_that_is_cut_off_hears_nothing_until_it_is_healed() -> None:
    if obstacle := explain_no_namespaces():
        pytest.skip(obstacle)
    with open_namespaces(NODES) as links:
        config = load_config(None, links.get_environment(0), {}).config.network
        target = links.get_environment(1)[HOST_VARIABLE]
        assert [peer.multiaddr for peer in config.peer_addresses] == [f"/ip4/{target}/tcp/7550"]
        prefix = links.get_prefix(1)
        listener = subprocess.Popen(
            [*prefix, sys.executable, "-P", "-c", WAIT_DATAGRAM],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with listener:
            assert listener.stdin is not None
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"

            def hear(timeout_s: float) -> str:
                subprocess.run(
                    [*links.get_prefix(0), sys.executable, "-P", "-c", SEND_DATAGRAM, target], check=True, timeout=30
                )
                listener.stdin.write(f"{timeout_s}\n")
                listener.stdin.flush()
                return listener.stdout.readline()

            assert hear(10) == "b'x'\n"
            links.cut(1)
            assert hear(0.1) == "nothing\n"
            links.heal(1)
            assert hear(10) == "b'x'\n"
    assert not any(Path("/run/netns", name).exists() for name in (prefix[-1], links.get_prefix(0)[-1]))


def test_proxies_can_always_be_had_and_the_choice_says_why() -> None:
    assert choose_isolation(Isolation.PROXIES).isolation is Isolation.PROXIES
    choice = choose_isolation(Isolation.AUTO)
    assert (choice.isolation is Isolation.NAMESPACES) == (explain_no_namespaces() == "")
    assert choice.reason
