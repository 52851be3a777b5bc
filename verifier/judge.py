"""Judging the outputs of others where no output has the majority: could an honest machine of any known class have written this?

Two honest machines part at a near tie and write different texts from there on. Each text is read by itself, teacher-forced, so that
what follows the parting is judged in its own context; margins are held to the widest limits that the profile has for this judge,
because an author's class does not show in its text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.jobs.judging import Judgement
from protocol.models import GenerationSettings, SamplingKind, TextOutput
from verifier.audit import Auditor, measure_choice
from verifier.claims import find_fault, is_replayable
from verifier.margin import ONE_NAT, Replay
from verifier.prefill import Passage, Reading, read_passages
from verifier.sampling import Integers
from verifier.tokens import PromptRefused, encode_prompt
from verifier.tolerances import Tolerance, widen_tolerance


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement with its reason, and the margins it rests on, where the output was read."""

    judgement: Judgement
    detail: str
    margins: Integers | None = None


@dataclass(frozen=True, slots=True)
class Parting:
    """Two outputs and the first position where they differ. Units: margins there in 2^-16 nats"""

    position: int
    left_margin: int
    right_margin: int
    left: Judged
    right: Judged


def judge_outputs(
    auditor: Auditor, prompt: str, settings: GenerationSettings, seed: bytes, outputs: Sequence[TextOutput]
) -> list[Judged]:
    """For each output whether this judge takes it for an honest one."""
    model = auditor.model
    tolerance = widen_tolerance(auditor.profile, model.engine.compute_class)
    if bytes.fromhex(auditor.profile.model) != model.id:
        return _know_nothing(f"the profile is one of model {auditor.profile.model[:12]}", len(outputs))
    if tolerance is None:
        return _know_nothing(f"the profile has no limits for {model.engine.compute_class.name}", len(outputs))
    if not is_replayable(settings, seed):
        return _know_nothing("no single pass shows how a beam search chose its tokens", len(outputs))
    try:
        ids = tuple(encode_prompt(model.tokenizer, prompt, model.card.context_tokens))
    except PromptRefused as error:
        return _know_nothing(str(error), len(outputs))
    faults = [find_fault(model, ids, settings, output) for output in outputs]
    replay = _build_replay(settings, seed, tolerance)
    readable = [output for output, fault in zip(outputs, faults, strict=True) if fault is None]
    readings = iter(read_passages(model.engine, [Passage(ids, output.tokens, replay) for output in readable]))
    return [
        _judge(next(readings), tolerance)
        if fault is None
        else Judged(Judgement.REJECT, f"{fault.reason}: {fault.detail}")
        for fault in faults
    ]


def judge_parting(
    auditor: Auditor, prompt: str, settings: GenerationSettings, seed: bytes, left: TextOutput, right: TextOutput
) -> Parting | None:
    """Where two outputs part, by how much each lost there, and whether each is acceptable; nothing where they never part."""
    position = find_parting(left, right)
    if position is None:
        return None
    judged = judge_outputs(auditor, prompt, settings, seed, [left, right])
    return Parting(position, _get_margin(judged[0], position), _get_margin(judged[1], position), *judged)


def find_parting(left: TextOutput, right: TextOutput) -> int | None:
    """The first position at which two outputs differ; where one goes on beyond the other, its first token more."""
    shorter = min(len(left.tokens), len(right.tokens))
    for position in range(shorter):
        if left.tokens[position] != right.tokens[position]:
            return position
    return None if len(left.tokens) == len(right.tokens) else shorter


def _judge(reading: Reading | Exception, tolerance: Tolerance) -> Judged:
    if not isinstance(reading, Reading):
        return Judged(Judgement.INCONCLUSIVE, str(reading))
    beyond = [result for result in measure_choice(reading, tolerance) if result.value > result.limit]
    if beyond:
        detail = f"{beyond[0].reason}: expected at most {beyond[0].limit}, got {beyond[0].value}"
        return Judged(Judgement.REJECT, detail, reading.margins)
    return Judged(Judgement.ACCEPT, "every token is one that an honest machine may choose", reading.margins)


def _build_replay(settings: GenerationSettings, seed: bytes, tolerance: Tolerance) -> Replay:
    is_sampled = settings.kind is SamplingKind.SAMPLE
    return Replay(
        seed,
        settings.temperature_ppm if is_sampled else 0,
        settings.top_p_ppm if is_sampled else 1_000_000,
        tolerance.slack / ONE_NAT,
    )


def _get_margin(judged: Judged, position: int) -> int:
    """The margin there; 0 where the output was not read or has ended before."""
    if judged.margins is None or position >= len(judged.margins):
        return 0
    return int(judged.margins[position])


def _know_nothing(detail: str, count: int) -> list[Judged]:
    return [Judged(Judgement.INCONCLUSIVE, detail)] * count
