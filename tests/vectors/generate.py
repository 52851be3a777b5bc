"""Writes the pinned vectors anew: `python -P -m tests.vectors.generate`. A change of these files is a change of the protocol."""

from __future__ import annotations

import json
from pathlib import Path

from protocol.codec import encode
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


def main() -> None:
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(json.dumps(compute_vectors(name), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
