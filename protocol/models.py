"""What a model is to the network, what is asked of it, and what it answers.

A model is named by the hash of its card, which pins the weights, the tokenizer and everything else that moves a bit of its output.
"""

from enum import IntEnum
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from protocol.codec import Codec, Message, encode
from protocol.crypto import HashDomain, compute_hash
from protocol.digest import DigestFamily
from protocol.units import Hash, ModelId, PartsPerMillion

MAX_PROMPT_BYTES: Final = 8 * 1024  # everybody must be able to get a job's input from the ledger itself
MAX_OUTPUT_TOKENS: Final = 32 * 1024
MAX_OUTPUT_BYTES: Final = 1024 * 1024  # larger texts would not pass a fetch in two chunks
MAX_PIXEL_BYTES: Final = 1024 * 1024  # 512 x 512 in colour; travels as the largest text does
MAX_BEAMS: Final = 16
MAX_TEMPERATURE_PPM: Final = 4_000_000


class SamplingKind(IntEnum):
    """How the next token is chosen."""

    GREEDY = 0
    BEAM = 1
    SAMPLE = 2


class GenerationSettings(Message, frozen=True):
    """How to generate; the seed is not here: it comes from the beacon.

    `beams` is 1 unless kind is BEAM; `temperature_ppm` and `top_p_ppm` are 0 and 1,000,000 unless kind is SAMPLE.
    """

    kind: SamplingKind
    beams: Annotated[int, Meta(ge=1, le=MAX_BEAMS)]
    temperature_ppm: Annotated[int, Meta(ge=0, le=MAX_TEMPERATURE_PPM)]
    top_p_ppm: PartsPerMillion
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)]


class StopReason(IntEnum):
    """Why generation ended."""

    END = 0  # the model's own end-of-text token
    LENGTH = 1  # the job's max_tokens
    CONTEXT = 2  # the model's context is full


class ModelCard(Message, frozen=True):
    """Everything that decides a model's output, by hash; the card's own hash is the model id."""

    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*\Z")]
    manifest: Hash  # sorted (file name, SHA-256) of config, weights and tokenizer
    tokenizer: Hash
    dtype: Annotated[str, Meta(pattern=r"^(float32|bfloat16)\Z")]
    family: DigestFamily
    tolerance_bits: Annotated[int, Meta(ge=0, le=256)]  # 0: outputs agree only when their hashes are equal
    context_tokens: Annotated[int, Meta(ge=1, le=2**24)]
    vocabulary: Annotated[int, Meta(ge=1, le=2**24)]
    token_ms: Annotated[int, Meta(ge=1, le=60_000)]  # an allowance a token, for the windows of protocol rule J2


class TextOutput(Message, frozen=True, tag=1):
    """What a model wrote. Token ids are the answer; the text is derived from them by the model's tokenizer."""

    model: ModelId
    tokens: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**24)], ...], Meta(max_length=MAX_OUTPUT_TOKENS)]
    text: Annotated[str, Meta(max_length=MAX_OUTPUT_BYTES)]
    stop: StopReason


class ImageOutput(Message, frozen=True, tag=2):
    """What a model drew: the pixels themselves, row by row, a byte a channel; a file of them is derived.

    Raises: ValueError where the pixels are not as many as its measures say (a decoder makes InvalidMessage of it)
    """

    model: ModelId
    width: Annotated[int, Meta(ge=1, le=MAX_PIXEL_BYTES)]
    height: Annotated[int, Meta(ge=1, le=MAX_PIXEL_BYTES)]
    channels: Literal[1, 3]  # grey, or red, green and blue
    pixels: Annotated[bytes, Meta(max_length=MAX_PIXEL_BYTES)]

    def __post_init__(self) -> None:
        expected = self.width * self.height * self.channels
        if len(self.pixels) != expected:
            raise ValueError(
                f"a picture of {self.width} x {self.height} x {self.channels} has {expected} bytes, got {len(self.pixels)}"
            )


Output: TypeAlias = TextOutput | ImageOutput
OUTPUT_CODEC: Final = Codec[Output](Output, MAX_OUTPUT_BYTES + 5 * MAX_OUTPUT_TOKENS + 64)


def compute_model_id(card: ModelCard) -> ModelId:
    """The name of the model that this card describes."""
    return compute_hash(HashDomain.CARD, encode(card))


def compute_output_hash(output: Output) -> Hash:
    """What a reveal binds: the model id and the whole answer, token ids, text and stop reason, or measures and pixels (rule J10)."""
    return compute_hash(HashDomain.OUTPUT, encode(output))


def greedy(max_tokens: int) -> GenerationSettings:
    """Settings for plain greedy generation."""
    return GenerationSettings(SamplingKind.GREEDY, 1, 0, 1_000_000, max_tokens)
