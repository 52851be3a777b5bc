"""Where a node's processor time goes: a look at what runs, every 50 ms of processor time, counted by area.

The system's profiling timer counts processor time alone, so an idle node is not looked at, and a busy one 20 times a second: some
hundredths of a percent. A look is charged to the innermost frame whose file names an area.
"""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

INTERVAL_S: Final = 0.05
EVENT_LOOP: Final = "event_loop"  # nothing below says otherwise: trio's own scheduling
_AREAS: Final = (
    ("/nacl/", "signatures"),
    ("/protocol/crypto.py", "signatures"),
    ("/protocol/codec.py", "encoding"),
    ("/node/wire.py", "encoding"),
    ("/node/records.py", "encoding"),
    ("/protocol/ordering/", "ordering"),
    ("/protocol/", "ledger"),
    ("/node/wal.py", "disk"),
    ("/node/storage.py", "disk"),
    ("/node/stored.py", "disk"),
    ("/node/database.py", "disk"),
    ("/node/mempool.py", "mempool"),
    ("/node/postbox.py", "mempool"),
    ("/node/rpc", "rpc"),
    ("/node/jsonrpc.py", "rpc"),
    ("/node/http_", "rpc"),
    ("/node/service.py", "rpc"),
    ("/hypercorn/", "rpc"),
    ("/starlette/", "rpc"),
    ("/h11/", "rpc"),
    ("/libp2p/", "network"),
    ("/node/libp2p_", "network"),
    ("/node/streams.py", "network"),
    ("/node/network.py", "network"),
    ("/node/telemetry.py", "log"),
    ("/node/engine.py", "engine"),
    ("/node/ordering.py", "engine"),
    ("/node/chain.py", "engine"),
)


@contextmanager
def sample_cpu(samples: Counter[str]) -> Iterator[None]:
    """Samples are counted as long as this is open. For the main thread; one at a time."""
    areas: dict[str, str] = {}

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
        name = frame.f_code.co_filename
        if name not in known:
            known[name] = next((area for part, area in _AREAS if part in name), "")
        if known[name]:
            return known[name]
        frame = frame.f_back
    return EVENT_LOOP
