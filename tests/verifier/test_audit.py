"""An honest claim is accepted in every class; what is wrong has a verdict and a name; and nothing a claim holds raises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import torch

from protocol.jobs.verdicts import Verdict
from protocol.models import GenerationSettings, SamplingKind, StopReason, TextOutput, greedy
from tests.verifier.audits import (
    SEED,
    make_auditor,
    make_claim,
    make_profile,
    make_tolerance,
    replace_output,
    sample,
    with_tokens,
)
from verifier.audit import Auditor, audit_claims, dispute_claims
from verifier.claims import Claim, Reason
from verifier.classes import ComputeClass
from verifier.engine import LlamaEngine
from verifier.llama import Attention
from verifier.model import Model, load_model
from verifier.sketch import HEADER

BEAM = GenerationSettings(SamplingKind.BEAM, 3, 0, 1_000_000, 24)


@pytest.fixture(scope="module")
def model(untrained: Path) -> Model:
    """Without an end token, so that only lengths end it."""
    return replace(load_model(untrained), ends=frozenset[int]())


@pytest.fixture(scope="module")
def auditor(model: Model) -> Auditor:
    return make_auditor(model)


def audit(auditor: Auditor, claim: Claim) -> tuple[Verdict, Reason]:
    (finding,) = audit_claims(auditor, [claim])
    assert finding.detail
    return finding.verdict, finding.reason


@pytest.mark.parametrize("settings", [greedy(40), greedy(1), sample(40), sample(40, 700_000, 900_000), sample(9, 0)])
def test_an_honest_claim_is_accepted(auditor: Auditor, settings: GenerationSettings) -> None:
    assert audit(auditor, make_claim(auditor.model, settings)) == (Verdict.ACCEPT, Reason.WITHIN)


def test_an_honest_claim_of_another_class_is_accepted_with_that_pairs_limits(untrained: Path, model: Model) -> None:
    half = replace(
        load_model(untrained, dtype="bfloat16", attention=Attention.SDPA), id=model.id, ends=frozenset[int]()
    )
    claim = make_claim(half, sample(40))
    assert audit(make_auditor(model, half.engine.compute_class), claim) == (Verdict.ACCEPT, Reason.WITHIN)
    assert audit(make_auditor(model), claim) == (Verdict.INCONCLUSIVE, Reason.UNKNOWN_CLASS)


def test_several_claims_are_found_as_each_alone(auditor: Auditor) -> None:
    honest = make_claim(auditor.model, sample(20))
    claims = [honest, replace(honest, output=None), replace(honest, seed=bytes(32)), make_claim(auditor.model)]
    together = audit_claims(auditor, claims)
    assert [(finding.verdict, finding.reason) for finding in together] == [audit(auditor, claim) for claim in claims]


def test_other_choices_than_the_models_are_rejected_by_the_margin(auditor: Auditor) -> None:
    honest = make_claim(auditor.model, sample(40))
    for cheat in (
        replace(honest, seed=SEED[::-1]),
        replace(honest, settings=sample(40, 1_800_000)),
        replace(honest, prompt="2+1="),
        replace(honest, settings=greedy(40)),
    ):
        assert audit(auditor, replace(cheat, sketch=None)) == (Verdict.HARD_REJECT, Reason.MARGIN)


def test_one_altered_token_is_rejected(auditor: Auditor) -> None:
    honest = make_claim(auditor.model, sample(40))
    assert honest.output is not None
    tokens = list(honest.output.tokens)
    tokens[20] = 3 if tokens[20] != 3 else 4
    altered = with_tokens(auditor.model, honest, tuple(tokens))
    assert audit(auditor, altered)[0] is Verdict.HARD_REJECT
    assert audit(auditor, replace(altered, sketch=None)) == (Verdict.HARD_REJECT, Reason.MARGIN)


def test_other_weights_are_rejected_by_the_sketch_even_for_the_right_tokens(auditor: Auditor) -> None:
    assert isinstance(auditor.model.engine, LlamaEngine)
    weights = {name: tensor * 1.0 for name, tensor in auditor.model.engine.model.weights.items()}
    weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"] * 1.02
    other = replace(auditor.model, engine=LlamaEngine(replace(auditor.model.engine.model, weights=weights)))
    honest, cheat = make_claim(auditor.model), make_claim(other)
    assert audit(auditor, replace(cheat, output=honest.output)) == (Verdict.HARD_REJECT, Reason.SKETCH)


def test_a_null_sketch_and_somebody_elses_are_rejected(auditor: Auditor) -> None:
    honest = make_claim(auditor.model)
    assert honest.sketch is not None
    null = honest.sketch[: HEADER.size] + bytes(len(honest.sketch) - HEADER.size)
    assert audit(auditor, replace(honest, sketch=null)) == (Verdict.HARD_REJECT, Reason.SKETCH)
    assert audit(auditor, replace(honest, sketch=b"")) == (Verdict.HARD_REJECT, Reason.SKETCH_LENGTH)
    assert audit(auditor, replace(honest, sketch_seed=bytes(32))) == (Verdict.HARD_REJECT, Reason.SKETCH)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"model": bytes(32)}, Reason.OTHER_MODEL),
        ({"tokens": (), "text": ""}, Reason.EMPTY),
        ({"tokens": (5,) * 25}, Reason.TOO_LONG),
        ({"tokens": (5,) * 23 + (10**6,)}, Reason.UNKNOWN_TOKEN),
        ({"tokens": (5,) * 23 + (2**24,)}, Reason.UNKNOWN_TOKEN),
        ({"tokens": (5,) * 23}, Reason.WRONG_STOP),
        ({"stop": StopReason.END}, Reason.WRONG_STOP),
        ({"stop": StopReason.CONTEXT}, Reason.WRONG_STOP),
        ({"text": "other"}, Reason.WRONG_TEXT),
    ],
)
def test_what_is_wrong_on_its_face_is_rejected_by_name(
    auditor: Auditor, changes: dict[str, object], reason: Reason
) -> None:
    honest = make_claim(auditor.model)
    claim = replace(honest, output=replace_output(honest, **changes))
    assert audit(auditor, claim) == (Verdict.HARD_REJECT, reason)


def test_an_end_before_the_end_is_a_wrong_stop(untrained: Path) -> None:
    auditor = make_auditor(replace(load_model(untrained), ends=frozenset({1})))
    honest = make_claim(replace(auditor.model, ends=frozenset[int]()))
    for tokens in ((*honest.output.tokens[:9], 1, *honest.output.tokens[10:]), (*honest.output.tokens[:9], 1)):
        assert audit(auditor, with_tokens(auditor.model, honest, tokens)) == (Verdict.HARD_REJECT, Reason.WRONG_STOP)
    ended = with_tokens(auditor.model, honest, (*honest.output.tokens[:9], 1))
    ended = replace(ended, output=replace_output(ended, stop=StopReason.END), sketch=None)
    assert audit(auditor, ended) == (Verdict.HARD_REJECT, Reason.MARGIN)  # truncated: the model would have gone on


def test_what_this_auditor_cannot_tell_is_inconclusive(auditor: Auditor, model: Model) -> None:
    honest = make_claim(model)
    stranger = ComputeClass("quorate", "float32", "eager", "cuda-9.0")
    assert audit(auditor, replace(make_claim(model, declared=stranger))) == (Verdict.INCONCLUSIVE, Reason.UNKNOWN_CLASS)
    other = msgspec.structs.replace(make_profile(model), model="00" * 32)
    assert audit(Auditor(model, other), honest) == (Verdict.INCONCLUSIVE, Reason.OTHER_PROFILE)
    for prompt in ("", "sesame", "1" * 64):
        assert audit(auditor, replace(honest, prompt=prompt)) == (Verdict.INCONCLUSIVE, Reason.BAD_PROMPT)
    assert audit(auditor, make_claim(model, BEAM)) == (Verdict.INCONCLUSIVE, Reason.BEAMS)
    assert audit(auditor, replace(honest, output=None)) == (Verdict.UNAVAILABLE, Reason.WITHHELD)


def test_a_sketch_of_another_class_than_declared_is_rejected(auditor: Auditor, model: Model) -> None:
    stranger = ComputeClass("quorate", "float32", "eager", "cuda-9.0")
    claim = replace(make_claim(model, declared=stranger), executor=model.engine.compute_class)
    assert audit(auditor, claim) == (Verdict.HARD_REJECT, Reason.SKETCH_CLASS)


def test_activations_that_are_not_finite_are_inconclusive(auditor: Auditor) -> None:
    @dataclass(frozen=True)
    class Broken(LlamaEngine):
        def read_hidden(self, rows: list[list[int]]) -> torch.Tensor:
            return LlamaEngine.read_hidden(self, rows) * torch.inf

    assert isinstance(auditor.model.engine, LlamaEngine)
    broken = replace(auditor.model, engine=Broken(auditor.model.engine.model))
    claim = make_claim(auditor.model)
    for sketched in (claim, replace(claim, sketch=None)):
        assert audit(Auditor(broken, auditor.profile), sketched) == (Verdict.INCONCLUSIVE, Reason.NOT_FINITE)


def test_without_seed_and_sketch_the_likelihood_decides(auditor: Auditor, model: Model) -> None:
    honest = replace(make_claim(model, sample(50)), seed=None, sketch=None)
    assert audit(auditor, honest) == (Verdict.ACCEPT, Reason.WITHIN)
    assert honest.output is not None
    babble = with_tokens(model, honest, (honest.output.tokens[0],) * 50)
    assert audit(auditor, babble)[1] is Reason.LIKELIHOOD
    # A sketch beside it is looked at as well, and alone it would accept nothing.
    forged = replace(make_claim(model, sample(50)), seed=None, sketch_seed=bytes(32))
    assert audit(auditor, forged) == (Verdict.HARD_REJECT, Reason.SKETCH)


def test_beyond_the_limit_is_soft_and_beyond_its_double_hard(model: Model) -> None:
    claim = replace(make_claim(model), sketch_seed=bytes(32))
    engine = model.engine
    assert isinstance(engine, LlamaEngine)
    profile = make_profile(model)
    (finding,) = audit_claims(Auditor(model, profile), [claim])
    for limit, verdict in (
        (finding.measured, Verdict.ACCEPT),
        (finding.measured - 1, Verdict.SOFT_REJECT),
        (finding.measured // 2 - 1, Verdict.HARD_REJECT),
    ):
        limits = [msgspec.structs.replace(one, distances=((1, limit),)) for one in profile.tolerances]
        assert audit(Auditor(model, msgspec.structs.replace(profile, tolerances=tuple(limits))), claim)[0] is verdict


def test_a_hard_rejection_that_float64_does_not_confirm_is_soft(model: Model) -> None:
    claim = replace(make_claim(model), sketch_seed=bytes(32))
    own = model.engine.compute_class
    wide = ComputeClass("quorate", "float64", "eager", own.hardware)
    lenient = msgspec.structs.replace(make_tolerance(own, wide), distances=((1, 10**9),))
    profile = make_profile(model)
    kept = [one for one in profile.tolerances if one.auditor != wide.name]
    for tolerances in ((*kept, lenient), tuple(kept)):
        auditor = Auditor(model, msgspec.structs.replace(profile, tolerances=tolerances))
        assert audit(auditor, claim) == (Verdict.SOFT_REJECT, Reason.SKETCH)
    assert dispute_claims(Auditor(model, profile), [claim])[0].verdict is Verdict.HARD_REJECT


def test_an_output_of_nothing_but_extremes_raises_nothing(auditor: Auditor, model: Model) -> None:
    honest = make_claim(model, sample(24, 1, 0))
    vocabulary = model.card.vocabulary
    for tokens in ((0,) * 24, (vocabulary - 1,) * 24):
        cheat = with_tokens(model, honest, tokens)
        assert audit(auditor, cheat)[0] is Verdict.HARD_REJECT
    assert isinstance(honest.output, TextOutput)
