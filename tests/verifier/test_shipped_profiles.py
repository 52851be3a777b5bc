"""The profiles that ship with the models are theirs, and accept what honest nodes of every class answer, however short."""

from __future__ import annotations

import pytest

from devnet.models.training import MODELS
from protocol.jobs.verdicts import Verdict
from protocol.models import greedy
from tests.verifier.audits import SEED, SKETCH_SEED, never, sample
from verifier.audit import Auditor, audit_claims
from verifier.claims import Claim
from verifier.generate import generate_traced
from verifier.llama import Attention
from verifier.model import load_model
from verifier.probe import check_class
from verifier.sketch import compute_codes, encode_sketch
from verifier.tolerances import PROFILE_FILE, load_profile

PROMPTS = {"arith-s": ("12+34=", "7+5=", "99+1="), "code-2m": ("def ", "import os\nclass Reader:\n", "x")}


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_honest_answers_of_every_class_are_accepted(name: str) -> None:
    auditor = Auditor(model := load_model(MODELS / name), load_profile(MODELS / name / PROFILE_FILE, model.id))
    assert check_class(auditor.profile, model.engine).is_declared
    claims: list[Claim] = []
    for dtype, attention in (("float32", Attention.EAGER), ("float32", Attention.SDPA), ("bfloat16", Attention.EAGER)):
        executor = load_model(MODELS / name, dtype=dtype, attention=attention)
        for prompt in PROMPTS[name]:
            for wish in (greedy(6), sample(3), sample(1), sample(40, 700_000, 950_000)):
                made = generate_traced(executor, prompt, wish, SEED, never)
                declared = executor.engine.compute_class
                sketched = encode_sketch(compute_codes(made.hidden, SKETCH_SEED), declared)
                claims.append(Claim(prompt, wish, SEED, made.output, declared, sketched, SKETCH_SEED))
    findings = audit_claims(auditor, claims)
    assert [finding for finding in findings if finding.verdict is not Verdict.ACCEPT] == []
