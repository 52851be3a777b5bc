"""Free ports of this machine's loopback, for processes that are told theirs before they start."""

import random
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
FIRST_PORT: Final = 10_000
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_MIN_CHOICE: Final = 2_000


def find_free_ports(count: int) -> list[int]:
    """That many different ports on which nobody listens now.

    Taken below the range from which the system gives ports to outgoing connections: in it, a node that dials its peers could be
    given the very port of one that has yet to start. Where that range leaves no room, the system's own choice has to do.
    """
    with ExitStack() as stack:
        ports: list[int] = []
        candidates = _shuffle_candidates()
        while len(ports) < count:
            reserved = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            try:
                reserved.bind((LOOPBACK, candidates.pop() if candidates else 0))
            except OSError:
                continue  # taken by somebody else
            ports.append(reserved.getsockname()[1])
        return ports


def is_port_free(port: int) -> bool:
    """Whether a server could listen on this port now; connections that ended a moment ago don't stand in its way."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _shuffle_candidates() -> list[int]:
    """Ports in an order of chance, so that two devnets that start at once seldom want the same ones."""
    first_ephemeral = int(_EPHEMERAL.read_text("ascii").split()[0]) if _EPHEMERAL.is_file() else FIRST_PORT
    candidates = list(range(FIRST_PORT, first_ephemeral))
    random.shuffle(candidates)
    return candidates if len(candidates) >= _MIN_CHOICE else []
