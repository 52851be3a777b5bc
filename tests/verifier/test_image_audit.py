"""An auditor of pictures: honest work is accepted, each way of lying has its verdict and its reason, nothing raises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from msgspec.structs import replace as alter
from numpy.typing import NDArray

from protocol.digest import Digest, DigestFamily
from protocol.jobs.verdicts import Verdict
from protocol.models import ImageOutput
from tests.verifier.image_samples import SEED, draw_seven, load_digits_model, make_claim, never
from verifier.classes import ComputeClass
from verifier.diffusion import Condition, Shape, draw_latents
from verifier.digests.images import Pixels, compute_image_digest, read_pixels
from verifier.draw import draw_picture, finish_drawing
from verifier.image_audit import (
    PictureAuditor,
    PictureClaim,
    PictureReason,
    PictureTolerance,
    audit_picture,
    compare_pixels,
    measure_step,
)
from verifier.image_model import DitEngine, ImageModel
from verifier.noise import Latents
from verifier.trajectory import commit_states, list_opened, open_states

MODEL = load_digits_model()
CLASS = MODEL.engine.compute_class
LIMIT = 1024
AUDITOR = PictureAuditor(MODEL, {(CLASS.name, CLASS.name): PictureTolerance(LIMIT, 0)})
FAMILY = DigestFamily.IMG_PDQ256


def honest() -> PictureClaim:
    return make_claim(MODEL, draw_seven())


def open_all(states: Sequence[Latents], claim: PictureClaim, drawn: tuple[int, ...] = tuple(range(25))) -> PictureClaim:
    """The claim over these states, every step opened, with the picture that they end in."""
    drawing = finish_drawing(MODEL, tuple(states))
    openings = open_states(drawing.commitment, list_opened(drawn, 25))
    root, digest, output = drawing.commitment.root, drawing.digest, drawing.output
    return replace(claim, root=root, digest=digest, output=output, drawn=drawn, openings=openings)


def list_states() -> list[Latents]:
    return [
        np.frombuffer(state, dtype="<i4").astype(np.int32).reshape(1, 8, 8) for state in draw_seven().commitment.states
    ]


def repaint(claim: PictureClaim, pixels: Pixels) -> PictureClaim:
    assert claim.output is not None
    return replace(
        claim,
        output=alter(claim.output, pixels=pixels.tobytes()),
        digest=compute_image_digest(FAMILY, pixels),
    )


def test_honest_work_is_accepted_whatever_steps_are_drawn() -> None:
    for count in (1, 3, 25):
        finding = audit_picture(AUDITOR, make_claim(MODEL, draw_seven(), count=count))
        assert (finding.verdict, finding.reason) == (Verdict.ACCEPT, PictureReason.WITHIN)


# --- wrong on its face


def withhold(claim: PictureClaim) -> PictureClaim:
    return replace(claim, output=None)


def keep_closed(claim: PictureClaim) -> PictureClaim:
    return replace(claim, openings=None)


def open_other_steps(claim: PictureClaim) -> PictureClaim:
    return replace(claim, openings=open_states(draw_seven().commitment, (0, 1, 2, 25)), drawn=(7,))


def open_another_run(claim: PictureClaim) -> PictureClaim:
    return replace(claim, root=b"r" * 32)


def name_another_model(claim: PictureClaim) -> PictureClaim:
    assert claim.output is not None
    return replace(claim, output=alter(claim.output, model=b"m" * 32))


def paint_smaller(claim: PictureClaim) -> PictureClaim:
    return replace(claim, output=ImageOutput(MODEL.id, 32, 32, 1, bytes(1024)))


def paint_in_colour(claim: PictureClaim) -> PictureClaim:
    return replace(claim, output=ImageOutput(MODEL.id, 64, 64, 3, bytes(3 * 4096)))


def digest_another(claim: PictureClaim) -> PictureClaim:
    return replace(claim, digest=Digest(FAMILY, bytes(32)))


def digest_in_another_family(claim: PictureClaim) -> PictureClaim:
    assert claim.output is not None
    return replace(claim, digest=compute_image_digest(DigestFamily.IMG_PHASH64, read_pixels(claim.output)))


def take_fewer_steps(claim: PictureClaim) -> PictureClaim:
    commitment = commit_states([*list_states()[:20], list_states()[25]])
    return replace(claim, root=commitment.root, drawn=(3,), openings=open_states(commitment, (0, 3, 4, 20)))


def commit_to_stumps(claim: PictureClaim) -> PictureClaim:
    states = list_states()
    states[4] = states[4][:, :7]
    commitment = commit_states(states)
    return replace(claim, root=commitment.root, drawn=(3,), openings=open_states(commitment, (0, 3, 4, 25)))


def choose_own_noise(claim: PictureClaim) -> PictureClaim:
    states = list_states()
    states[0] = draw_latents(b"s" * 32, 0, (1, 8, 8))
    return open_all(states, claim, (7,))


def nudge_the_noise(claim: PictureClaim) -> PictureClaim:
    states = list_states()
    states[0] = states[0].copy()
    states[0][0, 0, 0] += 1
    return open_all(states, claim, (7,))


def answer_the_unanswerable(claim: PictureClaim) -> PictureClaim:
    return replace(claim, prompt="seven")


@pytest.mark.parametrize(
    "lie, verdict, reason",
    [
        (withhold, Verdict.UNAVAILABLE, PictureReason.WITHHELD),
        (keep_closed, Verdict.UNAVAILABLE, PictureReason.NOT_OPENED),
        (open_other_steps, Verdict.UNAVAILABLE, PictureReason.NOT_OPENED),
        (open_another_run, Verdict.UNAVAILABLE, PictureReason.NOT_OPENED),
        (name_another_model, Verdict.HARD_REJECT, PictureReason.OTHER_MODEL),
        (paint_smaller, Verdict.HARD_REJECT, PictureReason.WRONG_SIZE),
        (paint_in_colour, Verdict.HARD_REJECT, PictureReason.WRONG_SIZE),
        (digest_another, Verdict.HARD_REJECT, PictureReason.WRONG_DIGEST),
        (digest_in_another_family, Verdict.HARD_REJECT, PictureReason.WRONG_DIGEST),
        (take_fewer_steps, Verdict.UNAVAILABLE, PictureReason.NOT_OPENED),
        (commit_to_stumps, Verdict.HARD_REJECT, PictureReason.BAD_STATE),
        (choose_own_noise, Verdict.HARD_REJECT, PictureReason.WRONG_NOISE),
        (nudge_the_noise, Verdict.HARD_REJECT, PictureReason.WRONG_NOISE),
        (answer_the_unanswerable, Verdict.HARD_REJECT, PictureReason.BAD_PROMPT),
    ],
)
def test_what_is_wrong_on_its_face_is_named(
    lie: Callable[[PictureClaim], PictureClaim], verdict: Verdict, reason: PictureReason
) -> None:
    finding = audit_picture(AUDITOR, lie(honest()))
    assert (finding.verdict, finding.reason) == (verdict, reason)
    assert finding.detail


def test_fewer_committed_states_are_a_count_of_their_own() -> None:
    """Padded so that every wanted number exists, the root still says how many there are."""
    commitment = commit_states([*list_states(), list_states()[25]])
    openings = open_states(commitment, (0, 3, 4, 25))
    finding = audit_picture(AUDITOR, replace(honest(), root=commitment.root, drawn=(3,), openings=openings))
    assert (finding.verdict, finding.reason) == (Verdict.HARD_REJECT, PictureReason.WRONG_COUNT)


# --- wrong by replay


def test_a_step_of_another_prompt_is_rejected() -> None:
    drawing = draw_picture(MODEL, "3", SEED, never)
    finding = audit_picture(AUDITOR, make_claim(MODEL, drawing, prompt="7"))
    assert (finding.verdict, finding.reason) == (Verdict.HARD_REJECT, PictureReason.STEP)
    assert finding.measured > 2 * finding.limit


def test_another_seeds_noise_on_the_way_is_rejected() -> None:
    other = draw_picture(MODEL, "7", b"s" * 32, never).commitment.states
    states = [list_states()[0], *(np.frombuffer(s, dtype="<i4").astype(np.int32).reshape(1, 8, 8) for s in other[1:])]
    finding = audit_picture(AUDITOR, open_all(states, honest(), (5, 9)))
    assert (finding.verdict, finding.reason) == (Verdict.HARD_REJECT, PictureReason.STEP)


def test_one_forged_step_is_found_where_it_is_drawn_and_only_there() -> None:
    states = list_states()
    for index in range(13, 26):
        states[index] = states[index] + 20_000
    claim = open_all(states, honest())
    assert audit_picture(AUDITOR, claim).verdict is Verdict.HARD_REJECT
    assert audit_picture(AUDITOR, open_all(states, honest(), (3, 11))).verdict is Verdict.ACCEPT
    finding = audit_picture(AUDITOR, open_all(states, honest(), (3, 12)))
    assert finding.reason is PictureReason.STEP and finding.detail.startswith("step 13 ")


def test_a_picture_that_is_not_its_last_latents_is_rejected() -> None:
    claim = honest()
    assert claim.output is not None
    pixels = read_pixels(claim.output).copy()
    pixels[0, 0, 0] ^= 64
    finding = audit_picture(AUDITOR, repaint(claim, pixels))
    assert (finding.verdict, finding.reason) == (Verdict.HARD_REJECT, PictureReason.DECODE)


def test_beyond_the_limit_is_soft_and_beyond_its_double_hard() -> None:
    states = list_states()
    states[25] = states[25] + 40  # the last step alone: its move is -0.139
    error = measure_step(MODEL.transitions[24], list_states()[25], states[25])
    claim = open_all(states, honest())

    def judge(limit: int) -> Verdict:
        tolerances = {(CLASS.name, CLASS.name): PictureTolerance(limit, 0)}
        return audit_picture(PictureAuditor(MODEL, tolerances), claim).verdict

    assert judge(error) is Verdict.ACCEPT
    assert judge(error - 1) is Verdict.SOFT_REJECT
    assert judge(error // 2 - 1) is Verdict.HARD_REJECT


def test_rounding_is_no_error() -> None:
    latents = np.zeros((1, 8, 8), dtype=np.int32)
    assert measure_step(MODEL.transitions[5], latents, latents + 1) == 0
    assert measure_step(MODEL.transitions[5], latents, latents - 2) > 0


def test_pixels_are_compared_on_average() -> None:
    black = np.zeros((4, 4, 1), dtype=np.uint8)
    assert compare_pixels(black, black) == 0
    assert compare_pixels(black, black + np.uint8(255)) == 255 * 256
    one = black.copy()
    one[0, 0, 0] = 1
    assert compare_pixels(black, one) == compare_pixels(one, black) == 16


# --- an auditor that cannot tell


def test_a_class_without_limits_is_inconclusive() -> None:
    stranger = ComputeClass("quorate", "float32", "eager", "abacus")
    finding = audit_picture(AUDITOR, replace(honest(), executor=stranger))
    assert (finding.verdict, finding.reason) == (Verdict.INCONCLUSIVE, PictureReason.UNKNOWN_CLASS)


@dataclass(frozen=True)
class Broken:
    """An engine that computes what it is told to."""

    inner: DitEngine
    factor: float

    @property
    def latent_shape(self) -> Shape:
        return self.inner.latent_shape

    @property
    def picture_shape(self) -> Shape:
        return self.inner.picture_shape

    @property
    def compute_class(self) -> ComputeClass:
        return self.inner.compute_class

    def encode_prompt(self, prompt: str) -> Condition:
        return self.inner.encode_prompt(prompt)

    def predict(
        self, latents: NDArray[np.float32], moments: Sequence[int], condition: Condition
    ) -> NDArray[np.float32]:
        return (self.inner.predict(latents, moments, condition) * self.factor).astype(np.float32)

    def decode(self, latents: Latents) -> Pixels:
        return self.inner.decode(latents)


def break_engine(factor: float) -> ImageModel:
    assert isinstance(MODEL.engine, DitEngine)
    return replace(MODEL, engine=Broken(MODEL.engine, factor))


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1.5])
def test_an_engine_that_fails_or_has_no_float64_form_condemns_nobody(factor: float) -> None:
    finding = audit_picture(replace(AUDITOR, model=break_engine(factor)), honest())
    assert (finding.verdict, finding.reason) == (Verdict.INCONCLUSIVE, PictureReason.UNCONFIRMED)


def test_what_float64_does_not_confirm_is_rejected_softly(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose float32 is off by half, on a machine whose float64 is right."""
    assert isinstance(MODEL.engine, DitEngine)
    weights = dict(MODEL.engine.model.weights)
    wrong = replace(
        MODEL.engine,
        model=replace(MODEL.engine.model, weights={**weights, "last.output.bias": weights["last.output.bias"] + 0.5}),
    )
    monkeypatch.setattr("verifier.image_audit.widen_image_engine", lambda _: MODEL.engine)
    finding = audit_picture(replace(AUDITOR, model=replace(MODEL, engine=wrong)), honest())
    assert (finding.verdict, finding.reason) == (Verdict.SOFT_REJECT, PictureReason.STEP)
    assert "in float64 accept" in finding.detail


def test_states_at_the_limit_of_their_range_are_judged_not_feared() -> None:
    states = [
        list_states()[0],
        *(np.full((1, 8, 8), sign * (2**31 - 1), dtype=np.int32) for sign in [1, -1] * 12),
        np.full((1, 8, 8), -(2**31), dtype=np.int32),
    ]
    finding = audit_picture(AUDITOR, open_all(states, honest()))
    assert finding.verdict is Verdict.HARD_REJECT
