"""Prints how large certificates and chain files are and how long checking takes: `python -P -m tests.protocol.bench_certificate`. Never a timed test."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from protocol.certificate import check_certificate
from protocol.certificate_format import attach_output, decode_certificate
from protocol.chain_file import encode_chain_file, encode_trusted_header
from protocol.codec import encode
from protocol.params import INTERNET, MINIMAL
from protocol.trust import TrustedHeader, trust_genesis, walk_steps
from protocol.validators import Validator, ValidatorSet
from tests.protocol.builders import make_genesis, make_key, make_request, start_chain
from tests.protocol.certificates import certify
from tests.protocol.trusts import KEYS, Line

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = ((5, 5, 256), (5, 5, 8192), (7, 3, 256), (100, 7, 256), (100, 21, 256))
LONGEST_WAIT = 16  # headers: params.beacon_max_blocks of a network over the internet
ROUNDS = 50


def time_best(act: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The shortest time, in milliseconds: what else the machine does only adds to it."""
    best = None
    for _ in range(rounds):
        started = time.perf_counter_ns()
        act()
        spent = time.perf_counter_ns() - started
        best = spent if best is None else min(best, spent)
    assert best is not None
    return best / 1e6


def measure(validators: int, seats: int, prompt: int, before: int = 0) -> None:
    """One certificate; `before` blocks come first, so that it may wait over an epoch's end."""
    names = [f"v{index}" for index in range(validators)]
    params = replace(MINIMAL, beacon_max_blocks=INTERNET.beacon_max_blocks, epoch_heights=32, unbonding_heights=96)
    chain = start_chain(make_genesis(names, params=params), [*names, "asker", "other"])
    chain.run(before)
    request = make_request(seats=seats, fee=seats * 10_000, prompt=b"x" * prompt)
    encoded, _, _ = certify(request=request, chain=chain)
    certificate = decode_certificate(encoded)
    best_ms = time_best(lambda: check_certificate(encoded, chain.genesis))
    size, headers = len(attach_output(encoded, None)), len(certificate.waiting.cores)
    epochs = len(certificate.waiting.valset_hashes) - 1
    longest = size + (LONGEST_WAIT - headers) * len(encode(certificate.waiting.cores[0]))
    print(
        f"{validators:4} validators {seats:3} seats {prompt:5} bytes asked {headers:3} headers in {epochs}: {size:6} bytes"
        f" ({longest} with {LONGEST_WAIT} headers), {best_ms:.2f} ms"
    )


def measure_changes(validators: int, changes: int = 10) -> None:
    """A chain file: every step swaps the newest validator for another."""
    keys = [make_key(f"w{index}") for index in range(validators + changes)]
    KEYS.update({key.public: key for key in keys})
    sets = {
        2 + shift: ValidatorSet(tuple(Validator(key.public, 10**9) for key in keys[shift : shift + validators]))
        for shift in range(changes)
    }
    names = [f"g{index}" for index in range(validators)]
    genesis = make_genesis(names)
    KEYS.update({make_key(name).public: make_key(name) for name in names})
    line = Line(sets, genesis)
    trust, steps = trust_genesis(genesis), line.list_steps()
    best_ms = time_best(lambda: walk_steps(trust, steps), 5) / changes
    size = len(encode_chain_file(trust.chain, steps)) // changes
    header = line.make_header(100)
    trusted = TrustedHeader(header, line.get_set(header.epoch), None)
    print(
        f"{validators:4} validators, one change: {size:6} bytes, {best_ms:.2f} ms; trusted header"
        f" {len(encode_trusted_header(line.make_trusted(100)))} bytes, {len(encode_trusted_header(trusted))} without votes"
    )


def main() -> None:
    for case in CASES:
        measure(*case)
    measure(100, 7, 256, before=27)
    for validators in (4, 100):
        measure_changes(validators)
    certificate = decode_certificate(certify(request=make_request(seats=5, fee=50_000))[0])
    parts = {name: len(encode(getattr(certificate, name))) for name in certificate.__struct_fields__}
    print("bytes by part, 5 validators and 5 seats:", parts)


if __name__ == "__main__":
    main()
