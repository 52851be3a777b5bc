"""Writes the pinned vectors anew: `python -P -m tests.vectors.generate`. A change of these files is a change of the protocol."""

from __future__ import annotations

import json
from pathlib import Path

from protocol.codec import encode
from tests.protocol.builders import make_payload, make_request
from tests.protocol.certificates import certify, right
from tests.vectors.samples import list_hashes, list_samples

FOLDER = Path(__file__).parent
FILES = ("messages", "hashes")


def compute_vectors(name: str) -> dict[str, str]:
    """What a file must hold: name -> hexadecimal bytes."""
    if name == "messages":
        return {sample.name: encode(sample.message).hex() for sample in list_samples()}
    return {label: value.hex() for label, value in list_hashes()}


def load_vectors(name: str) -> dict[str, str]:
    """What a file holds."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def make_certificate() -> dict[str, str]:
    """A true certificate of an accepted answer, and the genesis it is checked against; `output` is the text."""
    request = make_request(seats=5, fee=50_003)
    encoded, chain, settlement = certify(lambda seat: make_payload("wrong") if seat == 1 else right(), request)
    return {
        "genesis": encode(chain.genesis).hex(),
        "certificate": encoded.hex(),
        "job": settlement.job.hex(),
        "decision": settlement.decision.name.lower(),
        "text": "81",
    }


def write(name: str, vectors: dict[str, str]) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(vectors, indent=1) + "\n", "utf-8")


def main() -> None:
    for name in FILES:
        write(name, compute_vectors(name))
    write("certificate", make_certificate())


if __name__ == "__main__":
    main()
