"""`python -P -m tests.verifier.other_machine DIR DTYPE`: an executor in a process of its own, whose environment may forbid instruction sets.

It prints the capability that torch found, and a line of JSON with tokens and the sketch for each of a few jobs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tests.verifier.audits import SEED, SKETCH_SEED, never, sample
from verifier.generate import generate_traced
from verifier.model import load_model, use_deterministic_settings
from verifier.sketch import compute_codes, encode_sketch

PROMPTS = ("def read(", "class Node:\n", "import os\n\n", "    return ")
WISH = sample(64)


def main(directory: str, dtype: str) -> None:
    use_deterministic_settings()
    model = replace(load_model(Path(directory), dtype=dtype), ends=frozenset[int]())
    print(torch.backends.cpu.get_cpu_capability())
    for prompt in PROMPTS:
        made = generate_traced(model, prompt, WISH, SEED, never)
        sketched = encode_sketch(compute_codes(made.hidden, SKETCH_SEED), model.engine.compute_class)
        print(json.dumps({"tokens": made.output.tokens, "text": made.output.text, "sketch": sketched.hex()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
