"""One auditor's verdict on a picture that another node drew: a few of its steps done again, its first noise, and its last latents drawn.

A claim that is wrong on its face is rejected hard, before the model runs: noise that is not the seed's, a digest that is not the
picture's, a picture that is not its last latents'. Opened steps are replayed in one pass and held to the limit for the executor's and the
auditor's compute classes; what is beyond twice the limit is replayed in float64, and only then rejected hard. Who shows no openings, or
others than were committed to, withholds. Where this auditor cannot tell, the verdict is inconclusive: never accept, never an exception
that a claim could raise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from protocol.digest import Digest
from protocol.jobs.verdicts import Verdict
from protocol.models import ImageOutput
from protocol.units import Hash
from verifier.classes import ComputeClass
from verifier.diffusion import (
    Condition,
    ImageEngine,
    SamplingFailed,
    Transition,
    advance,
    derive_noise,
    draw_latents,
)
from verifier.digests.images import compute_image_digest, read_pixels
from verifier.image_model import DitEngine, ImageModel, widen_image_engine
from verifier.noise import ONE, Latents, to_floats
from verifier.tokens import PromptRefused
from verifier.trajectory import Opening, OpeningRefused, decode_state, list_opened, read_openings

STEP_BITS: Final = 24
PIXEL_PARTS: Final = 256


class PictureReason(StrEnum):
    """Why a verdict is what it is; a word that is printed and stored."""

    WITHIN = "within-tolerance"
    WITHHELD = "output-withheld"
    NOT_OPENED = "states-not-opened"
    OTHER_MODEL = "other-model"
    WRONG_SIZE = "wrong-size"
    WRONG_DIGEST = "digest-is-not-the-pictures"
    WRONG_COUNT = "wrong-number-of-steps"
    BAD_STATE = "unreadable-state"
    WRONG_NOISE = "noise-is-not-the-seeds"
    STEP = "step-replay"
    DECODE = "picture-is-not-the-last-latents"
    UNKNOWN_CLASS = "class-not-in-profile"
    NOT_FINITE = "not-finite"
    NO_MEMORY = "out-of-memory"
    BAD_PROMPT = "prompt-refused"
    UNCONFIRMED = "not-confirmed-in-float64"


@dataclass(frozen=True, slots=True)
class PictureTolerance:
    """The limits between an executor's class and an auditor's. Beyond a limit is softly rejected, beyond its double hard.

    Units: step in 2^-24 of the prediction, root mean square, what rounding may move left out; pixels in 1/256 of a brightness step, mean
    """

    step: int
    pixels: int


Tolerances = Mapping[tuple[str, str], PictureTolerance]  # by the names of the executor's class and the auditor's


@dataclass(frozen=True, slots=True)
class PictureClaim:
    """A picture, what was asked, and what its executor shows of how it was made. None: it was withheld."""

    prompt: str
    seed: Hash
    executor: ComputeClass
    root: Hash
    digest: Digest
    output: ImageOutput | None
    drawn: tuple[int, ...]
    openings: tuple[Opening, ...] | None


@dataclass(frozen=True, slots=True)
class PictureFinding:
    """A verdict with its reason. `measured` and `limit` are those of the test that decided, 0 where none was taken."""

    verdict: Verdict
    reason: PictureReason
    detail: str
    measured: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class PictureAuditor:
    """Who audits: a loaded model and what is known of its classes."""

    model: ImageModel
    tolerances: Tolerances


@dataclass(frozen=True, slots=True)
class _Opened:
    """A claim that only the model can judge."""

    condition: Condition
    output: ImageOutput
    states: dict[int, Latents]


def audit_picture(auditor: PictureAuditor, claim: PictureClaim) -> PictureFinding:
    """The finding on one claim, a hard rejection by replay confirmed in float64."""
    engine = auditor.model.engine
    finding = examine_picture(auditor, engine, claim)
    is_doubtful = finding.reason is PictureReason.NOT_FINITE or (
        finding.verdict is Verdict.HARD_REJECT and finding.limit > 0
    )
    if not is_doubtful:
        return finding
    if not isinstance(engine, DitEngine):
        detail = (
            f"{finding.detail}; {engine.compute_class.name} has no float64 form here, ask an auditor whose engine has"
        )
        return replace(finding, verdict=Verdict.INCONCLUSIVE, reason=PictureReason.UNCONFIRMED, detail=detail)
    again = examine_picture(auditor, widen_image_engine(engine), claim)
    if finding.reason is PictureReason.NOT_FINITE:
        # What overflows in float64, too, no executor can have computed anything from.
        is_certain = again.reason is PictureReason.NOT_FINITE
        return replace(finding, verdict=Verdict.HARD_REJECT if is_certain else Verdict.INCONCLUSIVE)
    if again.verdict is Verdict.HARD_REJECT:
        return finding
    detail = f"{finding.detail}; in float64 {again.verdict.name.lower()}: {again.detail}"
    return replace(finding, verdict=Verdict.SOFT_REJECT, detail=detail)


def examine_picture(auditor: PictureAuditor, engine: ImageEngine, claim: PictureClaim) -> PictureFinding:
    """The finding as this engine measures it, under the limits of the auditor's own class."""
    opened = _open_claim(auditor.model, engine, claim)
    if isinstance(opened, PictureFinding):
        return opened
    tolerance = auditor.tolerances.get((claim.executor.name, auditor.model.engine.compute_class.name))
    if tolerance is None:
        detail = (
            f"no limits for {claim.executor.name} under {auditor.model.engine.compute_class.name}; calibrate the model"
        )
        return PictureFinding(Verdict.INCONCLUSIVE, PictureReason.UNKNOWN_CLASS, detail)
    try:
        errors = replay_steps(
            engine, auditor.model.transitions, opened.condition, claim.seed, opened.states, claim.drawn
        )
        drawn = engine.decode(opened.states[len(auditor.model.transitions)])
    except SamplingFailed as error:
        return PictureFinding(Verdict.INCONCLUSIVE, PictureReason.NOT_FINITE, str(error))
    except torch.OutOfMemoryError as error:
        return PictureFinding(Verdict.INCONCLUSIVE, PictureReason.NO_MEMORY, str(error)[:200])
    apart = compare_pixels(drawn, read_pixels(opened.output))
    worst = max(errors, key=lambda step: errors[step], default=0)
    found = (
        _weigh(PictureReason.STEP, f"step {worst + 1}", errors.get(worst, 0), tolerance.step),
        _weigh(PictureReason.DECODE, "the picture", apart, tolerance.pixels),
    )
    return max(found, key=lambda finding: _SEVERITY.index(finding.verdict))


_SEVERITY: Final = (Verdict.ACCEPT, Verdict.SOFT_REJECT, Verdict.HARD_REJECT)


def replay_steps(
    engine: ImageEngine,
    transitions: Sequence[Transition],
    condition: Condition,
    seed: Hash,
    states: Mapping[int, Latents],
    steps: Sequence[int],
) -> dict[int, int]:
    """How far each step's committed result is from what this engine makes of the committed start, in one pass.

    Units: as PictureTolerance.step. Raises: SamplingFailed where this engine computes what is not a number.
    """
    if not steps:
        return {}
    rows = np.stack([to_floats(states[step]) for step in steps])
    predictions = engine.predict(rows, [transitions[step].moment for step in steps], condition)
    errors: dict[int, int] = {}
    for step, prediction in zip(steps, predictions, strict=True):
        noise = derive_noise(transitions, seed, step, engine.latent_shape)
        expected = advance(transitions[step], states[step], prediction, noise)
        errors[step] = measure_step(transitions[step], expected, states[step + 1])
    return errors


def measure_step(transition: Transition, expected: Latents, got: Latents) -> int:
    """How far the prediction was off that made `got`, as a root mean square; a unit either way is rounding. Units: 2^-24"""
    apart = np.maximum(np.abs(expected.astype(np.float64) - got) - 1, 0) / (ONE * abs(transition.move))
    return round(float(np.sqrt(np.mean(apart * apart))) * (1 << STEP_BITS))


def compare_pixels(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> int:
    """The mean difference of two pictures of one size. Units: 1/256 of a brightness step, rounded up"""
    total = int(np.abs(left.astype(np.int64) - right).sum())
    return -(-total * PIXEL_PARTS // left.size)


def _weigh(reason: PictureReason, what: str, measured: int, limit: int) -> PictureFinding:
    detail = f"{what} is {measured} off, of {limit} allowed"
    if measured <= limit:
        return PictureFinding(Verdict.ACCEPT, PictureReason.WITHIN, detail, measured, limit)
    verdict = Verdict.SOFT_REJECT if measured <= 2 * limit else Verdict.HARD_REJECT
    return PictureFinding(verdict, reason, detail, measured, limit)


def _open_claim(model: ImageModel, engine: ImageEngine, claim: PictureClaim) -> _Opened | PictureFinding:
    """The claim with its states read, or what is wrong with it on its face."""
    output, steps = claim.output, len(model.transitions)
    if output is None:
        return PictureFinding(Verdict.UNAVAILABLE, PictureReason.WITHHELD, "nobody gave out the picture")
    wrong = _find_wrong_picture(model, claim.digest, output)
    if wrong is not None:
        return wrong
    if claim.openings is None:
        return PictureFinding(Verdict.UNAVAILABLE, PictureReason.NOT_OPENED, "nobody gave out the drawn states")
    try:
        states = read_openings(claim.openings, claim.root, list_opened(claim.drawn, steps))
    except OpeningRefused as error:
        return PictureFinding(Verdict.UNAVAILABLE, PictureReason.NOT_OPENED, str(error))
    count = claim.openings[0].proof.count
    if count != steps + 1:
        return _refuse(PictureReason.WRONG_COUNT, f"expected {steps + 1} states for {steps} steps, got {count}")
    try:
        latents = {index: decode_state(state, engine.latent_shape) for index, state in states.items()}
    except ValueError as error:
        return _refuse(PictureReason.BAD_STATE, str(error))
    if not np.array_equal(latents[0], draw_latents(claim.seed, 0, engine.latent_shape)):
        return _refuse(PictureReason.WRONG_NOISE, "the first state is not the noise of the job's seed")
    try:
        return _Opened(engine.encode_prompt(claim.prompt), output, latents)
    except PromptRefused as error:
        return _refuse(PictureReason.BAD_PROMPT, f"there is a picture for a prompt that has none: {error}")


def _find_wrong_picture(model: ImageModel, digest: Digest, output: ImageOutput) -> PictureFinding | None:
    if output.model != model.id:
        return _refuse(
            PictureReason.OTHER_MODEL, f"expected model {model.id.hex()[:12]}, got {output.model.hex()[:12]}"
        )
    got = (output.height, output.width, output.channels)
    if got != model.engine.picture_shape:
        return _refuse(PictureReason.WRONG_SIZE, f"expected a picture of {model.engine.picture_shape}, got {got}")
    if compute_image_digest(model.card.family, read_pixels(output)) != digest:
        return _refuse(PictureReason.WRONG_DIGEST, f"the revealed {digest.family.name} digest is another picture's")
    return None


def _refuse(reason: PictureReason, detail: str) -> PictureFinding:
    """What no honest executor could have committed to, on whatever machine."""
    return PictureFinding(Verdict.HARD_REJECT, reason, detail)
