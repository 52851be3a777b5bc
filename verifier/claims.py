"""What an executor claims of an output, and what of it is wrong before any model runs.

Everything here is the same on every machine: tokens, limits, ends and text follow from the job and the model's pinned files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocol.models import GenerationSettings, SamplingKind, StopReason, TextOutput
from verifier.classes import ComputeClass
from verifier.model import Model
from verifier.tokens import decode_tokens


class Reason(StrEnum):
    """Why a verdict is what it is; a word that is printed and stored."""

    WITHIN = "within-tolerance"
    WITHHELD = "output-withheld"
    OTHER_MODEL = "other-model"
    EMPTY = "no-token"
    TOO_LONG = "too-long"
    UNKNOWN_TOKEN = "token-out-of-vocabulary"  # noqa: S105 - a word of the model's, not a secret
    WRONG_STOP = "wrong-stop-reason"
    WRONG_TEXT = "text-is-not-the-tokens"
    SKETCH_LENGTH = "sketch-length"
    SKETCH_FAMILY = "sketch-family"
    SKETCH_VERSION = "sketch-version"
    SKETCH_CLASS = "sketch-class"
    MARGIN = "token-margin"
    MARGIN_MEAN = "mean-token-margin"
    SKETCH = "sketch-distance"
    LIKELIHOOD = "likelihood"
    UNKNOWN_CLASS = "class-not-in-profile"
    OTHER_PROFILE = "profile-of-another-model"
    NOT_FINITE = "not-finite"
    NO_MEMORY = "out-of-memory"
    BAD_PROMPT = "prompt-refused"
    BEAMS = "beams-cannot-be-replayed"
    UNCONFIRMED = "not-confirmed-in-float64"


@dataclass(frozen=True, slots=True)
class Claim:
    """An output, what was asked, and what the executor says about how it was made.

    `output` None: it was withheld. `seed` None: nobody knows how tokens were drawn. `sketch` None: this kind of job has none; where
    one is owed and missing, it is empty.
    """

    prompt: str
    settings: GenerationSettings
    seed: bytes | None
    output: TextOutput | None
    executor: ComputeClass
    sketch: bytes | None = None
    sketch_seed: bytes = b""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a claim. `detail`: what was expected, and what is there."""

    reason: Reason
    detail: str


def find_fault(model: Model, prompt: Sequence[int], settings: GenerationSettings, output: TextOutput) -> Fault | None:
    """What no honest executor could have claimed, if there is such a thing."""
    tokens, vocabulary = output.tokens, model.card.vocabulary
    if output.model != model.id:
        return Fault(Reason.OTHER_MODEL, f"expected model {model.id.hex()[:12]}, got {output.model.hex()[:12]}")
    if not tokens:
        return Fault(Reason.EMPTY, "expected at least one token, got none")
    limit = min(settings.max_tokens, model.card.context_tokens - len(prompt))
    if len(tokens) > limit:
        return Fault(Reason.TOO_LONG, f"expected at most {limit} tokens, got {len(tokens)}")
    if max(tokens) >= vocabulary:
        return Fault(Reason.UNKNOWN_TOKEN, f"expected token ids below {vocabulary}, got {max(tokens)}")
    return _find_wrong_stop(model, settings, output, limit) or _find_wrong_text(model, output)


def _find_wrong_stop(model: Model, settings: GenerationSettings, output: TextOutput, limit: int) -> Fault | None:
    tokens = output.tokens
    early = next((at for at, token in enumerate(tokens[:-1]) if token in model.ends), None)
    if early is not None:
        return Fault(
            Reason.WRONG_STOP, f"expected the text to end with token {early}, got {len(tokens) - early - 1} more"
        )
    if tokens[-1] in model.ends:
        due = StopReason.END
    elif len(tokens) < limit:
        return Fault(Reason.WRONG_STOP, f"expected an end token or {limit} tokens, got {len(tokens)} without an end")
    else:
        due = StopReason.LENGTH if limit == settings.max_tokens else StopReason.CONTEXT
    if output.stop is not due:
        return Fault(Reason.WRONG_STOP, f"expected stop reason {due.name}, got {output.stop.name}")
    return None


def _find_wrong_text(model: Model, output: TextOutput) -> Fault | None:
    text = decode_tokens(model.tokenizer, list(output.tokens))
    if text != output.text:
        return Fault(Reason.WRONG_TEXT, f"expected the text of the tokens, {text[:40]!r}…, got {output.text[:40]!r}…")
    return None


def is_replayable(settings: GenerationSettings, seed: bytes | None) -> bool:
    """Whether each token's choice follows from the logits: greedy, or drawn with a known seed."""
    is_drawn = settings.kind is SamplingKind.SAMPLE and settings.temperature_ppm > 0
    return settings.kind is not SamplingKind.BEAM and (seed is not None or not is_drawn)
