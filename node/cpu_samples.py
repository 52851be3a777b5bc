"""Where a node's processor time goes: a look at what runs, every 50 ms of processor time, counted by area.

The system's profiling timer counts processor time alone, so an idle node is not looked at, and a busy one 20 times a second: some
hundredths of a percent. A look is charged to the innermost frame whose module belongs to one.
"""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

INTERVAL_S: Final = 0.05
EVENT_LOOP: Final = "event_loop"  # nothing below says otherwise: trio's own scheduling
_AREAS: Final = {  # by package or module: the longest name that fits decides
    "nacl": "signatures",
    "protocol.crypto": "signatures",
    "protocol.codec": "encoding",
    "node.wire": "encoding",
    "node.records": "encoding",
    "protocol.ordering": "ordering",
    "protocol": "ledger",
    "node.wal": "disk",
    "node.storage": "disk",
    "node.stored": "disk",
    "node.database": "disk",
    "node.mempool": "mempool",
    "node.postbox": "mempool",
    "node.rpc": "rpc",
    "node.rpc_views": "rpc",
    "node.rpc_jobs": "rpc",
    "node.jsonrpc": "rpc",
    "node.http_server": "rpc",
    "node.http_connections": "rpc",
    "node.service": "rpc",
    "hypercorn": "rpc",
    "starlette": "rpc",
    "h11": "rpc",
    "libp2p": "network",
    "node.libp2p_network": "network",
    "node.libp2p_gossip": "network",
    "node.libp2p_hardening": "network",
    "node.libp2p_frames": "network",
    "node.libp2p_streams": "network",
    "node.streams": "network",
    "node.network": "network",
    "node.telemetry": "log",
    "node.engine": "engine",
    "node.ordering": "engine",
    "node.chain": "engine",
}


@contextmanager
def sample_cpu(samples: Counter[str]) -> Iterator[None]:
    """Samples are counted as long as this is open. For the main thread; one at a time."""
    areas: dict[str, str] = {}  # by module, as they are met

    def look(_number: int, frame: FrameType | None) -> None:
        samples[_find_area(frame, areas)] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _find_area(frame: FrameType | None, known: dict[str, str]) -> str:
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name not in known:
            known[name] = _name_area(name)
        if known[name]:
            return known[name]
        frame = frame.f_back
    return EVENT_LOOP


def _name_area(module: str) -> str:
    """The area of a module, or of the package that it is in; empty where none is named."""
    while module and module not in _AREAS:
        module = module.rpartition(".")[0]
    return _AREAS.get(module, "")
