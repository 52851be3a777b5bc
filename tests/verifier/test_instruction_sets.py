"""An honest node whose processor has fewer instruction sets is accepted by those that have more: CPUs are one hardware family."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from devnet.models.training import MODELS
from protocol.jobs.verdicts import Verdict
from protocol.models import StopReason, TextOutput
from tests.verifier.audits import SEED, SKETCH_SEED, make_auditor
from tests.verifier.other_machine import PROMPTS, WISH
from verifier.audit import audit_claims
from verifier.claims import Claim
from verifier.model import load_model

OLDER = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
}
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_executor_without_wide_vectors_is_accepted(dtype: str) -> None:
    command = [sys.executable, "-P", "-m", "tests.verifier.other_machine", str(MODELS / "code-2m"), dtype]
    environment = {**os.environ, **OLDER, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    capability, *lines = done.stdout.splitlines()
    assert capability in ("DEFAULT", "NO AVX"), capability
    model = replace(load_model(MODELS / "code-2m"), ends=frozenset[int]())
    executor = load_model(MODELS / "code-2m", dtype=dtype).engine.compute_class
    claims = [
        build_claim(model.id, prompt, json.loads(line), executor) for prompt, line in zip(PROMPTS, lines, strict=True)
    ]
    findings = audit_claims(make_auditor(model, executor), claims)
    assert [finding.verdict for finding in findings] == [Verdict.ACCEPT] * len(PROMPTS), findings


def build_claim(model: bytes, prompt: str, said: dict, executor) -> Claim:
    output = TextOutput(model, tuple(said["tokens"]), said["text"], StopReason.LENGTH)
    return Claim(prompt, WISH, SEED, output, executor, bytes.fromhex(said["sketch"]), SKETCH_SEED)
