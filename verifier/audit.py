"""One auditor's verdict on outputs that others made: one teacher-forced pass over all of them, then integers against limits.

A claim that is wrong on its face is rejected hard, before any model runs. Otherwise margins (or, where no seed is known, the
likelihood) and the sketch are held to the profile's limits for the executor's and the auditor's compute classes; a sketch alone
accepts nothing. What measures beyond twice a limit is measured again in float64, and only then rejected hard. Where this auditor
cannot tell, the verdict is inconclusive and says why: never accept, and never an exception that a claim could raise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from protocol.jobs.verdicts import Verdict
from protocol.models import SamplingKind, TextOutput
from verifier.claims import Claim, Reason, find_fault, is_replayable
from verifier.classes import ComputeClass
from verifier.engine import Engine, LlamaEngine, widen_engine
from verifier.likelihood import compute_score
from verifier.margin import ONE_NAT, Replay
from verifier.model import Model
from verifier.prefill import Passage, Reading, read_passages
from verifier.sketch import Codes, NotFinite, SketchRefused, compute_distance, decode_sketch, list_windows, measure_gaps
from verifier.tokens import PromptRefused, encode_prompt
from verifier.tolerances import ProfileBody, Tolerance, find_tolerance, look_up

_SEVERITY: Final = (Verdict.ACCEPT, Verdict.SOFT_REJECT, Verdict.HARD_REJECT)


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict with its reason. `measured` and `limit` are those of the test that decided, 0 where none was taken."""

    verdict: Verdict
    reason: Reason
    detail: str
    measured: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Auditor:
    """Who audits: a loaded model and its profile."""

    model: Model
    profile: ProfileBody


@dataclass(frozen=True, slots=True)
class Examinable:
    """A claim that only the model can judge."""

    claim: Claim
    output: TextOutput
    prompt: tuple[int, ...]
    codes: Codes | None


@dataclass(frozen=True, slots=True)
class Measured:
    """A test's result. Units: those of its limit"""

    reason: Reason
    value: int
    limit: int

    @property
    def verdict(self) -> Verdict:
        if self.value <= self.limit:
            return Verdict.ACCEPT
        return Verdict.SOFT_REJECT if self.value <= 2 * self.limit else Verdict.HARD_REJECT


def audit_claims(auditor: Auditor, claims: Sequence[Claim]) -> list[Finding]:
    """A finding for each claim, hard rejections confirmed in float64."""
    engine = auditor.model.engine
    findings = examine_claims(auditor, engine, claims)
    doubted = [
        index for index, finding in enumerate(findings) if finding.verdict is Verdict.HARD_REJECT and finding.limit
    ]
    if doubted:
        confirmed = dispute_claims(auditor, [claims[index] for index in doubted])
        for index, again in zip(doubted, confirmed, strict=True):
            if again.verdict is not Verdict.HARD_REJECT:
                findings[index] = replace(
                    findings[index],
                    verdict=Verdict.SOFT_REJECT,
                    detail=f"{findings[index].detail}; in float64 {again.verdict.name.lower()}: {again.detail}",
                )
    return findings


def dispute_claims(auditor: Auditor, claims: Sequence[Claim]) -> list[Finding]:
    """The same examination in float64, which rounds alike on all machines."""
    engine = auditor.model.engine
    if not isinstance(engine, LlamaEngine):
        detail = f"{engine.compute_class.name} has no float64 form here; ask an auditor whose engine has"
        return [Finding(Verdict.INCONCLUSIVE, Reason.UNCONFIRMED, detail) for _ in claims]
    return examine_claims(auditor, widen_engine(engine), claims)


def examine_claims(auditor: Auditor, engine: Engine, claims: Sequence[Claim]) -> list[Finding]:
    """A finding for each claim, as this engine measures it."""
    opened = [_open_claim(auditor, claim) for claim in claims]
    limits = [find_tolerance(auditor.profile, claim.executor, engine.compute_class) for claim in claims]
    due = [
        (index, entry, tolerance)
        for index, (entry, tolerance) in enumerate(zip(opened, limits, strict=True))
        if isinstance(entry, Examinable) and tolerance is not None
    ]
    findings = {index: entry for index, entry in enumerate(opened) if isinstance(entry, Finding)}
    try:
        readings = read_passages(engine, [build_passage(entry, tolerance) for _, entry, tolerance in due])
    except torch.OutOfMemoryError as error:
        lack = Finding(Verdict.INCONCLUSIVE, Reason.NO_MEMORY, str(error)[:200])
        return [findings.get(index, lack) for index in range(len(claims))]
    for (index, entry, tolerance), reading in zip(due, readings, strict=True):
        findings[index] = judge_reading(entry, reading, tolerance)
    for index in set(range(len(claims))) - set(findings):
        findings[index] = _report_unknown(claims[index].executor, engine.compute_class)
    return [findings[index] for index in range(len(claims))]


def build_passage(entry: Examinable, tolerance: Tolerance) -> Passage:
    """What has to be read for the tests that this claim can be put to."""
    settings = entry.claim.settings
    is_sampled = settings.kind is SamplingKind.SAMPLE
    replay = Replay(
        entry.claim.seed or b"",
        settings.temperature_ppm if is_sampled and entry.claim.seed is not None else 0,
        settings.top_p_ppm if is_sampled else 1_000_000,
        tolerance.slack / ONE_NAT,
    )
    needs_surprise = is_sampled and entry.claim.seed is None and settings.temperature_ppm > 0
    drawn = replace(replay, temperature_ppm=settings.temperature_ppm) if needs_surprise else None
    seed = None if entry.codes is None else entry.claim.sketch_seed
    return Passage(entry.prompt, entry.output.tokens, replay, seed, drawn)


def judge_reading(entry: Examinable, reading: Reading | NotFinite, tolerance: Tolerance) -> Finding:
    """The worst of what the tests say; without one that looks at the choice of tokens, nothing is accepted."""
    if isinstance(reading, NotFinite):
        return Finding(Verdict.INCONCLUSIVE, Reason.NOT_FINITE, str(reading))
    results: list[Measured] = []
    if is_replayable(entry.claim.settings, entry.claim.seed):
        results += measure_choice(reading, tolerance)
    elif reading.surprise is not None:
        results.append(Measured(Reason.LIKELIHOOD, abs(compute_score(reading.surprise)), tolerance.score))
    has_seen_choice = bool(results)
    if entry.codes is not None and reading.codes is not None:
        results += measure_sketch(measure_gaps(entry.codes, reading.codes), tolerance)
    worst = max(
        results,
        key=lambda result: (_SEVERITY.index(result.verdict), result.value * 1000 // (result.limit + 1)),
        default=None,
    )
    if worst is not None and worst.verdict is not Verdict.ACCEPT:
        detail = f"{worst.reason}: expected at most {worst.limit}, got {worst.value}"
        return Finding(worst.verdict, worst.reason, detail, worst.value, worst.limit)
    if not has_seen_choice:
        return Finding(Verdict.INCONCLUSIVE, Reason.BEAMS, "no single pass shows how a beam search chose its tokens")
    return Finding(Verdict.ACCEPT, Reason.WITHIN, "all tests are within their limits")


def measure_choice(reading: Reading, tolerance: Tolerance) -> list[Measured]:
    """The largest margin, and the mean of all, where a large one counts no more than the limit for a single one."""
    margins, tokens = reading.margins, len(reading.margins)
    mean = -(-int(np.minimum(margins, tolerance.margin_largest).sum()) // tokens)
    return [
        Measured(Reason.MARGIN, int(margins.max()), tolerance.margin_largest),
        Measured(Reason.MARGIN_MEAN, mean, look_up(tolerance.margin_means, tokens)),
    ]


def measure_sketch(gaps: np.ndarray[tuple[int], np.dtype[np.int64]], tolerance: Tolerance) -> list[Measured]:
    """The whole sketch's distance, and that of its furthest window."""
    windows = [gaps[window] for window in list_windows(len(gaps))]
    furthest = max(windows, key=compute_distance)
    return [
        Measured(Reason.SKETCH, compute_distance(part), look_up(tolerance.distances, len(part)))
        for part in (gaps, furthest)
    ]


def _open_claim(auditor: Auditor, claim: Claim) -> Examinable | Finding:
    """The claim as the model can read it, or the finding that needs no model."""
    model = auditor.model
    if bytes.fromhex(auditor.profile.model) != model.id:
        detail = f"expected a profile of {model.id.hex()[:12]}, got one of {auditor.profile.model[:12]}"
        return Finding(Verdict.INCONCLUSIVE, Reason.OTHER_PROFILE, detail)
    if claim.output is None:
        return Finding(Verdict.UNAVAILABLE, Reason.WITHHELD, "nobody gave the output out")
    try:
        prompt = tuple(encode_prompt(model.tokenizer, claim.prompt, model.card.context_tokens))
    except PromptRefused as error:
        return Finding(Verdict.INCONCLUSIVE, Reason.BAD_PROMPT, str(error))
    fault = find_fault(model, prompt, claim.settings, claim.output)
    if fault is not None:
        return Finding(Verdict.HARD_REJECT, fault.reason, fault.detail)
    try:
        tokens = len(claim.output.tokens)
        codes = None if claim.sketch is None else decode_sketch(claim.sketch, tokens, claim.executor)
    except SketchRefused as error:
        return Finding(Verdict.HARD_REJECT, Reason(error.fault), str(error))
    return Examinable(claim, claim.output, prompt, codes)


def _report_unknown(executor: ComputeClass, auditor: ComputeClass) -> Finding:
    detail = f"the profile has no limits for {executor.name} audited by {auditor.name}; calibrate that pair"
    return Finding(Verdict.INCONCLUSIVE, Reason.UNKNOWN_CLASS, detail)
