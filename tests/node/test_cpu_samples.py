"""Processor time is charged to the innermost area that runs, and nothing is left behind."""

from __future__ import annotations

import signal
import time
from collections import Counter

from node.cpu_samples import EVENT_LOOP, _name_area, sample_cpu
from protocol.crypto import SigningKey, is_signature_valid


def test_processor_time_is_counted_and_signatures_are_told_apart() -> None:
    samples: Counter[str] = Counter()
    key = SigningKey(bytes(32))
    signature = key.sign(b"message")
    before = signal.getsignal(signal.SIGPROF)
    with sample_cpu(samples):
        until = time.process_time() + 0.5
        while time.process_time() < until:
            assert is_signature_valid(key.public, b"message", signature)
    assert signal.getsignal(signal.SIGPROF) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert samples["signatures"] > samples[EVENT_LOOP]


def test_a_module_belongs_to_its_own_area_before_that_of_its_package() -> None:
    assert _name_area("protocol.crypto") == "signatures"
    assert _name_area("protocol.ledger.draft") == "ledger"
    assert _name_area("hypercorn.protocol.h11") == "rpc"
    assert _name_area("trio._core._run") == ""
