"""What a node and its worker process say to each other, and the frames it travels in. No torch: the node imports this file.

A frame is a 4-byte big-endian length and one canonical message. The worker speaks first (Hello or Refused) and from then on once a
request (Generated or Failed).
"""

import struct
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from protocol.codec import Codec, Message
from protocol.digest import Digest
from protocol.models import MAX_OUTPUT_BYTES, MAX_OUTPUT_TOKENS, MAX_PROMPT_BYTES, GenerationSettings, ModelCard, Output
from protocol.units import Hash, Milliseconds, ModelId

HEADER: Final = struct.Struct(">I")
MAX_REQUEST_BYTES: Final = MAX_PROMPT_BYTES + 256
MAX_RESPONSE_BYTES: Final = MAX_OUTPUT_BYTES + 5 * MAX_OUTPUT_TOKENS + 512
MAX_REASON_CHARACTERS: Final = 500
MAX_MODELS: Final = 64

Reason: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_REASON_CHARACTERS)]


class Generate(Message, frozen=True, tag=1):
    """One generation; `deadline_ms` is what is left of its time when the worker reads it."""

    request_id: Hash
    model: ModelId
    prompt: Annotated[str, Meta(max_length=MAX_PROMPT_BYTES)]
    settings: GenerationSettings
    seed: Hash
    deadline_ms: Milliseconds


class Hello(Message, frozen=True, tag=1):
    """The worker is ready with these models."""

    models: Annotated[tuple[ModelCard, ...], Meta(min_length=1, max_length=MAX_MODELS)]


class Refused(Message, frozen=True, tag=2):
    """The worker could not load its models and ends."""

    reason: Reason


class Generated(Message, frozen=True, tag=3):
    """The output of a request, with its digest in the family of the model's card."""

    request_id: Hash
    output: Output
    digest: Digest
    duration_ms: Milliseconds


class Failed(Message, frozen=True, tag=4):
    """There is no output, and why: to the network an abstention, never an empty output."""

    request_id: Hash
    reason: Reason


Response: TypeAlias = Hello | Refused | Generated | Failed

REQUEST_CODEC: Final = Codec[Generate](Generate, MAX_REQUEST_BYTES)
RESPONSE_CODEC: Final = Codec[Response](Response, MAX_RESPONSE_BYTES)
