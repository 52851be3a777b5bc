"""Prints how large a certificate is and how long checking takes: `python -P -m tests.protocol.bench_certificate`. Never a timed test."""

from __future__ import annotations

import time

from protocol.certificate import check_certificate
from protocol.certificate_format import attach_output, decode_certificate
from protocol.codec import encode
from tests.protocol.builders import make_genesis, make_request, start_chain
from tests.protocol.certificates import certify

CASES = ((5, 5, 256), (5, 5, 8192), (7, 3, 256), (100, 7, 256), (100, 21, 256))
ROUNDS = 50


def measure(validators: int, seats: int, prompt: int) -> None:
    names = [f"v{index}" for index in range(validators)]
    chain = start_chain(make_genesis(names), [*names, "asker", "other"])
    request = make_request(seats=seats, fee=seats * 10_000, prompt=b"x" * prompt)
    encoded, _, _ = certify(request=request, chain=chain)
    best = None
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        check_certificate(encoded, chain.genesis)
        spent = time.perf_counter_ns() - started
        best = spent if best is None else min(best, spent)
    assert best is not None
    size = len(attach_output(encoded, None))
    headers = len(decode_certificate(encoded).waiting.cores)
    print(
        f"{validators:4} validators {seats:3} seats {prompt:5} bytes asked {headers:3} headers: {size:6} bytes, {best / 1e6:.2f} ms"
    )


def main() -> None:
    for case in CASES:
        measure(*case)
    certificate = decode_certificate(certify(request=make_request(seats=5, fee=50_000))[0])
    parts = {name: len(encode(getattr(certificate, name))) for name in certificate.__struct_fields__}
    print("bytes by part, 5 validators and 5 seats:", parts)


if __name__ == "__main__":
    main()
