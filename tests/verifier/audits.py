"""Claims and profiles for the tests of auditing: an untrained model, what it honestly answers, and limits set by hand."""

from __future__ import annotations

from dataclasses import replace

from protocol.models import GenerationSettings, SamplingKind, greedy
from verifier import sketch
from verifier.audit import Auditor
from verifier.claims import Claim
from verifier.classes import ComputeClass
from verifier.engine import LlamaEngine, widen_engine
from verifier.generate import generate_traced
from verifier.margin import ONE_NAT
from verifier.model import Model
from verifier.sketch import compute_codes, encode_sketch
from verifier.tolerances import ClassRecord, FalseAlarm, ProfileBody, Tolerance

SEED = bytes(range(32))
SKETCH_SEED = bytes(range(32, 64))
PROMPT = "1+2="


def sample(tokens: int, temperature_ppm: int = 1_000_000, top_p_ppm: int = 1_000_000) -> GenerationSettings:
    return GenerationSettings(SamplingKind.SAMPLE, 1, temperature_ppm, top_p_ppm, tokens)


def never() -> bool:
    return False


def make_claim(model: Model, settings: GenerationSettings | None = None, declared: ComputeClass | None = None) -> Claim:
    """What an honest executor says of its answer."""
    settings = settings or greedy(24)
    made = generate_traced(model, PROMPT, settings, SEED, never)
    declared = declared or model.engine.compute_class
    sketched = encode_sketch(compute_codes(made.hidden, SKETCH_SEED), declared)
    return Claim(PROMPT, settings, SEED, made.output, declared, sketched, SKETCH_SEED)


def make_tolerance(executor: ComputeClass, auditor: ComputeClass) -> Tolerance:
    is_exact = executor.is_exact and auditor.is_exact
    margin, distance = (ONE_NAT // 1024, 32) if is_exact else (ONE_NAT // 4, 1600)
    slack = ONE_NAT // 1024 if is_exact else ONE_NAT // 2
    return Tolerance(
        executor.name, auditor.name, slack, margin, ((1, margin), (16, margin // 8)), ((1, distance),), 5000
    )


def make_profile(model: Model, *classes: ComputeClass) -> ProfileBody:
    """Limits for every pair of these classes, this model's own and float64."""
    engine = model.engine
    assert isinstance(engine, LlamaEngine)
    known = {one.name: one for one in (engine.compute_class, *classes, widen_engine(engine).compute_class)}
    records = tuple(ClassRecord(one.engine, one.dtype, one.attention, one.hardware, "") for one in known.values())
    pairs = tuple(make_tolerance(one, other) for one in known.values() for other in known.values())
    nothing = FalseAlarm(0.0, 1.0, 0, 0)
    return ProfileBody(
        1, model.id.hex(), "test", (sketch.FAMILY, sketch.VERSION), "by hand", records, pairs, nothing, {}, ()
    )


def make_auditor(model: Model, *classes: ComputeClass) -> Auditor:
    return Auditor(model, make_profile(model, *classes))


def with_tokens(model: Model, claim: Claim, tokens: tuple[int, ...]) -> Claim:
    """The claim with other tokens and their own text."""
    assert claim.output is not None
    text = model.tokenizer.tokenizer.decode(list(tokens), skip_special_tokens=True)
    return replace(claim, output=replace_output(claim, tokens=tokens, text=text))


def replace_output(claim: Claim, **changes: object):
    import msgspec

    assert claim.output is not None
    return msgspec.structs.replace(claim.output, **changes)
